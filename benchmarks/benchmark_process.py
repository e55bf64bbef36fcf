"""What benchmarks share: a network of any width; and each library in a process of its own, which take turns.

So their thread pools never compete, and what else the machine does in the meantime slows both alike.
"""

from __future__ import annotations

import contextlib
import dataclasses
import multiprocessing
import os
import platform
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from femur3d.config import Network
from femur3d.errors import EXIT_INTERNAL, FemurError

BUSY_LOAD = 0.5  # load average
# PyTorch's threads (OpenMP) meet after each operator, so that one that has lost its core holds up the other ones.
BUSY_WARNING = "other programs keep this machine busy: every time is too long, PyTorch's most; do not quote the ratios."

Tasks = Mapping[str, Callable[..., Any]]


class BenchmarkError(FemurError):
    """The two processes do not compute the same, or one has died."""

    exit_code = EXIT_INTERNAL


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def scaled_network(width: float, initialisation: str = "he") -> Network:
    """The paper's network with its filters times `width`."""
    paper = Network()
    encoder, decoder = (
        tuple(max(1, round(width * f)) for f in filters) for filters in (paper.encoder_filters, paper.decoder_filters)
    )
    return Network(encoder, decoder, initialisation)


@dataclasses.dataclass(frozen=True)
class BenchmarkProcess:
    """A process that computes, seen from its parent."""

    name: str
    connection: Connection

    def call(self, task: str, *arguments: Any) -> tuple[Any, float]:
        """The result of a task and the seconds that it took, without the transfer of arguments and result.

        Raises:
            FemurError: what `make_tasks` raised; BenchmarkError where the process died.
        """
        try:
            self.connection.send((task, arguments))
            result, seconds = self.connection.recv()
        except (EOFError, OSError) as error:
            raise BenchmarkError(f"The process of {self.name} died in {task!r}; its messages stand above.") from error
        if isinstance(result, FemurError):
            raise result
        return result, seconds


@contextlib.contextmanager
def start_process(name: str, make_tasks: Callable[..., Tasks], *arguments: Any) -> Iterator[BenchmarkProcess]:
    """Starts a process and ends it with the `with` statement.

    Args:
        name: for messages.
        make_tasks: called in the new process: its tasks by name; a function of a module, so that it can be sent there.
        *arguments: of `make_tasks`.
    """
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=serve, args=(there, make_tasks, arguments), daemon=True)
    process.start()
    there.close()
    try:
        yield BenchmarkProcess(name, here)
    finally:
        process.terminate()
        process.join()


def serve(connection: Connection, make_tasks: Callable[..., Tasks], arguments: tuple[Any, ...]) -> None:
    """What the process does: it runs the tasks that its parent asks for until it is ended."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's
    try:
        tasks = make_tasks(*arguments)
    except FemurError as error:
        connection.recv()
        connection.send((error, 0.0))
        return
    while True:
        task, arguments = connection.recv()
        start = time.perf_counter()
        result = tasks[task](*arguments)
        connection.send((result, time.perf_counter() - start))


def machine() -> str:
    """Cores, processor, load and Python of this machine, and a warning where the load makes the ratios wrong."""
    info = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    names = [line.partition(":")[2].strip() for line in info.splitlines() if line.startswith("model name")]
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    name = (names or [platform.processor() or platform.machine()])[0]
    line = f"{cores()} cores, {name}, load average {load:.1f} at the start; Python {platform.python_version()}"
    return line if load < BUSY_LOAD else f"{line}\nWarning   {BUSY_WARNING}"
