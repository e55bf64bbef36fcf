"""Overlap metrics against numbers worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from femur3d.evaluation.overlap import OverlapCounts, count_overlap, dice, jaccard, precision, recall

METRICS = (dice, jaccard, precision, recall)
EMPTY = np.zeros((1, 2, 3), bool)
FULL = np.ones((1, 2, 3), bool)


def test_metrics_of_a_pair_counted_by_hand() -> None:
    reference = np.array([[[1, 1, 1, 0, 0]]], bool)
    prediction = np.array([[[0, 1, 1, 1, 0]]], bool)
    prediction_larger = np.array([[[0, 1, 1, 1, 1]]], bool)
    assert count_overlap(reference, prediction) == OverlapCounts(tp=2, fp=1, fn=1)
    counts = count_overlap(reference, prediction_larger)
    assert counts == OverlapCounts(tp=2, fp=2, fn=1)
    assert dice(counts) == pytest.approx(4 / 7)
    assert jaccard(counts) == pytest.approx(2 / 5)
    assert precision(counts) == pytest.approx(2 / 4)
    assert recall(counts) == pytest.approx(2 / 3)


def test_swapping_exchanges_precision_and_recall() -> None:
    counts, swapped = OverlapCounts(tp=2, fp=5, fn=1), OverlapCounts(tp=2, fp=1, fn=5)
    assert precision(counts) == recall(swapped) == pytest.approx(2 / 7)
    assert dice(counts) == dice(swapped)
    assert jaccard(counts) == jaccard(swapped)


def test_one_label_of_label_maps() -> None:
    reference = np.array([[[0, 1, 2, 2, 1]]], np.uint8)
    prediction = np.array([[[2, 1, 2, 1, 1]]], np.uint8)
    assert count_overlap(reference, prediction, label=1) == OverlapCounts(tp=2, fp=1, fn=0)
    assert count_overlap(reference, prediction, label=2) == OverlapCounts(tp=1, fp=1, fn=1)


@pytest.mark.parametrize("metric", METRICS)
def test_empty_masks(metric) -> None:
    assert metric(count_overlap(EMPTY, EMPTY)) == 1.0
    assert metric(count_overlap(FULL, EMPTY)) == 0.0
    assert metric(count_overlap(EMPTY, FULL)) == 0.0
    assert metric(count_overlap(FULL, FULL)) == 1.0


def test_what_is_no_pair_of_masks_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\(1, 2, 3\) and \(6,\)"):
        count_overlap(FULL, FULL.ravel())
    with pytest.raises(ValueError, match="uint8"):
        count_overlap(FULL.astype(np.uint8), FULL)
