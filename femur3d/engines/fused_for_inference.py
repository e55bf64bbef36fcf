"""The network as Keras runs it at inference: every batch normalisation is folded into the convolution before it."""

from __future__ import annotations

from typing import Any

import keras

from femur3d.engines.folding import all_folded
from femur3d.inference.saved_model import weights_of

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
    epsilon = next(layer.epsilon for layer in network.layers if isinstance(layer, keras.layers.BatchNormalization))
    for name, weights in all_folded(weights_of(network), epsilon).items():
        fused.get_layer(name).set_weights(weights)
    return fused


def _call_without_normalisation(layer: keras.layers.Layer, *args: Any, **kwargs: Any) -> Any:
    return args[0] if isinstance(layer, keras.layers.BatchNormalization) else layer(*args, **kwargs)
