"""Scan after scan: while one is segmented, the next is read and the results of the one before are written.

So the processor's cores are busy, and at most three scans are in memory; of huge ones fewer.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import sys
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TextIO

from filelock import FileLock
from tqdm import tqdm

from femur3d.errors import InputError
from femur3d.export import claims
from femur3d.export.case_files import Case
from femur3d.io.atomic import give_back
from femur3d.io.images import ScanFile
from femur3d.io.inputs import Scan
from femur3d.io.read_ahead import read_ahead

Finish = Callable[[], None]
HUGE_VOXELS = 40_000_000  # the results of such a scan are written before the next one is segmented


@dataclasses.dataclass(frozen=True)
class Steps:
    """What is done with a scan.

    Attributes:
        read: in a thread of its own.
        segment: of a scan that is being read; returns what writes the results and says what was found, which runs in
            another thread, one scan at a time. Both raise InputError, or whatever goes wrong with this scan.
        is_done: whether an earlier run, or another process, has made the same of a scan.
    """

    read: Callable[[Scan], ScanFile]
    segment: Callable[[Scan, Case, Future[ScanFile]], Finish]
    is_done: Callable[[Scan, Case], bool]


def say(line: str, file: TextIO | None = None) -> None:
    """Prints a line beside a progress bar; on standard output by default.

    Where it cannot be written, as behind `| head`, this and all later ones are dropped: no scan is worth losing for it.
    """
    stream = file or sys.stdout
    try:
        with tqdm.external_write_mode(file=stream):
            print(line, file=stream, flush=True)
    except OSError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())  # where Python's own flush at the end succeeds, too
        os.close(nowhere)


def segment_all(
    steps: Steps, scans: Sequence[Scan], cases: Sequence[Case], todo: Sequence[int], verbose: bool = False
) -> tuple[int, int]:
    """Segments all that no other process is at, and then what these have left; returns how many failed and were tried.

    What another process has made meanwhile, of the same scan with the same flags, is not made again.
    """
    before = {i: claims.state(cases[i]) for i in todo}
    held: deque[tuple[int, FileLock]] = deque()
    left: list[int] = []
    failed = tried = 0

    def mine(indices: Sequence[int]) -> Iterator[Scan]:
        for i in indices:
            if (lock := claims.take(cases[i])) is None:
                left.append(i)
            elif claims.state(cases[i]) != before[i] and steps.is_done(scans[i], cases[i]):
                give_back(lock)
            else:
                held.append((i, lock))
                yield scans[i]

    for _ in range(2):
        indices, left[:] = list(left) or todo, []
        with ThreadPoolExecutor(1, thread_name_prefix="writing") as writer:  # prints everything, so in order
            writing: deque[tuple[Future[bool], FileLock]] = deque()
            for reading in read_ahead(steps.read, mine(indices)):
                i, lock = held.popleft()
                tried += 1
                writer.submit(say, f"[{tried}/{len(todo)}] {scans[i].source}")
                finish = _segmented(steps, scans[i], cases[i], reading)
                failed += _ended(writing)
                writing.append((writer.submit(_finished, finish, scans[i], cases[i], verbose), lock))
                if _is_huge(reading):
                    failed += _ended(writing)
            failed += _ended(writing)
        if not left:
            break
    if left:
        say(f"{len(left)} scans are left to other processes that write to this folder")
    return failed, tried


def _segmented(steps: Steps, scan: Scan, case: Case, reading: Future[ScanFile]) -> Finish:
    """`Steps.segment`; what goes wrong is raised by what it returns, so that it is said in its turn."""
    try:
        return steps.segment(scan, case, reading)
    except Exception as error:  # one scan's failure must not end the batch
        return functools.partial(_raise, error)


def _raise(error: Exception) -> None:
    raise error


def _finished(finish: Finish, scan: Scan, case: Case, verbose: bool) -> bool:
    """Writes what was found; says on stderr what is wrong with a scan, or returns True."""
    try:
        finish()
        return True
    except InputError as error:
        message = str(error) if str(case.path) in str(error) else f"{case.path}: {error}"
    except Exception as error:
        if verbose:
            traceback.print_exc()
        message = f"{case.path}: {type(error).__name__}: {' '.join(str(error).split())[:500]}"
        message += "\nThis scan was left out; --verbose shows where it happened."
    say(scan.with_given_paths(message), sys.stderr)
    return False


def _ended(writing: deque[tuple[Future[bool], FileLock]]) -> int:
    """Waits for what is being written, and gives its claim back; how many of it failed."""
    failed = 0
    while writing:
        written, lock = writing.popleft()
        failed += not written.result()
        give_back(lock)
    return failed


def _is_huge(reading: Future[ScanFile]) -> bool:
    return reading.exception() is None and reading.result().volume.array.size > HUGE_VOXELS
