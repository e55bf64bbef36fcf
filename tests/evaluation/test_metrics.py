"""The metrics of one case: a row for each femur."""

from __future__ import annotations

import math

import numpy as np
import pytest

from femur3d.evaluation.metrics import measure_case, measure_femur
from femur3d.volume import Volume
from tests.support.femur_metrics import BETTER, FAILED, GOOD, NOT_APPLICABLE
from tests.support.label_boxes import BOTH, LEFT, RIGHT, SPECK, label_volume


def test_measure_of_two_boxes_on_an_anisotropic_grid() -> None:
    reference, prediction = np.zeros((6, 6, 8), bool), np.zeros((6, 6, 8), bool)
    reference[1:5, 1:5, 1:5] = True
    prediction[1:5, 1:5, 2:7] = True
    grid = Volume(reference, (2.0, 1.0, 5.0))
    row = measure_femur("case", "femur", grid, grid.with_array(prediction))
    assert (row.reference_ml, row.prediction_ml) == (pytest.approx(0.64), pytest.approx(0.8))
    assert row.dice == pytest.approx(2 * 48 / (64 + 80))
    assert row.jaccard == pytest.approx(48 / 96)
    assert row.precision == pytest.approx(48 / 80)
    assert row.recall == pytest.approx(48 / 64)
    assert row.hausdorff_mm == pytest.approx(4.0)
    assert not row.failed


def test_volume_error_and_what_applies() -> None:
    assert (GOOD.volume_error_ml, GOOD.volume_error_percent) == (-10, pytest.approx(-10))
    assert (BETTER.volume_error_ml, FAILED.volume_error_percent) == (0, -100)
    assert [row.applies for row in (GOOD, FAILED, NOT_APPLICABLE)] == [True, True, False]
    assert [row.failed for row in (GOOD, FAILED, NOT_APPLICABLE)] == [False, True, False]
    assert math.isnan(NOT_APPLICABLE.volume_error_percent)


@pytest.mark.parametrize("mode", ["auto", "femur"])
def test_a_prediction_without_sides_has_a_row_for_each_femur(mode) -> None:
    left, right = measure_case("hip", BOTH, label_volume(l1=[LEFT, RIGHT, SPECK]), mode)
    assert (left.label, right.label) == ("femur_left", "femur_right")
    assert (left.dice, left.hausdorff_mm) == (1.0, pytest.approx(0.0, abs=1e-9))
    assert right.precision == pytest.approx(80 / 81)
    assert right.hausdorff_mm > 2


def test_sides_are_compared_by_value() -> None:
    swapped = label_volume(l1=[RIGHT], l2=[LEFT])
    assert [row.dice for row in measure_case("hip", BOTH, swapped, "auto")] == [0.0, 0.0]
    assert [row.dice for row in measure_case("hip", BOTH, swapped, "femur")] == [1.0, 1.0]
    one = label_volume(l1=[LEFT, RIGHT])
    left, right = measure_case("hip", BOTH, one, "sides")
    assert (left.precision, right.failed) == (0.5, True)


def test_a_side_that_the_reference_lacks_is_a_false_positive_or_merged() -> None:
    one = label_volume(l1=[LEFT])
    rows = measure_case("hip", one, BOTH, "auto", {1: "left", 2: "right"})
    assert [(row.label, row.dice, row.failed) for row in rows] == [("left", 1.0, False), ("right", 0.0, True)]
    (row,) = measure_case("hip", one, BOTH, "auto")
    assert (row.label, row.precision, row.failed) == ("femur", 0.5, False)


def test_empty_pairs() -> None:
    empty = label_volume()
    (row,) = measure_case("hip", empty, empty)
    assert (row.label, row.reference_ml, row.prediction_ml) == ("femur", 0, 0)
    assert (row.applies, row.failed) == (False, False)
    assert all(math.isnan(value) for value in (row.dice, row.recall, row.mean_mm, row.vertex_mean_mm))
    assert [row.dice for row in measure_case("hip", BOTH, empty)] == [0.0, 0.0]
    (row,) = measure_case("hip", empty, label_volume(l1=[LEFT]))
    assert (row.dice, row.hausdorff_mm, row.reference_ml) == (0.0, math.inf, 0.0)
    assert (row.failed, row.volume_error_percent) == (True, math.inf)
