"""Dataset folders: the cases, labels and split that they name, and every mistake found before training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from femur3d.data.nnunet_dataset import Split, channels_left_out, find_cases, load_case, read_labels, read_split
from femur3d.data.packing import describe_packing
from femur3d.errors import InputError
from femur3d.io.images import write_volume
from femur3d.volume import Volume

LABELS = {"background": 0, "femur_left": 1, "femur_right": 2}
SPACING = (0.9, 1.1, 5.2)


def scan(dtype: str = "int16", value: float = 7) -> Volume:
    return Volume(np.full((3, 4, 5), value, dtype), SPACING, (1.0, 2.0, 3.0))


def label_map(dtype: str = "uint8") -> Volume:
    """Voxel (0, 0, 0) is the left femur, (2, 3, 4) the right one."""
    array = np.zeros((3, 4, 5), dtype)
    array[0, 0, 0], array[2, 3, 4] = 1, 2
    return Volume(array, SPACING, (1.0, 2.0, 3.0))


def make_dataset(folder: Path, *names: str, splits: Any = None) -> Path:
    for name in names or ("hip_1", "hip_2", "hip_3"):
        write_volume(scan(), folder / "imagesTr" / f"{name}_0000.nii.gz")
        write_volume(label_map(), folder / "labelsTr" / f"{name}.nii.gz")
    (folder / "dataset.json").write_text(json.dumps({"name": "hips", "labels": LABELS}))
    if splits is not None:
        (folder / "splits_final.json").write_text(json.dumps(splits))
    return folder


def check_message(caught: pytest.ExceptionInfo[InputError], *words: str) -> None:
    message = str(caught.value)
    assert len(message.splitlines()) == 2
    for word in words:
        assert word in message


def test_cases_are_found_and_sorted(tmp_path: Path) -> None:
    make_dataset(tmp_path, "b", "a")
    (tmp_path / "imagesTr" / "._a_0000.nii.gz").write_bytes(b"left by a Mac")
    (tmp_path / "imagesTr" / "notes.txt").write_text("not a scan")
    cases = find_cases(tmp_path)
    assert [case.name for case in cases] == ["a", "b"]
    assert cases[0].image == tmp_path / "imagesTr" / "a_0000.nii.gz"
    assert cases[0].label == tmp_path / "labelsTr" / "a.nii.gz"


def test_channel_suffix_and_extension_are_free(tmp_path: Path) -> None:
    write_volume(scan(), tmp_path / "imagesTr" / "a.nrrd")
    write_volume(label_map(), tmp_path / "labelsTr" / "a.mha")
    write_volume(scan(), tmp_path / "imagesTr" / "b_0000.nii")
    write_volume(label_map(), tmp_path / "labelsTr" / "b.nii.gz")
    assert [(case.name, case.image.name, case.label.name) for case in find_cases(tmp_path)] == [
        ("a", "a.nrrd", "a.mha"),
        ("b", "b_0000.nii", "b.nii.gz"),
    ]


def test_cases_may_be_numbered_in_nnunets_way(tmp_path: Path) -> None:
    """hip_0000 is a case here, not channel 0 of 'hip': its label map says so."""
    for name in ("hip_0000", "hip_0001"):
        write_volume(scan(), tmp_path / "imagesTr" / f"{name}.nii.gz")
        write_volume(label_map(), tmp_path / "labelsTr" / f"{name}.nii.gz")
    assert [case.name for case in find_cases(tmp_path)] == ["hip_0000", "hip_0001"]


@pytest.mark.parametrize("key", ["channel_names", "modality", ""])
def test_one_channel_of_several_is_learnt_and_said(tmp_path: Path, key: str) -> None:
    make_dataset(tmp_path, "a", "b")
    for name in ("a_0001", "a_0002", "b_0002"):
        write_volume(scan(), tmp_path / "imagesTr" / f"{name}.nii.gz")
    channels = {key: {"0": "T1", "1": "T2"}} if key else {}
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": LABELS, **channels}))
    assert [case.image.name for case in find_cases(tmp_path)] == ["a_0000.nii.gz", "b_0000.nii.gz"]
    assert channels_left_out(tmp_path) == (["_0001 (T2)", "_0002"] if key else ["_0001", "_0002"])
    said = "; channel _0000 is learnt, not _0001" + (" (T2)" if key else "") + ", _0002"
    assert describe_packing(tmp_path).endswith(said)


@pytest.mark.parametrize("name", ["imagesTr", "labelsTr"])
def test_missing_and_empty_folders(tmp_path: Path, name: str) -> None:
    make_dataset(tmp_path, "a")
    for path in (tmp_path / name).iterdir():
        path.unlink()
    with pytest.raises(InputError) as caught:
        find_cases(tmp_path)
    check_message(caught, str(tmp_path / name), "no scan")
    (tmp_path / name).rmdir()
    with pytest.raises(InputError) as caught:
        find_cases(tmp_path)
    check_message(caught, str(tmp_path), f"no folder {name}")


def test_scan_without_label_map_and_the_reverse(tmp_path: Path) -> None:
    make_dataset(tmp_path, "a", "b")
    (tmp_path / "labelsTr" / "b.nii.gz").unlink()
    with pytest.raises(InputError) as caught:
        find_cases(tmp_path)
    check_message(caught, "case b:", "b_0000.nii.gz has no label map", str(tmp_path / "labelsTr" / "b.nii.gz"))
    (tmp_path / "imagesTr" / "b_0000.nii.gz").unlink()
    write_volume(label_map(), tmp_path / "labelsTr" / "c.nii.gz")
    with pytest.raises(InputError) as caught:
        find_cases(tmp_path)
    check_message(caught, "case c:", "has no scan", str(tmp_path / "imagesTr" / "c_0000.nii.gz"))


def test_two_files_for_one_case(tmp_path: Path) -> None:
    make_dataset(tmp_path, "a")
    write_volume(scan(), tmp_path / "imagesTr" / "a.nrrd")
    with pytest.raises(InputError) as caught:
        find_cases(tmp_path)
    check_message(caught, "case a appears twice", "a.nrrd", "a_0000.nii.gz")


def test_labels(tmp_path: Path) -> None:
    assert read_labels(make_dataset(tmp_path)) == LABELS


@pytest.mark.parametrize(
    "content",
    [
        [],
        {},
        {"labels": ["background", "femur"]},
        {"labels": {"0": "background", "1": "femur"}},  # nnU-Net's first version
        {"labels": {"background": 0, "femur": "1"}},
        {"labels": {"background": 0, "femur": True}},
        {"labels": {"background": 0, "femur": [1, 2]}},
        {"labels": {"background": 0, "femur": 256}},
        {"labels": {"background": 0, "femur": -1}},
        {"labels": {"background": 0, "left": 1, "right": 1}},
        {"labels": {"background": 1, "femur": 2}},
        {"labels": {"femur": 1, "other": 2}},
        {"labels": {"background": 0}},
    ],
)
def test_labels_of_the_wrong_form(tmp_path: Path, content: Any) -> None:
    make_dataset(tmp_path, "a")
    (tmp_path / "dataset.json").write_text(json.dumps(content))
    with pytest.raises(InputError) as caught:
        read_labels(tmp_path)
    check_message(caught, str(tmp_path / "dataset.json"), "'labels' is", '"background": 0')


def test_json_that_is_missing_or_broken(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        read_labels(tmp_path)
    check_message(caught, str(tmp_path / "dataset.json"), "no such file")
    (tmp_path / "dataset.json").write_text('{"labels": {\n  "background": 0,,')
    with pytest.raises(InputError) as caught:
        read_labels(tmp_path)
    check_message(caught, str(tmp_path / "dataset.json"), "not JSON", "line 2, column 19")
    (tmp_path / "dataset.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError) as caught:
        read_labels(tmp_path)
    check_message(caught, str(tmp_path / "dataset.json"), "UTF-8")


def test_json_with_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": LABELS}), encoding="utf-8-sig")
    assert read_labels(tmp_path) == LABELS


def test_split(tmp_path: Path) -> None:
    folds = [{"train": ["hip_2", "hip_1"], "val": ["hip_3"]}, {"train": ["hip_3"], "val": []}]
    make_dataset(tmp_path, splits=folds)
    assert read_split(tmp_path) == Split(train=["hip_2", "hip_1"], val=["hip_3"])
    assert read_split(tmp_path, fold=1) == Split(train=["hip_3"], val=[])
    for fold in (-1, 2):
        with pytest.raises(InputError) as caught:
            read_split(tmp_path, fold=fold)
        check_message(caught, str(tmp_path / "splits_final.json"), f"no fold {fold}", "from 0 to 1")


def test_without_a_splits_file_all_cases_train(tmp_path: Path) -> None:
    assert read_split(make_dataset(tmp_path)) == Split(train=["hip_1", "hip_2", "hip_3"], val=[])


@pytest.mark.parametrize(
    ("splits", "words"),
    [
        ([{"train": ["hip_1", "hip_9"], "val": []}], ("unknown case hip_9", "hip_1, hip_2, hip_3")),
        ([{"train": ["hip_1", "hip_2"], "val": ["hip_2"]}], ("hip_2 is in train and in val",)),
        ([{"train": ["hip_1", "hip_1"], "val": []}], ("hip_1 is listed twice",)),
        ([{"train": [], "val": ["hip_1"]}], ("no case to train on",)),
        ([], ("[] where a split should be",)),
        ({"train": ["hip_1"], "val": []}, ("where a split should be", '"train"')),
        ([["hip_1"]], ('["hip_1"] where a split should be',)),
        ([{"train": ["hip_1"]}], ("where a split should be",)),
        ([{"train": "hip_1", "val": []}], ("where a split should be",)),
        ([{"train": [1], "val": []}], ("where a split should be",)),
    ],
)
def test_wrong_splits(tmp_path: Path, splits: Any, words: tuple[str, ...]) -> None:
    make_dataset(tmp_path, splits=splits)
    with pytest.raises(InputError) as caught:
        read_split(tmp_path)
    check_message(caught, str(tmp_path / "splits_final.json"), *words)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "float32", "float64"])
def test_case_is_loaded_with_labels_as_uint8(tmp_path: Path, dtype: str) -> None:
    (case,) = find_cases(make_dataset(tmp_path, "a"))
    write_volume(label_map(dtype), case.label)
    image, label = load_case(case, LABELS)
    np.testing.assert_array_equal(image.array, scan().array)
    assert image.array.dtype == np.int16
    assert label.array.dtype == np.uint8
    np.testing.assert_array_equal(label.array, label_map().array)
    assert label.geometry_difference(image) is None


def load_changed(folder: Path, *, image: Volume | None = None, label: Volume | None = None) -> str:
    """The refusal of a one-case dataset whose scan or label map was replaced."""
    (case,) = find_cases(make_dataset(folder, "a"))
    if image is not None:
        write_volume(image, case.image)
    if label is not None:
        write_volume(label, case.label)
    with pytest.raises(InputError) as caught:
        load_case(case, LABELS)
    assert len(str(caught.value).splitlines()) == 2
    return str(caught.value)


def test_different_sizes(tmp_path: Path) -> None:
    label = label_map()
    message = load_changed(tmp_path, label=Volume(label.array[:, :, :4], label.spacing_mm, label.origin_mm))
    assert "case a: " in message
    assert "size (5, 4, 3) against (4, 4, 3)" in message


@pytest.mark.parametrize(("shift_mm", "accepted"), [(0.0005, True), (0.002, False)])
def test_different_origins(tmp_path: Path, shift_mm: float, accepted: bool) -> None:
    label = label_map()
    moved = Volume(label.array, label.spacing_mm, (1.0, 2.0, 3.0 + shift_mm))
    if accepted:
        (case,) = find_cases(make_dataset(tmp_path, "a"))
        write_volume(moved, case.label)
        assert load_case(case, LABELS)[1].array.max() == 2
    else:
        message = load_changed(tmp_path, label=moved)
        assert "different grids: origin_mm [1.0, 2.0, 3.0] against [1.0, 2.0, 3.002]" in message


def test_unknown_fractional_and_empty_labels(tmp_path: Path) -> None:
    label = label_map()
    label.array[1, 1, 1] = 5
    message = load_changed(tmp_path / "unknown", label=label)
    assert "unknown label values 5." in message
    assert "2 (femur_right)" in message
    half = label_map("float32")
    half.array[1, 1, 1] = 1.5
    assert "unknown label values 1.5." in load_changed(tmp_path / "fraction", label=half)
    empty = label.with_array(np.zeros_like(label.array))
    message = load_changed(tmp_path / "empty", label=empty)
    assert "a.nii.gz is empty: all 60 voxels" in message


def test_many_unknown_values_are_shortened(tmp_path: Path) -> None:
    label = label_map().with_array(np.arange(60, dtype=np.uint8).reshape(3, 4, 5))
    assert "unknown label values 3, 4, 5, 6, 7, …." in load_changed(tmp_path, label=label)


def test_nan_in_scan_or_label_map(tmp_path: Path) -> None:
    bad = scan("float32")
    bad.array[0, 0, 0] = np.nan
    assert "a_0000.nii.gz: 1 of 60 voxels are NaN" in load_changed(tmp_path / "image", image=bad)
    bad = label_map("float32")
    bad.array[1, 0, :2] = np.inf
    assert "labelsTr/a.nii.gz: 2 of 60 voxels are NaN or infinite" in load_changed(tmp_path / "label", label=bad)


def test_file_that_vanished(tmp_path: Path) -> None:
    (case,) = find_cases(make_dataset(tmp_path, "a"))
    case.image.unlink()
    with pytest.raises(InputError) as caught:
        load_case(case, LABELS)
    check_message(caught, str(case.image), "no such file")


def test_real_dataset(hips_dir: Path) -> None:
    cases, labels, split = find_cases(hips_dir), read_labels(hips_dir), read_split(hips_dir)
    assert labels == LABELS
    assert sorted(split.train + split.val) == [case.name for case in cases]
    image, label = load_case(cases[0], labels)
    assert image.array.shape == label.array.shape
    assert set(np.unique(label.array)) == {0, 1, 2}


@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"labels": {"background": 0, "femur": ' + "9" * 5000 + "}}", " " * 10_000_001]
)
def test_json_that_cannot_be_read(tmp_path: Path, text: str) -> None:
    make_dataset(tmp_path)
    (tmp_path / "dataset.json").write_text(text)
    with pytest.raises(InputError) as caught:
        read_labels(tmp_path)
    check_message(caught, "dataset.json")
