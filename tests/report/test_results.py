"""What is read again of a folder of results."""

from __future__ import annotations

import numpy as np
import pytest

from femur3d.errors import InputError
from femur3d.io.images import write_volume
from femur3d.report.results import Result, femur_masks, find_results, limits_of
from tests.support.result_folders import ellipsoids, flag, write_result


def test_results_are_found_with_their_scans_and_references(tmp_path):
    write_result(tmp_path / "out", "b")
    write_result(tmp_path / "out", "a")
    (tmp_path / "out" / "notes.json").write_text("{}")
    write_volume(ellipsoids(1), tmp_path / "truth" / "b.nii.gz")
    first, second = find_results(tmp_path / "out", references=tmp_path / "truth")
    assert (first.name, first.reference) == ("a", None)
    assert (second.name, second.reference) == ("b", tmp_path / "truth" / "b.nii.gz")
    labels = second.read_labels()
    assert second.read_scan(labels).array.shape == labels.array.shape


def test_label_maps_of_other_programs_are_results_too(tmp_path):
    write_volume(ellipsoids(1, 2), tmp_path / "x.nii.gz")
    assert [(result.name, result.summary) for result in find_results(tmp_path)] == [("x", {})]


def test_folders_that_hold_nothing_are_two_lines(tmp_path):
    for folder in (tmp_path, tmp_path / "none"):
        with pytest.raises(InputError, match="Expected"):
            find_results(folder)


def test_a_scan_that_was_moved_or_lies_on_another_grid_is_none(tmp_path):
    write_result(tmp_path / "out", "a", scan=False)
    result = find_results(tmp_path / "out")[0]
    assert result.read_scan(result.read_labels()) is None
    write_volume(ellipsoids(1), tmp_path / "images" / "a_0000.nii.gz")
    grid = result.read_labels()
    assert result.read_scan(grid) is not None
    assert result.read_scan(grid.with_array(grid.array.copy()[::1])) is not None
    assert result.read_scan(type(grid)(grid.array[1:], grid.spacing_mm)) is None


def test_volumes_of_old_files_are_named():
    assert Result("a", {"volumes_ml": {"1": 3.0, "2": 4}}, None).volumes_ml == {"left": 3.0, "right": 4.0}
    femur = {"options": {"labels": "femur"}, "volumes_ml": {"1": 7.0}}
    assert Result("a", femur, None).volumes_ml == {"femur": 7.0}


def test_flags_come_worst_first_and_no_femur_is_red():
    quality = {"x": flag("green"), "y": flag("red"), "z": flag("yellow"), "damaged": "green", "odd": flag("purple")}
    result = Result("a", {"quality": quality, "volumes_ml": {"left": 1.0}}, None)
    assert [one["name"] for one in result.flags] == ["y", "z", "x"]
    assert (result.level, result.suspicion) == ("red", 1.0)
    empty = Result("b", {"quality": {}, "volumes_ml": {}}, None)
    assert (empty.level, empty.suspicion) == ("red", 10.0)
    assert Result("c", {}, None).level == "unknown"


def test_what_has_other_types_in_a_summary_is_left_out():
    """`side_ratio` has a limit at hand, but no number."""
    import json

    from femur3d.report.results import MODELS

    digest = json.loads((MODELS / "hip_t1" / "config.json").read_text())["weights_sha256"]
    quality = {"side_ratio": {**flag("red"), "value": "abc"}, "smallest_volume_ml": {**flag("yellow"), "name": 3}}
    summary = {"model": {"weights_sha256": digest}, "quality": quality, "options": {"labels": []}, "volumes_ml": 3}
    result = Result("a", summary, None)
    assert result.flags == [{"name": "smallest_volume_ml", **flag("yellow")}]
    assert (result.labels, result.volumes_ml, result.suspicion > 0) == ("", {}, True)


def test_suspicion_is_graded_where_the_limits_are_at_hand():
    """One that is half-way between the median and the red limit of the shipped model."""
    import json

    from femur3d.report.results import MODELS

    digest = json.loads((MODELS / "hip_t1" / "config.json").read_text())["weights_sha256"]
    limit = limits_of(digest)["smallest_volume_ml"]
    quality = {"smallest_volume_ml": flag("green", (limit.median + limit.red) / 2)}
    summary = {"model": {"weights_sha256": digest}, "quality": quality}
    assert Result("a", summary, None).suspicion == pytest.approx(0.5)


def test_two_femurs_of_one_label_are_told_apart_by_their_place():
    both = ellipsoids(1, 2)
    one = both.with_array((both.array > 0).astype(np.uint8))
    wide = type(one)(one.array, (5.0, 4.0, 3.0), one.origin_mm)  # 150 mm apart
    masks = femur_masks(wide, "femur")
    np.testing.assert_array_equal(masks["left"], both.array == 1)
    np.testing.assert_array_equal(masks["right"], both.array == 2)
    assert list(femur_masks(ellipsoids(1), "femur")) == ["femur"]
    assert list(femur_masks(ellipsoids(2), "sides")) == ["right"]
    assert femur_masks(both.with_array(both.array * 0), "femur") == {}
