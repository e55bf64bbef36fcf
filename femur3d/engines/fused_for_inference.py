"""The network as inference runs it: batch normalisations folded into the convolutions, and these by Winograd's way.

At inference a batch normalisation is y = s·x + t with constants s and t for each channel, so it can be multiplied into
the kernel and bias of the convolution before it: the same numbers in fewer passes over memory, and in bfloat16 nothing
is left that would want float32. Winograd's way: see `network.winograd`.
"""

from __future__ import annotations

import keras
import numpy as np

from femur3d.config import Network
from femur3d.engines.winograd import WinogradConv3D
from femur3d.network.blocks import Deconv3D
from femur3d.network.unet import build_network


def fold_network(network: keras.Model, config: Network, dtype: str = "float32") -> keras.Model:
    """A trained network without batch normalisation that gives the same logits.

    Args:
        network: of `build_network(config)`; it is not changed, and later changes of its weights are not seen.
        config: its filters.
        dtype: of the blocks' weights and computation, 'float32' or 'bfloat16'; logits are float32.
    """
    folded = build_network(config, seed=None, precision=dtype, folded=True)
    for layer in folded.layers:
        if layer.weights:
            layer.set_weights(folded_weights(network, layer))
    return folded


def folded_weights(network: keras.Model, layer: keras.layers.Layer) -> list[np.ndarray]:
    """Kernel and bias of the layer that takes the place of `network`'s layer of the same name and its normalisation."""
    kernel, bias = network.get_layer(layer.name).get_weights()
    if not any(other.name == f"{layer.name}_bn" for other in network.layers):
        return [kernel, bias]  # a classifier
    normalisation = network.get_layer(f"{layer.name}_bn")
    gamma, beta, mean, variance = (w.astype(np.float64) for w in normalisation.get_weights())
    scale = gamma / np.sqrt(variance + normalisation.epsilon)
    by_channel = scale[:, None] if isinstance(layer, Deconv3D) else scale  # kernels (…, out, in) and (…, in, out)
    kernel = kernel * by_channel.astype(np.float32)  # in double precision it would take three times as long
    if isinstance(layer, WinogradConv3D):
        kernel = layer.transformed(kernel)
    return [kernel, (bias - mean) * scale + beta]
