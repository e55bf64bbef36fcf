"""What runs in a Dask worker: one scan at a time, by the command's own words, with the model loaded once."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib
import io
import logging
import os
import threading
from collections.abc import Callable
from typing import Any

import distributed

from femur3d.export.case_files import Case
from femur3d.io.inputs import Scan

_ONE_AT_A_TIME = threading.Lock()  # a scan has all the cores and the memory of its worker


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of a scan.

    Attributes:
        failed: 0 or 1.
        tried: 0 where another process has it or has made it meanwhile, else 1.
        said: what `femur3d.infer` would have printed, without the scan's path on the first line.
        complained: the same for standard error.
    """

    failed: int
    tried: int
    said: str
    complained: str


class ShareOfCores(distributed.WorkerPlugin):
    """Keeps each worker of one machine to its share of the cores, where the system can."""

    def __init__(self, workers: int) -> None:
        self._workers = workers

    def setup(self, worker: Any) -> None:
        """Before the first scan: threads that begin later stay on the same cores."""
        logging.getLogger("distributed").setLevel(logging.CRITICAL)
        if hasattr(os, "sched_setaffinity"):
            cores = sorted(os.sched_getaffinity(0))
            number = int(worker.name) % min(self._workers, len(cores))
            os.sched_setaffinity(0, cores[number :: self._workers])


def segment(words: tuple[str, ...], folder: str, scan: Scan, case: Case) -> Outcome:
    """Segments one scan and writes its results, as `femur3d.infer` does with the same words in the same folder.

    Raises:
        FemurError: the words, the model or the folder cannot be used here.
    """
    with _ONE_AT_A_TIME, contextlib.chdir(folder):
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            failed, tried = _prepared(words, folder)(scan, case)
        return Outcome(failed, tried, out.getvalue().partition("\n")[2] if tried else out.getvalue(), err.getvalue())


@functools.lru_cache(maxsize=1)
def _prepared(words: tuple[str, ...], folder: str) -> Callable[[Scan, Case], tuple[int, int]]:
    """The command that hands the scans out is not this process's main module, so that it can be imported here.

    Args:
        words: of its command line.
        folder: the working directory, in which the words name files.
    """
    return importlib.import_module("femur3d.infer").prepare(words)
