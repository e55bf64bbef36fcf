"""Implicit shapes: signed distances (mm, negative inside) to spheres, ellipsoids and cones, and soft unions of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

Grid = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Open grid of the hip frame, float32: lateral (1, 1, nx), posterior (1, ny, 1), superior (nz, 1, 1)."""

Point = Sequence[float] | np.ndarray
"""(lateral, posterior, superior), a position in mm or a direction."""


def along(grid: Grid, origin: Point, axis: Point) -> np.ndarray:
    """Coordinate (mm) of every point along the unit vector `axis`, zero at `origin`; shape (nz, ny, nx)."""
    lateral, posterior, superior = (
        np.float32(e) * (g - np.float32(o)) for g, o, e in zip(grid, origin, axis, strict=True)
    )
    return (lateral + posterior) + superior


def squared_distance(grid: Grid, centre: Point) -> np.ndarray:
    lateral, posterior, superior = (np.square(g - np.float32(c)) for g, c in zip(grid, centre, strict=True))
    return (lateral + posterior) + superior


def sphere(grid: Grid, centre: Point, radius: float) -> np.ndarray:
    """Signed distance to a sphere."""
    return np.sqrt(squared_distance(grid, centre)) - np.float32(radius)


def ellipsoid(grid: Grid, centre: Point, radii: Point, axes: np.ndarray | None = None) -> np.ndarray:
    """First-order signed distance to an ellipsoid whose radii lie along the rows of `axes` (default: the hip frame)."""
    axes = np.eye(3) if axes is None else axes
    squares: np.ndarray = np.zeros((), np.float32)
    slopes: np.ndarray = np.zeros((), np.float32)
    for radius, axis in zip(radii, axes, strict=True):
        scaled = np.square(along(grid, centre, axis / radius))
        squares = squares + scaled
        slopes = slopes + scaled * np.float32(radius**-2)
    return (squares - np.float32(1)) / (np.float32(2) * np.sqrt(slopes) + np.float32(1e-6))


def cone(
    grid: Grid,
    ends: tuple[Point, Point],
    radii: Point,
    wide: Point | None = None,
) -> np.ndarray:
    """Signed distance to a segment with linearly changing radius.

    Args:
        grid: where to evaluate.
        ends: both end points, mm.
        radii: at both ends, mm.
        wide: a vector along which the cross-section is stretched; its length is the factor, above 1.
    """
    start, end = np.asarray(ends[0], np.float64), np.asarray(ends[1], np.float64)
    length = float(np.linalg.norm(end - start))
    axis = (end - start) / length
    along_axis = along(grid, start, axis)
    foot = np.clip(along_axis, 0, np.float32(length))
    squared = squared_distance(grid, start) - foot * (2 * along_axis - foot)
    if wide is not None:
        across = np.asarray(wide, np.float64) - np.dot(wide, axis) * axis
        factor = float(np.linalg.norm(wide))
        squared -= np.float32(1 - factor**-2) * np.square(along(grid, start, across / np.linalg.norm(across)))
    radius = np.float32(radii[0]) + np.float32((radii[1] - radii[0]) / length) * foot
    return np.sqrt(np.maximum(squared, 0)) - radius


def smooth_union(first: np.ndarray, second: np.ndarray, blend_mm: float) -> np.ndarray:
    """Union with a fillet where the surfaces are closer than `blend_mm` (polynomial soft minimum)."""
    near = np.maximum(np.float32(blend_mm) - np.abs(first - second), 0)
    return np.minimum(first, second) - np.square(near) * np.float32(0.25 / blend_mm)


def smooth_step(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """0 below `low`, 1 above `high`, a cubic between; `low` may be the larger one."""
    t = np.clip((values - np.float32(low)) * np.float32(1 / (high - low)), 0, 1)
    return t * t * (3 - 2 * t)


def elliptic(first: np.ndarray, second: np.ndarray, half_first: np.ndarray, half_second: np.ndarray) -> np.ndarray:
    """Approximate signed distance to an elliptic tube from coordinates and half-widths across its axis."""
    radial = np.sqrt(np.square(first / half_first) + np.square(second / half_second))
    return (radial - 1) * np.minimum(half_first, half_second)


def window(grid: Grid, low: Point, high: Point) -> tuple[slice, slice, slice] | None:
    """Array slices (z, y, x) of the grid points between `low` and `high` (lateral, posterior, superior)."""
    slices = []
    for values, lowest, highest in zip(grid, low, high, strict=True):
        inside = np.flatnonzero((values.ravel() >= lowest) & (values.ravel() <= highest))
        if inside.size == 0:
            return None
        slices.append(slice(int(inside[0]), int(inside[-1]) + 1))
    return slices[2], slices[1], slices[0]


def crop(grid: Grid, slices: tuple[slice, slice, slice]) -> Grid:
    """The part of an open grid that belongs to the array slices (z, y, x)."""
    z, y, x = slices
    return grid[0][:, :, x], grid[1][:, y, :], grid[2][z, :, :]
