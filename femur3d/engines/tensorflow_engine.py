"""TensorFlow, the default engine and the reference: trains by GradientTape, predicts by one graph."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import keras
import numpy as np
import tensorflow as tf

from femur3d.config import Loss
from femur3d.data.sampler import PatchSampler
from femur3d.engines.hardware import cpu_name, has_gpu
from femur3d.engines.keras_engine import KerasEngine
from femur3d.engines.layers.fused_batch_norm import with_fused_batch_norm
from femur3d.engines.layers.matmul_deconv import with_matmul_deconv
from femur3d.engines.layers.winograd import with_winograd
from femur3d.network.unet import upper_probability
from femur3d.training import train_step

PREFETCH = 4  # batches


class TensorFlowEngine(KerasEngine):
    """See `KerasEngine`."""

    name = "tensorflow"
    errors: tuple[type[Exception], ...] = (tf.errors.OpError,)
    versions: ClassVar[dict[str, str]] = {"tensorflow": tf.__version__}
    takes_any_shape = True

    def make_repeatable(self, training: bool = True) -> None:
        """Has TensorFlow give the same bits every time; to be called before anything is computed.

        One operator at a time, at no cost (DESIGN section 4), and on a GPU, to train, deterministic operators.
        """
        tf.config.threading.set_inter_op_parallelism_threads(1)
        gpus = tf.config.list_physical_devices("GPU")
        for gpu in gpus:  # by itself TensorFlow takes all memory of every GPU at once
            tf.config.experimental.set_memory_growth(gpu, True)
        if training and gpus:
            tf.config.experimental.enable_op_determinism()

    def device_name(self) -> str:
        """See `KerasEngine.device_name`."""
        gpus = tf.config.list_physical_devices("GPU")
        names = [str(tf.config.experimental.get_device_details(gpu).get("device_name") or gpu.name) for gpu in gpus]
        if names:
            return f"GPU: {', '.join(names)}"
        unused = " (there is an NVIDIA GPU that TensorFlow cannot use: pip install 'femur3d[gpu]')" if has_gpu() else ""
        return f"{cpu_name()}{unused}"

    def patch_stream(self, sampler: PatchSampler, first_step: int, steps: int) -> tf.data.Dataset:
        """See `KerasEngine.patch_stream`."""
        shape = sampler.batch_shape

        def read(step: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            images, labels = tf.numpy_function(lambda s: sampler.batch(int(s)), [step], (tf.float32, tf.uint8))
            return tf.ensure_shape(images, (*shape, 1)), tf.ensure_shape(labels, shape)

        return tf.data.Dataset.range(first_step, steps).map(read).prefetch(PREFETCH)

    def make_train_step(
        self, network: keras.Model, optimizer: keras.optimizers.Optimizer, loss: Loss
    ) -> train_step.TrainStep:
        """See `train_step.make_train_step`; computes on the network's own variables, only faster."""
        faster = with_fused_batch_norm(with_matmul_deconv(network))
        return train_step.make_train_step(faster, optimizer, loss)

    def make_predict(self, network: keras.Model) -> Callable[[np.ndarray], np.ndarray]:
        """See `KerasEngine.make_predict`."""
        function = _make_function(upper_probability(with_matmul_deconv(network)))
        return lambda patches: function(patches[..., np.newaxis])[0]

    def make_function(self, inputs: list[Any], outputs: list[Any]) -> Callable[..., list[np.ndarray]]:
        """See `KerasEngine.make_function`."""
        return _make_function(with_matmul_deconv(with_winograd(keras.Model(inputs, outputs))))


def _make_function(model: keras.Model) -> Callable[..., list[np.ndarray]]:
    """The model as a function of NumPy arrays. Raises MemoryError where TensorFlow runs out of memory."""

    @tf.function(reduce_retracing=True, autograph=False)
    def forward(*tensors: tf.Tensor) -> list[tf.Tensor]:
        found = model(list(tensors) if len(tensors) > 1 else tensors[0], training=False)
        return [tf.cast(output, tf.float32) for output in tf.nest.flatten(found)]

    def function(*arrays: np.ndarray) -> list[np.ndarray]:
        try:
            return [found.numpy() for found in forward(*map(tf.constant, arrays))]
        except tf.errors.ResourceExhaustedError as error:
            raise MemoryError(f"not enough for patches of {arrays[0].shape[1:4]} voxels") from error

    return function
