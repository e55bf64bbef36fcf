"""A network as the plain function of NumPy arrays that `sliding_window` calls."""

from __future__ import annotations

from collections.abc import Callable

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

    @tf.function(reduce_retracing=True)
    def forward(images: tf.Tensor) -> tf.Tensor:
        return model(images[..., tf.newaxis], training=False)

    def predict(patches: np.ndarray) -> np.ndarray:
        try:
            return forward(tf.constant(patches)).numpy()
        except tf.errors.ResourceExhaustedError as error:
            raise MemoryError(f"not enough for patches of {patches.shape[1:]} voxels") from error

    return predict
