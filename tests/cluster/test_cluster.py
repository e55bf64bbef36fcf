"""Scans handed out to Dask workers: what becomes of them, and of those whose worker is gone."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
import uuid
from concurrent.futures import CancelledError, Future
from pathlib import Path
from types import SimpleNamespace

import pytest

pytest.importorskip("distributed", reason="pip install '.[cluster]'")

from femur3d.cluster import connection, hand_out, worker
from femur3d.errors import UsageError
from femur3d.export.case_files import Case
from femur3d.io.images import write_volume
from femur3d.io.inputs import Scan
from tests.support.dask_tasks import DEADLY, segment_nothing
from tests.support.ellipsoids import scan_and_label


@pytest.fixture
def hand_out_names(monkeypatch, tmp_path):
    """Hands scans out of which only the names matter, to workers that segment nothing."""

    def submit(client, words, scan, case):
        return client.submit(segment_nothing, case.name, key=uuid.uuid4().hex, pure=False)

    monkeypatch.setattr(hand_out, "_submit", submit)

    def run(where, names):
        scans = [Scan(name, tmp_path / name, None, str(tmp_path / name)) for name in names]
        cases = [Case(name, tmp_path / name, None, tmp_path) for name in names]
        return hand_out.segment_all(where, [], scans, cases, range(len(names)))

    return run


def test_scan_that_kills_its_worker_twice_is_left_out_and_the_others_go_on(hand_out_names, capsys):
    names = ["a", DEADLY, "b", "c", "d"]
    assert hand_out_names("local:2", names) == (1, 5)
    said = capsys.readouterr()
    assert sorted(re.findall(r"^  (\w+) on", said.out, re.MULTILINE)) == ["a", "b", "c", "d"]
    assert re.findall(r"^\[(\d)/5, ", said.out, re.MULTILINE) == list("12345")
    (first, second) = said.err.splitlines()
    assert first.endswith(f"/{DEADLY}: 2 workers that had this scan were killed; out of memory?")
    assert second.startswith("This scan was left out.")
    if hasattr(os, "sched_getaffinity") and len(os.sched_getaffinity(0)) == 2:
        assert set(re.findall(r"on (.*)", said.out)) <= {f"[{core}]" for core in os.sched_getaffinity(0)}


def test_a_worker_tells_two_folders_with_the_same_words_apart(tmp_path, monkeypatch):
    prepared = []

    def prepare(words):
        prepared.append(Path.cwd().name)
        return lambda scan, case: (0, 1)

    monkeypatch.setitem(sys.modules, "femur3d.infer", SimpleNamespace(prepare=prepare))
    worker._prepared.cache_clear()
    for folder in ("a", "a", "b"):
        (tmp_path / folder).mkdir(exist_ok=True)
        assert worker.segment(("--model", "model"), str(tmp_path / folder), None, None).tried == 1
    assert prepared == ["a", "b"]
    worker._prepared.cache_clear()


def test_scans_that_are_not_done_are_counted_where_the_scheduler_is_lost(hand_out_names, monkeypatch, capsys):
    def lost(future, scan, case):
        raise CancelledError

    monkeypatch.setattr(hand_out, "_report", lost)
    assert hand_out_names("local:1", ["a", "b", "c"]) == (3, 3)
    assert "3 scans are not done" in capsys.readouterr().err


@pytest.mark.parametrize("said", [("  written\n", ""), ("", "one\ntwo\n")])
def test_scans_are_not_lost_where_nobody_reads_what_is_said(monkeypatch, tmp_path, said):
    """As behind `| head`: a pipe without a reader is no scheduler that is gone."""

    def submit(*_):
        ended = Future()
        ended.set_result(worker.Outcome(0, 1, *said))
        return ended

    client = SimpleNamespace(nthreads=lambda: {"one": 1})
    monkeypatch.setattr(hand_out, "connected", lambda where: contextlib.nullcontext(client))
    monkeypatch.setattr(hand_out, "_submit", submit)
    monkeypatch.setattr(hand_out, "_ended", list)
    scans = [Scan(name, tmp_path / name, None, name) for name in "abc"]
    cases = [Case(name, tmp_path / name, None, tmp_path) for name in "abc"]
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w", encoding="utf-8") as deaf:
        monkeypatch.setattr(sys, "stderr" if said[1] else "stdout", deaf)
        assert hand_out.segment_all("local:1", [], scans, cases, range(3)) == (0, 3)
        deaf.flush()  # as Python does at its end


@pytest.mark.slow
def test_jobs_of_a_file(hand_out_names, tmp_path, capsys):
    file = tmp_path / "jobs.yaml"
    file.write_text("jobqueue: {local: {cores: 2, memory: 1GB}}\njobs: 1\n")
    assert hand_out_names(str(file), ["a", "b"]) == (0, 2)
    assert "[2/2, 0 s left]" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("where", "text", "message"),
    [
        ("local:0", "", "no number of workers.\nExpected local:N"),
        ("local", "", "no number of workers.\nExpected local:N"),
        ("everywhere", "", "no cluster.\nExpected local:N, tcp://host:port"),
        ("none.yaml", "", "no description of jobs (no such file)"),
        ("jobs.yaml", "jobs: 2", "no description of jobs ('jobqueue')"),
        ("jobs.yaml", "{", "no description of jobs ("),
        ("jobs.yaml", "jobqueue: {cray: {cores: 2}}", "1 jobs of 'cray'.\nExpected jobqueue: {slurm"),
        ("jobs.yaml", "jobqueue: {slurm: {cores: 2}}", "Expected what dask-jobqueue expects for slurm."),
        ("tcp://127.0.0.1:1", "", "no scheduler answers"),
    ],
)
def test_what_is_no_cluster_is_said_in_two_lines(where, text, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(connection, "ANSWER_SECONDS", 1)
    if text:
        Path(where).write_text(text)
    with pytest.raises(UsageError) as caught, connection.connected(where):
        pass
    assert message in str(caught.value)
    assert len(str(caught.value).splitlines()) == 2


def test_missing_package_is_named_with_the_way_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(UsageError, match=r"\nInstall them: pip install"), connection.connected("local:2"):
        pass


# ---- with the network


@pytest.fixture
def start(threshold_model, tmp_path):
    """Starts femur3d.infer over six scans."""
    for i in range(6):
        write_volume(scan_and_label()[0], tmp_path / "scans" / f"{i}.nii.gz")

    def start(folder, *words):
        command = [sys.executable, "-m", "femur3d.infer", "--model", str(threshold_model), "-i", tmp_path / "scans"]
        words = ["-o", str(tmp_path / folder), "--engine", "openvino", *words]
        return subprocess.Popen([*command, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8")

    return start


def wait_for_result(folder: Path) -> None:
    end = time.monotonic() + 600
    while not list(folder.glob("*.json")) and time.monotonic() < end:
        time.sleep(0.02)


def workers_of(process: subprocess.Popen) -> list[int]:
    import psutil

    return [
        child.pid
        for child in psutil.Process(process.pid).children(recursive=True)
        if "spawn_main" in " ".join(child.cmdline())
    ]


def complaints(text: str) -> list[str]:
    """Lines of standard error, but for Python's own about the semaphores of processes that were killed."""
    return [line for line in text.splitlines() if "resource_tracker" not in line]


def assert_same(tmp_path: Path, start) -> None:
    """`out` holds what one process makes, bit for bit."""
    assert start("one").wait() == 0
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == sorted(p.name for p in (tmp_path / "one").iterdir())
    for path in (tmp_path / "one").glob("*.nii.gz"):
        assert path.read_bytes() == (tmp_path / "out" / path.name).read_bytes()


@pytest.mark.slow
def test_killed_worker_loses_nothing(start, tmp_path):
    process = start("out", "--cluster", "local:2")
    wait_for_result(tmp_path / "out")
    os.kill(workers_of(process)[0], signal.SIGKILL)
    out, err = process.communicate()
    assert (process.returncode, complaints(err)) == (0, [])
    assert out.endswith("6 segmented, 0 skipped, 0 failed\n")
    assert_same(tmp_path, start)


@pytest.mark.slow
def test_killed_scheduler_loses_nothing(start, tmp_path):
    process = start("out", "--cluster", "local:2")
    wait_for_result(tmp_path / "out")
    process.kill()
    process.communicate()
    again = start("out", "--cluster", "local:2", "--continue")
    out, err = again.communicate()
    assert (again.returncode, complaints(err)) == (0, [])
    assert re.search(r"[1-5] of 6 scans are done already", out)
    assert_same(tmp_path, start)
