"""A CT made of balls and tubes: head, shaft and cup are known."""

import json
import subprocess
import sys

import numpy as np
import pytest

from femur3d.evaluation.overlap import count_overlap, dice
from femur3d.io.images import read_volume, write_volume
from femur3d.volume import Volume
from tools import ct_to_mr, label_ct

HEADS = {1: (30, 40, 170), 2: (30, 40, 60)}  # (z, y, x); x grows to the patient's left


@pytest.fixture(scope="module")
def ct():
    """Two heads of 22 mm with a shaft below, lateral of them, each in a cup 3 mm away; muscle and fat about them."""
    shape = (66, 80, 231)
    z, y, x = np.ogrid[tuple(slice(0, n) for n in shape)]
    hounsfield = np.full(shape, 50.0, np.float32)
    hounsfield[:, :12] = -90
    hounsfield[:, :3] = -1000
    label = np.zeros(shape, np.uint8)
    for value, (hz, hy, hx) in HEADS.items():
        aside = 1 if value == 1 else -1
        distance = np.sqrt((z - hz) ** 2 + (y - hy) ** 2 + (x - hx) ** 2)
        medial = aside * (x - hx) < 8
        hounsfield[(distance > 25) & (distance < 38) & medial & (z > hz - 10)] = 500
        tube = np.sqrt((x - hx - 32 * aside) ** 2 + (y - hy) ** 2) < 12
        outward = aside * (x - hx)
        neck = (np.abs(z - hz) < 8) & (np.abs(y - hy) < 8) & (outward > 0) & (outward < 32)
        femur = (distance < 22) | (tube & (z < hz + 10)) | neck
        hounsfield[femur], label[femur] = 400, value
    noise = np.random.Generator(np.random.Philox(0)).normal(0, 10, shape)
    volume = Volume((hounsfield + noise).astype(np.int16), origin_mm=(-115.0, -40.0, -30.0))
    return volume, volume.with_array(label)


def heads_mm(volume, off=(0, 0, 0)):
    return [volume.world_mm(np.add(HEADS[value], off)).tolist() for value in (2, 1)]


def test_head_is_found_near_the_point_that_is_named(ct):
    volume, _ = ct
    right = volume.array[:, :, :106].astype(np.float32)
    centre, radius = label_ct.find_head(right, np.add(HEADS[2], (5, -4, 3)))
    assert np.abs(centre - HEADS[2]).max() <= 1
    assert 22 <= radius <= 25


def test_label_has_head_neck_and_shaft_and_no_cup(ct):
    volume, truth = ct
    label = label_ct.label_femurs(volume, heads_mm(volume, off=(3, 2, -4)))
    for value in (1, 2):
        assert dice(count_overlap(truth.array == value, label.array == value)) > 0.9  # closed where neck and shaft meet
    cup = (volume.array > 400) & (truth.array == 0)
    assert np.count_nonzero(label.array[cup]) < 0.03 * np.count_nonzero(cup)


def test_below_the_ct_its_lowest_slices_go_on_mirrored():
    array = np.arange(20).reshape(20, 1, 1)
    longer = ct_to_mr.go_on_below(array, 3)
    assert longer.ravel().tolist() == [3, 2, 1, *range(20)]
    assert ct_to_mr.go_on_below(array, 30).shape == (50, 1, 1)


def test_paint_gives_each_tissue_its_intensity(ct):
    volume, truth = ct
    tissues = ct_to_mr.find_tissues(volume.array, truth.array > 0)
    contrast = ct_to_mr.Contrast(air=0, fat=0.9, muscle=0.3, marrow=0.6, cortex=0, texture=0, mottle=0)
    image = ct_to_mr.paint(tissues, contrast, np.random.Generator(np.random.Philox(0)))
    assert np.median(image[:, 1]) < 25  # noise in the air
    assert np.median(image[:, 7]) == pytest.approx(900, abs=10)
    assert np.median(image[2, 70, 100:130]) == pytest.approx(300, abs=15)
    dense = (400 - 300) / 350  # of a head of 400 HU
    assert np.median(image[30, 35:45, 55:65]) == pytest.approx(600 * (1 - dense), abs=20)


def test_random_contrasts_leave_out_what_is_held_out():
    for seed in range(200):
        c = ct_to_mr.random_contrast(np.random.default_rng(seed))
        assert not ct_to_mr.is_held_out(c.fat, c.muscle, c.marrow)
        assert c.cortex <= 0.12
    held = ct_to_mr.AXIAL_T2
    assert ct_to_mr.is_held_out(held.fat, held.muscle, held.marrow)
    drawn = [ct_to_mr.random_contrast(np.random.default_rng(seed), like_held_out=True) for seed in range(200)]
    assert 4 < sum(ct_to_mr.is_held_out(c.fat, c.muscle, c.marrow) for c in drawn) < 40


def test_a_bent_body_is_somewhat_larger_or_smaller_and_its_label_goes_along():
    z, y, x = np.ogrid[:80, :80, :80]
    ball = ((z - 40) ** 2 + (y - 40) ** 2 + (x - 40) ** 2 < 24**2).astype(np.uint8)
    for seed in range(2):
        image, label = ct_to_mr.bend(np.int16(1000) * ball, ball, np.random.default_rng(seed))
        assert 0.75**3 < label.sum() / ball.sum() < 1.25**3
        assert 0.01 < np.mean(label != ball) < 0.1
        assert np.mean((image > 500) != label) < 0.002


def run(*flags):
    command = [sys.executable, "-m", "tools.ct_to_mr", *flags]
    return subprocess.run(command, capture_output=True, encoding="utf-8", check=False)


def test_command_writes_a_dataset_and_compares_the_label(ct, tmp_path):
    volume, truth = ct
    write_volume(volume, tmp_path / "ct.nii.gz")
    write_volume(truth, tmp_path / "truth.nii.gz")
    patients = tmp_path / "patients"
    phantoms = tmp_path / "phantoms"
    for folder, name in ((patients, "hip_a"), (patients, "hip_b"), (phantoms, "phantom_000")):
        write_volume(truth, folder / "imagesTr" / f"{name}_0000.nii.gz")
        write_volume(truth, folder / "labelsTr" / f"{name}.nii.gz")
        (folder / "dataset.json").write_text(json.dumps({"labels": ct_to_mr.LABELS}))
    heads = ",".join(str(number) for point in heads_mm(volume) for number in point)
    (tmp_path / "out" / ".writing-dataset-abc" / "imagesTr").mkdir(parents=True)  # of a command that was killed
    done = run("--ct", str(tmp_path / "ct.nii.gz"), f"--heads={heads}", "-o", str(tmp_path / "out"), "--cases", "1",
               "--seed", "23", "--all_contrasts", "--extend_mm", "10", "--check", str(tmp_path / "truth.nii.gz"),
               "--patients", str(patients), "--patients", str(phantoms), "--validate", "hip_b")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "left: Dice with" in done.stdout
    drawn = ct_to_mr.random_contrast(np.random.Generator(np.random.Philox(23)), like_held_out=True)
    assert ct_to_mr.is_held_out(drawn.fat, drawn.muscle, drawn.marrow)
    assert str(drawn) in done.stdout
    assert json.loads((tmp_path / "out" / "splits_final.json").read_text()) == [
        {"train": ["ct_00", "hip_a", "phantom_000"], "val": ["hip_b"]}
    ]
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "dataset.json", "imagesTr", "labelsTr", "splits_final.json"
    }  # fmt: skip
    assert read_volume(tmp_path / "out" / "labelsTr" / "hip_a.nii.gz").array.max() == 2
    image = read_volume(tmp_path / "out" / "imagesTr" / "ct_00_0000.nii.gz")
    label = read_volume(tmp_path / "out" / "labelsTr" / "ct_00.nii.gz")
    assert image.geometry_difference(label) is None
    assert set(np.unique(label.array)) == {0, 1, 2}
    assert -40 <= image.origin_mm[2] <= -30


def test_a_dataset_is_not_filled_with_links_to_itself(ct, tmp_path):
    patients = tmp_path / "patients"
    for folder, name in (("imagesTr", "hip_a_0000"), ("labelsTr", "hip_a")):
        write_volume(ct[1], patients / folder / f"{name}.nii.gz")
    (patients / "dataset.json").write_text(json.dumps({"labels": ct_to_mr.LABELS}))
    before = {path: path.read_bytes() for path in patients.rglob("*.*")}
    words = ("--ct", "none.nii.gz", "--heads=1,2,3,4,5,6", "--patients", str(patients))
    done = run(*words, "-o", str(patients))
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 2)
    assert "is not an empty folder" in done.stderr
    assert {path: path.read_bytes() for path in patients.rglob("*.*")} == before
    done = run(*words, "-o", str(tmp_path / "out"), "--validate", "hip_b")
    assert "--validate: no case hip_b" in done.stderr
    done = run(*words, "--patients", str(patients), "-o", str(tmp_path / "out"))
    assert "--patients: two cases are called hip_a" in done.stderr
    assert not (tmp_path / "out").exists()


def test_wrong_heads_are_told(tmp_path):
    done = run("--ct", "ct.nii.gz", "--heads=1,2,3", "-o", str(tmp_path / "out"))
    assert done.returncode == 2
    assert "--heads: received 1,2,3" in done.stderr
