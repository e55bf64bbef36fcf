"""What is said of the machine."""

import os

import pytest

from femur3d.engines.hardware import cpu_name, slow_precision


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
