"""The network as Keras runs it at inference: every batch normalisation is folded into the convolution before it."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from femur3d.engines.folding import folded

CONVOLUTIONS = (keras.layers.Conv3D, keras.layers.Conv3DTranspose)


def fuse_for_inference(network: keras.Model, dtype: str = "float32") -> keras.Model:
    """A trained network without batch normalisation that gives the same logits.

    Args:
        network: of `network.unet.build_network`; it is not changed, and later changes of its weights are not seen.
        dtype: of the blocks' weights and computation, 'float32' or 'bfloat16'; classifiers and logits are float32.

    Raises:
        InputError: weights that give no finite kernel, or a negative variance.
    """
    classifiers = {f"{head}_cls" for head in network.output}

    def clone(layer: keras.layers.Layer) -> keras.layers.Layer:
        config = {**layer.get_config(), "dtype": "float32" if layer.name in classifiers else dtype}
        if isinstance(layer, CONVOLUTIONS):
            config["kernel_initializer"] = "zeros"  # they are about to be set
        return type(layer).from_config(config)

    fused = keras.models.clone_model(network, clone_function=clone, call_function=_call_without_normalisation)
    for layer in fused.layers:
        if layer.weights:
            layer.set_weights(fused_weights(network, layer.name))
    return fused


def _call_without_normalisation(layer: keras.layers.Layer, *args: Any, **kwargs: Any) -> Any:
    return args[0] if isinstance(layer, keras.layers.BatchNormalization) else layer(*args, **kwargs)


def fused_weights(network: keras.Model, name: str) -> list[np.ndarray]:
    """Kernel and bias of the network's convolution `name` with the normalisation behind it. Raises InputError."""
    layer = network.get_layer(name)
    if not any(other.name == f"{name}_bn" for other in network.layers):
        return layer.get_weights()  # a classifier
    normalisation = network.get_layer(f"{name}_bn")
    transposed = isinstance(layer, keras.layers.Conv3DTranspose)
    return folded(name, layer.get_weights(), normalisation.get_weights(), normalisation.epsilon, transposed)
