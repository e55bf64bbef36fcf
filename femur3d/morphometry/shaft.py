"""The proximal shaft's axis: a line through the middles of sections below the lesser trochanter."""

from __future__ import annotations

import dataclasses

import numpy as np

from femur3d.morphometry.sphere import Sphere
from femur3d.morphometry.surface import Surface

START = 2.8  # below the lesser trochanter: this many head radii below the head's centre
LONGEST_MM = 80.0  # of the shaft that is used: what lies further down is bowed
END_MM = 2.0  # next to the end of the shaft or of the field of view nothing is used
STEP_MM = 2.5


@dataclasses.dataclass(frozen=True, eq=False)
class Shaft:
    """The proximal shaft.

    Attributes:
        point_mm: (3,), on the axis, the middle of what was used, world LPS.
        direction: unit vector (3,) upwards.
        length_mm: of what was used.
        below_head_mm: how far the femur reaches below the head's centre, along the axis.
        residual_mm: root mean square distance of the sections' middles from the axis.
        diameter_mm: of a circle of the mean section's area.
    """

    point_mm: np.ndarray
    direction: np.ndarray
    length_mm: float
    below_head_mm: float
    residual_mm: float
    diameter_mm: float


def find_shaft(surface: Surface, head: Sphere, neck_axis: np.ndarray) -> Shaft | None:
    """The shaft's axis, or None where the surface ends above or just below the lesser trochanter.

    Args:
        surface: of the femur.
        head: its sphere.
        neck_axis: unit vector (3,) from the head to the neck, 20° off at most.
    """
    middle = head.centre_mm + 2.2 * head.radius_mm * neck_axis  # about where the axes of neck and shaft meet
    distances = np.linalg.norm(surface.vertices - head.centre_mm, axis=1)
    farthest = min(float(distances.max()), START * head.radius_mm + LONGEST_MM)
    far = (distances > 0.9 * farthest) & (distances <= farthest)
    down = np.average(surface.vertices[far], axis=0, weights=surface.areas[far]) - middle
    down /= np.linalg.norm(down)
    found = None
    for _ in range(8):
        found = _fit(surface, head, down)
        if found is None or np.degrees(np.arccos(np.clip(-found.direction @ down, -1, 1))) < 0.02:
            return found
        down = -found.direction
    return found


def _fit(surface: Surface, head: Sphere, down: np.ndarray) -> Shaft | None:
    depths = (surface.vertices - head.centre_mm) @ down
    start, end = START * head.radius_mm, _end(surface, depths, down)
    levels = np.arange(start, min(end - END_MM, start + LONGEST_MM), STEP_MM)
    if len(levels) < 3:
        return None
    areas, middles = sections(surface, head.centre_mm, down, levels)
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
        float(2 * np.sqrt(areas.mean() / np.pi)),
    )


def _end(surface: Surface, depths: np.ndarray, down: np.ndarray) -> float:
    """The depth (mm) to which sections are whole: an oblique cut through the shaft ends them on one side first."""
    lowest = float(depths.max())
    cap = (depths > lowest - 25) & (surface.normals @ down > 0.7)
    return float(np.percentile(depths[cap], 5)) if cap.any() else lowest


def sections(
    surface: Surface, origin: np.ndarray, normal: np.ndarray, levels: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Areas (mm²) and centroids (n, 3) of the plane sections of a closed surface.

    The sums of the oriented pieces of a section's outline give both, in whatever order they come.
    """
    heights = (surface.vertices - origin) @ normal
    first = np.eye(3)[np.argmin(np.abs(normal))]
    across = np.cross(normal, first)
    across /= np.linalg.norm(across)
    beside = np.cross(normal, across)
    corners = heights[surface.triangles]
    low, high = corners.min(axis=1), corners.max(axis=1)
    areas, middles = np.zeros(len(levels)), np.zeros((len(levels), 3))
    for number, level in enumerate(levels):
        triangles = surface.triangles[(low < level) & (high >= level)]
        pieces = _pieces(surface.vertices, heights - level, triangles)  # (n, 2, 3)
        shift = pieces.mean(axis=(0, 1))
        u, v = (pieces - shift) @ across, (pieces - shift) @ beside
        cross = u[:, 0] * v[:, 1] - u[:, 1] * v[:, 0]
        area = cross.sum() / 2
        areas[number] = abs(area)
        middles[number] = shift + (across * (u.sum(axis=1) * cross).sum() + beside * (v.sum(axis=1) * cross).sum()) / (
            6 * area
        )
    return areas, middles


def _pieces(vertices: np.ndarray, heights: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """(n, 2, 3): the straight pieces in which triangles cross height 0, oriented as the triangles are."""
    above = heights[triangles] >= 0
    odd = np.where(above.sum(axis=1) == 1, above.argmax(axis=1), (~above).argmax(axis=1))  # the corner alone on a side
    rows = np.arange(len(triangles))
    alone, following, before = (triangles[rows, (odd + k) % 3] for k in range(3))
    ends = []
    for other in (following, before):
        share = heights[alone] / (heights[alone] - heights[other])
        ends.append(vertices[alone] + share[:, None] * (vertices[other] - vertices[alone]))
    pieces = np.stack(ends, axis=1)
    flipped = ~above[rows, odd]
    pieces[flipped] = pieces[flipped][:, ::-1]
    return pieces
