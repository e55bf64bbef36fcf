"""Dask clusters: workers on this machine, a scheduler that runs somewhere, or a batch system described in a file."""

from __future__ import annotations

import contextlib
import logging
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from femur3d.errors import UsageError

SYSTEMS = {
    "slurm": "SLURMCluster", "pbs": "PBSCluster", "lsf": "LSFCluster", "sge": "SGECluster", "oar": "OARCluster",
    "moab": "MoabCluster", "htcondor": "HTCondorCluster", "local": "local.LocalCluster",
}  # fmt: skip
ANSWER_SECONDS = 30
_SETTINGS = {
    "distributed.scheduler.allowed-failures": 1,  # a scan whose worker dies twice is given up
    "distributed.diagnostics.nvml": False,
}


@contextlib.contextmanager
def connected(where: str) -> Iterator[Any]:
    """A `distributed.Client` within the block.

    Args:
        where: 'local:N' for N workers on this machine, each with its share of the cores; 'tcp://host:port' of a
            scheduler; or a YAML file of dask-jobqueue.

    Raises:
        UsageError: none of these, dask is not installed, or no scheduler answers.
    """
    try:
        import dask
        import distributed
    except ImportError as error:
        message = f"--cluster needs the packages dask and distributed, which cannot be imported ({error})"
        raise UsageError(f"{message}.\nInstall them: pip install 'femur3d[cluster]'") from error
    logging.getLogger("distributed").setLevel(logging.CRITICAL)  # we say ourselves what became of a scan
    with dask.config.set(_SETTINGS), contextlib.ExitStack() as stack:
        kind, _, count = where.partition(":")
        if kind == "local":
            address: Any = stack.enter_context(_local(where, count))
        elif where.endswith((".yaml", ".yml")):
            address = stack.enter_context(_jobs(Path(where)))
        elif "://" in where:
            address = where
        else:
            expected = "local:N, tcp://host:port or a file such as slurm.yaml"
            raise UsageError(f"--cluster {where}: no cluster.\nExpected {expected}.")
        try:
            client = stack.enter_context(distributed.Client(address, timeout=ANSWER_SECONDS))
        except (OSError, TimeoutError, ValueError) as error:
            message = f"--cluster {where}: no scheduler answers ({error})"
            raise UsageError(f"{message}.\nStart one: dask scheduler") from error
        yield client


@contextlib.contextmanager
def _local(where: str, count: str) -> Iterator[Any]:
    """Workers on this machine. A worker that dies is replaced; all end with this process, however it ends."""
    import distributed

    from femur3d.cluster.worker import ShareOfCores

    if not (count.isdecimal() and int(count) > 0):
        raise UsageError(f"--cluster {where}: no number of workers.\nExpected local:N, such as local:4.")
    options = {"threads_per_worker": 1, "memory_limit": 0, "dashboard_address": "127.0.0.1:0", "host": "127.0.0.1"}
    options["security"] = True  # with keys of its own: other users of this machine could have their code run here
    with _workers_run_no_command(), distributed.LocalCluster(n_workers=int(count), **options) as cluster:
        with distributed.Client(cluster) as client:
            client.register_plugin(ShareOfCores(int(count)))
        yield cluster


@contextlib.contextmanager
def _workers_run_no_command() -> Iterator[None]:
    """Python starts a process with the command's own module, in which its flags would be defined a second time."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


@contextlib.contextmanager
def _jobs(path: Path) -> Iterator[Any]:
    """The jobs that a file describes: `jobqueue` as in dask-jobqueue's own files, and `jobs`, how many of them."""
    system, options, jobs = _described(path)
    import dask_jobqueue
    import dask_jobqueue.local

    made = dask_jobqueue
    for name in SYSTEMS[system].split("."):
        made = getattr(made, name)
    extra = [*options.pop("worker_extra_args", []), "--nthreads", "1"]  # one scan at a time has all the job's cores
    try:
        cluster: Any = made(**{"processes": 1, **options}, worker_extra_args=extra)
    except (TypeError, ValueError) as error:
        reason = " ".join(str(error).split()).removesuffix(".")
        raise UsageError(f"{path}: {reason}.\nExpected what dask-jobqueue expects for {system}.") from error
    with cluster:
        cluster.scale(jobs=jobs)
        yield cluster


def _described(path: Path) -> tuple[str, dict[str, Any], int]:
    """System, its options, number of jobs."""
    import dask

    expected = f"Expected jobqueue: {{slurm: {{cores: 8, memory: 16GB}}}} and jobs: 4; systems: {', '.join(SYSTEMS)}."
    try:
        (found,) = dask.config.collect_yaml([str(path)])
        ((system, options),) = found["jobqueue"].items()
        jobs = int(found.get("jobs", 1))
    except Exception as error:  # whatever YAML's parser makes of a user's file
        reason = " ".join(f"{error}".split())[:200] if path.is_file() else "no such file"
        raise UsageError(f"{path}: no description of jobs ({reason}).\n{expected}") from error
    if system not in SYSTEMS or not isinstance(options, dict) or jobs < 1:
        raise UsageError(f"{path}: {jobs} jobs of {system!r}.\n{expected}")
    return system, options, jobs
