"""Scans of both hips cut into scans of one hip each."""

import json
import subprocess
import sys

import numpy as np
import pytest

from femur3d.data.nnunet_dataset import find_cases, load_case, read_labels, read_split
from femur3d.volume import Volume
from tests.support.ellipsoids import write_dataset
from tools.one_hip import one_hip_scans

SPACING_MM = (2.0, 5.0, 1.0)  # x, y, z


@pytest.fixture
def scan():
    return Volume(np.arange(20 * 8 * 30, dtype=np.int16).reshape(20, 8, 30), SPACING_MM, (-10.0, 5.0, 7.0))


@pytest.fixture
def label(scan):
    """Femur 2 in x 3…6, femur 1 in x 20…24; a voxel to ignore beside each."""
    array = np.zeros(scan.array.shape, np.uint8)
    array[5:9, 3:5, 3:7] = 2
    array[6:12, 2:4, 20:25] = 1
    array[5, 3, 8] = array[6, 2, 26] = 9
    return scan.with_array(array)


def test_each_femur_has_its_box_and_the_margin(scan, label):
    (first, image, kept), (second, _, _) = one_hip_scans(scan, label, (1, 2), margin_mm=4.0)
    assert (first, second) == (1, 2)
    np.testing.assert_array_equal(image.array, scan.array[2:16, 1:5, 18:27])  # 4, 1 and 2 voxels
    np.testing.assert_array_equal(kept.array, label.array[2:16, 1:5, 18:27])
    np.testing.assert_allclose(image.origin_mm, scan.world_mm((2, 1, 18)))
    assert image.geometry_difference(kept) is None


def test_nothing_of_the_other_femur_is_in_view(scan, label):
    """Whatever the margin, the scan ends where the other femur's box begins."""
    (_, left, left_label), (_, right, right_label) = one_hip_scans(scan, label, (1, 2), margin_mm=500.0)
    assert left.array.shape == (20, 8, 30 - 7)
    assert right.array.shape == (20, 8, 20)
    assert set(np.unique(left_label.array)) == {0, 1, 9}
    assert set(np.unique(right_label.array)) == {0, 2, 9}


def test_a_femur_above_the_other_is_in_view_but_not_in_the_label(scan):
    """They overlap from left to right, so that no plane between them ends the scan."""
    array = np.zeros(scan.array.shape, np.uint8)
    array[2:6, 3:5, 10:16] = 1
    array[12:16, 3:5, 12:18] = 2
    found = one_hip_scans(scan, scan.with_array(array), (1, 2), margin_mm=50.0)
    assert [(value, set(np.unique(kept.array))) for value, _, kept in found] == [(1, {0, 1}), (2, {0, 2})]


def test_a_femur_that_is_not_there_is_left_out(scan, label):
    assert [value for value, *_ in one_hip_scans(scan, label, (1, 2, 3), margin_mm=0.0)] == [1, 2]


def test_command_writes_a_dataset_with_the_same_folds(tmp_path):
    source = write_dataset(tmp_path / "both", cases=4, validation=1)
    words = ["--dataset", source, "-o", tmp_path / "one", "--margin_mm", "6"]
    done = subprocess.run(
        [sys.executable, "-m", "tools.one_hip", *map(str, words)], capture_output=True, encoding="utf-8", check=False
    )
    assert done.returncode == 0, done.stderr
    labels = read_labels(source)
    assert read_labels(tmp_path / "one") == labels
    femurs = {f"{case.name}_{name}": case for case in find_cases(source) for name in labels if name != "background"}
    cases = {case.name: case for case in find_cases(tmp_path / "one")}
    assert 0 < len(cases) == len(done.stdout.splitlines())
    assert set(cases) <= set(femurs)
    count = json.loads((tmp_path / "one" / "dataset.json").read_text(encoding="utf-8"))["numTraining"]
    assert count == len(cases)
    for name, case in cases.items():
        value = labels[name.removeprefix(f"{femurs[name].name}_")]
        _, truth = load_case(femurs[name], labels)
        _, label = load_case(case, labels)
        assert set(np.unique(label.array)) == {0, value}
        assert (label.array == value).sum() == (truth.array == value).sum()
    whole, split = read_split(source), read_split(tmp_path / "one")
    for patients, hips in ((whole.train, split.train), (whole.val, split.val)):
        assert {femurs[name].name for name in hips} == set(patients)


def test_what_stopped_halfway_is_done_by_the_same_command(tmp_path):
    source = write_dataset(tmp_path / "both", cases=2, validation=1)
    label = source / "labelsTr" / "case_1.nii.gz"
    whole = label.read_bytes()
    label.write_bytes(whole[:100])
    command = [sys.executable, "-m", "tools.one_hip", "--dataset", str(source), "-o", str(tmp_path / "one")]
    stopped = subprocess.run(command, capture_output=True, encoding="utf-8", check=False)
    assert (stopped.returncode, len(stopped.stdout.splitlines())) == (3, 2)  # the first patient's hips were written
    label.write_bytes(whole)
    done = subprocess.run(command, capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stderr
    assert {path.name for path in (tmp_path / "one").iterdir()} == {
        "dataset.json", "imagesTr", "labelsTr", "splits_final.json"
    }  # fmt: skip
    assert len(find_cases(tmp_path / "one")) == 4


def test_no_dataset_is_two_lines(tmp_path):
    words = ["--dataset", tmp_path / "none", "-o", tmp_path / "one"]
    done = subprocess.run(
        [sys.executable, "-m", "tools.one_hip", *map(str, words)], capture_output=True, encoding="utf-8", check=False
    )
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) == 2


def test_the_dataset_itself_is_not_written_over(tmp_path):
    source = write_dataset(tmp_path / "both", cases=2, validation=1)
    before = {path: path.read_bytes() for path in source.rglob("*.*")}
    words = ["--dataset", source, "-o", source]
    done = subprocess.run(
        [sys.executable, "-m", "tools.one_hip", *map(str, words)], capture_output=True, encoding="utf-8", check=False
    )
    assert done.returncode == 2
    assert "is not an empty folder" in done.stderr
    assert {path: path.read_bytes() for path in source.rglob("*.*")} == before
