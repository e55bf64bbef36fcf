"""One update: loss, gradients, SGD (section 3.3), and the scalars that describe it."""

from __future__ import annotations

from collections.abc import Callable

import keras
import tensorflow as tf

from femur3d.config import Loss
from femur3d.training.losses import total_loss

TrainStep = Callable[[tf.Tensor, tf.Tensor], dict[str, tf.Tensor]]


def make_train_step(network: keras.Model, optimizer: keras.optimizers.Optimizer, loss: Loss) -> TrainStep:
    """The update of `network` by `optimizer` on one batch, as one TensorFlow graph.

    Args:
        network: from (batch, z, y, x, 1) to logits by head; changed by every call.
        optimizer: built for the network's trainable variables.
        loss: α and λ of equation (2).

    Returns:
        A function of images (batch, z, y, x, 1) float32 and labels (batch, z, y, x) that makes one update and
        returns scalars from before it: `loss` and its parts, `learning_rate`, `gradient_norm`.
    """
    variables = network.trainable_variables

    @tf.function(autograph=False)
    def train_step(images: tf.Tensor, labels: tf.Tensor) -> dict[str, tf.Tensor]:
        with tf.GradientTape() as tape:
            logits = network(images, training=True)
            terms = total_loss(labels, logits, variables, loss)
        gradients = tape.gradient(terms["loss"], [v.value for v in variables])
        scalars = {**terms, "learning_rate": optimizer.learning_rate, "gradient_norm": tf.linalg.global_norm(gradients)}
        optimizer.apply(gradients, variables)
        return scalars

    return train_step
