"""The engine that trains: TensorFlow, the default and the reference, or JAX (`KERAS_BACKEND=jax`).

It is picked here, once a process, by Keras's backend; training and inference are handed it and do not know which it
is, and neither has to be installed for the other. Importing this module raises UsageError for a backend that is
neither, or not installed. Inference has one engine more, see `engines.selection`.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from femur3d.errors import UsageError

if TYPE_CHECKING:  # importing it imports Keras, of whose backend the first word is said here
    from femur3d.engines.keras_engine import KerasEngine

INSTALL = {"tensorflow": "pip install tensorflow", "jax": "pip install jax"}


def _backend() -> str:
    """Keras's backend, imported. Raises UsageError where it is not one of the two, or not installed."""
    name = os.environ.get("KERAS_BACKEND") or "tensorflow"
    if name in INSTALL:
        try:
            import keras
        except ModuleNotFoundError as error:
            if error.name == "keras":
                raise UsageError(
                    "Keras and TensorFlow are not installed; training needs them, and --engine tensorflow.\n"
                    "Install them: pip install 'femur3d[train]'"
                ) from error
            if error.name not in INSTALL:
                raise
            other = next(engine for engine in INSTALL if engine != error.name)
            raise UsageError(
                f"{error.name} is not installed, the Keras backend asked for.\n"
                f"Install it ({INSTALL[error.name]}), or choose the other engine: KERAS_BACKEND={other}."
            ) from error
        name = keras.config.backend()  # where KERAS_BACKEND is silent, ~/.keras/keras.json speaks
    if name not in INSTALL:
        raise UsageError(
            f"Keras backend {name}: femur3d has no engine for it.\nExpected KERAS_BACKEND={' or '.join(INSTALL)}."
        )
    return name


def _make_engine(backend: str) -> KerasEngine:
    if backend == "jax":
        from femur3d.engines.jax_engine import JaxEngine

        return JaxEngine()
    from femur3d.engines.tensorflow_engine import TensorFlowEngine

    return TensorFlowEngine()


ENGINE = _make_engine(_backend())
