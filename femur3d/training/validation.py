"""Dice on whole validation volumes during training, on the network's grid."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

import numpy as np

from femur3d.config import IGNORED, THRESHOLD
from femur3d.data.packed_dataset import PackedDataset
from femur3d.data.patches import make_normalise
from femur3d.evaluation.overlap import count_overlap, dice
from femur3d.inference.sliding_window import predict_volume
from femur3d.volume import Volume


@dataclasses.dataclass(frozen=True, eq=False)
class Validated:
    """One validation volume after prediction.

    Attributes:
        name: case and label value, e.g. `hip_07/1`.
        image: float32 (z, y, x).
        reference, prediction: bool, same grid.
        dice: of the two, before any post-processing.
    """

    name: str
    image: Volume
    reference: np.ndarray
    prediction: np.ndarray
    dice: float


def validate(
    packed: PackedDataset, predict: Callable[[np.ndarray], np.ndarray], patch_size: tuple[int, ...]
) -> Iterator[Validated]:
    """Predicts every validation volume, one after the other, with patches side by side (no overlap, for speed)."""
    normalise = make_normalise(packed.preprocessing["normalisation"])
    for number in packed.select("val"):
        entry = packed.entries[number]
        image, label = packed.read_volume(number)
        probability, _ = predict_volume(image.array, predict, patch_size, patch_size, normalise=normalise)
        prediction = (probability > THRESHOLD) & (label.array != IGNORED)
        reference = label.array == 1
        score = dice(count_overlap(reference, prediction))
        yield Validated(f"{entry.case}/{entry.label_value}", image, reference, prediction, score)
