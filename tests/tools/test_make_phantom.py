"""The command that writes a synthetic dataset, run as a user runs it."""

import json
import subprocess
import sys

import numpy as np
import pytest

from femur3d.io.images import read_volume
from femur3d.phantom.hip import make_phantom


def make(*flags: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tools.make_phantom", *flags], capture_output=True, encoding="utf-8", check=False
    )


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    folder = tmp_path_factory.mktemp("phantoms") / "data"
    done = make("-o", str(folder), "--cases", "5", "--seed", "7", "--size", "24,20,22")
    assert done.returncode == 0, done.stderr
    return folder


def test_layout_is_that_of_nnunet(dataset):
    names = [f"phantom_{number:03d}" for number in range(5)]
    assert sorted(p.name for p in (dataset / "imagesTr").iterdir()) == [f"{name}_0000.nii.gz" for name in names]
    assert sorted(p.name for p in (dataset / "labelsTr").iterdir()) == [f"{name}.nii.gz" for name in names]


def test_dataset_json_says_that_it_is_synthetic(dataset):
    description = json.loads((dataset / "dataset.json").read_text())
    assert "synthetic" in description["name"]
    assert description["labels"] == {"background": 0, "femur_left": 1, "femur_right": 2}
    assert description["channel_names"] == {"0": "T1 (synthetic)"}
    assert description["numTraining"] == 5
    assert description["file_ending"] == ".nii.gz"


def test_a_fifth_validates(dataset):
    (split,) = json.loads((dataset / "splits_final.json").read_text())
    assert split["train"] == ["phantom_000", "phantom_001", "phantom_002", "phantom_003"]
    assert split["val"] == ["phantom_004"]


def test_scans_come_back_as_they_were_made(dataset):
    label = read_volume(dataset / "labelsTr" / "phantom_002.nii.gz")
    image = read_volume(dataset / "imagesTr" / "phantom_002_0000.nii.gz")
    side = "left" if label.array.max() == 1 else "right"
    truth_image, truth_label = make_phantom(7 + 2, (24, 20, 22), side)
    np.testing.assert_array_equal(image.array, truth_image.array)
    np.testing.assert_array_equal(label.array, truth_label.array)
    assert label.geometry_difference(truth_label) is None
    assert image.geometry_difference(label) is None


@pytest.mark.parametrize(
    ("flags", "hint"),
    [
        (["--size", "96,80"], "--size"),
        (["--size", "a,b,c"], "--size"),
        (["--cases", "1"], "--cases"),
        (["--cases", "4", "--val_cases", "4"], "--val_cases"),
        (["--noise", "-1"], "--noise"),
        (["--side", "middle"], "side"),
        (["stray"], "stray"),
    ],
)
def test_wrong_flags_are_two_lines_and_exit_code_2(tmp_path, flags, hint):
    done = make("-o", str(tmp_path / "data"), *flags)
    assert done.returncode == 2
    assert hint in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) <= 3
    assert not (tmp_path / "data").exists()


def test_a_full_folder_is_left_alone(tmp_path):
    (tmp_path / "precious.txt").write_text("mine")
    done = make("-o", str(tmp_path), "--cases", "2", "--size", "16,16,16")
    assert done.returncode == 2
    assert [p.name for p in tmp_path.iterdir()] == ["precious.txt"]


def test_the_output_folder_must_be_named():
    done = make("--cases", "2")
    assert done.returncode == 2
    assert "-o" in done.stderr
