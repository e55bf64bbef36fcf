"""Scans in turn: the results of one are written while the next one is segmented, and everything is said in order."""

import os
import sys
import threading
from concurrent.futures import Future
from pathlib import Path

import numpy as np
import pytest

from femur3d.errors import InputError
from femur3d.export import batch
from femur3d.export.batch import Steps, segment_all
from femur3d.export.case_files import Case
from femur3d.io.images import ScanFile
from femur3d.io.inputs import Scan
from femur3d.volume import Volume

NAMES = ("a", "b", "c")


def run(folder: Path, segment, names=NAMES):
    scans = [Scan(name, Path(f"{name}.nii"), None, f"{name}.nii") for name in names]
    cases = [Case(name, Path(f"{name}.nii"), None, folder) for name in names]
    read = ScanFile(Volume(np.zeros((2, 2, 2), np.uint8), (1.0, 1.0, 1.0)))
    steps = Steps(lambda scan: read, segment, lambda scan, case: False)
    return segment_all(steps, scans, cases, range(len(names)))


def test_results_are_written_while_the_next_scan_is_segmented(tmp_path, capsys):
    begun = {name: threading.Event() for name in (*NAMES, "d")}
    overlapped = []

    def segment(scan, case, reading: Future):
        assert reading.result().volume.array.shape == (2, 2, 2)
        begun[scan.name].set()
        following = {"a": "b", "b": "c"}.get(scan.name)

        def finish():
            overlapped.append(begun[following].wait(30) if following else True)
            batch.say(f"  {scan.name} is written")

        return finish

    assert run(tmp_path, segment) == (0, 3)
    assert overlapped == [True] * 3
    expected = [line for i, n in enumerate(NAMES, 1) for line in (f"[{i}/3] {n}.nii", f"  {n} is written")]
    assert capsys.readouterr().out.splitlines() == expected
    assert list(tmp_path.iterdir()) == []  # the claims are given back


@pytest.mark.parametrize("stage", ["segment", "finish"])
def test_a_scan_that_fails_is_said_and_the_others_go_on(tmp_path, capsys, stage):
    written = []

    def segment(scan, case, reading):
        if scan.name == "b" and stage == "segment":
            raise InputError("b.nii: bad.\nTry another.")

        def finish():
            if scan.name == "b":
                raise ValueError("two\nlines")
            written.append(scan.name)

        return finish

    assert run(tmp_path, segment) == (1, 3)
    assert written == ["a", "c"]
    error = capsys.readouterr().err
    said = {"segment": "b.nii: bad.\nTry another.\n", "finish": "b.nii: ValueError: two lines\nThis scan was left out"}
    assert error.startswith(said[stage])


def test_results_of_a_huge_scan_are_written_before_the_next_one_begins(tmp_path, monkeypatch):
    monkeypatch.setattr(batch, "HUGE_VOXELS", 7)
    events = []

    def segment(scan, case, reading):
        events.append(scan.name)
        return lambda: events.append(scan.name.upper())

    assert run(tmp_path, segment) == (0, 3)
    assert events == ["a", "A", "b", "B", "c", "C"]


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_a_scan_is_not_lost_where_nobody_reads_what_is_said(tmp_path, monkeypatch, stream):
    """As behind `| head`, or `| tee` that was stopped: the pipe has no reader."""
    reader, writer = os.pipe()
    os.close(reader)
    written = []

    def segment(scan, case, reading):
        def finish():
            batch.say("  Note: said before it is written", sys.stderr if stream == "stderr" else None)
            written.append(scan.name)
            batch.say(f"  {scan.name} is written", sys.stderr if stream == "stderr" else None)

        return finish

    with open(writer, "w", encoding="utf-8") as deaf:
        monkeypatch.setattr(sys, stream, deaf)
        assert run(tmp_path, segment) == (0, 3)
        deaf.flush()  # as Python does at its end: a failure would be exit code 120
    assert written == list(NAMES)
