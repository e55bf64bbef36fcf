"""Several processes that segment into one folder: parts, claims, what killed ones leave; and the report at the end."""

from __future__ import annotations

import functools
import signal
import subprocess
import sys
import time

import pytest

from femur3d import infer
from femur3d.export import claims
from femur3d.export.case_files import Case
from femur3d.io.atomic import give_back
from femur3d.io.images import write_volume
from tests.support.ellipsoids import scan_and_label
from tests.support.loaded_once import load_once, run_main

NAMES = ["a", "b", "c", "d"]


@pytest.fixture
def infer_main(threshold_model, tmp_path, monkeypatch):
    """`main` of femur3d.infer over four scans."""
    for name in NAMES:
        write_volume(scan_and_label()[0], tmp_path / "scans" / f"{name}.nii.gz")
    load_once(monkeypatch)
    return functools.partial(run_main, "-o", tmp_path / "out", "--model", threshold_model, "-i", tmp_path / "scans")


def results(folder):
    return sorted(path.name for path in folder.iterdir())


def test_parts_make_every_scan_once(infer_main, tmp_path, capsys):
    counts = []
    for k in (1, 2, 3):
        assert infer_main("--part", f"{k}/3") == 0
        counts.append(capsys.readouterr().out.count("ml ("))
    assert sum(counts) == len(NAMES)
    assert results(tmp_path / "out") == sorted(f"{name}{end}" for name in NAMES for end in (".json", ".nii.gz"))


def test_what_another_process_is_at_is_left_to_it(infer_main, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    lock = claims.take(Case("b", tmp_path / "scans" / "b.nii.gz", None, tmp_path / "out"))
    assert infer_main() == 0
    assert "1 scans are left to other processes" in capsys.readouterr().out
    assert results(tmp_path / "out") == sorted([".b.claim", *(f"{n}{e}" for n in "acd" for e in (".json", ".nii.gz"))])
    give_back(lock)
    assert infer_main("--continue") == 0
    assert "3 of 4 scans are done already" in capsys.readouterr().out


def test_what_another_process_has_made_meanwhile_is_not_made_again(infer_main, tmp_path, monkeypatch, capsys):
    segment, tried = infer._Run.segment, []

    def with_another(run, scan, case, reading):
        if not tried:  # the other process has made d since this one began, which is at a now and b next
            earlier.replace(tmp_path / "out" / "d.json")
        tried.append(case.name)
        return segment(run, scan, case, reading)

    assert infer_main() == 0
    earlier = tmp_path / "out" / "d.json"
    earlier = earlier.rename(tmp_path / "elsewhere.json")
    monkeypatch.setattr(infer._Run, "segment", with_another)
    assert infer_main() == 0
    assert tried == ["a", "b", "c"]
    assert "3 segmented, 1 skipped, 0 failed" in capsys.readouterr().out


def test_report_shows_all_results(infer_main, tmp_path, capsys):
    assert infer_main("--report") == 0
    page = tmp_path / "out" / "report.html"
    assert str(page) in capsys.readouterr().out
    text = page.read_text(encoding="utf-8")
    assert [f'"name":"{name}"' in text for name in NAMES] == [True] * 4


@pytest.mark.slow
def test_killed_processes_lose_nothing(threshold_model, tmp_path):
    """Three write to one folder; two are killed; the same command again makes the folder that one process makes."""
    for i in range(12):
        write_volume(scan_and_label()[0], tmp_path / "scans" / f"case_{i:02}.nii.gz")
    command = [sys.executable, "-m", "femur3d.infer", "--model", str(threshold_model), "-i", str(tmp_path / "scans")]

    def start(folder):
        return subprocess.Popen([*command, "-o", str(tmp_path / folder)], stdout=subprocess.PIPE, encoding="utf-8")

    together = [start("out") for _ in range(3)]
    end = time.monotonic() + 300
    while not list((tmp_path / "out").glob("*.json")) and time.monotonic() < end:
        time.sleep(0.02)
    for process in together[:2]:
        process.send_signal(signal.SIGKILL)
    outputs = [process.communicate()[0] for process in together]
    assert together[2].returncode == 0
    again = start("out")
    assert again.communicate()[0].count("ml (") == 12
    assert start("one").wait() == 0
    assert outputs[2].count("ml (") <= 12
    assert results(tmp_path / "out") == results(tmp_path / "one")
    for path in (tmp_path / "one").glob("*.nii.gz"):
        assert path.read_bytes() == (tmp_path / "out" / path.name).read_bytes()
