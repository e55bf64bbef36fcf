"""Patch geometry: where a patch lies in a volume, and its normalisation. Knows no model and no file.

Every size, origin and stride is in voxels and in array order (z, y, x).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np

Index: TypeAlias = Sequence[int] | np.ndarray


def _last_origin(shape: Index, patch_size: Index) -> tuple[int, int, int]:
    """Largest origin (z, y, x) at which the patch lies inside the volume. Raises ValueError where there is none."""
    z, y, x = (int(size) - int(patch) for size, patch in zip(shape[:3], patch_size, strict=True))
    if min(z, y, x) < 0:
        raise ValueError(
            "A patch must fit in the volume: pad the volume first. "
            f"Received: shape {tuple(shape)}, patch_size {tuple(patch_size)}"
        )
    return z, y, x


def random_origin(shape: Index, patch_size: Index, seed: int, counter: Sequence[int]) -> tuple[int, int, int]:
    """Origin index of a random patch, uniform over all places where it fits (section 3.2).

    A pure function: the same arguments give the same origin in any order, process or thread, so a resumed training
    sees the patches of an unbroken one. Raw bits of Philox are the same in every version of NumPy, which it does
    not promise for `Generator.integers`.

    Args:
        shape: volume shape (z, y, x); further axes are ignored.
        patch_size: patch shape (z, y, x).
        seed: non-negative integer, the run's seed.
        counter: non-negative integers that name the draw, for instance (step, element).

    Returns:
        (z, y, x), each from 0 to size - patch inclusive.

    Raises:
        ValueError: the patch does not fit, or seed or counter is negative.
    """
    last = _last_origin(shape, patch_size)
    if min(seed, *counter) < 0:
        raise ValueError(f"Expected a seed and a counter ≥ 0. Received: seed {seed}, counter {tuple(counter)}")
    bits = np.random.Philox(np.random.SeedSequence(seed, spawn_key=tuple(counter))).random_raw(3).tolist()
    # Scale 64 random bits to 0 … limit in exact integers; the bias is below (limit + 1) / 2⁶⁴.
    z, y, x = ((raw * (limit + 1)) >> 64 for raw, limit in zip(bits, last, strict=True))
    return z, y, x


def centred_origin(centre: Index, shape: Index, patch_size: Index) -> tuple[int, int, int]:
    """Origin index of the patch whose voxel patch_size // 2 is `centre`, moved as little as needed to lie inside.

    Args:
        centre: voxel index (z, y, x).
        shape: volume shape (z, y, x); further axes are ignored.
        patch_size: patch shape (z, y, x).

    Raises:
        ValueError: the patch does not fit in the volume.
    """
    last = _last_origin(shape, patch_size)
    wanted = (int(middle) - int(patch) // 2 for middle, patch in zip(centre, patch_size, strict=True))
    z, y, x = (min(max(start, 0), limit) for start, limit in zip(wanted, last, strict=True))
    return z, y, x


def grid_starts(size: int, patch: int, stride: int) -> list[int]:
    """First voxels, ascending, of the patches that cover one axis.

    The last patch is moved back so that it ends at the border: size 11, patch 4, stride 3 gives 0, 3, 6 and then 7
    (voxels 7 … 10), not 9; size 10 gives 0, 3, 6, because the patch at 6 ends at the border already.

    Raises:
        ValueError: the axis is shorter than the patch, or the stride is not in 1 … patch (a larger one leaves gaps).
    """
    if size < patch:
        raise ValueError(f"Expected an axis as long as the patch, or longer. Received: size {size}, patch {patch}")
    if not 1 <= stride <= patch:
        raise ValueError(f"Expected a stride from 1 to the patch size {patch}. Received: {stride}")
    last = size - patch
    return [*range(0, last, stride), last]


def grid_origins(shape: Index, patch_size: Index, stride: Index) -> np.ndarray:
    """Origins, int64 (n, 3) in (z, y, x), of overlapping patches that cover every voxel, x fastest.

    Raises:
        ValueError: as `grid_starts`, for any axis.
    """
    axes = [grid_starts(*map(int, axis)) for axis in zip(shape[:3], patch_size, stride, strict=True)]
    return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3).astype(np.int64)


def crop(array: np.ndarray, origin: Index, patch_size: Index) -> np.ndarray:
    """View, no copy, of the patch of `array` (z, y, x, …) that starts at `origin`.

    Raises:
        ValueError: the patch leaves the array.
    """
    last = _last_origin(array.shape, patch_size)
    if any(not 0 <= start <= limit for start, limit in zip(origin, last, strict=True)):
        raise ValueError(f"Expected an origin from (0, 0, 0) to {last}. Received: {tuple(origin)}")
    return array[tuple(slice(start, start + size) for start, size in zip(origin, patch_size, strict=True))]


def make_normalise(normalisation: str) -> Callable[[np.ndarray], np.ndarray]:
    """What is done to each patch, any real dtype, on its way into the network; float32. See `config.Preprocessing`."""
    return normalise_patch if normalisation == "patch" else lambda patch: np.array(patch, np.float32, order="C")


def normalise_patch(patch: np.ndarray) -> np.ndarray:
    """A float32 copy of `patch` with zero mean and unit variance (section 3.2); zeros where it is constant **(ours)**.

    Args:
        patch: finite numbers of any real dtype and shape.
    """
    scaled = np.array(patch, dtype=np.float32, order="C")
    # In float64, sums of equal float32 values are exact: a constant patch is exactly zero once centred.
    scaled -= scaled.mean(dtype=np.float64).astype(np.float32)
    scaled -= scaled.mean()  # what rounding the first mean to float32 left over
    deviation = np.sqrt(np.square(scaled).mean())
    return np.divide(scaled, deviation, out=scaled) if deviation > 0 else np.zeros_like(scaled)


def pad_to_patch(array: np.ndarray, patch_size: Index) -> tuple[np.ndarray, tuple[slice, ...]]:
    """The volume, reflected **(ours)** at both ends of the axes shorter than the patch, and where it lies in that."""
    missing = [max(patch - size, 0) for size, patch in zip(array.shape, patch_size, strict=True)]
    before = [count // 2 for count in missing]
    inside = tuple(slice(start, start + size) for start, size in zip(before, array.shape, strict=True))
    if not any(missing):
        return array, inside
    widths = [(start, count - start) for start, count in zip(before, missing, strict=True)]
    return np.pad(array, widths, mode="symmetric"), inside


def normalised_patches(
    array: np.ndarray,
    origins: Sequence[Index] | np.ndarray,
    patch_size: Index,
    count: int,
    normalise: Callable[[np.ndarray], np.ndarray] = normalise_patch,
) -> np.ndarray:
    """The patches at `origins`, normalised, float32 (count, z, y, x); zeros where there are fewer origins."""
    batch = np.zeros((count, *patch_size), np.float32)
    for patch, origin in zip(batch, origins, strict=False):
        patch[...] = normalise(crop(array, origin, patch_size))
    return batch


def patches_around(
    array: np.ndarray,
    centres: np.ndarray,
    patch_size: Index,
    normalise: Callable[[np.ndarray], np.ndarray] = normalise_patch,
) -> np.ndarray:
    """Normalised patches around given voxels: float32 (n, z, y, x).

    Args:
        array: the volume, (z, y, x).
        centres: voxels, (n, 3) in (z, y, x); fractions are cut off. A patch is moved as little as needed to lie inside.
        patch_size: patch shape (z, y, x); an axis shorter than it is reflected.
        normalise: applied to each patch.
    """
    padded, inside = pad_to_patch(array, patch_size)
    moved = np.asarray(centres) + [axis.start for axis in inside]
    origins = [centred_origin(centre, padded.shape, patch_size) for centre in moved]
    return normalised_patches(padded, origins, patch_size, len(origins), normalise)
