"""The neck: its axis through the head's centre and the middle of its narrowest part, and its sections."""

from __future__ import annotations

import dataclasses

import numpy as np
from scipy.spatial import cKDTree

from femur3d.morphometry.radial import PLANES, Contour, Frame, clock_angles, contours
from femur3d.morphometry.sphere import Sphere
from femur3d.morphometry.surface import Surface

REACH = 2.6  # how far from the head's centre neck and trochanters are looked at, in radii
SEARCH = (0.6, 1.9)  # where along its axis the narrowest section may lie, in radii from the head's centre
NARROW = 1.06  # sections of up to this many times the least area count as the narrowest part **(ours)**
STEP_MM = 0.5
_RAYS = 2000
_GAP = 0.15  # radians from a ray to the nearest piece of the head: more, and the ray leaves through the neck


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


def neck_window(surface: Surface, head: Sphere) -> np.ndarray:
    """Unit vector (3,) from the head's centre into the neck: a first guess.

    The surface of the head covers most directions from its centre; the neck is the hole in it, where nothing of the
    surface faces the centre at the head's radius.
    """
    count = _RAYS
    index = np.arange(count) + 0.5
    polar, azimuth = np.arccos(1 - 2 * index / count), np.pi * (1 + 5**0.5) * index
    rays = np.stack([np.cos(azimuth) * np.sin(polar), np.sin(azimuth) * np.sin(polar), np.cos(polar)], axis=1)
    offsets = surface.vertices - head.centre_mm
    distances = np.linalg.norm(offsets, axis=1)
    near = np.abs(distances - head.radius_mm) < 0.12 * head.radius_mm
    gaps, _ = cKDTree(offsets[near] / distances[near, None]).query(rays)
    middle = rays[gaps > _GAP].sum(axis=0)
    return middle / np.linalg.norm(middle)


def find_neck(surface: Surface, head: Sphere, frame: Frame) -> Neck:
    """The axis from the head's centre through the middle of the neck's narrowest part, found by iteration.

    Args:
        surface: of the femur.
        head: its sphere.
        frame: a first guess of the axis, 20° off at most, and where 12 o'clock is.
    """
    for _ in range(12):
        neck = _sections(surface, head, frame)
        if np.isnan(neck.areas_mm2).all():
            return neck
        middle = _middle(neck)
        axis = middle / np.linalg.norm(middle)
        shift = np.degrees(np.arccos(np.clip(axis @ frame.axis, -1, 1)))
        frame = frame.turned(axis)
        if shift < 0.05:
            break
    return _sections(surface, head, frame)


def _sections(surface: Surface, head: Sphere, frame: Frame) -> Neck:
    radius = head.radius_mm
    lines = contours(surface, frame, REACH * radius)
    along = np.arange(SEARCH[0] * radius, SEARCH[1] * radius, STEP_MM)
    widths = np.stack([_widths(line, along, radius) for line in lines])
    areas = 0.5 * np.sin(2 * np.pi / PLANES) * (widths * np.roll(widths, -1, axis=0)).sum(axis=0)
    if np.isnan(areas).all():
        return Neck(frame, lines, along, widths, areas, 0, False)
    narrowest = int(np.nanargmin(areas))
    last = np.flatnonzero(~np.isnan(areas))[-1]
    return Neck(frame, lines, along, widths, areas, narrowest, 0 < narrowest < last)


def _widths(line: Contour, along: np.ndarray, radius: float) -> np.ndarray:
    """Distance from the axis at places along it, NaN where the contour does not reach."""
    near = (line.away_mm < 1.5 * radius) & (line.along_mm > 0.2 * radius)
    order = np.argsort(line.along_mm[near])
    down, away = line.along_mm[near][order], line.away_mm[near][order]
    if len(down) < 2:
        return np.full(len(along), np.nan)
    return np.interp(along, down, away, right=np.nan)


def _middle(neck: Neck) -> np.ndarray:
    """(3,), mm from the head's centre: the mean centroid of the narrowest part's sections."""
    wide = np.flatnonzero(~(neck.areas_mm2 <= NARROW * neck.areas_mm2[neck.narrowest]))
    low = max(wide[wide < neck.narrowest], default=-1) + 1
    high = min(wide[wide > neck.narrowest], default=len(neck.areas_mm2))
    r, angles, frame = neck.widths_mm[:, low:high], clock_angles()[:, None], neck.frame
    up, front = r * np.cos(angles), r * np.sin(angles)
    cross = r * np.roll(r, -1, axis=0)
    shares = cross / (3 * cross.sum(axis=0))
    centre_up, centre_front = (((p + np.roll(p, -1, axis=0)) * shares).sum(axis=0).mean() for p in (up, front))
    return frame.axis * neck.along_mm[low:high].mean() + frame.superior * centre_up + frame.anterior * centre_front
