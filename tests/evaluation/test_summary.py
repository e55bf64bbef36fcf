"""Averages over femurs and the agreement of volumes, worked out by hand."""

from __future__ import annotations

import dataclasses
import math

import pytest

from femur3d.evaluation.metrics import METRICS
from femur3d.evaluation.summary import by_label, summarise, volume_agreement
from tests.support.femur_metrics import BETTER, FAILED, GOOD, NOT_APPLICABLE


def test_summary_numbers() -> None:
    summary = summarise([GOOD, BETTER])
    assert tuple(summary) == METRICS
    expected = {"mean": 0.375, "std": 0.125, "min": 0.25, "max": 0.5, "n": 2, "failures": 0, "not_applicable": 0}
    assert summary["mean_mm"] == expected
    assert summary["volume_error_ml"]["mean"] == -5.0
    assert summary["volume_error_percent"]["min"] == -10.0


def test_a_failure_makes_mean_std_and_max_infinite_never_nan() -> None:
    summary = summarise([GOOD, FAILED, FAILED])["mean_mm"]
    expected = {"mean": math.inf, "std": math.inf, "min": 0.5, "max": math.inf, "n": 3, "failures": 2}
    assert summary == {**expected, "not_applicable": 0, "mean_without_failures": 0.5}


def test_a_row_that_does_not_apply_changes_no_average_and_is_counted() -> None:
    with_it, without = summarise([GOOD, NOT_APPLICABLE, BETTER]), summarise([GOOD, BETTER])
    for metric in METRICS:
        assert with_it[metric] == {**without[metric], "not_applicable": 1}
    nothing = summarise([NOT_APPLICABLE])["dice"]
    assert (nothing["n"], nothing["failures"], nothing["not_applicable"]) == (0, 0, 1)
    assert all(math.isnan(nothing[name]) for name in ("mean", "std", "min", "max"))


def test_no_rows_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one row"):
        summarise([])


def test_rows_of_each_side() -> None:
    assert by_label([GOOD, BETTER, FAILED]) == {"femur_left": [GOOD, FAILED], "femur_right": [BETTER]}


def test_bland_altman_by_hand() -> None:
    """Differences 0, -10, 4: bias -2, standard deviation √52."""
    third = dataclasses.replace(BETTER, reference_ml=100.0, prediction_ml=104.0)
    agreement = volume_agreement([BETTER, GOOD, third, NOT_APPLICABLE])
    assert agreement["n"] == 3
    assert agreement["bias_ml"] == pytest.approx(-2)
    assert agreement["sd_ml"] == pytest.approx(math.sqrt(52))
    assert agreement["lower_limit_ml"] == pytest.approx(-2 - 1.96 * math.sqrt(52))
    assert agreement["upper_limit_ml"] == pytest.approx(-2 + 1.96 * math.sqrt(52))
    assert agreement["mean_absolute_error_ml"] == pytest.approx(14 / 3)


def test_a_missed_femur_counts_with_its_whole_volume() -> None:
    assert volume_agreement([BETTER, FAILED])["bias_ml"] == pytest.approx(-60)


def test_too_few_femurs_have_no_limits() -> None:
    one = volume_agreement([GOOD])
    assert (one["n"], one["bias_ml"]) == (1, -10)
    assert all(math.isnan(one[name]) for name in ("sd_ml", "lower_limit_ml", "upper_limit_ml"))
    assert math.isnan(volume_agreement([NOT_APPLICABLE])["bias_ml"])
