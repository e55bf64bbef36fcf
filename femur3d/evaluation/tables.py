"""Metrics of every femur: measured, and written as the paper's Table 1, as CSV and as JSON."""

from __future__ import annotations

import csv
import dataclasses
import json
import math
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from femur3d.evaluation.overlap import count_overlap, dice, jaccard, precision, recall
from femur3d.evaluation.surface_distance import surface_distances
from femur3d.io.atomic import replacing
from femur3d.volume import Volume

# Metric → heading of its column and decimals, in the order of the paper's Table 1, which has no HD95.
COLUMNS = {
    "mean_mm": ("Mean", 3),
    "std_mm": ("STD", 3),
    "hausdorff_mm": ("Hausdorff", 2),
    "hd95_mm": ("HD95", 2),
    "dice": ("DICE", 4),
    "jaccard": ("Jaccard", 4),
    "precision": ("Precision", 4),
    "recall": ("Recall", 4),
}
FIRST_OVERLAP = "dice"


@dataclasses.dataclass(frozen=True)
class FemurMetrics:
    """One row: one label of one case.

    Attributes:
        case: name of the case.
        label: name of the label.
        mean_mm, std_mm, hausdorff_mm, hd95_mm: surface distances, see `SurfaceDistances`; inf where the reference or
            the prediction is empty.
        dice, jaccard, precision, recall: overlap, 0 to 1.
        reference_ml, prediction_ml: volumes in millilitres.
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

    @property
    def failed(self) -> bool:
        """Whether there is no distance, because the reference or the prediction is empty or missing."""
        return not math.isfinite(self.mean_mm)


METRICS = tuple(field.name for field in dataclasses.fields(FemurMetrics))[2:]


def measure(case: str, label: str, reference: Volume, prediction: Volume) -> FemurMetrics:
    """All metrics of a pair of bool masks (z, y, x) on one grid.

    Raises:
        ValueError: the grids differ, or an array is not bool.
    """
    distances = surface_distances(reference, prediction)
    counts = count_overlap(reference.array, prediction.array)
    voxel_ml = math.prod(reference.spacing_mm) / 1000
    return FemurMetrics(
        case,
        label,
        mean_mm=distances.mean_mm,
        std_mm=distances.std_mm,
        hausdorff_mm=distances.hausdorff_mm,
        hd95_mm=distances.hd95_mm,
        dice=dice(counts),
        jaccard=jaccard(counts),
        precision=precision(counts),
        recall=recall(counts),
        reference_ml=(counts.tp + counts.fn) * voxel_ml,
        prediction_ml=(counts.tp + counts.fp) * voxel_ml,
    )


def summarise(rows: Sequence[FemurMetrics]) -> dict[str, dict[str, float | int]]:
    """Mean, std (divisor n), min, max, n and failures of every metric, over all rows.

    A failure counts with its inf (or Dice 0); where there is one, the std of a distance is inf too, and
    `mean_without_failures` is added if any row is left for it.

    Raises:
        ValueError: there are no rows.
    """
    if not rows:
        raise ValueError("Expected at least one row of metrics. Received: none")
    failures = sum(row.failed for row in rows)
    return {metric: _summary(metric, rows, failures) for metric in METRICS}


def _summary(metric: str, rows: Sequence[FemurMetrics], failures: int) -> dict[str, float | int]:
    values = np.array([getattr(row, metric) for row in rows])
    summary: dict[str, float | int] = {
        "mean": float(values.mean()),
        "std": float(values.std()) if np.isfinite(values).all() else math.inf,
        "min": float(values.min()),
        "max": float(values.max()),
        "n": len(rows),
        "failures": failures,
    }
    if 0 < failures < len(rows):
        summary["mean_without_failures"] = float(np.mean([getattr(row, metric) for row in rows if not row.failed]))
    return summary


def format_table(rows: Sequence[FemurMetrics]) -> str:
    """The paper's Table 1 as text: a line for each femur, their average, and the number of failures below.

    An inf in a column makes its average inf; a second average then leaves the failed rows out, and says so.

    Raises:
        ValueError: there are no rows.
    """
    summary = summarise(rows)
    failures = sum(row.failed for row in rows)
    body = [(row.case, row.label, [getattr(row, metric) for metric in COLUMNS]) for row in rows]
    averages = [("Average", "", [summary[metric]["mean"] for metric in COLUMNS])]
    if 0 < failures < len(rows):
        kept = f"of {len(rows) - failures}, without failures"
        averages.append(("Average", kept, [summary[metric]["mean_without_failures"] for metric in COLUMNS]))
    widths = [max(len(line[column]) for line in [*body, *averages, ("Case", "Label")]) for column in (0, 1)]
    lines = [_line(*line, widths) for line in body], [_line(*line, widths) for line in averages]
    rule = "-" * len(lines[0][0])
    return "\n".join([*_headings(widths), rule, *lines[0], rule, *lines[1], _failure_line(failures, len(rows))])


def _headings(widths: Sequence[int]) -> list[str]:
    left = f"{'Case':<{widths[0]}}  {'Label':<{widths[1]}}"
    cells = {metric: f"  {heading:>9}" for metric, (heading, _) in COLUMNS.items()}
    split = list(COLUMNS).index(FIRST_OVERLAP)
    span = len("".join(list(cells.values())[:split]))
    return [f"{'':{len(left)}}{'Surface distance (mm)':>{span}}  Volume overlap", left + "".join(cells.values())]


def _line(case: str, label: str, values: Sequence[float], widths: Sequence[int]) -> str:
    cells = [f"  {value:>9.{decimals}f}" for value, (_, decimals) in zip(values, COLUMNS.values(), strict=True)]
    return f"{case:<{widths[0]}}  {label:<{widths[1]}}{''.join(cells)}"


def _failure_line(failures: int, total: int) -> str:
    reason = " (distance inf: reference or prediction empty or missing)" if failures else ""
    return f"Failures: {failures} of {total}{reason}"


def write_csv(rows: Sequence[FemurMetrics], path: str | os.PathLike[str]) -> None:
    """One line per row, with a header; an infinite distance is written as inf."""
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(field.name for field in dataclasses.fields(FemurMetrics))
        writer.writerows(dataclasses.astuple(row) for row in rows)


def write_summary(rows: Sequence[FemurMetrics], path: str | os.PathLike[str]) -> None:
    """`summarise` as valid JSON: an infinite number, which JSON does not know, becomes the string "inf"."""
    summary = {
        metric: {name: value if math.isfinite(value) else "inf" for name, value in values.items()}
        for metric, values in summarise(rows).items()
    }
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(summary, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def write_report(rows: Sequence[FemurMetrics], folder: str | os.PathLike[str]) -> list[Path]:
    """Writes metrics.csv, summary.json and table.txt into a folder, each whole or not at all; returns their paths."""
    folder = Path(folder)
    paths = [folder / name for name in ("metrics.csv", "summary.json", "table.txt")]
    write_csv(rows, paths[0])
    write_summary(rows, paths[1])
    with replacing(paths[2]) as temporary:
        temporary.write_text(format_table(rows) + "\n", encoding="utf-8")
    return paths
