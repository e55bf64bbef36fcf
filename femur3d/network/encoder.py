"""The encoder: C3D's first six convolutions, so that C3D's weights fit (section 2.2)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from femur3d.network.blocks import Blocks

# C3D's convolutions, stage by stage; 2×2×2 max pooling stands between two stages.
STAGES = (("conv1a",), ("conv2a",), ("conv3a", "conv3b"), ("conv4a", "conv4b"))


def encode(x: Any, filters: Sequence[int], blocks: Blocks) -> dict[str, Any]:
    """Builds the encoder on a tensor.

    Args:
        x: (batch, z, y, x, 1); z, y, x multiples of 8.
        filters: output channels of the four stages, e.g. (64, 128, 256, 512).
        blocks: what it is made of.

    Returns:
        The last feature of each stage by its convolution's name: `conv1a` at full resolution, `conv2a` at 1/2,
        `conv3b` at 1/4, `conv4b` at 1/8; each (batch, z, y, x, filters of the stage).
    """
    features = {}
    for stage, names in enumerate(STAGES):
        if stage:
            x = blocks.pool(x, f"pool{stage}")
        for name in names:
            x = blocks.conv(x, filters[stage], name)
        features[names[-1]] = x
    return features
