"""Whole-volume prediction from overlapping patches: tile, call a predict function, average (section 3.4)."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable

import numpy as np

from femur3d.config import THRESHOLD
from femur3d.data.patches import Index, centred_origin, crop, grid_origins, grid_starts, normalise_patch

Predict = Callable[[np.ndarray], np.ndarray]


@dataclasses.dataclass
class Spread:
    """How much the patches disagree about the voxels that they share: three sums instead of a second volume.

    Attributes:
        squares: Σ p² over the voxels of all patches, p the foreground probability.
        agreed: Σ n·mean² over the voxels of the volume, n the number of patches that cover a voxel.
        total: Σ p over the voxels of all patches.
        patch_size: (z, y, x) of the patches.
    """

    squares: float = 0.0
    agreed: float = 0.0
    total: float = 0.0
    patch_size: tuple[int, ...] = ()

    @property
    def disagreement(self) -> float:
        """Variance within voxels, Σ n·variance, in parts of Σ p: 0 where all patches agree, less than 1; no unit."""
        return max(self.squares - self.agreed, 0.0) / self.total if self.total else 0.0


def predict_volume(
    array: np.ndarray,
    predict: Predict,
    patch_size: Index,
    stride: Index,
    batch_size: int = 1,
    normalise: Callable[[np.ndarray], np.ndarray] = normalise_patch,
    progress: Callable[[int], None] | None = None,
    skip: Callable[[np.ndarray], bool] | None = None,
    focus: float | None = None,
    spread: Spread | None = None,
) -> np.ndarray:
    """Foreground probability map of a whole volume: the plain mean of all patches that cover a voxel.

    With `focus` only of those that matter: at first as few patches as cover the volume, then of the others those in
    which the first found foreground. So the mean is that of all patches wherever there is more than a corner of it.

    An axis shorter than the patch is padded at both ends by reflection, and the padding is cut off the result.

    Every batch of a call has the same shape, so that a traced function is traced once: where the patches run out, the
    last batch is filled up with zeros, and what is predicted for those is dropped.

    Args:
        array: the volume, (z, y, x), any real dtype, finite and not empty.
        predict: takes normalised patches, float32 (batch, z, y, x), and returns the foreground probability of each
            voxel, float32 of the same shape. With two classes one probability determines the other.
        patch_size: patch shape (z, y, x).
        stride: distance of neighbouring patches (z, y, x), each from 1 to the patch size.
        batch_size: patches a call; fewer where the volume has fewer.
        normalise: applied to each patch, padding included, before `predict`.
        progress: called with the number of patches done, passed over or predicted; `patch_count` gives the total.
        skip: tells of a patch, as it is in `array`, whether it is background without a look; None asks for all.
        focus: the others are those that foreground fills to more than this part: voxels whose probabilities, summed
            over the first patches, exceed 0.5. None looks at all patches at once.
        spread: is overwritten with how much the patches disagree, padding included.

    Returns:
        Probabilities, float32 (z, y, x), shape of `array`.

    Raises:
        ValueError: `array` is empty or not 3-D, the batch size or a stride is out of range, or `predict` returns
            another shape than it was given.
    """
    if array.ndim != 3 or array.size == 0:
        raise ValueError(f"Expected a volume (z, y, x) that is not empty. Received: shape {array.shape}")
    if batch_size < 1:
        raise ValueError(f"Expected a batch size of 1 or more. Received: {batch_size}")
    padded, inside = _pad_to_patch(array, patch_size)
    origins = grid_origins(padded.shape, patch_size, stride)
    window = _Window(padded, predict, patch_size, min(batch_size, len(origins)), normalise, skip, progress)
    if focus is None:
        window.add(origins)
    else:
        first = _sparse(origins, patch_size)
        window.add(origins[first])
        window.add(origins[~first], focus)
    sums = _divide_by_cover(window.total, window.covering, patch_size)
    if spread is not None:
        spread.squares, (spread.agreed, spread.total), spread.patch_size = window.squares, sums, tuple(patch_size)
    return np.ascontiguousarray(window.total[inside])


@dataclasses.dataclass(eq=False)
class _Window:
    """What slides over the padded volume: the arguments of `predict_volume`, and what has come of it so far.

    Attributes:
        total: sum of the predictions, float32, shape of the volume.
        squares: sum of their squares.
        covering: origins (n, 3) of the patches that count as predicted, those skipped as background included.
        done: number of patches done with, predicted or not.
    """

    padded: np.ndarray
    predict: Predict
    patch_size: Index
    batch_size: int
    normalise: Callable[[np.ndarray], np.ndarray]
    skip: Callable[[np.ndarray], bool] | None
    progress: Callable[[int], None] | None

    def __post_init__(self) -> None:
        self.total = np.zeros(self.padded.shape, np.float32)
        self.squares = 0.0
        self.covering = np.zeros((0, 3), np.int64)
        self.done = 0

    def add(self, origins: np.ndarray, focus: float | None = None) -> None:
        """Predicts the patches at `origins`; with `focus` those that foreground fills to more than it so far."""
        wanted = origins if focus is None else origins[[self._filled(origin) > focus for origin in origins]]
        self.covering = np.concatenate([self.covering, wanted])
        self._report(len(origins) - len(wanted))
        for start in range(0, len(wanted), self.batch_size):
            some = wanted[start : start + self.batch_size]
            shown = some if self.skip is None else some[[not self.skip(self._crop(origin)) for origin in some]]
            if len(shown):
                batch = _gather(self.padded, shown, self.patch_size, self.batch_size, self.normalise)
                probabilities = _predict_checked(self.predict, batch)
                self.squares += _add(self.total, shown, probabilities, self.patch_size)
            self._report(len(some))

    def _filled(self, origin: np.ndarray) -> float:
        return float(np.mean(crop(self.total, origin, self.patch_size) > THRESHOLD))

    def _crop(self, origin: np.ndarray) -> np.ndarray:
        return crop(self.padded, origin, self.patch_size)

    def _report(self, count: int) -> None:
        self.done += count
        if self.progress is not None and count:
            self.progress(self.done)


def _sparse(origins: np.ndarray, patch_size: Index) -> np.ndarray:
    """Which of the patches of a grid, bool (n,), cover the volume with as few as that grid allows."""
    chosen = np.ones(len(origins), bool)
    for axis, patch in enumerate(patch_size):
        starts = np.unique(origins[:, axis])
        kept = [starts[0]]
        while kept[-1] < starts[-1]:
            kept.append(starts[starts <= kept[-1] + patch][-1])  # the farthest that leaves no gap
        chosen &= np.isin(origins[:, axis], kept)
    return chosen


def patch_count(shape: Index, patch_size: Index, stride: Index) -> int:
    """Number of patches that cover a volume of this shape (z, y, x): all that `predict_volume` predicts or passes over.

    Raises:
        ValueError: a stride is not from 1 to the patch size.
    """
    axes = zip(shape, patch_size, stride, strict=True)
    return math.prod(len(grid_starts(max(size, patch), patch, step)) for size, patch, step in axes)


def patches_at(
    array: np.ndarray,
    centres: np.ndarray,
    patch_size: Index,
    normalise: Callable[[np.ndarray], np.ndarray] = normalise_patch,
) -> np.ndarray:
    """Patches as `predict_volume` hands them out, but around given voxels: float32 (n, z, y, x).

    Args:
        array: the volume, (z, y, x).
        centres: voxels, (n, 3) in (z, y, x); fractions are cut off. A patch is moved as little as needed to lie inside.
        patch_size: patch shape (z, y, x); an axis shorter than it is reflected.
        normalise: applied to each patch.
    """
    padded, inside = _pad_to_patch(array, patch_size)
    moved = np.asarray(centres) + [axis.start for axis in inside]
    origins = np.array([centred_origin(centre, padded.shape, patch_size) for centre in moved])
    return _gather(padded, origins, patch_size, len(origins), normalise)


def _pad_to_patch(array: np.ndarray, patch_size: Index) -> tuple[np.ndarray, tuple[slice, ...]]:
    """The volume, reflected at both ends of the axes shorter than the patch, and where it lies in that."""
    missing = [max(patch - size, 0) for size, patch in zip(array.shape, patch_size, strict=True)]
    before = [count // 2 for count in missing]
    inside = tuple(slice(start, start + size) for start, size in zip(before, array.shape, strict=True))
    if not any(missing):
        return array, inside
    widths = [(start, count - start) for start, count in zip(before, missing, strict=True)]
    return np.pad(array, widths, mode="symmetric"), inside


def _gather(
    array: np.ndarray,
    origins: np.ndarray,
    patch_size: Index,
    batch_size: int,
    normalise: Callable[[np.ndarray], np.ndarray],
) -> np.ndarray:
    """Normalised patches at `origins`, float32 (batch_size, z, y, x); zeros where there are fewer origins."""
    batch = np.zeros((batch_size, *patch_size), np.float32)
    for patch, origin in zip(batch, origins, strict=False):
        patch[...] = normalise(crop(array, origin, patch_size))
    return batch


def _predict_checked(predict: Predict, batch: np.ndarray) -> np.ndarray:
    """Probabilities of the batch. Raises ValueError where their shape is not the batch's."""
    probabilities = np.asarray(predict(batch))
    if probabilities.shape != batch.shape:
        raise ValueError(f"Expected probabilities of shape {batch.shape} from predict. Received: {probabilities.shape}")
    return probabilities


def _add(total: np.ndarray, origins: np.ndarray, probabilities: np.ndarray, patch_size: Index) -> float:
    """Adds each patch of probabilities to its place in `total`; those without an origin are dropped.

    Returns the sum of their squares.
    """
    squares = 0.0
    for origin, probability in zip(origins, probabilities, strict=False):
        crop(total, origin, patch_size)[...] += probability
        squares += float(np.square(probability, dtype=np.float64).sum())
    return squares


def _divide_by_cover(total: np.ndarray, origins: np.ndarray, patch_size: Index) -> tuple[float, float]:
    """Divides each voxel (z, y, x), in place, by the number of the patches at `origins` that cover it.

    The number is the same in all slices between two neighbouring borders of patches, so that it takes no second array
    of the volume's size. Returns Σ n·mean² and Σ n·mean of the voxels, n the number and mean the result.
    """
    depth, height, width = (int(size) for size in patch_size)
    borders = np.unique([0, total.shape[0], *origins[:, 0], *(origins[:, 0] + depth)])
    agreed = summed = 0.0
    for low, high in itertools.pairwise(borders.tolist()):
        count = np.zeros(total.shape[1:], np.float32)
        for start, y, x in origins.tolist():
            if start <= low < start + depth:
                count[y : y + height, x : x + width] += 1
        for slice_ in total[low:high]:
            before = slice_.astype(np.float64)
            slice_ /= count
            agreed += float(np.vdot(before, slice_))
            summed += float(before.sum())
    return agreed, summed
