"""Metrics of every femur as the paper's Table 1 (section 3.4), as CSV and as JSON."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from femur3d.evaluation.metrics import METRICS, FemurMetrics
from femur3d.evaluation.summary import ALL, WITHOUT_FAILURES, by_label, means, summarise, volume_agreement
from femur3d.io.atomic import replacing
from femur3d.io.formats import csv_table
from femur3d.io.integrity import write_json

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


def format_table(rows: Sequence[FemurMetrics]) -> str:
    """The paper's Table 1 as text: a line for each femur, their average, that of each side, and notes below.

    An inf in a column makes its average inf; a second average then leaves the failed rows out, and says so. Rows in
    which reference and prediction are both empty show dashes and are in no average.

    Raises:
        ValueError: there are no rows.
    """
    body = [(row.case, row.label, [getattr(row, metric) for metric in COLUMNS]) for row in rows]
    averages = _averages(rows)
    widths = [max(len(line[column]) for line in [*body, *averages, ("Case", "Label")]) for column in (0, 1)]
    lines = [_line(*line, widths) for line in body], [_line(*line, widths) for line in averages]
    rule = "-" * len(lines[0][0])
    return "\n".join([*_headings(widths), rule, *lines[0], rule, *lines[1], *_notes(rows)])


def _averages(rows: Sequence[FemurMetrics]) -> list[tuple[str, str, list[float]]]:
    """Case, label and values of the lines below the rule."""
    counts = summarise(rows)["dice"]
    labels = {ALL: "", WITHOUT_FAILURES: f"of {counts['n'] - counts['failures']}, without failures"}
    return [
        ("Average", labels.get(label, label), [mean[metric] for metric in COLUMNS])
        for label, mean in means(rows).items()
    ]


def _headings(widths: Sequence[int]) -> list[str]:
    left = f"{'Case':<{widths[0]}}  {'Label':<{widths[1]}}"
    cells = {metric: f"  {heading:>9}" for metric, (heading, _) in COLUMNS.items()}
    split = list(COLUMNS).index(FIRST_OVERLAP)
    span = len("".join(list(cells.values())[:split]))
    return [f"{'':{len(left)}}{'Surface distance (mm)':>{span}}  Volume overlap", left + "".join(cells.values())]


def _line(case: str, label: str, values: Sequence[float], widths: Sequence[int]) -> str:
    cells = [f"  {_number(value, decimals):>9}" for value, (_, decimals) in zip(values, COLUMNS.values(), strict=True)]
    return f"{case:<{widths[0]}}  {label:<{widths[1]}}{''.join(cells)}"


def _number(value: float, decimals: int) -> str:
    return "-" if math.isnan(value) else f"{value:.{decimals}f}"


def _notes(rows: Sequence[FemurMetrics]) -> list[str]:
    """Failures, rows that do not apply, what the surface distances are, and how the volumes agree."""
    summary, volumes = summarise(rows), volume_agreement(rows)
    counts = summary["dice"]
    failed = " (distance inf: reference or prediction empty or missing)" if counts["failures"] else ""
    notes = [f"Failures: {counts['failures']} of {counts['n']}{failed}"]
    if counts["not_applicable"]:
        notes.append(f"Not applicable: {counts['not_applicable']} (reference and prediction empty), in no average")
    mean = _number(summary["vertex_mean_mm"]["mean"], 3)
    notes.append(f"Surface distances are weighted by area; the mean over vertices, each counted alike, is {mean} mm")
    bias, low, high = (_number(volumes[key], 1) for key in ("bias_ml", "lower_limit_ml", "upper_limit_ml"))
    percent = _number(summary["volume_error_percent"]["mean"], 1)
    limits = f", 95% limits of agreement {low} to {high} ml" if volumes["n"] > 1 else ""
    notes.append(f"Volume error: bias {bias} ml ({percent}%){limits}")
    return notes


def write_csv(rows: Sequence[FemurMetrics], path: str | os.PathLike[str]) -> None:
    """One line per row, with a header; an infinite number is written as inf, one that does not apply as nothing.

    The column mean_mm is weighted by area; in files without vertex_mean_mm, which femur3d 0.1 wrote, every vertex
    counts alike in it, and likewise in std_mm and hd95_mm.
    """
    lines = ({"case": row.case, "label": row.label, **_that_apply(row)} for row in rows)
    csv_table.write_csv(path, ["case", "label", *METRICS], lines)


def _that_apply(row: FemurMetrics) -> dict[str, float]:
    values = {metric: getattr(row, metric) for metric in METRICS}
    return {metric: value for metric, value in values.items() if not math.isnan(value)}


def summary_json(rows: Sequence[FemurMetrics], origin: Mapping[str, Any]) -> dict[str, Any]:
    """The contents of summary.json: `summarise`, the same for each label, the volumes' agreement, and the origin.

    Args:
        rows: of all femurs.
        origin: what the numbers come from: command, versions, models.
    """
    sides = {label: summarise(own) for label, own in by_label(rows).items()}
    return {**summarise(rows), "labels": sides, "volume_agreement": volume_agreement(rows), **origin}


def write_summary(rows: Sequence[FemurMetrics], path: str | os.PathLike[str], origin: Mapping[str, Any]) -> None:
    """Writes `summary_json` as valid JSON, which knows no infinite number: it is "inf", and NaN is null."""
    write_json(path, summary_json(rows, origin))


def write_report(
    rows: Sequence[FemurMetrics], folder: str | os.PathLike[str], origin: Mapping[str, Any] | None = None
) -> list[Path]:
    """Writes metrics.csv, summary.json and table.txt into a folder, each whole or not at all; returns their paths."""
    folder = Path(folder)
    paths = [folder / name for name in ("metrics.csv", "summary.json", "table.txt")]
    write_csv(rows, paths[0])
    write_summary(rows, paths[1], origin or {})
    with replacing(paths[2]) as temporary:
        temporary.write_text(format_table(rows) + "\n", encoding="utf-8")
    return paths
