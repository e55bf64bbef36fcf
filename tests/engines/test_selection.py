"""Which engine segments, by what is asked for and what there is."""

import importlib.util
import sys

import pytest

from femur3d.engines import openvino_engine, selection
from femur3d.engines.hardware import cpu_has_bfloat16
from femur3d.errors import UsageError


@pytest.mark.parametrize(
    ("fast", "tensorflow", "openvino", "gpu", "best"),
    [
        (False, True, True, False, "tensorflow"),
        (True, True, True, False, "openvino"),
        (True, True, False, False, "tensorflow"),
        (True, True, True, True, "tensorflow"),
        (False, False, True, False, "openvino"),
        (True, False, True, True, "openvino"),
        (False, False, False, False, "tensorflow"),  # whose error says what to install
    ],
)
def test_the_best_there_is(monkeypatch, fast, tensorflow, openvino, gpu, best):
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: found(name) if tensorflow or name != "tensorflow" else None
    )
    monkeypatch.delitem(sys.modules, "tensorflow", raising=False)
    monkeypatch.setattr(openvino_engine, "is_installed", lambda: openvino)
    monkeypatch.setattr(selection, "has_gpu", lambda: gpu)
    assert selection._best(fast) == best


def test_the_environment_and_the_users_word_come_first(monkeypatch, tmp_path):
    monkeypatch.setenv("KERAS_BACKEND", "tensorflow")
    monkeypatch.setattr(selection, "_best", lambda fast: "openvino")
    assert selection.inference_engine(fast=True).name == "tensorflow"
    assert selection.inference_engine("openvino").name == "openvino"
    monkeypatch.delenv("KERAS_BACKEND")
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    assert selection.inference_engine().name == "openvino"
    (tmp_path / "keras.json").write_text('{"backend": "jax"}')
    assert selection._keras_backend() == "jax"
    assert selection.idle_libraries() == ["matplotlib"]
    assert selection.idle_libraries("tensorflow") == ["matplotlib", "jax"]


def test_an_engine_that_is_not_there_or_comes_too_late(monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "tensorflow")
    assert selection.inference_engine().name == "tensorflow"
    with pytest.raises(UsageError, match=r"with tensorflow already\.\n"):
        selection.inference_engine("jax")
    monkeypatch.setattr(openvino_engine, "is_installed", lambda: False)
    with pytest.raises(UsageError, match=r"\nInstall it: pip install openvino"):
        selection.inference_engine("openvino")


@pytest.mark.parametrize(
    ("text", "has"), [("flags\t\t: fpu avx512_bf16\n", True), ("flags : fpu avx2\nx : bf16\n", False), (None, True)]
)
def test_bfloat16_by_what_linux_says_of_the_processor(tmp_path, text, has):
    if text:
        (tmp_path / "cpuinfo").write_text(text)
    assert cpu_has_bfloat16(tmp_path / "cpuinfo") == has
