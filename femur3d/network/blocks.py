"""The two blocks that the network is made of: convolution or deconvolution, batch normalisation, ReLU (section 2.1)."""

from __future__ import annotations

import dataclasses
from typing import Any

import keras
from keras import ops

from femur3d.engines.winograd import WinogradConv3D, is_faster


@dataclasses.dataclass(frozen=True)
class BlockOptions:
    """What all blocks of one network share.

    Attributes:
        initialisation: 'normal' is N(0, 0.01), the paper's (section 3); 'he' is He's normal for ReLU.
        bn_momentum: decay of batch normalisation's moving statistics.
        bn_epsilon: what batch normalisation adds to the variance.
        seed: of the initial kernels; each layer adds its own name to it. None: zeros, for weights about to be set.
        folded: the blocks of inference (`network.folded`): without batch normalisation, and with `winograd`'s
            convolutions where these are faster.
        normalisation: the layer for it; Keras's, or one of an engine that has the same weights and numbers.
    """

    initialisation: str = "normal"
    bn_momentum: float = 0.99
    bn_epsilon: float = 1e-3
    seed: int | None = 0
    folded: bool = False
    normalisation: type[keras.layers.BatchNormalization] = keras.layers.BatchNormalization

    def kernel_initializer(self, name: str) -> keras.initializers.Initializer:
        """The initialiser of the layer `name`: the same seed gives the same kernels, another name gives other ones."""
        if self.seed is None:
            return keras.initializers.Zeros()
        seed = (self.seed * 1_000_003 + sum(31**i * ord(c) for i, c in enumerate(name))) % 2**31
        if self.initialisation == "he":
            return keras.initializers.HeNormal(seed=seed)
        return keras.initializers.RandomNormal(mean=0.0, stddev=0.01, seed=seed)


class Deconv3D(keras.layers.Conv3DTranspose):
    """2×2×2 transposed convolution of stride 2, as a matrix product and depth-to-space.

    Each input voxel makes its own 2×2×2 output voxels and no two overlap, so the product with the kernel, (out·8, in),
    is all there is to compute. Weights and numbers are those of Conv3DTranspose(filters, 2, strides=2); only faster.

    Input shape: (batch, z, y, x, in). Output shape: (batch, 2z, 2y, 2x, filters).
    """

    def __init__(self, filters: int, **kwargs: Any) -> None:
        super().__init__(filters, 2, strides=2, **kwargs)

    def call(self, inputs: Any) -> Any:
        batch, z, y, x, channels = ops.shape(inputs)
        kernel = ops.transpose(ops.reshape(self.kernel, (8 * self.filters, channels)))  # from (2, 2, 2, out, in)
        product = ops.matmul(ops.reshape(inputs, (-1, channels)), kernel)
        corners = ops.reshape(product, (batch, z, y, x, 2, 2, 2, self.filters))
        outputs = ops.reshape(
            ops.transpose(corners, (0, 1, 4, 2, 5, 3, 6, 7)), (batch, 2 * z, 2 * y, 2 * x, self.filters)
        )
        return outputs + self.bias


def conv_block(x: Any, filters: int, name: str, options: BlockOptions) -> Any:
    """3×3×3 convolution (stride 1, same padding), batch normalisation, ReLU.

    Args:
        x: (batch, z, y, x, channels).
        filters: output channels.
        name: of the convolution; the normalisation and the ReLU append `_bn` and `_relu`.
        options: initialisation and normalisation.

    Returns:
        (batch, z, y, x, filters).
    """
    if options.folded and is_faster(x):
        x = WinogradConv3D(filters, name=name)(x)
    else:
        initializer = options.kernel_initializer(name)
        x = keras.layers.Conv3D(filters, 3, padding="same", kernel_initializer=initializer, name=name)(x)
    return _normalise_and_rectify(x, name, options)


def deconv_block(x: Any, filters: int, name: str, options: BlockOptions) -> Any:
    """2×2×2 transposed convolution of stride 2 **(ours)**, batch normalisation, ReLU: doubles z, y and x.

    Args and Returns as `conv_block`, with (batch, 2z, 2y, 2x, filters).
    """
    initializer = options.kernel_initializer(name)
    x = Deconv3D(filters, kernel_initializer=initializer, name=name)(x)
    return _normalise_and_rectify(x, name, options)


def _normalise_and_rectify(x: Any, name: str, options: BlockOptions) -> Any:
    if not options.folded:
        x = options.normalisation(momentum=options.bn_momentum, epsilon=options.bn_epsilon, name=f"{name}_bn")(x)
    return keras.layers.ReLU(name=f"{name}_relu")(x)
