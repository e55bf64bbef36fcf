"""Which files belong together, and which voxels to which femur."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from femur3d.errors import InputError
from femur3d.evaluation.cases import (
    find_cases,
    label_names,
    load_labels,
    load_pair,
    load_prediction,
    roles_beside,
    split_femurs,
)
from femur3d.volume import Volume
from tests.support.label_boxes import BOTH, LEFT, RIGHT, SPECK, label_volume, write


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
    assert label_names(roles_beside(references)) == {}
    description = tmp_path / "dataset.json"
    description.write_text('{"labels": {"background": 0, "hip_l": 1, "hip_r": 2, "both": [1, 2]}}')
    assert label_names(roles_beside(references)) == {1: "hip_l", 2: "hip_r"}
    for broken in ("{", "[]", "{}", '{"labels": [1]}', "[" * 100_000, f'{{"labels": {"1" * 5000}}}'):
        description.write_text(broken)
        with pytest.raises(InputError, match=r"dataset\.json: (cannot be read|not JSON).*\n."):
            roles_beside(references)


def test_a_missing_prediction_is_all_background(tmp_path: Path) -> None:
    write(tmp_path / "labelsTr" / "a.nii.gz", BOTH)
    write(tmp_path / "labelsTr" / "b.nii.gz", BOTH)
    write(tmp_path / "predictions" / "a.nii.gz", BOTH)
    case = find_cases(tmp_path / "labelsTr", tmp_path / "predictions")[1]
    reference = load_labels(case.reference)
    prediction = load_prediction(case, reference)
    assert reference.array.any()
    assert not prediction.array.any()


NAMED = '{"labels": {"background": 0, "femur_right": 1, "acetabulum": 2, "femur_left": 3, "ignore": 4}}'


@pytest.mark.parametrize("is_own", [True, False])
def test_labels_mean_what_the_dataset_calls_them(tmp_path: Path, is_own: bool) -> None:
    """The speck is acetabulum, half of the left femur is ignored, and right comes before left."""
    array = np.zeros(BOTH.array.shape, np.uint8)
    array[RIGHT], array[SPECK], array[LEFT] = 1, 2, 3
    array[:, :, LEFT[2]][:3][array[:, :, LEFT[2]][:3] == 3] = 4
    write(tmp_path / "labelsTr" / "a.nii.gz", BOTH.with_array(array))
    (tmp_path / "dataset.json").write_text(NAMED)
    predicted = label_volume(l1=[LEFT], l2=[RIGHT]) if is_own else label_volume(l3=[LEFT], l1=[RIGHT], l2=[SPECK])
    write(tmp_path / "predictions" / "a.nii.gz", predicted)
    (case,) = find_cases(tmp_path / "labelsTr", tmp_path / "predictions")
    roles = roles_beside(case.reference.parent)
    assert label_names(roles) == {1: "femur_left", 2: "femur_right"}
    reference, prediction, problem = load_pair(case, roles, is_own)
    assert problem is None
    assert set(np.unique(reference.array[array != 2])) == {0, 1, 2}
    np.testing.assert_array_equal(reference.array, prediction.array)
    assert np.count_nonzero(reference.array == 2) == np.count_nonzero(array == 1)
    assert np.count_nonzero(reference.array == 1) == np.count_nonzero(array == 3) < np.count_nonzero(array >= 3)


def test_what_a_prediction_ignores_is_no_femur_of_it(tmp_path: Path) -> None:
    """Another reader's labels: the right femur is drawn as left, and the speck is left open."""
    (tmp_path / "dataset.json").write_text('{"labels": {"background": 0, "left": 1, "right": 2, "ignore": 4}}')
    write(tmp_path / "labelsTr" / "a.nii.gz", BOTH)
    array = label_volume(l1=[LEFT, RIGHT]).array
    array[SPECK] = 4
    write(tmp_path / "predictions" / "a.nii.gz", BOTH.with_array(array))
    (case,) = find_cases(tmp_path / "labelsTr", tmp_path / "predictions")
    reference, prediction, _ = load_pair(case, roles_beside(case.reference.parent), is_own=False)
    assert set(np.unique(prediction.array)) == {0, 1}
    assert np.array_equal(split_femurs(reference, prediction).array, BOTH.array)


def test_a_value_that_the_dataset_does_not_name(tmp_path: Path) -> None:
    path = write(tmp_path / "labelsTr" / "a.nii.gz", label_volume(l1=[LEFT], l2=[RIGHT]))
    (tmp_path / "dataset.json").write_text('{"labels": {"background": 0, "femur": 1}}')
    with pytest.raises(InputError, match=r"unknown label values \[2\]\.\nExpected 0 background, 1 femur\."):
        load_labels(path, roles_beside(path.parent))
