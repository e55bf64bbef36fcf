"""What stands in for a segmentation in a Dask worker; workers import it."""

from __future__ import annotations

import os
import signal
import threading

from femur3d.cluster.worker import Outcome

DEADLY = "deadly"  # part of the name of a case whose worker is killed


def segment_nothing(name: str) -> Outcome:
    """Says which cores the worker has, or kills it."""
    if DEADLY in name:
        os.kill(os.getpid(), signal.SIGKILL)
    cores = sorted(os.sched_getaffinity(threading.get_native_id())) if hasattr(os, "sched_getaffinity") else []
    return Outcome(0, 1, f"  {name} on {cores}\n", "")
