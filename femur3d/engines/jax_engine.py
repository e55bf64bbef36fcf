"""JAX as the engine (`KERAS_BACKEND=jax`): an update as one function of the whole state, compiled by XLA."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import keras
import numpy as np

from femur3d.config import Loss
from femur3d.data.sampler import PatchSampler
from femur3d.engines.hardware import cpu_name
from femur3d.engines.keras_engine import KerasEngine
from femur3d.engines.layers.matmul_deconv import with_matmul_deconv
from femur3d.io.read_ahead import read_ahead
from femur3d.network.unet import upper_probability
from femur3d.training.losses import total_loss

PREFETCH = 4  # batches


class JaxEngine(KerasEngine):
    """See `KerasEngine`."""

    name = "jax"
    errors = (jax.errors.JaxRuntimeError, OSError)  # OSError: of the packed file; tf.data makes an OpError of it
    versions: ClassVar[dict[str, str]] = {"jax": jax.__version__}
    takes_any_shape = False

    def make_repeatable(self, training: bool = True) -> None:
        """Nothing is needed on a CPU; on a GPU the user sets `XLA_FLAGS=--xla_gpu_deterministic_ops=true`."""

    def device_name(self) -> str:
        """See `KerasEngine.device_name`."""
        names = [device.device_kind for device in jax.devices() if device.platform != "cpu"]
        return f"GPU: {', '.join(names)}" if names else cpu_name()

    def patch_stream(
        self, sampler: PatchSampler, first_step: int, steps: int
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """See `KerasEngine.patch_stream`: a thread reads ahead while the network computes.

        What a batch raises is raised in its turn. Closing the stream (as Python does with one that is dropped) ends
        the thread.
        """
        for batch in read_ahead(sampler.batch, range(first_step, steps), PREFETCH):
            yield batch.result()

    def make_train_step(
        self, network: keras.Model, optimizer: keras.optimizers.Optimizer, loss: Loss
    ) -> Callable[[Any, Any], dict[str, Any]]:
        """See `train_step.make_train_step`.

        The variables of network and optimiser hold the new values after every call. The arrays that they held before
        it are given up to the update, so that it needs no second copy of them: nothing else may keep those.
        """
        network = with_matmul_deconv(network)

        def loss_and_rest(weights: list, statistics: list, images: Any, labels: Any) -> tuple[Any, tuple[dict, list]]:
            logits, statistics = network.stateless_call(weights, statistics, images, training=True)
            terms = total_loss(labels, logits, weights, loss)
            return terms["loss"], (terms, statistics)

        @functools.partial(jax.jit, donate_argnums=0)
        def update(state: list[list], images: Any, labels: Any) -> tuple[list[list], dict[str, Any]]:
            weights, statistics, slots = state
            differentiate = jax.value_and_grad(loss_and_rest, has_aux=True)
            (_, (terms, statistics)), gradients = differentiate(weights, statistics, images, labels)
            with keras.StatelessScope(list(zip(optimizer.variables, slots, strict=True))):
                rate = optimizer.learning_rate
            norm = jnp.sqrt(sum(jnp.sum(jnp.square(g)) for g in gradients))
            weights, slots = optimizer.stateless_apply(slots, gradients, weights)
            return [weights, statistics, slots], {**terms, "learning_rate": rate, "gradient_norm": norm}

        variables = [network.trainable_variables, network.non_trainable_variables, optimizer.variables]

        def train_step(images: Any, labels: Any) -> dict[str, Any]:
            state, scalars = update([[v.value for v in group] for group in variables], images, labels)
            for group, values in zip(variables, state, strict=True):
                for variable, value in zip(group, values, strict=True):
                    variable.assign(value)
            return scalars

        return train_step

    def make_predict(self, network: keras.Model) -> Callable[[np.ndarray], np.ndarray]:
        """See `KerasEngine.make_predict`."""
        model = upper_probability(with_matmul_deconv(network))

        @jax.jit
        def forward(weights: list, statistics: list, images: Any) -> Any:
            return model.stateless_call(weights, statistics, images[..., None], training=False)[0]

        def predict(patches: np.ndarray) -> np.ndarray:
            state = [[v.value for v in group] for group in (model.trainable_variables, model.non_trainable_variables)]
            try:
                return np.asarray(forward(*state, patches))
            except jax.errors.JaxRuntimeError as error:
                if "RESOURCE_EXHAUSTED" not in str(error):
                    raise
                raise MemoryError(f"not enough for patches of {patches.shape[1:]} voxels") from error

        return predict

    def make_function(self, inputs: list[Any], outputs: list[Any]) -> Callable[..., list[np.ndarray]]:
        """JAX would compile such a function anew for every shape."""
        raise NotImplementedError
