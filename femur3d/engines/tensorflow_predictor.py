"""A network as the plain function of NumPy arrays that `sliding_window` calls."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from femur3d.network.unet import upper_probability


def make_predict(network: keras.Model) -> Callable[[np.ndarray], np.ndarray]:
    """P(femur) by UpperCls: float32 (batch, z, y, x) normalised patches → float32 (batch, z, y, x).

    The function sees the network's weights as they are at each call. It raises MemoryError where TensorFlow runs out
    of memory.
    """
    model = upper_probability(network)
    function = make_function([model.input], [model.output])
    return lambda patches: function(patches[..., np.newaxis])[0]


def make_function(inputs: list[Any], outputs: list[Any]) -> Callable[..., list[np.ndarray]]:
    """A part of a network: a function of one array for each input, float32 (batch, z, y, x, channels).

    Args:
        inputs: symbolic tensors of the network to start from.
        outputs: tensors of it that depend on no others than those; the function returns a list of an array for each,
            float32. See `make_predict` for weights and memory.
    """
    model = keras.Model(inputs, outputs)

    @tf.function(reduce_retracing=True, autograph=False)
    def forward(*tensors: tf.Tensor) -> list[tf.Tensor]:
        return [tf.cast(found, tf.float32) for found in tf.nest.flatten(model(list(tensors), training=False))]

    def function(*arrays: np.ndarray) -> list[np.ndarray]:
        try:
            return [found.numpy() for found in forward(*map(tf.constant, arrays))]
        except tf.errors.ResourceExhaustedError as error:
            raise MemoryError(f"not enough for patches of {arrays[0].shape[1:4]} voxels") from error

    return function
