"""LowerCls, MidCls and UpperCls: a classification of every voxel from each decoder level (section 2.1, Fig. 1)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.special import expit

from femur3d.network.blocks import Blocks

CLASSES = 2  # background, femur


def classify(levels: Mapping[str, Any], filters: Sequence[int], blocks: Blocks) -> dict[str, Any]:
    """Builds the three heads: deconvolution blocks up to the input's resolution, then a 3×3×3 classifier.

    LowerCls takes two deconvolution blocks, MidCls one, UpperCls none; a block has the width of the decoder level
    whose resolution it reaches **(ours)**.

    Args:
        levels: what `decoder.decode` returns.
        filters: of the decoder's lower, middle and upper level.
        blocks: what they are made of.

    Returns:
        Logits `lower`, `mid`, `upper`, each (batch, z, y, x, 2) at full resolution, float32.
    """
    return {level: _head(x, filters[1 + i :], f"{level}_cls", blocks) for i, (level, x) in enumerate(levels.items())}


def _head(x: Any, widths: Sequence[int], name: str, blocks: Blocks) -> Any:
    for i, width in enumerate(widths, start=1):
        x = blocks.deconv(x, width, f"{name}_deconv{i}")
    return blocks.classifier(x, CLASSES, name)


def probability(logits: np.ndarray) -> np.ndarray:
    """P(femur), the softmax over the two classes: (..., 2) → (...), of the same dtype."""
    return expit(logits[..., 1] - logits[..., 0])
