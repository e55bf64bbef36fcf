"""A patch head by head, each only where the one below it is unsure: half of the work for almost the same probabilities.

Three quarters of the network's work are in the two finer levels of the decoder, and most of a patch is far from any
femur's surface. So LowerCls looks at all of a patch, MidCls at the box of the voxels that LowerCls is unsure about,
UpperCls at the box of those that MidCls is unsure about. Each voxel keeps the word of the finest head that saw it.

An edge of a box is an edge of the image to the convolutions, which they pad with zeros. Margins keep it away from the
voxels in question.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from femur3d.network.heads import probability
from femur3d.network.unet import level_features

Function = Callable[..., list[np.ndarray]]
Box = tuple[slice, slice, slice]

SURE = 0.1  # a head is sure where P(femur) is less than this, or more than 1 minus this
MARGINS = (8, 3)  # voxels around those that LowerCls, MidCls is unsure about
SCALES = (4, 2)  # voxels of the patch along an edge of one of the lower, the middle level
STEP = 4  # boxes begin and end at multiples of it, where voxels of all levels do


def make_predict(
    network: keras.Model, make_function: Callable[[list[Any], list[Any]], Function]
) -> Callable[[np.ndarray], np.ndarray]:
    """P(femur): float32 (batch, z, y, x) normalised patches → float32 (batch, z, y, x).

    Args:
        network: of `network.folded.fold_network`, or another of `network.unet.build_network`.
        make_function: of a predictor module. Its functions meet arrays of many shapes.
    """
    image, logits, features = network.input, network.output, level_features(network)
    functions = (
        make_function([image], [logits["lower"], features["lower"]]),
        make_function([image, features["lower"]], [logits["mid"], features["mid"]]),
        make_function([image, features["mid"]], [logits["upper"]]),
    )

    def look(level: int, patch: np.ndarray, found: np.ndarray, *below: np.ndarray) -> None:
        """Fills in what this level and the finer ones find in a patch, or in a box of one, (z, y, x)."""
        batch = np.ascontiguousarray(patch)[np.newaxis, ..., np.newaxis]
        scores, *own = functions[level](batch, *below)
        found[...] = probability(scores[0])
        box = unsure_box(found, MARGINS[level]) if own else None
        if box is not None:
            look(level + 1, patch[box], found[box], _cut(own[0], box, SCALES[level]))

    def predict(patches: np.ndarray) -> np.ndarray:
        found = np.empty(patches.shape, np.float32)
        for patch, one in zip(patches, found, strict=True):
            look(0, patch, one)
        return found

    return predict


def unsure_box(probabilities: np.ndarray, margin: int) -> Box | None:
    """The smallest box, in steps of `STEP`, with all voxels of a patch (z, y, x) that are unsure and `margin` around.

    None where there is no such voxel.
    """
    unsure = (probabilities >= SURE) & (probabilities <= 1 - SURE)
    if not unsure.any():
        return None
    box = []
    for axis, size in enumerate(unsure.shape):
        places = np.flatnonzero(unsure.any(axis=tuple(other for other in range(3) if other != axis)))
        low, high = int(places[0]) - margin, int(places[-1]) + 1 + margin
        box.append(slice(max(low // STEP * STEP, 0), min(-(-high // STEP) * STEP, size)))
    return box[0], box[1], box[2]


def _cut(features: np.ndarray, box: Box, scale: int) -> np.ndarray:
    """The part of a level's features, (1, z, y, x, channels), in a box of the patch."""
    z, y, x = (slice(axis.start // scale, axis.stop // scale) for axis in box)
    return np.ascontiguousarray(features[:, z, y, x])
