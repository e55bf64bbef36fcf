"""Winograd's minimal filtering along one axis: a 3×3×3 convolution with half of the multiplications.

Lavin & Gray, "Fast Algorithms for Convolutional Neural Networks" (CVPR 2016), section 4: F(m, 3) makes m neighbouring
outputs of a filter of three taps with m + 2 multiplications instead of 3·m. Along z each of them is a 3×3 convolution
over y and x, which the engine's own convolution does; what is left here are the sums before and after. Doing the same
along a second axis would save more multiplications, and lose most of that again to passes over memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from femur3d.network.heads import CLASSES

MIN_CHANNELS = 32  # of the input; with fewer, the sums take the time that the products save
TILE = 4  # m
KERNEL = (  # the matrix G: from the three taps of a kernel to its m + 2 factors
    (1 / 4, 0, 0),
    (-1 / 6, -1 / 6, -1 / 6),
    (-1 / 6, 1 / 6, -1 / 6),
    (1 / 24, 1 / 12, 1 / 6),
    (1 / 24, -1 / 12, 1 / 6),
    (0, 0, 1),
)


def with_winograd(network: keras.Model) -> keras.Model:
    """The same network with Winograd's convolutions where they are faster; these keep the weights of now.

    They are on CPUs, in float32, if the input is not too narrow, and for a classifier never. What they do on GPUs has
    not been measured; their libraries have ways of their own.
    """
    if any(not device.startswith("cpu") for device in keras.distribution.list_devices()):
        return network
    return keras.models.clone_model(network, clone_function=lambda layer: layer, call_function=_call)


def _call(layer: keras.layers.Layer, *args: Any, **kwargs: Any) -> Any:
    if not isinstance(layer, keras.layers.Conv3D) or layer.filters <= CLASSES:
        return layer(*args, **kwargs)
    (inputs,) = args
    if inputs.dtype != "float32" or inputs.shape[-1] < MIN_CHANNELS:
        return layer(inputs)
    kernel, bias = layer.get_weights()
    twin = WinogradConv3D(layer.filters, name=layer.name)
    outputs = twin(inputs)
    twin.set_weights([twin.transformed(kernel), bias])
    return outputs


class WinogradConv3D(keras.layers.Layer):
    """3×3×3 convolution of stride 1 with zero padding, by F(4, 3) along z; for inference.

    The numbers are those of Conv3D but for rounding, in float32; for bfloat16 the sums are too coarse.

    Input shape: (batch, z, y, x, in). Output shape: (batch, z, y, x, filters).

    Weights: `kernel` (6, 3, 3, in, filters), see `transformed`; `bias` (filters,).
    """

    def __init__(self, filters: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.filters = filters

    def build(self, input_shape: Sequence[int | None]) -> None:
        shape = (len(KERNEL), 3, 3, input_shape[-1], self.filters)
        self.kernel = self.add_weight(name="kernel", shape=shape, initializer="zeros")
        self.bias = self.add_weight(name="bias", shape=(self.filters,), initializer="zeros")

    def transformed(self, kernel: np.ndarray) -> np.ndarray:
        """A Conv3D's kernel, float (3, 3, 3, in, filters), as this layer keeps it; same dtype."""
        return np.tensordot(np.array(KERNEL, kernel.dtype), kernel, 1)

    def compute_output_shape(self, input_shape: Sequence[int | None]) -> tuple[int | None, ...]:
        return (*input_shape[:-1], self.filters)

    def call(self, inputs: Any) -> Any:
        batch, z, y, x, channels = ops.shape(inputs)
        tiles = (z + TILE - 1) // TILE
        padded = ops.pad(inputs, ((0, 0), (1, (tiles + 1) * TILE - 1 - z), (0, 0), (0, 0), (0, 0)))
        in_tiles = ops.reshape(padded, (batch, tiles + 1, TILE, y, x, channels))
        own, next_two = ops.unstack(in_tiles[:, :tiles], axis=2), ops.unstack(in_tiles[:, 1:, :2], axis=2)
        products = [
            ops.conv(ops.reshape(factor, (batch * tiles, y, x, channels)), self.kernel[k], padding="same")
            for k, factor in enumerate(_input_factors(*own, *next_two))
        ]
        outputs = ops.stack(_outputs(*products), axis=1)  # (batch·tiles, 4, y, x, filters)
        outputs = ops.reshape(outputs, (batch, tiles * TILE, y, x, self.filters))
        return outputs[:, :z] + self.bias


def _input_factors(d0: Any, d1: Any, d2: Any, d3: Any, d4: Any, d5: Any) -> list[Any]:
    """The product of the matrix Bᵀ with six neighbouring inputs; what two rows share is computed once."""
    even, odd = d4 - 4 * d2, d3 - 4 * d1
    far_even, far_odd = d4 - d2, 2 * (d3 - d1)
    return [4 * d0 - 5 * d2 + d4, even + odd, even - odd, far_even + far_odd, far_even - far_odd, 4 * d1 - 5 * d3 + d5]


def _outputs(p0: Any, p1: Any, p2: Any, p3: Any, p4: Any, p5: Any) -> list[Any]:
    """The product of the matrix Aᵀ with the six products: four neighbouring outputs."""
    total, difference = p1 + p2, p1 - p2
    far_total, far_difference = p3 + p4, p3 - p4
    return [
        p0 + total + far_total,
        difference + 2 * far_difference,
        total + 4 * far_total,
        difference + 8 * far_difference + p5,
    ]
