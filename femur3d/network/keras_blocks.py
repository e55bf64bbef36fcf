"""The network's blocks as layers of Keras."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import keras

from femur3d.config import Network


@dataclasses.dataclass(frozen=True)
class KerasBlocks:
    """See `network.blocks.Blocks`. A block's convolution is called `name`; its other layers append `_bn` and `_relu`.

    Every convolution has a bias, 0 at first; batch normalisation begins with γ = 1 and β = 0 **(ours)**.

    Attributes:
        config: initialisation and batch normalisation.
        seed: of the initial kernels; each layer adds its own name to it. None: zeros, for weights about to be set.
    """

    config: Network = dataclasses.field(default_factory=Network)
    seed: int | None = 0

    def conv(self, x: Any, filters: int, name: str) -> Any:
        """See `Blocks.conv`."""
        initializer = self.kernel_initializer(name)
        layer = keras.layers.Conv3D(filters, 3, padding="same", kernel_initializer=initializer, name=name)
        return self._normalise_and_rectify(layer(x), name)

    def deconv(self, x: Any, filters: int, name: str) -> Any:
        """See `Blocks.deconv`."""
        initializer = self.kernel_initializer(name)
        layer = keras.layers.Conv3DTranspose(filters, 2, strides=2, kernel_initializer=initializer, name=name)
        return self._normalise_and_rectify(layer(x), name)

    def pool(self, x: Any, name: str) -> Any:
        """See `Blocks.pool`."""
        return keras.layers.MaxPooling3D(2, name=name)(x)

    def concatenate(self, parts: Sequence[Any], name: str) -> Any:
        """See `Blocks.concatenate`."""
        return keras.layers.Concatenate(name=name)(list(parts))

    def classifier(self, x: Any, classes: int, name: str) -> Any:
        """See `Blocks.classifier`."""
        initializer = self.kernel_initializer(name)
        return keras.layers.Conv3D(
            classes, 3, padding="same", kernel_initializer=initializer, dtype="float32", name=name
        )(x)

    def kernel_initializer(self, name: str) -> keras.initializers.Initializer:
        """Of the layer `name`: the same seed gives the same kernels, another name gives other ones."""
        if self.seed is None:
            return keras.initializers.Zeros()
        seed = (self.seed * 1_000_003 + sum(31**i * ord(c) for i, c in enumerate(name))) % 2**31
        if self.config.initialisation == "he":
            return keras.initializers.HeNormal(seed=seed)
        return keras.initializers.RandomNormal(mean=0.0, stddev=self.config.initial_deviation, seed=seed)

    def _normalise_and_rectify(self, x: Any, name: str) -> Any:
        momentum, epsilon = self.config.bn_momentum, self.config.bn_epsilon
        x = keras.layers.BatchNormalization(momentum=momentum, epsilon=epsilon, name=f"{name}_bn")(x)
        return keras.layers.ReLU(name=f"{name}_relu")(x)
