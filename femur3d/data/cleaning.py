"""What a file holds besides the scan: padding, voxels gone wrong, empty slices and borders **(ours)**.

A clean scan passes unchanged, to the last bit: each step first looks whether there is anything of its kind.
"""

from __future__ import annotations

import numpy as np

from femur3d.volume import Volume

AIR = 0.1  # of the way from the darkest voxels to the bright ones: below it there is air
PADDING_GAP, PADDING_VALUES = 0.5, 16  # see `without_padding`
TOO_BRIGHT, TOO_DARK = 5.0, 1.0  # times the range of the other voxels, see `without_outliers`
THIN_MM = 2.0  # scanners leave a line of zeros at the edge of their slices, never a whole slice


def without_padding(array: np.ndarray) -> np.ndarray:
    """A scan (z, y, x) whose lowest value, where it is padding, is replaced by the lowest real intensity **(ours)**.

    Padding is a value of its own, such as -2000 outside a circle: further below all others than half of their range
    (1st to 99th percentile). Air is none: intensities begin close above it. An image of few values (fewer than 16) has
    no padding. The array itself is returned where there is none.
    """
    lowest = array.min()
    thinned = array[:: max(1, array.shape[0] // 32), ::2, ::2]
    others = thinned[thinned > lowest].astype(np.float64)
    if np.unique(others).size < PADDING_VALUES:
        return array
    darkest, bright = np.percentile(others, (1, 99))
    if not darkest - float(lowest) > PADDING_GAP * (bright - darkest):
        return array
    real = array[array > lowest].min()
    is_apart = float(real) - float(lowest) > PADDING_GAP * (bright - darkest)
    return np.where(array == lowest, real, array) if is_apart else array


def without_outliers(array: np.ndarray) -> np.ndarray:
    """A scan (z, y, x) whose few voxels far beyond all others have the brightest or darkest value of the others.

    Far is more than TOO_BRIGHT times the range of intensities (percentiles 0.1 to 99.9) above it, or TOO_DARK times
    below it. The array itself is returned where there is none.
    """
    dark, bright = np.percentile(array[:: max(1, array.shape[0] // 32), ::2, ::2], (0.1, 99.9))
    low, high = dark - TOO_DARK * (bright - dark), bright + (TOO_BRIGHT - 1) * (bright - dark)
    if bright <= dark or (array.min() >= low and array.max() <= high):
        return array
    sound = array[(array >= low) & (array <= high)]
    return np.clip(array, sound.min(), sound.max())


def content_box(volume: Volume) -> tuple[slice, ...]:
    """The box (z, y, x) without the empty slices, rows and columns around it: those whose voxels all have one value.

    Along an axis of thin slices one empty one is left on either side where there are any. The whole volume where all
    slices along an axis are empty.
    """
    box = []
    for axis in range(3):
        others = tuple(other for other in range(3) if other != axis)
        filled = np.flatnonzero(volume.array.min(axis=others) != volume.array.max(axis=others))
        if not filled.size:
            return (slice(None),) * 3
        left = 1 if volume.spacing_mm[2 - axis] <= THIN_MM else 0
        stop = min(int(filled[-1]) + 1 + left, volume.array.shape[axis])
        box.append(slice(max(int(filled[0]) - left, 0), stop))
    return tuple(box)
