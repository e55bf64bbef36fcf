"""`Volume`: an image or label map together with its place in the world."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from scipy import ndimage

IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)


@dataclasses.dataclass(frozen=True, eq=False)
class Volume:
    """A three-dimensional array and its geometry.

    Attributes:
        array: voxels, axes (z, y, x): the reverse of the index order (i, j, k) that the geometry uses.
        spacing_mm: voxel size along (i, j, k) = array axes (2, 1, 0), millimetres.
        origin_mm: world position of the centre of voxel (0, 0, 0), LPS, millimetres.
        direction: 3×3 matrix, row-major; column a is the world direction (LPS) of index axis a.
    """

    array: np.ndarray
    spacing_mm: tuple[float, float, float] = (1.0, 1.0, 1.0)
    origin_mm: tuple[float, float, float] = (0.0, 0.0, 0.0)
    direction: tuple[float, ...] = IDENTITY

    def __post_init__(self) -> None:
        if self.array.ndim != 3:
            raise ValueError(f"A volume has three axes (z, y, x). Received: array of shape {self.array.shape}")
        if len(self.direction) != 9:
            raise ValueError(f"A direction is a row-major 3×3 matrix. Received: {self.direction}")

    @property
    def voxel_ml(self) -> float:
        """Volume of a voxel, millilitres."""
        return math.prod(self.spacing_mm) / 1000

    @property
    def affine(self) -> np.ndarray:
        """4×4 matrix, float64, that takes homogeneous (i, j, k, 1) to LPS millimetres."""
        affine = np.eye(4)
        affine[:3, :3] = np.reshape(self.direction, (3, 3)) * np.asarray(self.spacing_mm)
        affine[:3, 3] = self.origin_mm
        return affine

    def world_mm(self, index_zyx: Any) -> np.ndarray:
        """World position (LPS, mm), shape (..., 3), of array indices (z, y, x), shape (..., 3), fractions allowed."""
        ijk = np.asarray(index_zyx, dtype=np.float64)[..., ::-1]
        return ijk @ self.affine[:3, :3].T + self.affine[:3, 3]

    def index_zyx(self, world_mm: Any) -> np.ndarray:
        """Array indices (z, y, x), fractional, shape (n, 3), of world positions (LPS, mm), shape (n, 3)."""
        offsets = np.asarray(world_mm, dtype=np.float64) - self.affine[:3, 3]
        return np.linalg.solve(self.affine[:3, :3], offsets.T).T[:, ::-1]

    def with_array(self, array: np.ndarray) -> Volume:
        """The same geometry with other voxels. Raises ValueError where the shape differs."""
        if array.shape != self.array.shape:
            raise ValueError(f"Expected an array of shape {self.array.shape}. Received: {array.shape}")
        return dataclasses.replace(self, array=array)

    def geometry_difference(self, other: Volume, tolerance: float = 1e-3) -> str | None:
        """None where both lie on the same grid, else a phrase that names the first difference and both values.

        Args:
            other: the volume to compare with.
            tolerance: largest difference of origin and spacing (mm) and of direction cosines.
        """
        if self.array.shape != other.array.shape:
            return f"size {self.array.shape[::-1]} against {other.array.shape[::-1]}"
        for name in ("spacing_mm", "origin_mm", "direction"):
            mine, theirs = np.asarray(getattr(self, name)), np.asarray(getattr(other, name))
            if not np.allclose(mine, theirs, rtol=0, atol=tolerance):
                return f"{name} {np.round(mine, 4).tolist()} against {np.round(theirs, 4).tolist()}"
        return None


def anatomical(volume: Volume) -> tuple[np.ndarray, tuple[float, float, float]]:
    """The array turned so that its axes run inferior → superior, anterior → posterior, right → left.

    Axes are permuted and flipped, never resampled: each index axis goes to the anatomical axis it is nearest to.

    Returns:
        a view of the array, and the spacing in mm along its (z, y, x) axes.
    """
    cosines = np.reshape(volume.direction, (3, 3))  # row: world axis x, y, z; column: index axis i, j, k
    order = max(itertools.permutations(range(3)), key=lambda p: sum(abs(cosines[w, a]) for w, a in enumerate(p)))
    axes = [2 - order[world] for world in (2, 1, 0)]
    flips = [slice(None, None, -1 if cosines[world, order[world]] < 0 else 1) for world in (2, 1, 0)]
    z, y, x = (volume.spacing_mm[order[world]] for world in (2, 1, 0))
    return volume.array.transpose(axes)[tuple(flips)], (z, y, x)


def bounding_box(mask: np.ndarray, margin: Sequence[int] = (0, 0, 0)) -> tuple[slice, ...] | None:
    """The smallest slices, one an axis, that hold all true voxels of a bool array; None where there are none.

    Args:
        mask: bool (z, y, x).
        margin: voxels (z, y, x) to add at both ends of each axis, clipped to the array.
    """
    box = []
    for axis, extra in enumerate(margin):
        found = np.flatnonzero(mask.any(axis=tuple(other for other in range(mask.ndim) if other != axis)))
        if not found.size:
            return None
        box.append(slice(max(int(found[0]) - extra, 0), min(int(found[-1]) + 1 + extra, mask.shape[axis])))
    return tuple(box)


def signed_distance_mm(inside: np.ndarray, spacing_mm: Sequence[float]) -> np.ndarray:
    """Distance to the nearest voxel centre across a mask's boundary: float64 (z, y, x), mm, positive inside.

    It changes sign half-way between an inner and an outer voxel. Infinite where there is no voxel on the other side.

    Args:
        inside: bool (z, y, x).
        spacing_mm: voxel size along (z, y, x).
    """
    if inside.all() or not inside.any():
        return np.where(inside, np.inf, -np.inf)
    inward = ndimage.distance_transform_edt(inside, sampling=spacing_mm)
    return inward - ndimage.distance_transform_edt(~inside, sampling=spacing_mm)


def triple(values: Iterable[float]) -> tuple[float, float, float]:
    """Three numbers of an array as a tuple of floats."""
    x, y, z = map(float, values)
    return x, y, z
