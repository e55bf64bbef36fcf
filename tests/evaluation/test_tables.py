"""The table, CSV and JSON of metrics, with and without failures."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest

from femur3d.evaluation.tables import METRICS, FemurMetrics, format_table, measure, summarise, write_report
from femur3d.volume import Volume

GOOD = FemurMetrics("hip_01", "femur_left", 0.5, 0.25, 4.0, 1.5, 0.9, 0.8, 0.95, 0.85, 100.0, 90.0)
BETTER = FemurMetrics("hip_01", "femur_right", 0.25, 0.75, 2.0, 0.5, 1.0, 1.0, 1.0, 1.0, 110.0, 110.0)
FAILED = FemurMetrics("hip_02", "femur_left", *(math.inf,) * 4, 0.0, 0.0, 0.0, 0.0, 120.0, 0.0)


def test_measure_of_two_boxes_on_an_anisotropic_grid() -> None:
    reference, prediction = np.zeros((6, 6, 8), bool), np.zeros((6, 6, 8), bool)
    reference[1:5, 1:5, 1:5] = True
    prediction[1:5, 1:5, 2:7] = True
    grid = Volume(reference, (2.0, 1.0, 5.0))
    row = measure("case", "femur", grid, grid.with_array(prediction))
    assert (row.reference_ml, row.prediction_ml) == (pytest.approx(0.64), pytest.approx(0.8))
    assert row.dice == pytest.approx(2 * 48 / (64 + 80))
    assert row.jaccard == pytest.approx(48 / 96)
    assert row.precision == pytest.approx(48 / 80)
    assert row.recall == pytest.approx(48 / 64)
    assert row.hausdorff_mm == pytest.approx(4.0)
    assert not row.failed


def test_average_without_failure() -> None:
    lines = format_table([GOOD, BETTER]).splitlines()
    assert " ".join(lines[1].split()) == "Case Label Mean STD Hausdorff HD95 DICE Jaccard Precision Recall"
    assert " ".join(lines[3].split()) == "hip_01 femur_left 0.500 0.250 4.00 1.50 0.9000 0.8000 0.9500 0.8500"
    assert " ".join(lines[6].split()) == "Average 0.375 0.500 3.00 1.00 0.9500 0.9000 0.9750 0.9250"
    assert lines[7:] == ["Failures: 0 of 2"]


def test_a_failure_makes_the_average_infinite_and_is_counted() -> None:
    lines = format_table([GOOD, BETTER, FAILED]).splitlines()
    assert lines[5].split()[2:] == ["inf", "inf", "inf", "inf", "0.0000", "0.0000", "0.0000", "0.0000"]
    assert " ".join(lines[7].split()) == "Average inf inf inf inf 0.6333 0.6000 0.6500 0.6167"
    assert lines[8].split()[-8:] == ["0.375", "0.500", "3.00", "1.00", "0.9500", "0.9000", "0.9750", "0.9250"]
    assert lines[8].startswith("Average  of 2, without failures")
    assert lines[9].startswith("Failures: 1 of 3")


def test_only_failures_have_one_average() -> None:
    lines = format_table([FAILED]).splitlines()
    assert lines[-2].split()[:2] == ["Average", "inf"]
    assert lines[-1].startswith("Failures: 1 of 1")
    assert "mean_without_failures" not in summarise([FAILED])["dice"]


def test_columns_stand_below_each_other() -> None:
    lines = format_table([GOOD, BETTER, FAILED]).splitlines()[1:-1]
    assert len({len(line) for line in lines}) == 1


def test_summary_numbers() -> None:
    summary = summarise([GOOD, BETTER])
    assert set(summary) == set(METRICS)
    assert summary["mean_mm"] == {"mean": 0.375, "std": 0.125, "min": 0.25, "max": 0.5, "n": 2, "failures": 0}


def test_a_failure_makes_mean_std_and_max_infinite_never_nan() -> None:
    summary = summarise([GOOD, FAILED, FAILED])["mean_mm"]
    expected = {"mean": math.inf, "std": math.inf, "min": 0.5, "max": math.inf, "n": 3, "failures": 2}
    assert summary == {**expected, "mean_without_failures": 0.5}


def test_no_rows_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one row"):
        summarise([])


def test_written_files_can_be_read_back(tmp_path: Path) -> None:
    paths = write_report([GOOD, FAILED], tmp_path / "new")
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == sorted(path.name for path in paths)
    with paths[0].open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["case"] for row in rows] == ["hip_01", "hip_02"]
    assert float(rows[0]["hd95_mm"]) == 1.5
    assert rows[1]["hausdorff_mm"] == "inf"

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    summary = json.loads(paths[1].read_text(encoding="utf-8"), parse_constant=refuse)
    assert summary["hd95_mm"] == {
        "mean": "inf",
        "std": "inf",
        "min": 1.5,
        "max": "inf",
        "n": 2,
        "failures": 1,
        "mean_without_failures": 1.5,
    }
    assert summary["dice"]["mean"] == pytest.approx(0.45)
    assert paths[2].read_text(encoding="utf-8") == format_table([GOOD, FAILED]) + "\n"
