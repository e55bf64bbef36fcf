"""Batch normalisation of training in few passes over memory: Keras's layer with TensorFlow's fused kernel.

Keras computes mean, variance and result by operators of their own, each of which reads and writes the whole tensor, in
float32 even where the network computes in bfloat16. The fused kernel gives the same numbers, and on a CPU took a fifth
to a quarter of the time, forward and backward. On JAX the compiler fuses by itself.
"""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf


class FusedBatchNormalization(keras.layers.Layer):
    """Computes a built BatchNormalization over the last axis, on its own variables; only faster where it trains.

    Input shape: (batch, z, y, x, channels), float32 or bfloat16. Output shape: the same.
    """

    def __init__(self, layer: keras.layers.BatchNormalization) -> None:
        super().__init__(name=layer.name, dtype=layer.dtype_policy)
        self.layer = layer
        self.built = True

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        layer = self.layer
        if not training or not layer.trainable:
            return layer(inputs, training=training)
        shape = tf.shape(inputs)
        images = tf.reshape(inputs, (shape[0], shape[1], shape[2] * shape[3], inputs.shape[-1]))  # four axes at most
        outputs, mean, variance = tf.compat.v1.nn.fused_batch_norm(
            images, layer.gamma.value, layer.beta.value, epsilon=layer.epsilon, is_training=True
        )
        count = tf.cast(tf.reduce_prod(shape[:-1]), tf.float32)
        variance *= (count - 1) / count  # the kernel's is that of a sample, Keras's that of the batch
        for moving, value in ((layer.moving_mean, mean), (layer.moving_variance, variance)):
            moving.assign(layer.momentum * moving.value + (1 - layer.momentum) * value)
        return tf.reshape(outputs, shape)


def with_fused_batch_norm(network: keras.Model) -> keras.Model:
    """The same layers on the same variables, in the same order, with batch normalisation computed as above."""
    return keras.models.clone_model(network, clone_function=lambda layer: layer, call_function=_call)


def _call(layer: keras.layers.Layer, *args: Any, **kwargs: Any) -> Any:
    replaced = isinstance(layer, keras.layers.BatchNormalization)
    return FusedBatchNormalization(layer)(*args) if replaced else layer(*args, **kwargs)
