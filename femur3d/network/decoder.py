"""The decoder: three levels of upsampling with skip connections from the encoder (section 2, Fig. 1)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from femur3d.network.blocks import Blocks

# Each level and the encoder feature of equal resolution that it is joined with.
SKIPS = (("lower", "conv3b"), ("mid", "conv2a"), ("upper", "conv1a"))


def decode(features: Mapping[str, Any], filters: Sequence[int], blocks: Blocks) -> dict[str, Any]:
    """Builds the decoder on the encoder's features; two convolution blocks follow each skip **(ours)**.

    Args:
        features: what `encoder.encode` returns.
        filters: output channels of the lower, middle and upper level, e.g. (256, 128, 64).
        blocks: what it is made of.

    Returns:
        `lower` at 1/4 of the input's resolution, `mid` at 1/2, `upper` at full; each (batch, z, y, x, filters).
    """
    x = features["conv4b"]
    levels = {}
    for (level, skip), width in zip(SKIPS, filters, strict=True):
        x = blocks.deconv(x, width, f"{level}_deconv")
        x = blocks.concatenate([x, features[skip]], f"{level}_concat")
        x = blocks.conv(x, width, f"{level}_conv_a")
        x = blocks.conv(x, width, f"{level}_conv_b")
        levels[level] = x
    return levels
