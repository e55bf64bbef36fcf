"""The metrics of one case: a row for each femur, as in the paper's Table 1 (section 3.4)."""

from __future__ import annotations

import dataclasses
import math
from typing import Literal, get_args

from femur3d.evaluation.cases import FIRST, SECOND, femur_labels, split_femurs
from femur3d.evaluation.overlap import count_overlap, dice, jaccard, precision, recall
from femur3d.evaluation.surface_distance import surface_distances
from femur3d.volume import Volume

LabelMode = Literal["auto", "femur", "sides"]
LABEL_MODES = get_args(LabelMode)


@dataclasses.dataclass(frozen=True)
class FemurMetrics:
    """One row: one label of one case.

    Where reference and prediction are both empty there is nothing to measure **(ours)**: distances, overlap and
    `volume_error_percent` are NaN, `applies` is False, and summaries count the row but leave it out of every average.

    Attributes:
        case: name of the case.
        label: name of the label.
        mean_mm, std_mm, hausdorff_mm, hd95_mm: surface distances, area-weighted, see `SurfaceDistances`; inf where the
            reference or the prediction is empty.
        dice, jaccard, precision, recall: overlap, 0 to 1.
        reference_ml, prediction_ml: volumes in millilitres.
        vertex_mean_mm: the surface distance in whose mean every vertex counts alike.
    """

    case: str
    label: str
    mean_mm: float
    std_mm: float
    hausdorff_mm: float
    hd95_mm: float
    dice: float
    jaccard: float
    precision: float
    recall: float
    reference_ml: float
    prediction_ml: float
    vertex_mean_mm: float

    @property
    def volume_error_ml(self) -> float:
        """Volume of the prediction minus that of the reference."""
        return self.prediction_ml - self.reference_ml

    @property
    def volume_error_percent(self) -> float:
        """The volume error in per cent of the reference; inf where only the reference is empty."""
        if self.reference_ml == 0:
            return math.inf if self.prediction_ml else math.nan
        return 100 * self.volume_error_ml / self.reference_ml

    @property
    def applies(self) -> bool:
        """Whether there is anything to measure: a femur in the reference or in the prediction."""
        return self.reference_ml > 0 or self.prediction_ml > 0

    @property
    def failed(self) -> bool:
        """Whether there is no distance, because only one of reference and prediction holds a femur."""
        return self.applies and not math.isfinite(self.mean_mm)


_FIELDS = tuple(field.name for field in dataclasses.fields(FemurMetrics))
METRICS = (*_FIELDS[2:], "volume_error_ml", "volume_error_percent")


def measure_case(
    name: str, reference: Volume, prediction: Volume, mode: LabelMode = "auto", names: dict[int, str] | None = None
) -> list[FemurMetrics]:
    """A row for each label that the reference or the prediction holds; a row for label 1 where both are empty.

    Args:
        name: of the case.
        reference: label map, axes (z, y, x).
        prediction: label map on the same grid.
        mode: "sides" compares equal label values. "femur" takes any value of the prediction for femur, and splits it
            where the reference has two femurs. "auto" is "femur" where a prediction has only the value 1 and the
            reference has 2, or where the prediction has 2 and neither reference nor `names` know it; else "sides".
        names: label value → name; None or a value without name gives "femur", "femur_left" or "femur_right".

    Raises:
        ValueError: the grids differ.
    """
    names = names or {}
    in_reference, in_prediction = femur_labels(reference), femur_labels(prediction)
    if mode == "femur" or (mode == "auto" and _knows_no_sides(in_reference, in_prediction, names)):
        prediction = split_femurs(reference, prediction)
        in_prediction = femur_labels(prediction)
    labels = sorted(in_reference | in_prediction) or [FIRST]
    default = {FIRST: "femur_left", SECOND: "femur_right"} if SECOND in labels else {FIRST: "femur"}
    titles = {**default, **names}
    return [measure_femur(name, titles[label], _mask(reference, label), _mask(prediction, label)) for label in labels]


def _knows_no_sides(in_reference: set[int], in_prediction: set[int], names: dict[int, str]) -> bool:
    if SECOND in in_reference:
        return SECOND not in in_prediction
    return SECOND in in_prediction and SECOND not in names


def _mask(volume: Volume, label: int) -> Volume:
    return volume.with_array(volume.array == label)


def measure_femur(case: str, label: str, reference: Volume, prediction: Volume) -> FemurMetrics:
    """All metrics of a pair of bool masks (z, y, x) on one grid.

    Raises:
        ValueError: the grids differ, or an array is not bool.
    """
    distances = surface_distances(reference, prediction)
    counts = count_overlap(reference.array, prediction.array)
    measured = {
        "mean_mm": distances.mean_mm,
        "std_mm": distances.std_mm,
        "hausdorff_mm": distances.hausdorff_mm,
        "hd95_mm": distances.hd95_mm,
        "dice": dice(counts),
        "jaccard": jaccard(counts),
        "precision": precision(counts),
        "recall": recall(counts),
        "vertex_mean_mm": distances.vertex_mean_mm,
    }
    if counts.tp + counts.fp + counts.fn == 0:
        measured = dict.fromkeys(measured, math.nan)
    return FemurMetrics(
        case,
        label,
        reference_ml=(counts.tp + counts.fn) * reference.voxel_ml,
        prediction_ml=(counts.tp + counts.fp) * reference.voxel_ml,
        **measured,
    )
