"""What is said of the machine."""

import os

import pytest

from femur3d.engines import hardware
from femur3d.engines.hardware import cpu_name, has_gpu, slow_precision


def test_cores_are_those_that_this_process_may_use(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {3}, raising=False)
    assert cpu_name() == "CPU, 1 core"
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 1, 5}, raising=False)
    assert cpu_name() == "CPU, 3 cores"


@pytest.mark.parametrize(
    ("precision", "flags", "is_said"),
    [("mixed_bfloat16", "fma avx2", True), ("mixed_bfloat16", "avx2 amx_bf16", False), ("float32", "avx2", False)],
)
def test_a_processor_that_is_slow_in_bfloat16_is_said(tmp_path, precision, flags, is_said):
    (tmp_path / "cpuinfo").write_text(f"processor : 0\nflags : {flags}\n")
    said = slow_precision(precision, tmp_path / "cpuinfo")
    assert ("--set training.precision=float32" in said) == is_said


@pytest.mark.parametrize(
    ("visible", "expected"),
    [
        (None, True), ("0", True), (" 1,0", True), ("GPU-5ebe9f43", True), ("MIG-5ebe9f43", True),
        ("", False), ("-1", False), ("-1,0", False), ("NoDevFiles", False), ("none", False),
    ],
)  # fmt: skip
def test_a_gpu_that_cuda_is_not_to_see_is_none(monkeypatch, visible, expected):
    """CUDA sees those before the first entry that is none; Slurm writes NoDevFiles for a job without a GPU."""
    monkeypatch.setattr(hardware.os.path, "exists", lambda path: True)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert has_gpu() == expected
