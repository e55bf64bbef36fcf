"""The decoder: three levels of upsampling with skip connections from the encoder (section 2, Fig. 1)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras

from femur3d.network.blocks import BlockOptions, conv_block, deconv_block

# Each level and the encoder feature of equal resolution that it is joined with.
SKIPS = (("lower", "conv3b"), ("mid", "conv2a"), ("upper", "conv1a"))


def decode(features: Mapping[str, Any], filters: Sequence[int], options: BlockOptions) -> dict[str, Any]:
    """Builds the decoder on the encoder's features.

    Args:
        features: what `encoder.encode` returns.
        filters: output channels of the lower, middle and upper level, e.g. (256, 128, 64).
        options: what all blocks share.

    Returns:
        `lower` at 1/4 of the input's resolution, `mid` at 1/2, `upper` at full; each (batch, z, y, x, filters).
    """
    x = features["conv4b"]
    levels = {}
    for (level, skip), width in zip(SKIPS, filters, strict=True):
        x = deconv_block(x, width, f"{level}_deconv", options)
        x = keras.layers.Concatenate(name=f"{level}_concat")([x, features[skip]])
        x = conv_block(x, width, f"{level}_conv_a", options)
        x = conv_block(x, width, f"{level}_conv_b", options)
        levels[level] = x
    return levels
