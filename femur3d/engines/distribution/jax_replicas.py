"""JAX on all devices of one machine: `keras.distribution.DataParallel`.

Arrays of a batch are cut among the devices and variables are on all of them; XLA makes of the same update one that
computes on all. Its means, those of batch normalisation too, are over the whole batch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import keras

from femur3d.config import Loss
from femur3d.engines.jax_engine import JaxEngine


class JaxReplicas(JaxEngine):
    """See `KerasEngine`; variables that are made from now on, in this process, are on all devices."""

    def __init__(self) -> None:
        self._distribution = keras.distribution.DataParallel(devices=keras.distribution.list_devices())
        keras.distribution.set_distribution(self._distribution)

    def device_name(self) -> str:
        """See `KerasEngine.device_name`."""
        count = len(keras.distribution.list_devices())
        return f"{count} replicas ({super().device_name()}), batch normalisation synchronised"

    def make_train_step(
        self, network: keras.Model, optimizer: keras.optimizers.Optimizer, loss: Loss
    ) -> Callable[[Any, Any], dict[str, Any]]:
        """See `JaxEngine.make_train_step`."""
        train_step = super().make_train_step(network, optimizer, loss)
        return lambda images, labels: train_step(self._cut(images), self._cut(labels))

    def _cut(self, batch: Any) -> jax.Array:
        return jax.device_put(batch, self._distribution.get_data_layout(batch.shape).backend_layout)
