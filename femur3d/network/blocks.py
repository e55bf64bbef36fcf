"""The network's two blocks: convolution or deconvolution, batch normalisation, ReLU (section 2, Fig. 1)."""

from __future__ import annotations

import dataclasses
from typing import Any

import keras

from femur3d.config import Network


@dataclasses.dataclass(frozen=True)
class BlockOptions:
    """What all blocks of one network share.

    Attributes:
        config: initialisation and batch normalisation.
        seed: of the initial kernels; each layer adds its own name to it. None: zeros, for weights about to be set.
    """

    config: Network = dataclasses.field(default_factory=Network)
    seed: int | None = 0

    def kernel_initializer(self, name: str) -> keras.initializers.Initializer:
        """The initialiser of the layer `name`: the same seed gives the same kernels, another name gives other ones."""
        if self.seed is None:
            return keras.initializers.Zeros()
        seed = (self.seed * 1_000_003 + sum(31**i * ord(c) for i, c in enumerate(name))) % 2**31
        if self.config.initialisation == "he":
            return keras.initializers.HeNormal(seed=seed)
        return keras.initializers.RandomNormal(mean=0.0, stddev=self.config.initial_deviation, seed=seed)


def conv_block(x: Any, filters: int, name: str, options: BlockOptions) -> Any:
    """3×3×3 convolution (stride 1, same padding **(ours)**), batch normalisation, ReLU.

    Args:
        x: (batch, z, y, x, channels).
        filters: output channels.
        name: of the convolution; the normalisation and the ReLU append `_bn` and `_relu`.
        options: initialisation and normalisation.

    Returns:
        (batch, z, y, x, filters).
    """
    initializer = options.kernel_initializer(name)
    x = keras.layers.Conv3D(filters, 3, padding="same", kernel_initializer=initializer, name=name)(x)
    return _normalise_and_rectify(x, name, options.config)


def deconv_block(x: Any, filters: int, name: str, options: BlockOptions) -> Any:
    """2×2×2 transposed convolution of stride 2 **(ours)**, batch normalisation, ReLU: doubles z, y and x.

    Args and Returns as `conv_block`, with (batch, 2z, 2y, 2x, filters).
    """
    initializer = options.kernel_initializer(name)
    x = keras.layers.Conv3DTranspose(filters, 2, strides=2, kernel_initializer=initializer, name=name)(x)
    return _normalise_and_rectify(x, name, options.config)


def _normalise_and_rectify(x: Any, name: str, config: Network) -> Any:
    x = keras.layers.BatchNormalization(momentum=config.bn_momentum, epsilon=config.bn_epsilon, name=f"{name}_bn")(x)
    return keras.layers.ReLU(name=f"{name}_relu")(x)
