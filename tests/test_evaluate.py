"""Pairing of files, splitting of femurs, and the command line end to end on tiny files."""

from __future__ import annotations

import csv
import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from femur3d.errors import InputError
from femur3d.evaluation.cases import find_cases, label_names, load_labels, load_prediction, measure_case, split_femurs
from femur3d.volume import Volume

SHAPE = (6, 8, 30)
LEFT, RIGHT = (slice(1, 5), slice(2, 6), slice(20, 25)), (slice(1, 5), slice(2, 6), slice(4, 9))  # +x is left
SPECK = (slice(2, 3), slice(2, 3), slice(11, 12))  # nearer to the right femur, and touching neither


def label_volume(**boxes_of_labels) -> Volume:
    """A label map with boxes: label_volume(l1=[LEFT], l2=[RIGHT])."""
    array = np.zeros(SHAPE, np.uint8)
    for name, boxes in boxes_of_labels.items():
        for box in boxes:
            array[box] = int(name[1:])
    return Volume(array, (1.0, 1.0, 2.0))


def write(path: Path, volume: Volume, spacing_mm=(1.0, 1.0, 2.0)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = sitk.GetImageFromArray(volume.array)
    image.SetSpacing(spacing_mm)
    sitk.WriteImage(image, str(path))
    return path


def evaluate(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "femur3d.evaluate", "--predictions", str(folder / "predictions")]
    command += ["--references", str(folder / "labelsTr"), "-o", str(folder / "out"), *arguments]
    return subprocess.run(command, capture_output=True, encoding="utf-8", check=False)


BOTH = label_volume(l1=[LEFT], l2=[RIGHT])


def test_split_gives_components_to_the_femur_they_overlap_or_are_nearest_to() -> None:
    split = split_femurs(BOTH, label_volume(l1=[LEFT, RIGHT, SPECK]))
    assert np.array_equal(split.array, label_volume(l1=[LEFT], l2=[RIGHT, SPECK]).array)


def test_nearest_is_measured_in_millimetres() -> None:
    """In voxels the speck is nearer to label 1 (3 along z against 4 along x), in mm to label 2 (15 against 4)."""
    reference, prediction = np.zeros((2, 8, 1, 8), np.uint8)
    reference[7, 0, 6], reference[4, 0, 2], prediction[4, 0, 6] = 1, 2, 7
    for spacing, expected in (((1.0, 1.0, 5.0), 2), ((1.0, 1.0, 1.0), 1)):
        split = split_femurs(Volume(reference, spacing), Volume(prediction, spacing))
        assert split.array[4, 0, 6] == expected
        assert split.array.sum() == expected


def test_a_component_over_both_femurs_goes_where_it_overlaps_most() -> None:
    for first, last, expected in ((6, 25, 1), (4, 23, 2)):
        bridge = (slice(1, 5), slice(2, 6), slice(first, last))
        assert set(np.unique(split_femurs(BOTH, label_volume(l1=[bridge])).array)) == {0, expected}


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
    assert (row.label, row.dice, row.mean_mm, row.failed) == ("femur", 1.0, math.inf, True)
    assert [row.dice for row in measure_case("hip", BOTH, empty)] == [0.0, 0.0]
    (row,) = measure_case("hip", empty, label_volume(l1=[LEFT]))
    assert (row.dice, row.hausdorff_mm, row.reference_ml) == (0.0, math.inf, 0.0)


def test_files_are_matched_by_case_name(tmp_path: Path) -> None:
    references, predictions, images = tmp_path / "labelsTr", tmp_path / "predictions", tmp_path / "imagesTr"
    for path in (references / "a.nii.gz", references / "b.nrrd", predictions / "a_0000.mha", images / "b_0000.nii"):
        write(path, BOTH)
    (references / ".writing-c.nii.gz").touch()
    (predictions / "a.json").touch()
    a, b = find_cases(references, predictions, images)
    assert (a.name, a.reference.name, a.image) == ("a", "a.nii.gz", None)
    assert a.prediction == predictions / "a_0000.mha"
    assert (b.name, b.prediction, b.image) == ("b", None, images / "b_0000.nii")


def test_folders_that_cannot_be_paired_are_refused(tmp_path: Path) -> None:
    references, predictions = tmp_path / "labelsTr", tmp_path / "predictions"
    write(references / "a.nii.gz", BOTH)
    with pytest.raises(InputError, match="no such folder"):
        find_cases(references, predictions)
    predictions.mkdir()
    with pytest.raises(InputError, match="no scans"):
        find_cases(references, predictions)
    write(predictions / "c.nii.gz", BOTH)
    with pytest.raises(InputError, match=r"with c\.\nExpected .*: a\."):
        find_cases(references, predictions)
    write(references / "a.mha", BOTH)
    with pytest.raises(InputError, match=r"a\.mha and a\.nii\.gz"):
        find_cases(references, predictions)


def test_unknown_labels_are_named(tmp_path: Path) -> None:
    path = write(tmp_path / "a.nii.gz", label_volume(l1=[LEFT], l3=[RIGHT]))
    with pytest.raises(InputError, match=r"a\.nii\.gz: unknown label values \[3\]\.\nExpected 0"):
        load_labels(path)


def test_label_names_come_from_the_dataset(tmp_path: Path) -> None:
    references = tmp_path / "labelsTr"
    references.mkdir()
    assert label_names(references) == {}
    description = tmp_path / "dataset.json"
    description.write_text('{"labels": {"background": 0, "hip_l": 1, "hip_r": 2, "both": [1, 2]}}')
    assert label_names(references) == {1: "hip_l", 2: "hip_r"}
    for broken in ("{", "[]", "{}", '{"labels": [1]}'):
        description.write_text(broken)
        with pytest.raises(InputError, match=r"dataset\.json: cannot be read"):
            label_names(references)


def test_a_missing_prediction_is_all_background(tmp_path: Path) -> None:
    write(tmp_path / "labelsTr" / "a.nii.gz", BOTH)
    write(tmp_path / "labelsTr" / "b.nii.gz", BOTH)
    write(tmp_path / "predictions" / "a.nii.gz", BOTH)
    case = find_cases(tmp_path / "labelsTr", tmp_path / "predictions")[1]
    reference = load_labels(case.reference)
    prediction = load_prediction(case, reference)
    assert reference.array.any()
    assert not prediction.array.any()


def test_command_line_with_pictures_and_a_missing_prediction(tmp_path: Path) -> None:
    for name in ("a", "b", "empty"):
        write(tmp_path / "labelsTr" / f"{name}.nii.gz", label_volume() if name == "empty" else BOTH)
    write(tmp_path / "predictions" / "a.mha", label_volume(l1=[LEFT, RIGHT]))
    write(tmp_path / "predictions" / "empty.nii", label_volume())
    write(tmp_path / "imagesTr" / "a_0000.nii.gz", BOTH)
    (tmp_path / "dataset.json").write_text('{"labels": {"background": 0, "hip_l": 1, "hip_r": 2}}')
    ended = evaluate(tmp_path, "--images", str(tmp_path / "imagesTr"))
    assert ended.returncode == 4, ended.stderr
    assert "no prediction: b\n" in ended.stderr
    assert "no image: b, empty\n" in ended.stderr
    assert "Failures: 3 of 5" in ended.stdout
    out = tmp_path / "out"
    assert sorted(path.name for path in out.iterdir()) == ["a.png", "metrics.csv", "summary.json", "table.txt"]
    with (out / "metrics.csv").open(newline="") as file:
        rows = [(row["case"], row["label"], row["dice"], row["mean_mm"]) for row in csv.DictReader(file)]
    assert [row[:3] for row in rows[:2]] == [("a", "hip_l", "1.0"), ("a", "hip_r", "1.0")]
    assert rows[2:4] == [("b", "hip_l", "0.0", "inf"), ("b", "hip_r", "0.0", "inf")]
    assert rows[4] == ("empty", "hip_l", "1.0", "inf")
    assert json.loads((out / "summary.json").read_text())["mean_mm"]["failures"] == 3
    assert str(out / "summary.json") in ended.stdout


def test_command_line_counts_a_bad_prediction_as_a_failure(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        write(tmp_path / "labelsTr" / f"{name}.nii.gz", BOTH)
    write(tmp_path / "predictions" / "a.nii.gz", BOTH)
    write(tmp_path / "predictions" / "b.nii.gz", BOTH, spacing_mm=(1.0, 1.0, 3.0))
    (tmp_path / "predictions" / "c.nii.gz").write_bytes(b"")
    ended = evaluate(tmp_path)
    assert ended.returncode == 4, ended.stderr
    assert "Failures: 4 of 6" in ended.stdout
    assert "b.nii.gz" in ended.stderr
    assert "c.nii.gz" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_command_line_evaluates_one_part_of_the_split(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write(tmp_path / "imagesTr" / f"{name}_0000.nii.gz", BOTH)
        write(tmp_path / "labelsTr" / f"{name}.nii.gz", BOTH)
    write(tmp_path / "predictions" / "b.nii.gz", BOTH)
    (tmp_path / "splits_final.json").write_text('[{"train": ["a"], "val": ["b"]}]')
    ended = evaluate(tmp_path, "--split", "val")
    assert ended.returncode == 0, ended.stderr
    assert "Failures: 0 of 2" in ended.stdout
    (tmp_path / "splits_final.json").unlink()
    ended = evaluate(tmp_path, "--split", "val")
    assert ended.returncode == 2
    assert "splits_final.json" in ended.stderr


def test_command_line_refuses_another_geometry_in_two_lines(tmp_path: Path) -> None:
    write(tmp_path / "labelsTr" / "a.nii.gz", BOTH)
    write(tmp_path / "predictions" / "a.nii.gz", BOTH, spacing_mm=(1.0, 1.0, 3.0))
    ended = evaluate(tmp_path)
    assert (ended.returncode, ended.stdout) == (3, "")
    first, _second = ended.stderr.splitlines()
    assert str(tmp_path / "predictions" / "a.nii.gz") in first
    assert "[1.0, 1.0, 3.0] against [1.0, 1.0, 2.0]" in first
    assert not (tmp_path / "out").exists()
    assert evaluate(tmp_path, "--labels", "knees").returncode == 2
