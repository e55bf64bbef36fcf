"""The engine that computes: TensorFlow, the default and the reference, or JAX (`KERAS_BACKEND=jax`).

Everything that differs between the two is picked here, once a process, by Keras's backend; nothing else of training and
inference knows which it is, and neither engine has to be installed for the other. Importing this module raises
UsageError for a backend that is neither, or not installed.

Names:
    make_train_step: see `train_step` and `train_step_jax`.
    make_predict: see `predictor` and `predictor_jax`.
    make_function: see `predictor`; None on JAX, which would compile it anew for every shape.
    patch_stream: see `dataset` and `prefetch`.
    BatchNormalization: the layer to train with; see `fused_normalisation`.
    ERRORS: what an update or a forward pass may raise that is neither a user's mistake nor ours.
    VERSIONS: of the engine, for the provenance of what it made.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np

from femur3d.errors import UsageError

INSTALL = {"tensorflow": "pip install tensorflow", "jax": "pip install jax"}


def _backend() -> str:
    """Keras's backend, imported. Raises UsageError where it is not one of the two, or not installed."""
    name = os.environ.get("KERAS_BACKEND") or "tensorflow"
    if name in INSTALL:
        try:
            import keras
        except ModuleNotFoundError as error:
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


BACKEND = _backend()
ERRORS: tuple[type[Exception], ...]
make_function: Callable[[list[Any], list[Any]], Callable[..., list[np.ndarray]]] | None

if BACKEND == "jax":
    import jax
    from keras.layers import BatchNormalization

    from femur3d.engines.jax_predictor import make_predict
    from femur3d.engines.jax_train_step import make_train_step
    from femur3d.engines.prefetch import patch_stream

    make_function = None
    ERRORS = (jax.errors.JaxRuntimeError, OSError)  # OSError: of the packed file; tf.data makes an OpError of it
    VERSIONS = {"jax": jax.__version__}
else:
    import tensorflow as tf

    from femur3d.engines import tensorflow_predictor as predictor
    from femur3d.engines.fused_batch_norm import BatchNormalization
    from femur3d.engines.tensorflow_predictor import make_predict
    from femur3d.training.tf_dataset import patch_stream
    from femur3d.training.train_step import make_train_step

    make_function = predictor.make_function
    ERRORS = (tf.errors.OpError,)
    VERSIONS = {"tensorflow": tf.__version__}

__all__ = ["BACKEND", "ERRORS", "VERSIONS", "BatchNormalization", "make_predict", "make_repeatable", "make_train_step"]
__all__ += ["make_function", "on_cpu", "patch_stream"]


def on_cpu() -> bool:
    """Whether there is no GPU or TPU that the engine would compute on."""
    import keras

    return all(device.startswith("cpu") for device in keras.distribution.list_devices())


def make_repeatable(training: bool = True) -> None:
    """Has the engine give the same bits every time; to be called before anything is computed.

    TensorFlow: one operator at a time, at no cost (DESIGN section 4), and on a GPU, to train, deterministic operators.
    JAX needs nothing on a CPU; on a GPU it is up to the user: `XLA_FLAGS=--xla_gpu_deterministic_ops=true`.
    """
    if BACKEND == "tensorflow":
        tf.config.threading.set_inter_op_parallelism_threads(1)
        if training and tf.config.list_physical_devices("GPU"):
            tf.config.experimental.enable_op_determinism()
