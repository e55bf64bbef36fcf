"""The network as inference runs it: every batch normalisation is fused into the convolution before it.

At inference a batch normalisation is y = s·x + t with constants s and t for each channel, so it can be multiplied into
the kernel and bias of the convolution before it: the same numbers in fewer passes over memory, and in bfloat16 nothing
is left that would want float32.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from femur3d.errors import InputError

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
    kernel, bias = layer.get_weights()
    if not any(other.name == f"{name}_bn" for other in network.layers):
        return [kernel, bias]  # a classifier
    normalisation = network.get_layer(f"{name}_bn")
    gamma, beta, mean, variance = (w.astype(np.float64) for w in normalisation.get_weights())
    if variance.min() < 0:
        raise InputError(f"Layer {name}_bn has a negative variance, {variance.min():.3g}.\n{_EXPECTED}")
    scale = gamma / np.sqrt(variance + normalisation.epsilon)
    by_channel = scale[:, None] if isinstance(layer, keras.layers.Conv3DTranspose) else scale  # (…, out, in) is its
    with np.errstate(over="ignore", invalid="ignore"):  # checked below
        kernel = kernel * by_channel.astype(np.float32)  # in double precision it would take three times as long
        bias = ((bias - mean) * scale + beta).astype(np.float32)
    if not (np.isfinite(kernel).all() and np.isfinite(bias).all()):
        raise InputError(f"Layer {name} has weights that are beyond float32 at inference.\n{_EXPECTED}")
    return [kernel, bias]


_EXPECTED = "Expected the model of a sound training."
