"""A network as the plain function of NumPy arrays that `sliding_window` calls, on JAX; see `predictor`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import keras
import numpy as np

from femur3d.network.unet import upper_probability


def make_predict(network: keras.Model) -> Callable[[np.ndarray], np.ndarray]:
    """P(femur) by UpperCls: float32 (batch, z, y, x) normalised patches → float32 (batch, z, y, x).

    The function sees the network's weights as they are at each call. It raises MemoryError where JAX runs out of
    memory.
    """
    model = upper_probability(network)

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
