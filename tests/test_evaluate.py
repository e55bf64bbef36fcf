"""The command line of the evaluation, end to end on tiny files."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np

from femur3d.report.measure import measure
from femur3d.report.results import find_results
from tests.support.label_boxes import BOTH, LEFT, RIGHT, SPECK, label_volume, write


def evaluate(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "femur3d.evaluate", "--predictions", str(folder / "predictions")]
    command += ["--references", str(folder / "labelsTr"), "-o", str(folder / "out"), *arguments]
    return subprocess.run(command, capture_output=True, encoding="utf-8", check=False)


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
    assert "Failures: 2 of 4" in ended.stdout
    out = tmp_path / "out"
    assert sorted(path.name for path in out.iterdir()) == ["a.png", "metrics.csv", "summary.json", "table.txt"]
    with (out / "metrics.csv").open(newline="") as file:
        rows = [(row["case"], row["label"], row["dice"], row["mean_mm"]) for row in csv.DictReader(file)]
    assert [row[:3] for row in rows[:2]] == [("a", "hip_l", "1.0"), ("a", "hip_r", "1.0")]
    assert rows[2:4] == [("b", "hip_l", "0.0", "inf"), ("b", "hip_r", "0.0", "inf")]
    assert rows[4] == ("empty", "hip_l", "", "")
    summary = json.loads((out / "summary.json").read_text())
    assert {name: summary["mean_mm"][name] for name in ("n", "failures", "not_applicable")} == {
        "n": 4,
        "failures": 2,
        "not_applicable": 1,
    }
    assert summary["labels"]["hip_r"]["dice"]["mean"] == 0.5
    assert [str(out / name) for name in ("summary.json", "a.png")] == ended.stdout.splitlines()[-3::2]
    assert summary["pictures"] == ["a.png"]


def test_command_line_says_where_the_numbers_come_from(tmp_path: Path) -> None:
    """Two predictions of one model, one of none; only cases that are there are evaluated."""
    for name in ("a", "b", "c", "missing"):
        write(tmp_path / "labelsTr" / f"{name}.nii.gz", BOTH)
    for name in ("a", "b", "c"):
        write(tmp_path / "predictions" / f"{name}.nii.gz", BOTH)
    for name in ("a", "b"):
        summary = {"model": {"weights_sha256": "ab" * 32}, "files": [f"{name}.nii.gz"]}
        (tmp_path / "predictions" / f"{name}.json").write_text(json.dumps(summary))
    (tmp_path / "predictions" / "c.json").write_text("[]")
    ended = evaluate(tmp_path, "--present-only")
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr.splitlines()[-1] == "Left out, no prediction: missing"
    assert "Failures: 0 of 6" in ended.stdout
    origin = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert origin["command"].startswith("python -m femur3d.evaluate --predictions ")
    assert origin["command"].endswith("--present-only")
    assert set(origin["versions"]) == {"femur3d", "python", "numpy", "scipy", "SimpleITK", "libigl"}
    assert origin["models"] == [{"weights_sha256": "ab" * 32, "predictions": 2}]
    assert origin["predictions_of_unknown_model"] == 1
    assert (origin["cases"], origin["without_prediction"]) == (["a", "b", "c"], ["missing"])
    assert origin["without_prediction_left_out"] is True
    assert origin["split"] is None
    assert abs(origin["volume_agreement"]["bias_ml"]) < 1e-9


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


def test_a_reference_that_is_no_use_costs_its_case_alone(tmp_path: Path) -> None:
    """One is empty, one has a label that nobody named; of the latter there is no prediction either."""
    for name in ("a", "b", "c"):
        write(tmp_path / "labelsTr" / f"{name}.nii.gz", label_volume(l3=[LEFT]) if name == "c" else BOTH)
    for name in ("a", "b"):
        write(tmp_path / "predictions" / f"{name}.nii.gz", BOTH)
    (tmp_path / "labelsTr" / "b.nii.gz").write_bytes(b"")
    ended = evaluate(tmp_path, "--report")
    assert ended.returncode == 4, ended.stderr
    lines = [line for line in ended.stderr.splitlines() if line.startswith(("Not compared", "Counted", "Left"))]
    assert [line.partition(".nii.gz")[0] for line in lines] == [
        f"Not compared: {tmp_path / 'labelsTr' / name}" for name in "bc"
    ]
    assert "Failures: 0 of 2" in ended.stdout
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert (summary["cases"], summary["without_prediction"], summary["unusable_references"]) == (["a"], [], ["b", "c"])
    assert '"name":"a"' in (page := (tmp_path / "out" / "report.html").read_text(encoding="utf-8"))
    assert '"name":"b"' not in page
    (tmp_path / "labelsTr" / "a.nii.gz").write_bytes(b"")
    ended = evaluate(tmp_path)
    assert (ended.returncode, ended.stdout) == (3, "")
    assert str(tmp_path / "labelsTr" / "a.nii.gz") in ended.stderr


def test_an_image_that_is_no_use_costs_its_picture_alone(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        write(tmp_path / "labelsTr" / f"{name}.nii.gz", BOTH)
        write(tmp_path / "predictions" / f"{name}.nii.gz", BOTH)
        write(tmp_path / "imagesTr" / f"{name}_0000.nii.gz", BOTH, (1.0, 1.0, 3.0 if name == "b" else 2.0))
    (tmp_path / "imagesTr" / "c_0000.nii.gz").write_bytes(b"")
    ended = evaluate(tmp_path, "--images", str(tmp_path / "imagesTr"))
    assert (ended.returncode, ended.stderr.count("No picture: ")) == (4, 2), ended.stderr
    assert "b_0000.nii.gz" in ended.stderr
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["a.png", "metrics.csv", "summary.json", "table.txt"]
    assert "Failures: 0 of 6" in ended.stdout


def test_command_line_evaluates_one_part_of_the_split(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write(tmp_path / "imagesTr" / f"{name}_0000.nii.gz", BOTH)
        write(tmp_path / "labelsTr" / f"{name}.nii.gz", BOTH)
    write(tmp_path / "predictions" / "b.nii.gz", BOTH)
    (tmp_path / "splits_final.json").write_text('[{"train": ["b"], "val": ["a"]}, {"train": ["a"], "val": ["b"]}]')
    ended = evaluate(tmp_path, "--split", "val", "--fold", "1")
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.startswith("Split: val of fold 1, 1 cases\n")
    assert "Failures: 0 of 2" in ended.stdout
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["split"] == {"part": "val", "fold": 1}
    for wrong, said in (
        (("--fold", "1"), "--fold: received 1 without --split"),
        (("--split", "val", "--present-only"), "no case has a prediction"),
    ):
        ended = evaluate(tmp_path, *wrong)
        assert (ended.returncode, len(ended.stderr.splitlines())) == (2, 2)
        assert said in ended.stderr
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


def test_figures_and_report_show_every_case(tmp_path: Path) -> None:
    """One that is right, one on another grid, one without prediction."""
    for name in ("a", "b", "c"):
        write(tmp_path / "labelsTr" / f"{name}.nii.gz", BOTH)
    write(tmp_path / "predictions" / "a.nii.gz", BOTH)
    write(tmp_path / "predictions" / "b.nii.gz", BOTH, (2.0, 2.0, 2.0))
    ended = evaluate(tmp_path, "--figures", "--report")
    assert ended.returncode == 4, ended.stderr
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"a_distance.png", "b_distance.png", "c_distance.png", "report.html"} <= names
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert '"femurs":6,"failures":4' in page
    assert ended.stdout.splitlines()[-1] == str(tmp_path / "out" / "report.html")


def test_command_line_goes_by_the_names_of_the_references_labels(tmp_path: Path) -> None:
    """Of a dataset that names the right femur first: one prediction of femur3d (left is 1), one of another program."""
    mirrored = label_volume(l2=[LEFT], l1=[RIGHT], l3=[SPECK])
    (tmp_path / "dataset.json").write_text(
        '{"labels": {"background": 0, "femur_right": 1, "femur_left": 2, "acetabulum": 3}}'
    )
    for name in ("other", "own"):
        write(tmp_path / "labelsTr" / f"{name}.nii.gz", mirrored)
    write(tmp_path / "predictions" / "other.nii.gz", mirrored)
    write(tmp_path / "predictions" / "own.nii.gz", BOTH)
    (tmp_path / "predictions" / "own.json").write_text(json.dumps({"model": {}, "files": ["own.nii.gz"]}))
    ended = evaluate(tmp_path, "--report")
    assert ended.returncode == 0, ended.stderr
    assert "left out: acetabulum\n" in ended.stdout
    with (tmp_path / "out" / "metrics.csv").open(newline="") as file:
        rows = {(row["case"], row["label"]): float(row["dice"]) for row in csv.DictReader(file)}
    assert rows == {(case, f"femur_{side}"): 1.0 for case in ("other", "own") for side in ("left", "right")}
    results = find_results(tmp_path / "predictions", references=tmp_path / "labelsTr")
    assert [result.name for result in results] == ["own"]  # where there is a CASE.json, others are not results
    measured, _, problems = measure(results, {1: "left", 2: "right"})
    assert not problems
    np.testing.assert_array_equal(results[0].read_labels().array, measured[0].read_reference().array)
