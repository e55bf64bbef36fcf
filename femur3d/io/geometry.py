"""Grids that are not quite at right angles: the nearest one that is, and how far it moves the voxels."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from femur3d.errors import InputError
from femur3d.volume import Volume

LIMIT_VOXELS = 0.5  # a scan is put right as long as no voxel moves further, in voxels of its smallest size
VOXEL_MM = (1e-4, 1e4)  # no scan has smaller or larger voxels
SHEAR_KEPT = 1e-6  # directions this close to a rotation are kept as stored
SHEAR_ROUNDING = 1e-5  # … and up to here it is the rounding of six decimals: 0.004 mm across 400 mm


def shear(direction: np.ndarray) -> float:
    """Largest deviation of a matrix D from orthonormal columns, an entry of |DᵀD − 1|; 0 for a rotation."""
    return float(np.abs(direction.T @ direction - np.eye(direction.shape[1])).max())


def nearest_rotation(direction: np.ndarray) -> np.ndarray:
    """The rotation or reflection (3×3) closest to a matrix, by its singular value decomposition."""
    left, _, right = np.linalg.svd(direction)
    return left @ right


def orthogonal_affine(affine: np.ndarray) -> np.ndarray:
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


def orientation_unknown(missing: str) -> str:
    """The note on a header that does not say how its axes lie in the body. `missing`: what it lacks, 'no qform'."""
    return (
        f"its header has {missing}, so it does not say how the scan lies in the body: the axes i, j, k were taken to "
        "point left, backwards and up (as ITK does), and left and right may be exchanged"
    )


def orthonormalise(what: str | Path, volume: Volume) -> tuple[Volume, tuple[str, ...]]:
    """The volume with a direction that is a rotation or reflection, and notes: one where that moves its voxels.

    Args:
        what: it is called in messages.
        volume: with any direction.

    Raises:
        InputError: its place in the world is not given in numbers, its voxel sizes are none, or a voxel would move too
            far.
    """
    smallest, largest = min(volume.spacing_mm), max(volume.spacing_mm)
    if not (smallest >= VOXEL_MM[0] and largest <= VOXEL_MM[1]):
        expected = f"{VOXEL_MM[0]} to {VOXEL_MM[1]:,.0f} mm"
        raise InputError(f"{what}: voxel sizes {volume.spacing_mm} mm.\nExpected {expected}: export the scan again.")
    if not np.isfinite(volume.affine).all():
        message = f"{what}: its place in the world is not given in numbers: origin {volume.origin_mm} mm"
        raise InputError(f"{message}, direction {volume.direction}.\nConvert the scan again from its DICOM files.")
    direction = np.reshape(volume.direction, (3, 3))
    lean = shear(direction)
    if lean <= SHEAR_KEPT:
        return volume, ()
    straight = dataclasses.replace(volume, direction=tuple(nearest_rotation(direction).ravel().tolist()))
    moved_mm = farthest_mm(volume.array.shape[::-1], volume.affine, straight.affine)
    if moved_mm > LIMIT_VOXELS * min(volume.spacing_mm):
        message = f"{what}: its axes are not at right angles (righting them would move a corner by {moved_mm:.2f} mm)"
        raise InputError(f"{message}.\nUp to half a voxel is accepted: resample the scan to an orthogonal grid.")
    return straight, (_orthonormalised_note(direction, moved_mm),) if lean > SHEAR_ROUNDING else ()


def _orthonormalised_note(direction: np.ndarray, moved_mm: float) -> str:
    """The note on a direction that was put right."""
    lengths = np.linalg.norm(direction, axis=0)
    cosines = np.abs((direction / lengths).T @ (direction / lengths) - np.eye(3)).max()
    angle = math.degrees(math.asin(min(cosines, 1.0)))
    return (
        f"its axes are {angle:.2g}° off right angles and were put right, which moves no voxel by more than "
        f"{moved_mm:.2g} mm (up to half a voxel is accepted)"
    )
