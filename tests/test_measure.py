"""`femur3d.measure`: surfaces in, summary, table and picture out."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import filelock
import numpy as np
import pytest

from femur3d import segment
from femur3d.errors import InputError
from femur3d.export.mesh import read_mesh, write_mesh
from femur3d.export.pictures.morphometry import morphometry_figure
from femur3d.io.images import write_volume
from femur3d.volume import Volume
from tests.support.dicom_series import write_scan
from tests.support.femurs import HEAD_MM, both_femurs, left_femur

BLOCK = Volume(np.pad(np.ones((8, 8, 8), np.uint8), 4))


def test_a_surface_is_measured_and_a_missing_one_told(tmp_path: Path) -> None:
    surface = left_femur(1.5)
    write_mesh(surface.vertices, surface.triangles, tmp_path / "one.stl")
    empty = both_femurs(10.0)
    write_volume(empty.with_array(empty.array * 0), tmp_path / "empty.nii.gz")
    arguments = ["-i", str(tmp_path / "one.stl"), "-i", str(tmp_path / "two.ply"), "-o", str(tmp_path / "out")]
    arguments += ["-i", str(tmp_path / "empty.nii.gz")]
    done = subprocess.run([sys.executable, "-m", "femur3d.measure", *arguments], capture_output=True, encoding="utf-8")
    assert done.returncode == 4, done.stderr
    assert "two.ply: no surface file" in done.stderr
    assert "empty.nii.gz: no femur in it; its values are 0." in done.stderr
    found = json.loads((tmp_path / "out/one.json").read_text())["morphometry"]["left"]
    assert found["head_radius_mm"]["value"] == pytest.approx(HEAD_MM, abs=0.1)
    assert found["version_deg"]["level"] == "not measurable"
    with (tmp_path / "out/femurs.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert row["case"] == "one"
    assert float(row["head_radius_mm_low"]) < HEAD_MM < float(row["head_radius_mm_high"]) + 0.05
    assert (row["version_deg"], row["version_deg_gate"]) == ("", "not measurable")
    assert (tmp_path / "out/one_morphometry.png").read_bytes().startswith(b"\x89PNG")


def measure(*words: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "femur3d.measure", *map(str, words)]
    return subprocess.run(command, capture_output=True, encoding="utf-8", check=False)


def test_files_of_one_name_have_summaries_of_their_own(tmp_path: Path) -> None:
    for folder in ("P1", "P2"):
        write_volume(BLOCK, tmp_path / folder / "hip.nii.gz")
    for _ in range(2):  # measured again: the same summaries
        done = measure("-i", tmp_path / "P1/hip.nii.gz", tmp_path / "P2/hip.nii.gz", "-o", tmp_path / "out")
        assert (done.returncode, "Traceback" in done.stderr) == (3, False)  # blocks are no femurs
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"P1_hip.json", "P2_hip.json", "femurs.csv"}
    for folder in ("P1", "P2"):
        summary = json.loads((tmp_path / f"out/{folder}_hip.json").read_text())
        assert summary["input"] == str(tmp_path / folder / "hip.nii.gz")
        assert "no femur is" in summary["morphometry"]["left"]["error"]


def test_a_summary_that_is_of_another_file_or_damaged_stays(tmp_path: Path) -> None:
    ours = {"model": {}, "files": ["ours.nii.gz"], "input": "scan.mha", "volumes_ml": {"left": 1}}
    others = {
        "damaged": '{"model": {}, "volumes_ml": {"left": 1',
        "list": '["my", "notes"]',
        "another": '{"input": "elsewhere/another.nii.gz"}',
        "ours": json.dumps({**ours, "x": float("nan")}),
    }
    for name, text in others.items():
        write_volume(BLOCK, tmp_path / f"{name}.nii.gz")
        (tmp_path / f"{name}.json").write_text(text)
    done = measure(*(tmp_path / f"{name}.nii.gz" for name in others), "-o", tmp_path)
    assert (done.returncode, "Traceback" in done.stderr) == (3, False)
    assert done.stderr.count("Expected another folder for -o") == 2
    assert "damaged.json: not JSON (line 1" in done.stderr
    found = {name: (tmp_path / f"{name}.json").read_text() for name in others}
    merged = json.loads(found.pop("ours"), parse_constant=pytest.fail)  # NaN is no JSON
    assert found.items() < others.items()
    assert ours.items() < merged.items()
    assert merged["x"] is None
    assert list(merged["morphometry"]) == ["left"]


LOOKED_AT = """
from femur3d import cli, measure
from femur3d.export import case_results
from femur3d.io.atomic import take_lock
inner, case_results.LOCK_SECONDS = measure._measure, 0
def looked_at(path):
    print(path.name, "is free" if take_lock(path.with_name(f".{path.name.partition('.')[0]}.lock")) else "is locked")
    return inner(path)
measure._measure = looked_at
cli.run(measure.main)
"""


def test_a_case_that_infer_is_writing_is_left_and_one_that_is_measured_is_not_written(tmp_path: Path) -> None:
    """Else the summary that infer writes meanwhile would be replaced by the one that was read before."""
    for name in ("busy", "ours"):
        write_volume(BLOCK, tmp_path / f"{name}.nii.gz")
    summary = json.dumps({"model": {}, "files": ["busy.nii.gz"], "input": "scan.mha"})
    (tmp_path / "busy.json").write_text(summary)
    command = [sys.executable, "-c", LOOKED_AT, "-i", tmp_path / "busy.nii.gz", tmp_path / "ours.nii.gz"]
    with filelock.FileLock(tmp_path / ".busy.lock"):
        done = subprocess.run([*map(str, command), "-o", str(tmp_path)], capture_output=True, encoding="utf-8")
    assert done.stdout.splitlines()[0] == "ours.nii.gz is locked", done
    assert f"{tmp_path / 'busy.json'}: another femur3d.infer" in done.stderr
    assert len(done.stderr.splitlines()) == 2
    assert (tmp_path / "busy.json").read_text() == summary
    assert "no femur is" in json.loads((tmp_path / "ours.json").read_text())["morphometry"]["left"]["error"]
    assert not (tmp_path / ".ours.lock").exists()


def test_voxels_that_are_no_lengths_are_refused(tmp_path: Path) -> None:
    surface = left_femur(3.0)
    write_mesh(surface.vertices, surface.triangles, tmp_path / "one.stl")
    done = measure("-i", tmp_path / "one.stl", "-o", tmp_path / "out", "--voxel_mm", "nan,1,1")
    assert done.returncode == 2
    assert done.stderr == "--voxel_mm nan,1.0,1.0: not positive lengths.\nExpected e.g. 0.9,5.2,0.9.\n"


def test_a_case_may_be_called_like_a_formula(tmp_path: Path) -> None:
    morphometry_figure([], tmp_path / "picture.png", "a$_$b")
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")


def test_two_femurs_in_one_surface_are_told(tmp_path: Path) -> None:
    surface = left_femur(2.5)
    right = surface.vertices * [-1, 1, 1] - [190, 0, 0]
    triangles = np.concatenate([surface.triangles, surface.triangles[:, ::-1] + len(right)])
    write_mesh(np.concatenate([surface.vertices, right]), triangles, tmp_path / "both.stl")
    done = measure("-i", tmp_path / "both.stl", "-o", tmp_path / "out")
    assert (done.returncode, "both.stl: There are several bodies" in done.stderr) == (3, True)
    assert not (tmp_path / "out/both.json").exists()


def test_surfaces_are_read_as_they_were_written_and_open_ones_refused(tmp_path: Path) -> None:
    surface = left_femur(2.0)
    for name in ("a.stl", "a.ply"):
        write_mesh(surface.vertices, surface.triangles[:, ::-1], tmp_path / name)  # inside out
        vertices, triangles = read_mesh(tmp_path / name)
        assert len(triangles) > 0.98 * len(surface.triangles)  # slivers go where STL merges their corners
        corners = vertices[triangles]
        assert np.einsum("ij,ij->", corners[:, 0], np.cross(corners[:, 1], corners[:, 2])) > 0
    write_mesh(surface.vertices, surface.triangles[: len(surface.triangles) // 2], tmp_path / "half.stl")
    with pytest.raises(InputError, match="open"):
        read_mesh(tmp_path / "half.stl")
    (tmp_path / "text.stl").write_text("no surface")
    with pytest.raises(InputError, match="not a surface"):
        read_mesh(tmp_path / "text.stl")


def test_surfaces_whose_triangles_face_different_ways_are_refused(tmp_path: Path) -> None:
    surface = left_femur(2.0)
    half = len(surface.triangles) // 2
    mixed = np.concatenate([surface.triangles[:half], surface.triangles[half:, ::-1]])
    write_mesh(surface.vertices, mixed, tmp_path / "mixed.stl")
    with pytest.raises(InputError, match="face different ways"):
        read_mesh(tmp_path / "mixed.stl")


def test_infer_and_python_measure_what_they_segment(threshold_model: Path, tmp_path: Path) -> None:
    """Two femurs that mirror each other, as a DICOM series: the same numbers, the heads 190 mm apart."""
    labels = both_femurs()
    body = np.indices(labels.array.shape).sum(axis=0) % 2  # nothing around the femurs is empty
    write_scan(tmp_path / "hip", labels.with_array(((labels.array > 0) * 100 + body).astype(np.int16)))
    arguments = ["-i", str(tmp_path / "hip"), "-o", str(tmp_path / "out"), "--model", str(threshold_model)]
    done = subprocess.run(
        [sys.executable, "-m", "femur3d.infer", *arguments, "--morphometry"], capture_output=True, encoding="utf-8"
    )
    assert done.returncode == 0, done.stderr
    measured = json.loads((tmp_path / "out/hip.json").read_text())["morphometry"]
    left, right = (measured[side] for side in ("left", "right"))
    assert left["head_radius_mm"]["value"] == pytest.approx(HEAD_MM, abs=1.5)  # voxels of 5 mm
    assert left["head_radius_mm"]["value"] == pytest.approx(right["head_radius_mm"]["value"], abs=0.3)
    with (tmp_path / "out/femurs.csv").open() as file:
        assert [row["side"] for row in csv.DictReader(file)] == ["left", "right"]
    assert {"hip_sr.dcm", "hip_morphometry.png"} <= {path.name for path in (tmp_path / "out").iterdir()}
    found = segment(tmp_path / "hip", str(threshold_model)).measure()
    for side, one in found.items():
        assert one.measures["head_radius_mm"].value == pytest.approx(
            measured[side]["head_radius_mm"]["value"], abs=1e-3
        )
    apart = found["left"].centre_mm[0] - found["right"].centre_mm[0]
    assert apart == pytest.approx(190, abs=5)  # half a voxel for each
