"""The whole network: encoder, decoder and three heads as one Keras functional model (section 2, Fig. 1)."""

from __future__ import annotations

import keras
import numpy as np

from femur3d.config import Network
from femur3d.network.architecture import logits_of
from femur3d.network.heads import probability
from femur3d.network.keras_blocks import KerasBlocks

LOWER_FEATURES = "lower_conv_b_relu"  # the layer that the decoder's lower level ends in, see `decoder.decode`


def build_network(config: Network, seed: int | None = 0, precision: str = "float32") -> keras.Model:
    """The network of Fig. 1, freshly initialised.

    Args:
        config: filters and initialisation.
        seed: of the initial kernels; None: zeros, in less time, for weights that are about to be set.
        precision: Keras's dtype policy of the blocks: 'float32', or 'mixed_bfloat16' (weights stay float32).

    Returns:
        A model from (batch, z, y, x, 1), z, y, x any multiples of 8, to the logits `{'lower', 'mid', 'upper'}`,
        each (batch, z, y, x, 2), float32.
    """
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(precision)
    try:
        image = keras.Input((None, None, None, 1), dtype="float32", name="image")
        return keras.Model(image, logits_of(image, config, KerasBlocks(config, seed)), name="femur3d")
    finally:
        keras.config.set_dtype_policy(before)


def upper_probability(network: keras.Model) -> keras.Model:
    """The part of the network that inference needs: (batch, z, y, x, 1) → P(femur) by UpperCls, (batch, z, y, x)."""
    logits = network.output["upper"]
    femur = keras.ops.sigmoid(logits[..., 1] - logits[..., 0])  # = softmax over two classes
    return keras.Model(network.input, femur, name="femur3d_upper")


def head_probabilities(network: keras.Model, patches: np.ndarray) -> dict[str, np.ndarray]:
    """P(femur) by all three heads, for a few patches: nothing is compiled.

    Args:
        network: of `build_network`.
        patches: normalised, float32 (n, z, y, x); they go through one by one.

    Returns:
        {'lower', 'mid', 'upper'}, each float32 (n, z, y, x).
    """
    found: dict[str, list[np.ndarray]] = {name: [] for name in network.output}
    for patch in patches:
        for name, logits in network(patch[np.newaxis, ..., np.newaxis], training=False).items():
            found[name].append(probability(keras.ops.convert_to_numpy(logits[0])))
    return {name: np.reshape(some, patches.shape) for name, some in found.items()}
