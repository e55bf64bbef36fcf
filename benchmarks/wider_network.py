"""A trained network embedded in a wider one that computes the same: to time the full width where it finds femurs.

The trained kernels lie in a corner of the wider ones and all other weights are zero, which a dense convolution
multiplies like any others. So the costs are those of the wide network, and the probabilities those of the narrow one.
"""

from __future__ import annotations

import keras
import numpy as np

from femur3d.config import Network
from femur3d.errors import UsageError
from femur3d.network.unet import build_network


def embed_in_wider_network(network: keras.Model, config: Network) -> keras.Model:
    """A network of `config`'s filters, none fewer than those of `network`, that gives the same logits.

    Raises:
        UsageError: a layer of `config` has fewer filters.
    """
    wide = build_network(config, seed=None)
    places = {id(wide.input): np.arange(1)}  # of the narrow network's channels in each tensor of the wide one
    for layer in wide.layers[1:]:
        inputs = layer.input if isinstance(layer.input, list) else [layer.input]
        offsets = np.cumsum([0, *(tensor.shape[-1] for tensor in inputs)])
        found = np.concatenate([places[id(t)] + offset for t, offset in zip(inputs, offsets, strict=False)])
        narrow = network.get_layer(layer.name).get_weights()
        if narrow and not isinstance(layer, keras.layers.BatchNormalization):
            places[id(layer.output)] = np.arange(len(narrow[1]))
        else:
            places[id(layer.output)] = found
        if narrow:
            layer.set_weights(_placed(layer, narrow, found))
    return wide


def _placed(layer: keras.layers.Layer, narrow: list[np.ndarray], found: np.ndarray) -> list[np.ndarray]:
    """The layer's weights: `narrow` at the input channels `found` and the first output channels; else none."""
    if isinstance(layer, keras.layers.BatchNormalization):
        neutral = [np.ones, np.zeros, np.zeros, np.ones]  # gamma, beta, moving mean and variance
        weights = [make(layer.gamma.shape, np.float32) for make in neutral]
        for ours, theirs in zip(weights, narrow, strict=True):
            ours[found] = theirs
        return weights
    kernel, bias = (np.zeros(w.shape, np.float32) for w in layer.weights)
    count = len(narrow[1])
    if count > len(bias):
        raise UsageError(
            f"{layer.name}: {len(bias)} filters cannot hold those of the trained network, {count}.\n"
            "Expected a wider network, or random weights."
        )
    bias[:count] = narrow[1]
    if isinstance(layer, keras.layers.Conv3DTranspose):
        kernel[..., np.arange(count)[:, None], found] = narrow[0]  # (2, 2, 2, out, in)
    else:
        kernel[..., found[:, None], np.arange(count)] = narrow[0]  # (3, 3, 3, in, out)
    return [kernel, bias]
