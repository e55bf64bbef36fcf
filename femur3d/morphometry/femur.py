"""Head, neck and shaft of one femur, found on its surface and made to agree with one another."""

from __future__ import annotations

import dataclasses
from typing import Literal

import numpy as np

from femur3d.errors import InputError
from femur3d.morphometry.alpha import LEAVES, alpha_degrees, heights
from femur3d.morphometry.axes import NARROW, REACH, START, Neck, Shaft, find_neck, find_shaft, neck_window
from femur3d.morphometry.sphere import ARTICULAR_DEG, Sphere, find_head, fit_head
from femur3d.morphometry.surface import Frame, Surface, perpendicular

Side = Literal["left", "right"]


@dataclasses.dataclass(frozen=True)
class Choices:
    """What the definitions leave open and we chose; error bars vary it.

    Attributes:
        articular_deg: see `sphere.ARTICULAR_DEG`.
        narrow: see `axes.NARROW`.
        start: see `axes.START`.
        leaves: see `alpha.LEAVES`.
    """

    articular_deg: float = ARTICULAR_DEG
    narrow: float = NARROW
    start: float = START
    leaves: float = LEAVES


OURS = Choices()
UP = np.array([0.0, 0.0, 1.0])  # of a body in LPS
SIZE_MM = (40.0, 700.0)  # the longest edge of the box about a femur or a part of one with head and neck
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
        below_head_mm: how far the femur reaches below the head's centre, along the shaft, without one along the body.
        heights_mm: of the surface over the head's sphere, see `alpha.heights`.
        alpha_deg: alpha angle in each half-plane of the clock, see `alpha.alpha_degrees`.
    """

    side: Side
    sidedness: float
    head: Sphere
    neck: Neck
    shaft: Shaft | None
    below_head_mm: float
    heights_mm: np.ndarray
    alpha_deg: np.ndarray

    @property
    def frame(self) -> Frame:
        """The clock about the neck's axis."""
        return self.neck.frame


def find_femur(surface: Surface, side: Side | None = None, in_world: bool = False) -> Femur:
    """Finds head, neck and shaft wherever and however a femur lies.

    12 o'clock is where the shaft's axis points to, seen along the neck (ISB's femoral frame, Wu et al. 2002, J Biomech
    35:543, has the same plane; its third direction needs the condyles).

    Args:
        surface: closed, of one femur.
        side: which one it is; None: as the neck points in the world, or as the shape says.
        in_world: whether the patient lies as LPS says.

    Raises:
        InputError: it is not as large as a femur, or there is no head or no neck to be found.
    """
    longest = float(np.ptp(surface.vertices, axis=0).max())
    if not SIZE_MM[0] <= longest <= SIZE_MM[1]:
        raise InputError(
            f"The surface is {longest:.4g} mm long, no femur is.\nExpected {SIZE_MM[0]:g} to {SIZE_MM[1]:g} mm: give "
            "the spacing or the vertices in millimetres."
        )
    head = find_head(surface)
    if head is None or (head := fit_head(surface, head)) is None:
        raise InputError("No femoral head was found on the surface.\nExpected a closed surface of one proximal femur.")
    axis = neck_window(surface, head)
    if axis is None:
        raise InputError("No neck was found beside the ball.\nExpected a closed surface of one proximal femur.")
    shaft = find_shaft(surface, head, axis)
    up = shaft.direction if shaft else UP
    superior = perpendicular(up, axis)
    frame = Frame(head.centre_mm, axis, superior, np.cross(axis, superior))  # a left femur's
    behind = _behind(surface, head, frame, up)
    side = side or ("left" if (axis[0] if in_world else behind) >= 0 else "right")
    if side == "right":
        frame = dataclasses.replace(frame, anterior=-frame.anterior)
    return settled(surface, side, behind if side == "left" else -behind, head, frame, shaft)


def settled(surface: Surface, side: Side, sidedness: float, head: Sphere, frame: Frame, shaft: Shaft | None) -> Femur:
    """Sphere, neck and clock made to agree: the articular part depends on the neck's axis, this on the centre."""
    for _ in range(_ROUNDS):
        before = head.centre_mm
        head, neck = _next(surface, head, frame, OURS)
        frame = neck.frame
        if np.linalg.norm(head.centre_mm - before) < _SETTLED_MM:
            break
    return _femur(surface, side, sidedness, head, neck, shaft, OURS)


def _next(
    surface: Surface, head: Sphere, frame: Frame, choices: Choices, close_deg: float = 0.05
) -> tuple[Sphere, Neck]:
    neck = find_neck(surface, head, dataclasses.replace(frame, centre_mm=head.centre_mm), choices.narrow, close_deg)
    return fit_head(surface, head, neck.frame.axis, choices.articular_deg) or head, neck


def again(surface: Surface, femur: Femur, choices: Choices) -> Femur:
    """The femur on a surface that differs a little from the one it was found on, with other choices."""
    head = fit_head(surface, femur.head, femur.frame.axis, choices.articular_deg) or femur.head
    shaft = femur.shaft and find_shaft(surface, head, femur.frame.axis, choices.start, femur.shaft)
    frame = dataclasses.replace(femur.frame, superior=shaft.direction if shaft else femur.frame.superior)
    head, neck = _next(surface, head, frame.turned(femur.frame.axis), choices, 0.5)
    return _femur(surface, femur.side, femur.sidedness, head, neck, shaft, choices)


def _femur(
    surface: Surface, side: Side, sidedness: float, head: Sphere, neck: Neck, shaft: Shaft | None, choices: Choices
) -> Femur:
    below = float(((head.centre_mm - surface.vertices) @ (shaft.direction if shaft else UP)).max())
    map_mm = heights(neck, head)
    alpha = alpha_degrees(map_mm, head.radius_mm, choices.leaves)
    return Femur(side, sidedness, head, neck, shaft, below, map_mm, alpha)


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
