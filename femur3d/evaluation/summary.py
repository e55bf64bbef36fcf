"""Averages over many femurs: each metric, each side, and how well the volumes agree."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from femur3d.evaluation.metrics import METRICS, FemurMetrics

LIMITS = 1.96  # standard deviations: 95% of normally distributed differences lie within
ALL, WITHOUT_FAILURES = "all", "without failures"  # femurs that `means` are over


def summarise(rows: Sequence[FemurMetrics]) -> dict[str, dict[str, float | int]]:
    """Mean, std (divisor n), min, max, n and failures of every metric, over all rows that apply.

    A failure counts with its inf (or Dice 0); where there is one, the std of a distance is inf too, and
    `mean_without_failures` is added if any row is left for it. A row whose reference and prediction are both empty is
    counted in `not_applicable` and nowhere else; where no other row is left, n is 0 and the statistics are NaN.

    Raises:
        ValueError: there are no rows.
    """
    if not rows:
        raise ValueError("Expected at least one row of metrics. Received: none")
    return {metric: _summary(metric, rows) for metric in METRICS}


def _summary(metric: str, rows: Sequence[FemurMetrics]) -> dict[str, float | int]:
    applicable = [row for row in rows if row.applies]
    succeeded = [getattr(row, metric) for row in applicable if not row.failed]
    values = np.array([getattr(row, metric) for row in applicable] or [math.nan])
    summary: dict[str, float | int] = {
        "mean": float(values.mean()),
        "std": math.inf if np.isinf(values).any() else float(values.std()),
        "min": float(values.min()),
        "max": float(values.max()),
        "n": len(applicable),
        "failures": len(applicable) - len(succeeded),
        "not_applicable": len(rows) - len(applicable),
    }
    if 0 < len(succeeded) < len(applicable):
        summary["mean_without_failures"] = float(np.mean(succeeded))
    return summary


def by_label(rows: Sequence[FemurMetrics]) -> dict[str, list[FemurMetrics]]:
    """The rows of each label, such as femur_left and femur_right, in the order in which they come."""
    found: dict[str, list[FemurMetrics]] = {}
    for row in rows:
        found.setdefault(row.label, []).append(row)
    return found


def means(rows: Sequence[FemurMetrics]) -> dict[str, dict[str, float | int]]:
    """Mean of every metric: over 'all' femurs, 'without failures' where there are some, and of each label of several.

    Raises:
        ValueError: there are no rows.
    """
    summary = summarise(rows)
    found = {ALL: {metric: one["mean"] for metric, one in summary.items()}}
    if "mean_without_failures" in summary["dice"]:
        found[WITHOUT_FAILURES] = {metric: one["mean_without_failures"] for metric, one in summary.items()}
    sides = by_label([row for row in rows if row.applies])
    for label, own in sides.items() if len(sides) > 1 else ():
        found[label] = {metric: one["mean"] for metric, one in summarise(own).items()}
    return found


def volume_agreement(rows: Sequence[FemurMetrics]) -> dict[str, float | int]:
    """Bias and 95% limits of agreement of the volumes after Bland and Altman 1986 (Lancet 327:307), in millilitres.

    Each difference is prediction minus reference. A femur that was missed or invented counts with its whole volume.

    Returns:
        n (femurs that apply); bias_ml, the mean difference; sd_ml, the differences' standard deviation (divisor n - 1);
        lower_limit_ml and upper_limit_ml, bias ± 1.96 sd; mean_absolute_error_ml. NaN where there are too few femurs:
        none, or a single one for the standard deviation and the limits.
    """
    differences = np.array([row.volume_error_ml for row in rows if row.applies])
    bias = float(differences.mean()) if differences.size else math.nan
    sd = float(differences.std(ddof=1)) if differences.size > 1 else math.nan
    return {
        "n": len(differences),
        "bias_ml": bias,
        "sd_ml": sd,
        "lower_limit_ml": bias - LIMITS * sd,
        "upper_limit_ml": bias + LIMITS * sd,
        "mean_absolute_error_ml": float(np.abs(differences).mean()) if differences.size else math.nan,
    }
