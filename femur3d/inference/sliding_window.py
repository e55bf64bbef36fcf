"""Probability map of a whole volume: the mean of the maps of overlapping patches (section 3.4)."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from femur3d.data.patches import Index, crop, grid_origins, normalise_patch, normalised_patches, pad_to_patch

Predict = Callable[[np.ndarray], np.ndarray]
Progress = Callable[[int, int], None]


class PatchMean(NamedTuple):
    """What overlapping patches say about a volume.

    Attributes:
        probability: mean P(femur) of the patches that cover a voxel, float32 (z, y, x).
        variance: how much they disagree: the variance within voxels, Σ n·variance, in parts of Σ p over all patches,
            padding included; 0 where all agree, less than 1; no unit.
    """

    probability: np.ndarray
    variance: float


def predict_volume(
    array: np.ndarray,
    predict: Predict,
    patch_size: Index,
    stride: Index,
    batch_size: int = 1,
    normalise: Callable[[np.ndarray], np.ndarray] = normalise_patch,
    progress: Progress | None = None,
) -> PatchMean:
    """The mean of all patches of a grid; arguments and errors as `SlidingWindow`."""
    window = SlidingWindow(array, predict, patch_size, stride, batch_size, normalise, progress)
    window.look(window.origins)
    return window.mean()


class SlidingWindow:
    """A volume seen through patches, and the sum of what a network makes of them.

    An axis shorter than the patch is padded at both ends by reflection, and the padding is cut off the result.

    Every batch has the same shape, so that a traced function is traced once: where the patches run out, the last batch
    is filled up with zeros, and what is predicted for those is dropped.

    Args:
        array: the volume, (z, y, x), any real dtype, finite and not empty.
        predict: takes normalised patches, float32 (batch, z, y, x), and returns the foreground probability of each
            voxel, float32 of the same shape. With two classes one probability determines the other.
        patch_size: patch shape (z, y, x).
        stride: distance of neighbouring patches (z, y, x), each from 1 to the patch size.
        batch_size: patches a call; fewer where the volume has fewer.
        normalise: applied to each patch, padding included, before `predict`.
        progress: called with the numbers of patches done, predicted or not, and in all.

    Attributes:
        array: the volume, padded.
        patch_size: patch shape (z, y, x).
        origins: of all patches of the grid in `array`, int64 (n, 3).
        total: Σ p over the patches so far, float32, shape of `array`.

    Raises:
        ValueError: `array` is empty or not 3-D, the batch size or a stride is out of range, or `predict` returns
            another shape than it was given.
    """

    def __init__(
        self,
        array: np.ndarray,
        predict: Predict,
        patch_size: Index,
        stride: Index,
        batch_size: int = 1,
        normalise: Callable[[np.ndarray], np.ndarray] = normalise_patch,
        progress: Progress | None = None,
    ) -> None:
        if array.ndim != 3 or array.size == 0:
            raise ValueError(f"Expected a volume (z, y, x) that is not empty. Received: shape {array.shape}")
        if batch_size < 1:
            raise ValueError(f"Expected a batch size of 1 or more. Received: {batch_size}")
        self.array, self._inside = pad_to_patch(array, patch_size)
        self.patch_size = patch_size
        self.origins = grid_origins(self.array.shape, patch_size, stride)
        self.total: np.ndarray = np.zeros(self.array.shape, np.float32)
        self._squares = 0.0  # Σ p² over the voxels of all patches
        self._counted: list[np.ndarray] = [np.zeros((0, 3), np.int64)]  # origins of the patches in the mean
        self._predict, self._normalise = predict, normalise
        self._batch_size = min(batch_size, len(self.origins))
        self._progress, self._done = progress, 0

    def look(self, origins: np.ndarray) -> None:
        """Predicts the patches at `origins`, (n, 3), and adds each to its place."""
        for start in range(0, len(origins), self._batch_size):
            some = origins[start : start + self._batch_size]
            batch = normalised_patches(self.array, some, self.patch_size, self._batch_size, self._normalise)
            for origin, probability in zip(some, self._predicted(batch), strict=False):
                crop(self.total, origin, self.patch_size)[...] += probability
                self._squares += float(np.square(probability, dtype=np.float64).sum())
            self.count(some)

    def count(self, origins: np.ndarray) -> None:
        """Counts the patches at `origins` into the mean; those that were not predicted count as P = 0."""
        self._counted.append(origins)
        self.pass_over(origins)

    def pass_over(self, origins: np.ndarray) -> None:
        """Leaves the patches at `origins` out of the mean."""
        self._done += len(origins)
        if self._progress is not None and len(origins):
            self._progress(self._done, len(self.origins))

    def _predicted(self, batch: np.ndarray) -> np.ndarray:
        found = np.asarray(self._predict(batch))
        if found.shape != batch.shape:
            raise ValueError(f"Expected probabilities of shape {batch.shape} from predict. Received: {found.shape}")
        return found

    def mean(self) -> PatchMean:
        """The sum divided, in place, by the number of patches that cover each voxel: to be called once, at the end.

        The number is the same in all slices between two neighbouring borders of patches, so that it takes no second
        array of the volume's size. Σ n·variance is Σ p² - Σ n·mean².
        """
        depth, height, width = (int(size) for size in self.patch_size)
        origins = np.concatenate(self._counted)
        borders = np.unique([0, self.total.shape[0], *origins[:, 0], *(origins[:, 0] + depth)])
        mean_squares = summed = 0.0
        for low, high in itertools.pairwise(borders.tolist()):
            count = np.zeros(self.total.shape[1:], np.float32)
            for start, y, x in origins.tolist():
                if start <= low < start + depth:
                    count[y : y + height, x : x + width] += 1
            for slice_ in self.total[low:high]:
                before = slice_.astype(np.float64)
                slice_ /= count
                mean_squares += float(np.vdot(before, slice_))
                summed += float(before.sum())
        variance = max(self._squares - mean_squares, 0.0) / summed if summed else 0.0
        return PatchMean(np.ascontiguousarray(self.total[self._inside]), variance)
