"""Radial half-planes about an axis through the head's centre: the contours in which alpha angle and neck are read."""

from __future__ import annotations

import dataclasses

import numpy as np

from femur3d.morphometry.surface import Surface

PLANES = 36  # half-planes: every 10°, three an hour of the clock


@dataclasses.dataclass(frozen=True, eq=False)
class Frame:
    """Where the clock hangs: the head's centre and three orthogonal unit vectors (3,), world LPS.

    Attributes:
        centre_mm: of the head.
        axis: from the head to the neck.
        superior: 12 o'clock.
        anterior: 3 o'clock.
    """

    centre_mm: np.ndarray
    axis: np.ndarray
    superior: np.ndarray
    anterior: np.ndarray

    def turned(self, axis: np.ndarray) -> Frame:
        """The frame about another axis, with 12 o'clock as near to the old one as can be."""
        superior = perpendicular(self.superior, axis)
        anterior = np.cross(axis, superior)
        anterior *= np.sign(anterior @ self.anterior)
        return dataclasses.replace(self, axis=axis, superior=superior, anterior=anterior)


def perpendicular(vector: np.ndarray, axis: np.ndarray) -> np.ndarray:
    """Unit vector (3,): the part of a vector across a unit vector."""
    across = vector - (vector @ axis) * axis
    return across / np.linalg.norm(across)


@dataclasses.dataclass(frozen=True, eq=False)
class Contour:
    """Where a half-plane cuts the surface near the axis, unordered.

    Attributes:
        along_mm: (N,), along the axis, 0 at the head's centre, positive towards the neck.
        away_mm: (N,), distance from the axis.
    """

    along_mm: np.ndarray
    away_mm: np.ndarray


def clock_angles() -> np.ndarray:
    """(PLANES,), radians: 0 at 12 o'clock, π/2 at 3 o'clock."""
    return np.arange(PLANES) * (2 * np.pi / PLANES)


def contours(surface: Surface, frame: Frame, reach_mm: float) -> list[Contour]:
    """The contours in all half-planes, by clock angle, within a distance of the head's centre."""
    offsets = surface.vertices - frame.centre_mm
    near = np.linalg.norm(offsets, axis=1) < reach_mm
    edges = surface.edges[near[surface.edges].all(axis=1)]
    along, up, front = (offsets @ axis for axis in (frame.axis, frame.superior, frame.anterior))
    found: list[Contour] = []
    opposite: list[Contour] = []
    for angle in clock_angles()[: PLANES // 2]:
        beside = front * np.cos(angle) - up * np.sin(angle)
        first, second = beside[edges].T
        cut = (first < 0) != (second < 0)
        start, end = edges[cut].T
        share = first[cut] / (first[cut] - second[cut])
        away = front * np.sin(angle) + up * np.cos(angle)
        across = away[start] + share * (away[end] - away[start])
        down = along[start] + share * (along[end] - along[start])
        found.append(Contour(down[across >= 0], across[across >= 0]))
        opposite.append(Contour(down[across < 0], -across[across < 0]))
    return found + opposite
