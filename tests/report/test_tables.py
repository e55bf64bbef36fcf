"""femurs.csv and metrics.csv as other programs read them."""

from __future__ import annotations

import csv

import numpy as np
import pytest

from femur3d.errors import UsageError
from femur3d.evaluation.metrics import measure_case
from femur3d.export.femur_measures import write_femurs
from femur3d.report.results import find_results
from femur3d.report.tables import place_and_size, write_tables
from femur3d.volume import Volume
from tests.support.result_folders import MEASURED, ellipsoids, flag, write_result


def read(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_place_and_size_of_a_box():
    """2 × 3 × 4 voxels (z, y, x) of 6 mm³ from index (1, 1, 1)."""
    array = np.zeros((5, 6, 7), bool)
    array[1:3, 1:4, 1:5] = True
    found = place_and_size(Volume(array, (1.0, 2.0, 3.0), (10.0, 0.0, 0.0)))
    assert found == {
        "volume_ml": 0.144,
        "centroid_x_mm": 12.5,
        "centroid_y_mm": 4.0,
        "centroid_z_mm": 4.5,
        "extent_x_mm": 4.0,
        "extent_y_mm": 6.0,
        "extent_z_mm": 6.0,
    }


def test_a_row_for_each_femur(tmp_path):
    summary = write_result(
        tmp_path / "out", "a", quality={"side_ratio": flag("yellow"), "fragments": flag("red"), "x": flag("green")},
        morphometry={"left": MEASURED},
    )  # fmt: skip
    write_result(tmp_path / "out", "empty", ellipsoids(), volumes_ml={}, quality={})
    write_tables(find_results(tmp_path / "out"), [], tmp_path / "out")
    left, right, none = read(tmp_path / "out" / "femurs.csv")
    assert [(row["case"], row["side"]) for row in (left, right, none)] == [("a", "left"), ("a", "right"), ("empty", "")]
    assert float(left["volume_ml"]) == summary["volumes_ml"]["left"]
    assert (left["centroid_x_mm"], right["centroid_x_mm"]) == ("30.0", "-30.0")  # −60 + 2 · 45 and −60 + 2 · 15
    assert (left["extent_x_mm"], left["extent_y_mm"], left["extent_z_mm"]) == ("38.0", "36.0", "51.0")
    assert (left["level"], left["flags"], left["model"], left["seconds"]) == (
        "red",
        "fragments;side_ratio",
        "threshold",
        "1.25",
    )
    assert (left["head_radius_mm"], left["head_radius_mm_gate"], right["head_radius_mm"]) == ("23.25", "with care", "")
    assert (left["alpha_max_deg"], left["alpha_max_deg_gate"]) == ("", "not measurable")
    assert (none["volume_ml"], none["flags"]) == ("", "no_femur")


def test_tidy_metrics_have_one_value_a_row(tmp_path):
    write_result(tmp_path / "out", "a")
    rows = measure_case("a", ellipsoids(1, 2), ellipsoids(1))
    write_tables(find_results(tmp_path / "out"), rows, tmp_path / "out")
    table = read(tmp_path / "out" / "metrics.csv")
    tidy = {(row["side"], row["metric"]): (row["value"], row["level"]) for row in table}
    assert tidy["", "fragments"] == ("0.0", "green")
    assert tidy["left", "dice"] == ("1.0", "")
    assert tidy["right", "dice"] == ("0.0", "")
    assert tidy["right", "mean_mm"] == ("inf", "")
    assert float(tidy["left", "volume_ml"][0]) == pytest.approx(float(tidy["left", "reference_ml"][0]), abs=1e-3)


def test_the_table_of_infer_gets_its_other_columns(tmp_path):
    write_result(tmp_path / "out", "a", morphometry={"left": MEASURED})
    write_femurs(tmp_path / "out", [tmp_path / "out" / "a.json"])
    (short,) = read(tmp_path / "out" / "femurs.csv")
    write_tables(find_results(tmp_path / "out"), [], tmp_path / "out")
    left, _ = read(tmp_path / "out" / "femurs.csv")
    assert short.items() <= left.items()
    assert float(left["volume_ml"]) > 0


def test_what_other_versions_and_programs_measured_otherwise_has_fewer_columns(tmp_path):
    centre = {"value": [1, 2, 3], "error": 1, "level": "measurable", "reason": ""}
    shapes = {"left": {"head_centre_mm": centre, "head_radius_mm": 24.0, "cam": None}, "right": "see paper"}
    write_result(tmp_path / "out", "a", morphometry=shapes)
    write_femurs(tmp_path / "out", [tmp_path / "out" / "a.json"])
    (row,) = read(tmp_path / "out" / "femurs.csv")
    assert (row.pop("side"), row["head_centre_z_mm"], row["head_centre_gate"]) == ("left", "3", "measurable")
    assert len(row) == 7  # the case, and six of the centre
    write_tables(find_results(tmp_path / "out"), [], tmp_path / "out")
    left, right = read(tmp_path / "out" / "femurs.csv")
    assert row.items() <= left.items()
    assert right["head_centre_z_mm"] == ""
    write_result(tmp_path / "out", "a", morphometry=["left"])
    assert write_femurs(tmp_path / "out", [tmp_path / "out" / "a.json"]) is None


def test_the_table_of_evaluate_is_not_replaced(tmp_path):
    write_result(tmp_path / "out", "a")
    other = tmp_path / "out" / "metrics.csv"
    other.write_text("case,label,mean_mm\n")
    with pytest.raises(UsageError, match="another table"):
        write_tables(find_results(tmp_path / "out"), [], tmp_path / "out")
    assert other.read_text() == "case,label,mean_mm\n"
    assert not (tmp_path / "out" / "femurs.csv").exists()


def test_no_path_of_a_scan_gets_into_the_tables(tmp_path):
    write_result(tmp_path / "out", "a", input="/data/Doe^Jane/scan.nii.gz")
    paths = write_tables(find_results(tmp_path / "out"), [], tmp_path / "out")
    assert all("Doe" not in path.read_text() for path in paths)
