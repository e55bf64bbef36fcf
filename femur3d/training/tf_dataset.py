"""The tf.data stream of training batches: reads ahead of the network while it computes."""

from __future__ import annotations

import tensorflow as tf

from femur3d.data.sampler import PatchSampler

PREFETCH = 4  # batches


def patch_stream(sampler: PatchSampler, first_step: int, steps: int) -> tf.data.Dataset:
    """The batches of steps `first_step` … `steps - 1`, in order; the same in every run (see `sampler`).

    Yields:
        images: float32 (batch, z, y, x, 1).
        labels: uint8 (batch, z, y, x).
    """
    shape = (sampler.training.batch_size, *sampler.patch_size)

    def read(step: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        images, labels = tf.numpy_function(lambda s: sampler.batch(int(s)), [step], (tf.float32, tf.uint8))
        return tf.ensure_shape(images, (*shape, 1)), tf.ensure_shape(labels, shape)

    return tf.data.Dataset.range(first_step, steps).map(read).prefetch(PREFETCH)
