"""The encoder: C3D's first six convolutions, so that C3D's weights fit (section 2.2)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from femur3d.network.blocks import BlockOptions, conv_block

# C3D's convolutions, stage by stage; 2×2×2 max pooling stands between two stages.
STAGES = (("conv1a",), ("conv2a",), ("conv3a", "conv3b"), ("conv4a", "conv4b"))


def encode(x: Any, filters: Sequence[int], options: BlockOptions) -> dict[str, Any]:
    """Builds the encoder on a tensor.

    Args:
        x: (batch, z, y, x, 1); z, y, x multiples of 8.
        filters: output channels of the four stages, e.g. (64, 128, 256, 512).
        options: what all blocks share.

    Returns:
        The last feature of each stage by its convolution's name: `conv1a` at full resolution, `conv2a` at 1/2,
        `conv3b` at 1/4, `conv4b` at 1/8; each (batch, z, y, x, filters of the stage).
    """
    features = {}
    for stage, names in enumerate(STAGES):
        if stage:
            x = keras.layers.MaxPooling3D(2, name=f"pool{stage}")(x)
        for name in names:
            x = conv_block(x, filters[stage], name, options)
        features[names[-1]] = x
    return features
