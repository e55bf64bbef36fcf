"""Hands scans out to the workers of a cluster, one to each, and says what becomes of them."""

from __future__ import annotations

import contextlib
import os
import sys
import time
import uuid
from collections import deque
from collections.abc import Sequence
from concurrent.futures import CancelledError
from typing import Any

from femur3d.cluster.connection import connected
from femur3d.errors import FemurError
from femur3d.export import case_results, claims
from femur3d.export.batch import say
from femur3d.export.case_files import Case
from femur3d.io.inputs import Scan

_POLL_SECONDS = 1.0  # how often new workers are looked for


def segment_all(
    where: str, words: Sequence[str], scans: Sequence[Scan], cases: Sequence[Case], todo: Sequence[int]
) -> tuple[int, int]:
    """Segments scans on a cluster; returns how many failed and were tried.

    No worker has more than one scan, so that one that kills its worker is not confused with another. Dask gives a scan
    whose worker is gone to another one, once.

    Args:
        where: see `connection.connected`.
        words: of the command line, to be parsed by every worker.
        scans: all.
        cases: of each.
        todo: indices of those to segment.

    Raises:
        UsageError: there is no such cluster.
    """
    failed = tried = ended = 0
    waiting, running, start = deque(todo), dict[Any, int](), time.monotonic()
    with connected(where) as client:
        try:
            while waiting or running:
                while waiting and len(running) < max(1, len(client.nthreads())):
                    i = waiting.popleft()
                    running[_submit(client, words, scans[i], cases[i])] = i
                for future in _ended(running):
                    i, ended = running[future], ended + 1
                    half_done = ended + (len(running) - 1) / 2
                    seconds = (time.monotonic() - start) / half_done * (len(todo) - half_done)
                    say(f"[{ended}/{len(todo)}, {_rounded(seconds)} left] {scans[i].source}")
                    has_failed, was_tried = _report(future, scans[i], cases[i])
                    failed, tried = failed + has_failed, tried + was_tried
                    del running[future]  # not before: without a scheduler there is no report
        except (OSError, CancelledError) as error:
            left = len(waiting) + len(running)
            say(f"--cluster {where}: the scheduler is gone ({error}); {left} scans are not done.", sys.stderr)
            say("Start it again and give the same command with --continue.", sys.stderr)
            failed, tried = failed + left, tried + left
    case_results.tidy(cases)  # of killed workers
    claims.tidy(cases)
    return failed, tried


def _submit(client: Any, words: Sequence[str], scan: Scan, case: Case) -> Any:
    from femur3d.cluster.worker import segment  # here: it imports distributed

    key = f"{case.name}-{uuid.uuid4().hex}"
    return client.submit(segment, tuple(words), os.getcwd(), scan, case, key=key, pure=False)


def _ended(running: dict[Any, int]) -> list[Any]:
    """Those that have ended, after a moment in which others may."""
    from distributed import wait

    with contextlib.suppress(TimeoutError):
        wait(list(running), timeout=_POLL_SECONDS, return_when="FIRST_COMPLETED")
    return [future for future in running if future.done()]


def _report(future: Any, scan: Scan, case: Case) -> tuple[int, int]:
    """Prints what became of a scan; returns whether it has failed and whether it was tried, 0 or 1."""
    from distributed import KilledWorker

    try:
        outcome = future.result()
    except KilledWorker as error:
        message = f"{case.path}: {error.allowed_failures + 1} workers that had this scan were killed; out of memory?"
        message += "\nThis scan was left out. Segment it alone, on a machine with more memory."
    except CancelledError:
        raise
    except FemurError as error:
        message = str(error)
    except Exception as error:  # one scan's failure must not end the batch
        message = f"{case.path}: {type(error).__name__}: {' '.join(str(error).split())[:500]}"
        message += "\nThis scan was left out."
    else:
        for text, stream in ((outcome.said, sys.stdout), (outcome.complained, sys.stderr)):
            if text:
                say(text.removesuffix("\n"), stream)
        return outcome.failed, outcome.tried
    say(scan.with_given_paths(message), sys.stderr)
    return 1, 1


def _rounded(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
