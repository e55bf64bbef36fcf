"""Overlap metrics of a reference and a prediction, all derived from three voxel counts.

Empty masks **(ours)**: where both are empty the two agree, and every metric is 1. Where exactly one is empty every
metric is 0, also precision without a prediction and recall without a reference, whose ratios are 0/0: never NaN, so
that an empty prediction cannot drop out of an average.
"""

from __future__ import annotations

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class OverlapCounts:
    """Voxels counted once, for all four metrics.

    Attributes:
        tp: voxels in both masks.
        fp: voxels in the prediction only.
        fn: voxels in the reference only.
    """

    tp: int
    fp: int
    fn: int


def count_overlap(reference: np.ndarray, prediction: np.ndarray, label: int | None = None) -> OverlapCounts:
    """Counts the voxels of two bool masks, or of one label of two label maps.

    Args:
        reference: any shape; bool without `label`, else integers.
        prediction: same shape and kind as the reference.
        label: the value to compare in label maps; None for bool masks.

    Raises:
        ValueError: the shapes differ, or the arrays are no bool masks and no label is given.
    """
    if reference.shape != prediction.shape:
        raise ValueError(f"Expected masks of one shape. Received: {reference.shape} and {prediction.shape}")
    if label is not None:
        reference, prediction = reference == label, prediction == label
    elif reference.dtype != bool or prediction.dtype != bool:
        raise ValueError(f"Expected bool masks, or a label. Received: {reference.dtype} and {prediction.dtype}")
    tp = int(np.count_nonzero(reference & prediction))
    return OverlapCounts(tp=tp, fp=int(np.count_nonzero(prediction)) - tp, fn=int(np.count_nonzero(reference)) - tp)


def dice(counts: OverlapCounts) -> float:
    """2·tp / (2·tp + fp + fn). Both masks empty: 1. One empty: 0."""
    return _ratio(2 * counts.tp, 2 * counts.tp + counts.fp + counts.fn, counts)


def jaccard(counts: OverlapCounts) -> float:
    """tp / (tp + fp + fn). Both masks empty: 1. One empty: 0."""
    return _ratio(counts.tp, counts.tp + counts.fp + counts.fn, counts)


def precision(counts: OverlapCounts) -> float:
    """tp / (tp + fp): the part of the prediction that is right. Both masks empty: 1. One empty, whichever: 0."""
    return _ratio(counts.tp, counts.tp + counts.fp, counts)


def recall(counts: OverlapCounts) -> float:
    """tp / (tp + fn): the part of the reference that was found. Both masks empty: 1. One empty, whichever: 0."""
    return _ratio(counts.tp, counts.tp + counts.fn, counts)


def _ratio(part: int, whole: int, counts: OverlapCounts) -> float:
    if counts.tp + counts.fp + counts.fn == 0:
        return 1.0
    return part / whole if whole else 0.0
