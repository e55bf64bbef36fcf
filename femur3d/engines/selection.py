"""Which engine segments: TensorFlow, JAX or OpenVINO; only the chosen one is imported.

By itself, the one that `KERAS_BACKEND` names; else OpenVINO for the fast mode on a CPU, and where there is no
TensorFlow; else TensorFlow. What trains is `engines.backend.ENGINE`.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from femur3d.engines.hardware import has_gpu
from femur3d.errors import UsageError

if TYPE_CHECKING:  # commands that compute nothing ask here, too
    from femur3d.inference.mode import Engine

AUTO = "auto"
NAMES = ("tensorflow", "jax", "openvino")


def inference_engine(name: str = AUTO, fast: bool = False) -> Engine:
    """The engine of a name.

    Args:
        name: one of NAMES, or 'auto' for the best there is.
        fast: whether it is for the fast mode, which tells what is best.

    Raises:
        UsageError: it is not installed, or the process has begun with another one of Keras's than was asked for.
    """
    if name not in (AUTO, *NAMES):
        raise UsageError(f"Engine {name!r}: there is none of that name.\nExpected {', '.join((AUTO, *NAMES))}.")
    asked = name if name != AUTO else _keras_backend()
    name = asked or _best(fast)
    if name == "openvino":
        from femur3d.engines import openvino_engine

        if not openvino_engine.is_installed():
            raise UsageError("OpenVINO is not installed, the engine asked for.\nInstall it: pip install openvino")
        return openvino_engine.OpenVinoEngine()
    with _asking_for(name):
        from femur3d.engines.backend import ENGINE

    if asked and ENGINE.name != name:  # who asked for none takes the one that this process has
        raise UsageError(f"Engine {name}: this process computes with {ENGINE.name} already.\nStart another process.")
    return ENGINE


@contextlib.contextmanager
def _asking_for(backend: str) -> Iterator[None]:
    """Keras, imported in here, takes this backend; afterwards KERAS_BACKEND is what the user wishes, as before."""
    before = os.environ.get("KERAS_BACKEND")
    os.environ["KERAS_BACKEND"] = backend
    try:
        yield
    finally:
        del os.environ["KERAS_BACKEND"]
        if before is not None:
            os.environ["KERAS_BACKEND"] = before


def idle_libraries(name: str = AUTO) -> list[str]:
    """What TensorFlow and Keras would import and the engine does without.

    Matplotlib, which Keras imports for pictures that femur3d does not draw, and JAX, which TensorFlow imports for its
    mobile phones: these take up to a second and half a second.
    """
    asked = name if name != AUTO else _keras_backend()
    return ["matplotlib"] if asked == "jax" else ["matplotlib", "jax"]


def _keras_backend() -> str:
    """The Keras backend that the user has asked for in the environment or, but for TensorFlow, in Keras's file."""
    if backend := os.environ.get("KERAS_BACKEND"):
        return backend
    file = Path(os.environ.get("KERAS_HOME") or os.path.expanduser("~/.keras"), "keras.json")
    try:
        return "jax" if '"jax"' in file.read_text(encoding="utf-8", errors="replace") else ""
    except OSError:  # there is none, or it lies in another user's home: Keras does without it, too
        return ""


def _best(fast: bool) -> str:
    has_tensorflow = "tensorflow" in sys.modules or importlib.util.find_spec("tensorflow") is not None
    on_cpu = not (has_tensorflow and has_gpu())
    return "openvino" if on_cpu and (fast or not has_tensorflow) and _has_openvino() else "tensorflow"


def _has_openvino() -> bool:
    from femur3d.engines import openvino_engine

    return openvino_engine.is_installed()
