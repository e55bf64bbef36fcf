"""What is said of the machine."""

import os

from femur3d.engines.hardware import cpu_name


def test_cores_are_those_that_this_process_may_use(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {3}, raising=False)
    assert cpu_name() == "CPU, 1 core"
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 1, 5}, raising=False)
    assert cpu_name() == "CPU, 3 cores"
