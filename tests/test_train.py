"""`femur3d.train` before the first update."""

import dataclasses
import types

import pytest

from femur3d import train
from femur3d.config import Experiment
from femur3d.errors import InputError


class Engine:
    def device_name(self):
        return "CPU"

    def on_cpu(self):
        return True


@pytest.mark.parametrize(
    ("precision", "has_bfloat16", "is_said"),
    [("mixed_bfloat16", False, True), ("mixed_bfloat16", True, False), ("float32", False, False)],
)
def test_a_processor_without_bfloat16_is_said(monkeypatch, precision, has_bfloat16, is_said):
    def stop(*_):
        raise InputError("Far enough.")

    monkeypatch.setattr(train, "cpu_has_bfloat16", lambda: has_bfloat16)
    monkeypatch.setattr(train, "_open_packed", stop)
    plain = Experiment("tiny")
    experiment = dataclasses.replace(plain, training=dataclasses.replace(plain.training, precision=precision))

    class Run:
        said = ""

        def say(self, text):
            self.said += text

    run = Run()
    monkeypatch.setattr(train, "FLAGS", types.SimpleNamespace(dataset="data"))
    with pytest.raises(InputError, match="Far enough"):
        train._train(experiment, run, Engine())
    assert ("--set training.precision=float32" in run.said) == is_said
