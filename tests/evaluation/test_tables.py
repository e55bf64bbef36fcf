"""The table, CSV and JSON of metrics, with and without failures."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from femur3d.evaluation.metrics import METRICS
from femur3d.evaluation.summary import summarise, volume_agreement
from femur3d.evaluation.tables import format_table, write_report
from tests.support.femur_metrics import BETTER, FAILED, GOOD, NOT_APPLICABLE


def test_average_without_failure() -> None:
    lines = format_table([GOOD, BETTER]).splitlines()
    assert " ".join(lines[1].split()) == "Case Label Mean STD Hausdorff HD95 DICE Jaccard Precision Recall"
    assert " ".join(lines[3].split()) == "hip_01 femur_left 0.500 0.250 4.00 1.50 0.9000 0.8000 0.9500 0.8500"
    assert " ".join(lines[6].split()) == "Average 0.375 0.500 3.00 1.00 0.9500 0.9000 0.9750 0.9250"
    assert " ".join(lines[7].split()) == "Average femur_left 0.500 0.250 4.00 1.50 0.9000 0.8000 0.9500 0.8500"
    assert " ".join(lines[8].split()) == "Average femur_right 0.250 0.750 2.00 0.50 1.0000 1.0000 1.0000 1.0000"
    assert lines[9] == "Failures: 0 of 2"
    assert "0.300 mm" in lines[10]  # (0.4 + 0.2) / 2 over vertices
    assert lines[11] == "Volume error: bias -5.0 ml (-5.0%), 95% limits of agreement -18.9 to 8.9 ml"
    assert len(lines) == 12


def test_row_that_does_not_apply_is_in_no_average() -> None:
    lines = format_table([GOOD, NOT_APPLICABLE, BETTER]).splitlines()
    assert lines[4].split() == ["hip_03", "femur", *"--------"]
    assert lines[7].split() == format_table([GOOD, BETTER]).splitlines()[6].split()
    assert lines[10] == "Failures: 0 of 2"
    assert lines[11] == "Not applicable: 1 (reference and prediction empty), in no average"
    assert {len(line) for line in lines[1:10]} == {len(lines[1])}


def test_table_without_any_row_that_applies() -> None:
    lines = format_table([NOT_APPLICABLE]).splitlines()
    assert lines[5].split() == ["Average", *"--------"]
    assert lines[6:8] == ["Failures: 0 of 0", "Not applicable: 1 (reference and prediction empty), in no average"]
    assert "nan" not in "".join(lines)


def test_a_failure_makes_the_average_infinite_and_is_counted() -> None:
    lines = format_table([GOOD, BETTER, FAILED]).splitlines()
    assert lines[5].split()[2:] == ["inf", "inf", "inf", "inf", "0.0000", "0.0000", "0.0000", "0.0000"]
    assert " ".join(lines[7].split()) == "Average inf inf inf inf 0.6333 0.6000 0.6500 0.6167"
    assert lines[8].split()[-8:] == ["0.375", "0.500", "3.00", "1.00", "0.9500", "0.9000", "0.9750", "0.9250"]
    assert lines[8].startswith("Average  of 2, without failures")
    assert lines[11].startswith("Failures: 1 of 3")


def test_only_failures_have_one_average() -> None:
    lines = format_table([FAILED]).splitlines()
    assert lines[-4].split()[:2] == ["Average", "inf"]
    assert lines[-3].startswith("Failures: 1 of 1")
    assert lines[-1] == "Volume error: bias -120.0 ml (-100.0%)"
    assert "mean_without_failures" not in summarise([FAILED])["dice"]


def test_columns_stand_below_each_other() -> None:
    lines = format_table([GOOD, BETTER, FAILED, NOT_APPLICABLE]).splitlines()[1:-4]
    assert len({len(line) for line in lines}) == 1


def refuse(constant: str) -> None:
    raise AssertionError(f"{constant} is no JSON")


def test_written_files_can_be_read_back(tmp_path: Path) -> None:
    rows = [GOOD, FAILED, NOT_APPLICABLE]
    paths = write_report(rows, tmp_path / "new", {"command": "python -m x", "cases": ["hip_01"]})
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == sorted(path.name for path in paths)
    with paths[0].open(newline="", encoding="utf-8") as file:
        found = list(csv.DictReader(file))
    assert list(found[0]) == ["case", "label", *METRICS]
    assert [row["case"] for row in found] == ["hip_01", "hip_02", "hip_03"]
    assert {name: float(found[0][name]) for name in ("hd95_mm", "vertex_mean_mm", "volume_error_ml")} == {
        "hd95_mm": 1.5,
        "vertex_mean_mm": 0.4,
        "volume_error_ml": -10.0,
    }
    assert (found[1]["hausdorff_mm"], found[1]["volume_error_percent"]) == ("inf", "-100.0")
    assert [found[2][name] for name in ("mean_mm", "dice", "reference_ml", "volume_error_percent")] == [
        "",
        "",
        "0.0",
        "",
    ]
    summary = json.loads(paths[1].read_text(encoding="utf-8"), parse_constant=refuse)
    assert summary["hd95_mm"] == {
        "mean": "inf",
        "std": "inf",
        "min": 1.5,
        "max": "inf",
        "n": 2,
        "failures": 1,
        "not_applicable": 1,
        "mean_without_failures": 1.5,
    }
    assert summary["dice"]["mean"] == pytest.approx(0.45)
    assert (summary["command"], summary["cases"]) == ("python -m x", ["hip_01"])
    assert summary["volume_agreement"] == volume_agreement(rows)
    assert summary["labels"]["femur_left"]["dice"] == summarise([GOOD, FAILED])["dice"]
    assert summary["labels"]["femur"]["dice"]["mean"] is None
    assert paths[2].read_text(encoding="utf-8") == format_table(rows) + "\n"
