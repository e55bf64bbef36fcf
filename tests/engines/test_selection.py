"""Which engine segments, by what is asked for and what there is."""

import importlib.util
import os
import sys
from types import SimpleNamespace

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


def test_one_engine_that_was_asked_for_decides_nothing_for_later_calls(monkeypatch):
    """In a process that segments from Python with several engines: only the user's KERAS_BACKEND is a wish."""
    engine = SimpleNamespace(name="tensorflow")
    monkeypatch.setitem(sys.modules, "femur3d.engines.backend", SimpleNamespace(ENGINE=engine))
    monkeypatch.setattr(selection, "_best", lambda fast: "openvino" if fast else "tensorflow")
    monkeypatch.setenv("KERAS_HOME", "nowhere")
    monkeypatch.delenv("KERAS_BACKEND", raising=False)
    for name in ("tensorflow", "auto"):
        assert selection.inference_engine(name) is engine
        assert selection.inference_engine(fast=True).name == "openvino"
    with pytest.raises(UsageError, match=r"^Engine 'tensorflw': .*\nExpected auto, tensorflow, jax, openvino\.$"):
        selection.inference_engine("tensorflw")
    with pytest.raises(UsageError, match="already"):
        selection.inference_engine("jax")
    assert selection.inference_engine() is engine
    assert "KERAS_BACKEND" not in os.environ
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    assert selection.inference_engine("tensorflow") is engine
    assert os.environ["KERAS_BACKEND"] == "jax"


def test_where_nothing_is_asked_for_a_process_goes_on_with_the_keras_that_it_has(monkeypatch):
    """After `segment(a, engine="jax")`, `segment(b)` cannot have TensorFlow any more."""
    engine = SimpleNamespace(name="jax")
    monkeypatch.setitem(sys.modules, "femur3d.engines.backend", SimpleNamespace(ENGINE=engine))
    monkeypatch.setattr(selection, "has_gpu", lambda: False)
    monkeypatch.setattr(openvino_engine, "is_installed", lambda: True)
    monkeypatch.setenv("KERAS_HOME", "nowhere")
    monkeypatch.delenv("KERAS_BACKEND", raising=False)
    for name in ("jax", "auto"):
        assert selection.inference_engine(name) is engine
    assert selection.inference_engine(fast=True).name == "openvino"
    with pytest.raises(UsageError, match="already"):
        selection.inference_engine("tensorflow")


def test_a_file_of_keras_that_cannot_be_looked_at_says_nothing(monkeypatch):
    """As in a home that belongs to another user; here its path is too long."""
    monkeypatch.delenv("KERAS_BACKEND", raising=False)
    monkeypatch.setenv("KERAS_HOME", "x" * 300)
    assert selection.idle_libraries() == ["matplotlib", "jax"]


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
