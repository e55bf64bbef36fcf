"""The network's weights by name and shape, without Keras: what a model's file has to hold, in whose order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from femur3d.config import Network
from femur3d.network.architecture import logits_of

Kind = Literal["conv3d", "conv3d_transpose", "batch_normalization"]  # as Keras's weights files call the layers
Shapes = list[tuple[int, ...]]

# The convolutions in the order of Keras's layers (by their distance from the outputs), which its weights files have.
ORDER = (
    "conv1a", "conv2a", "conv3a", "conv3b", "conv4a", "conv4b",
    "lower_deconv", "lower_conv_a", "lower_conv_b", "mid_deconv", "mid_conv_a", "mid_conv_b",
    "upper_deconv", "lower_cls_deconv1", "upper_conv_a", "lower_cls_deconv2", "mid_cls_deconv1", "upper_conv_b",
    "lower_cls", "mid_cls", "upper_cls",
)  # fmt: skip


class _Shapes:
    """`Blocks` whose tensors are numbers of channels: they note what each layer is and has."""

    def __init__(self) -> None:
        self.noted: dict[str, tuple[Kind, Shapes]] = {}

    def conv(self, channels: int, filters: int, name: str) -> int:
        self.classifier(channels, filters, name)
        return self._normalised(filters, name)

    def deconv(self, channels: int, filters: int, name: str) -> int:
        self.noted[name] = "conv3d_transpose", [(2, 2, 2, filters, channels), (filters,)]
        return self._normalised(filters, name)

    def pool(self, channels: int, name: str) -> int:
        return channels

    def concatenate(self, parts: Sequence[int], name: str) -> int:
        return sum(parts)

    def classifier(self, channels: int, classes: int, name: str) -> int:
        self.noted[name] = "conv3d", [(3, 3, 3, channels, classes), (classes,)]
        return classes

    def _normalised(self, filters: int, name: str) -> int:
        self.noted[f"{name}_bn"] = "batch_normalization", [(filters,)] * 4  # γ, β, moving mean and variance
        return filters


def layers_with_weights(config: Network) -> dict[str, tuple[Kind, Shapes]]:
    """Kind and shapes of the weights of every layer that has any, by its name, in the order of Keras's layers."""
    blocks = _Shapes()
    logits_of(1, config, blocks)
    return {name: blocks.noted[name] for one in ORDER for name in (one, f"{one}_bn") if name in blocks.noted}
