"""Head, neck and shaft of one femur, found on its surface and made to agree with one another."""

from __future__ import annotations

import dataclasses
from typing import Literal

import numpy as np

from femur3d.errors import InputError
from femur3d.morphometry.alpha import alpha_degrees, heights
from femur3d.morphometry.neck import REACH, Neck, find_neck, neck_window
from femur3d.morphometry.radial import Frame, perpendicular
from femur3d.morphometry.shaft import START, Shaft, find_shaft
from femur3d.morphometry.sphere import Sphere, find_head, fit_head
from femur3d.morphometry.surface import Surface

Side = Literal["left", "right"]

_ROUNDS = 4
_SETTLED_MM = 0.02


@dataclasses.dataclass(frozen=True, eq=False)
class Femur:
    """Where head, neck and shaft of a femur are.

    Attributes:
        side: left or right.
        sidedness: how plainly the shape says which side it is, in head radii; negative where it says the other one.
        head: its sphere.
        neck: its axis and sections; `neck.frame` is the clock.
        shaft: None where too little of it is there.
        heights_mm: of the surface over the head's sphere, see `alpha.heights`.
        alpha_deg: alpha angle in each half-plane of the clock, see `alpha.alpha_degrees`.
    """

    side: Side
    sidedness: float
    head: Sphere
    neck: Neck
    shaft: Shaft | None
    heights_mm: np.ndarray
    alpha_deg: np.ndarray

    @property
    def frame(self) -> Frame:
        """The clock about the neck's axis."""
        return self.neck.frame


def find_femur(surface: Surface, side: Side | None = None, up: np.ndarray | None = None) -> Femur:
    """Finds head, neck and shaft wherever and however a femur lies.

    12 o'clock is where the shaft's axis points to, seen along the neck (ISB's femoral frame, Wu et al. 2002, J Biomech
    35:543, has the same plane; its third direction needs the condyles).

    Args:
        surface: closed, of one femur.
        side: which one it is; None: as the shape says, for which the shaft must lie behind the neck's plane.
        up: unit vector (3,), where the shaft cannot be found; None: world z.

    Raises:
        InputError: there is no head to be found.
    """
    head = find_head(surface)
    if head is None or (head := fit_head(surface, head)) is None:
        raise InputError("No femoral head was found on the surface.\nExpected a closed surface of one proximal femur.")
    axis = neck_window(surface, head)
    shaft = find_shaft(surface, head, axis)
    up = shaft.direction if shaft else np.array([0.0, 0.0, 1.0]) if up is None else up
    superior = perpendicular(up, axis)
    frame = Frame(head.centre_mm, axis, superior, np.cross(axis, superior))  # a left femur's
    behind = _behind(surface, head, frame, up)
    side = side or ("left" if behind >= 0 else "right")
    if side == "right":
        frame = dataclasses.replace(frame, anterior=-frame.anterior)
    return settled(surface, side, behind if side == "left" else -behind, head, frame, shaft)


def settled(surface: Surface, side: Side, sidedness: float, head: Sphere, frame: Frame, shaft: Shaft | None) -> Femur:
    """Sphere, neck and clock made to agree: the articular part depends on the neck's axis, this on the centre."""
    for _ in range(_ROUNDS):
        neck = find_neck(surface, head, dataclasses.replace(frame, centre_mm=head.centre_mm))
        frame, before = neck.frame, head.centre_mm
        head = fit_head(surface, head, frame.axis) or head
        if np.linalg.norm(head.centre_mm - before) < _SETTLED_MM:
            break
    map_mm = heights(neck, head)
    return Femur(side, sidedness, head, neck, shaft, map_mm, alpha_degrees(map_mm, head.radius_mm))


def _behind(surface: Surface, head: Sphere, frame: Frame, up: np.ndarray) -> float:
    """How far shaft and lesser trochanter lie behind the plane through the neck along the shaft, in head radii.

    The neck of a femur tilts to the front. Positive for a left femur in the frame of one.
    """
    offsets = surface.vertices - head.centre_mm
    depth = -offsets @ up
    part = (depth > 1.6 * head.radius_mm) & (depth < START * head.radius_mm)
    part &= np.linalg.norm(offsets, axis=1) < (REACH + 1) * head.radius_mm
    if not part.any():
        return 0.0
    return float(-np.average(offsets[part] @ frame.anterior, weights=surface.areas[part]) / head.radius_mm)
