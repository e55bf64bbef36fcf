"""What this machine has, found out without any library that would compute on it."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

BFLOAT16 = {"avx512_bf16", "amx_bf16", "bf16"}  # as Linux calls it on x86 and on ARM


def has_gpu() -> bool:
    """Whether there is an NVIDIA GPU and its driver, whatever an engine makes of it."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "0")
    hidden = not re.match(r"\s*(\d|GPU-|MIG-)", visible)  # by the wish of the user, or of Slurm: "NoDevFiles"
    return not hidden and (os.path.exists("/dev/nvidia0") or shutil.which("nvidia-smi") is not None)


def cpu_name() -> str:
    """The processor for people: 'CPU, 2 cores', those that this process may use, such as a worker's share of them."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return f"CPU, {cores} {'core' if cores == 1 else 'cores'}"


def cpu_has_bfloat16(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether the processor computes in bfloat16, as others do far slower than in float32; True where unknown."""
    if not cpuinfo.is_file():
        return True
    lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    features = next((line for line in lines if line.lower().startswith(("flags", "features"))), "")
    return bool(BFLOAT16 & set(features.split()))


def slow_precision(precision: str, cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """What to tell of a training precision that this processor is slow in; '' where there is nothing to tell."""
    if precision != "mixed_bfloat16" or cpu_has_bfloat16(cpuinfo):
        return ""
    return (
        "  This processor computes in bfloat16 many times slower than in float32: stop, and start another run with\n"
        "  --set training.precision=float32"
    )
