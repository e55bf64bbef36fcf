"""Grids that are not quite at right angles: the nearest one that is, and how far it moves the voxels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

LIMIT_VOXELS = 0.5  # a scan is put right as long as no voxel moves further, in voxels of its smallest size
SHEAR_KEPT = 1e-6  # directions this close to a rotation are kept as stored
SHEAR_ROUNDING = 1e-5  # … and up to here it is the rounding of six decimals: 0.004 mm across 400 mm


def shear(direction: np.ndarray) -> float:
    """Largest deviation of a matrix D from orthonormal columns, an entry of |DᵀD − 1|; 0 for a rotation."""
    return float(np.abs(direction.T @ direction - np.eye(direction.shape[1])).max())


def nearest_rotation(direction: np.ndarray) -> np.ndarray:
    """The rotation or reflection (3×3) closest to a matrix, by its singular value decomposition."""
    left, _, right = np.linalg.svd(direction)
    return left @ right


def straight_affine(affine: np.ndarray) -> np.ndarray:
    """A 4×4 matrix (i, j, k, 1) → mm with its axes put at right angles; voxel sizes and first voxel stay."""
    sizes_mm = np.linalg.norm(affine[:3, :3], axis=0)
    straight = affine.copy()
    straight[:3, :3] = nearest_rotation(affine[:3, :3] / sizes_mm) * sizes_mm
    return straight


def farthest_mm(size: Sequence[int], first: np.ndarray, second: np.ndarray) -> float:
    """Largest distance, mm, between where two 4×4 matrices (i, j, k, 1) → mm place a voxel of a scan.

    The distance is convex in the index, so the eight corners decide.

    Args:
        size: voxels along (i, j, k).
        first, second: the matrices.
    """
    corners = np.array([[i, j, k, 1] for i in (0, size[0] - 1) for j in (0, size[1] - 1) for k in (0, size[2] - 1)])
    return float(np.linalg.norm(corners @ (first - second).T, axis=1).max())
