"""What is said of all cases together: the lines below the paper's Table 1, and how well the volumes agree."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from femur3d.evaluation.metrics import METRICS, FemurMetrics
from femur3d.evaluation.summary import ALL, means, summarise, volume_agreement


def cohort_of(rows: Sequence[FemurMetrics]) -> dict[str, Any]:
    """'table' (lines of `averages`), 'femurs', 'failures' (counts), 'agreement' (of the volumes); {} without rows."""
    applicable = [row for row in rows if row.applies]
    if not applicable:
        return {}
    return {
        "table": averages(applicable),
        "femurs": len(applicable),
        "failures": sum(row.failed for row in applicable),
        "agreement": volume_agreement(applicable),
    }


def averages(rows: Sequence[FemurMetrics]) -> list[dict[str, Any]]:
    """Mean, SD and median of every metric over all femurs, then the mean of each side; failures count with inf.

    Where there are failures a mean without them follows, and says so.

    Args:
        rows: at least one, all of which apply.
    """
    mean, summary = means(rows), summarise(rows)
    return [
        _line("Mean", ALL, mean.pop(ALL)),
        _line("SD", ALL, {metric: summary[metric]["std"] for metric in METRICS}),
        _line("Median", ALL, {metric: statistics.median(getattr(row, metric) for row in rows) for metric in METRICS}),
        *(_line("Mean", label, values) for label, values in mean.items()),
    ]


def _line(name: str, label: str, values: dict[str, float | int]) -> dict[str, Any]:
    return {"case": name, "label": label, **values}
