"""The axes of neck and shaft.

The neck's axis runs through the head's centre and the middle of the neck's narrowest part, the shaft's through the
middles of sections below the lesser trochanter.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from scipy.spatial import cKDTree

from femur3d.morphometry.sphere import Sphere
from femur3d.morphometry.surface import PLANES, Contour, Frame, Surface, clock_angles, contours, sections

REACH = 2.6  # how far from the head's centre neck and trochanters are looked at, in radii
SEARCH = (0.6, 1.9)  # where along its axis the narrowest section may lie, in radii from the head's centre
NARROW = 1.06  # sections of up to this many times the least area count as the narrowest part **(ours)**
NECK_STEP_MM = 0.5
_RAYS = 2000
_GAP = 0.15  # radians from a ray to the nearest piece of the head: more, and the ray leaves through the neck

START = 2.8  # below the lesser trochanter: this many head radii below the head's centre
SLIM = 1.15  # sections of up to this many times the area further down; the lesser trochanter is above **(ours)**
LONGEST_MM = 80.0  # of the shaft that is used: what lies further down is bowed
END_MM = 2.0  # next to the end of the shaft or of the field of view nothing is used
SHAFT_STEP_MM = 4.0


@dataclasses.dataclass(frozen=True, eq=False)
class Neck:
    """The neck.

    Attributes:
        frame: the clock about its axis.
        contours: in the half-planes of the clock.
        along_mm: (S,), places of sections across the axis, mm from the head's centre.
        widths_mm: (PLANES, S), from the axis to the surface, by clock angle; NaN where a section is not closed.
        areas_mm2: (S,), of the sections; NaN where they are not closed.
        narrowest: index of the narrowest one.
        is_bounded: whether the sections widen again on both sides of it.
    """

    frame: Frame
    contours: list[Contour]
    along_mm: np.ndarray
    widths_mm: np.ndarray
    areas_mm2: np.ndarray
    narrowest: int
    is_bounded: bool


def neck_window(surface: Surface, head: Sphere) -> np.ndarray | None:
    """Unit vector (3,) from the head's centre into the neck: a first guess; None where there is no neck.

    The surface of the head covers most directions from its centre; the neck is the hole in it behind which the bone
    goes on: nothing of the surface is near the head's sphere there, and something is farther out.
    """
    count = _RAYS
    index = np.arange(count) + 0.5
    polar, azimuth = np.arccos(1 - 2 * index / count), np.pi * (1 + 5**0.5) * index
    rays = np.stack([np.cos(azimuth) * np.sin(polar), np.sin(azimuth) * np.sin(polar), np.cos(polar)], axis=1)
    offsets = surface.vertices - head.centre_mm
    distances = np.linalg.norm(offsets, axis=1)
    directions, beyond = offsets / distances[:, None], distances / head.radius_mm - 1
    if not (beyond > 0.12).any() or not (np.abs(beyond) < 0.12).any():
        return None
    gaps, reaches = (cKDTree(directions[part]).query(rays)[0] for part in (np.abs(beyond) < 0.12, beyond > 0.12))
    middle = rays[(gaps > _GAP) & (reaches < _GAP)].sum(axis=0)
    return middle / np.linalg.norm(middle) if middle.any() else None


def find_neck(surface: Surface, head: Sphere, frame: Frame, narrow: float = NARROW, close_deg: float = 0.05) -> Neck:
    """The axis from the head's centre through the middle of the neck's narrowest part, found by iteration.

    Args:
        surface: of the femur.
        head: its sphere.
        frame: a first guess of the axis, 20° off at most, and where 12 o'clock is.
        narrow: sections of up to this many times the least area count.
        close_deg: ends where the axis changes by less.
    """
    for _ in range(12):
        neck = _sections(surface, head, frame)
        if np.isnan(neck.areas_mm2).all():
            return neck
        middle = _middle(neck, narrow)
        axis = middle / np.linalg.norm(middle)
        shift = np.degrees(np.arccos(np.clip(axis @ frame.axis, -1, 1)))
        frame = frame.turned(axis)
        if shift < close_deg:
            break
    return _sections(surface, head, frame)


def _sections(surface: Surface, head: Sphere, frame: Frame) -> Neck:
    radius = head.radius_mm
    lines = contours(surface, frame, REACH * radius)
    along = np.arange(SEARCH[0] * radius, SEARCH[1] * radius, NECK_STEP_MM)
    widths = np.stack([_widths(line, along, radius) for line in lines])
    areas = section_areas(widths)
    if np.isnan(areas).all():
        return Neck(frame, lines, along, widths, areas, 0, False)
    narrowest = int(np.nanargmin(areas))
    last = np.flatnonzero(~np.isnan(areas))[-1]
    return Neck(frame, lines, along, widths, areas, narrowest, 0 < narrowest < last)


def section_areas(widths_mm: np.ndarray) -> np.ndarray:
    """Areas (S,), mm², of sections with a width in every half-plane, (PLANES, S): half the integral of its square.

    The polygon through the same points has half a per cent less; a diameter from it would be 0.07 mm too small.
    """
    return np.square(widths_mm).sum(axis=0) * (np.pi / PLANES)


def _widths(line: Contour, along: np.ndarray, radius: float) -> np.ndarray:
    """Distance from the axis at places along it, NaN where the contour does not reach."""
    near = (line.away_mm < 1.5 * radius) & (line.along_mm > 0.2 * radius)
    order = np.argsort(line.along_mm[near])
    down, away = line.along_mm[near][order], line.away_mm[near][order]
    if len(down) < 2:
        return np.full(len(along), np.nan)
    return np.interp(along, down, away, right=np.nan)


def _middle(neck: Neck, narrow: float) -> np.ndarray:
    """(3,), mm from the head's centre: the mean centroid of the narrowest part's sections."""
    wide = np.flatnonzero(~(neck.areas_mm2 <= narrow * neck.areas_mm2[neck.narrowest]))
    low = max(wide[wide < neck.narrowest], default=-1) + 1
    high = min(wide[wide > neck.narrowest], default=len(neck.areas_mm2))
    r, angles, frame = neck.widths_mm[:, low:high], clock_angles()[:, None], neck.frame
    up, front = r * np.cos(angles), r * np.sin(angles)
    cross = r * np.roll(r, -1, axis=0)
    shares = cross / (3 * cross.sum(axis=0))
    centre_up, centre_front = (((p + np.roll(p, -1, axis=0)) * shares).sum(axis=0).mean() for p in (up, front))
    return frame.axis * neck.along_mm[low:high].mean() + frame.superior * centre_up + frame.anterior * centre_front


# ---- shaft


@dataclasses.dataclass(frozen=True, eq=False)
class Shaft:
    """The proximal shaft.

    Attributes:
        point_mm: (3,), on the axis, the middle of what was used, world LPS.
        direction: unit vector (3,) upwards.
        length_mm: of what was used.
        below_head_mm: how far the femur reaches below the head's centre, along the axis.
        residual_mm: root mean square distance of the sections' middles from the axis.
    """

    point_mm: np.ndarray
    direction: np.ndarray
    length_mm: float
    below_head_mm: float
    residual_mm: float


def find_shaft(
    surface: Surface, head: Sphere, neck_axis: np.ndarray, start: float = START, near: Shaft | None = None
) -> Shaft | None:
    """The shaft's axis, or None where the surface ends above or just below the lesser trochanter.

    Args:
        surface: of the femur.
        head: its sphere.
        neck_axis: unit vector (3,) from the head to the neck, 20° off at most.
        start: where the shaft begins, in head radii below the head's centre.
        near: a shaft whose direction is a degree off at most: one fit is enough.
    """
    if near is not None:
        return _fit(surface, head, -near.direction, start * head.radius_mm)
    middle = head.centre_mm + 2.2 * head.radius_mm * neck_axis  # about where the axes of neck and shaft meet
    distances = np.linalg.norm(surface.vertices - head.centre_mm, axis=1)
    farthest = min(float(distances.max()), START * head.radius_mm + LONGEST_MM)
    far = (distances > 0.9 * farthest) & (distances <= farthest)
    down = np.average(surface.vertices[far], axis=0, weights=surface.areas[far]) - middle
    down /= np.linalg.norm(down)
    found = None
    for _ in range(8):
        found = _fit(surface, head, down, start * head.radius_mm)
        if found is None or np.degrees(np.arccos(np.clip(-found.direction @ down, -1, 1))) < 0.02:
            return found
        down = -found.direction
    return found


def _fit(surface: Surface, head: Sphere, down: np.ndarray, start: float) -> Shaft | None:
    depths = (surface.vertices - head.centre_mm) @ down
    end = _end(surface, depths, down)
    levels = np.arange(start, min(end - END_MM, start + LONGEST_MM), SHAFT_STEP_MM)
    if len(levels) < 3:
        return None
    areas, middles = sections(surface, head.centre_mm, down, levels)
    slim = areas <= SLIM * np.median(areas[len(areas) // 2 :])
    if slim.sum() < 3:
        return None
    levels, middles = levels[slim], middles[slim]
    centre = middles.mean(axis=0)
    _, _, axes = np.linalg.svd(middles - centre)
    direction = axes[0] * -np.sign(axes[0] @ down)
    across = middles - centre - np.outer((middles - centre) @ direction, direction)
    return Shaft(
        centre,
        direction,
        float(levels[-1] - levels[0]),
        float(end),
        float(np.sqrt(np.square(across).sum(axis=1).mean())),
    )


def _end(surface: Surface, depths: np.ndarray, down: np.ndarray) -> float:
    """The depth (mm) to which sections are whole: an oblique cut through the shaft ends them on one side first."""
    lowest = float(depths.max())
    cap = (depths > lowest - 25) & (surface.normals @ down > 0.7)
    return float(np.percentile(depths[cap], 5)) if cap.any() else lowest
