"""A patch in two looks: LowerCls sees all of it, the finer levels only the box that LowerCls is unsure about.

Three quarters of the network's work are in the two finer levels of the decoder, and most of a patch is far from any
femur's surface. There LowerCls has the last word; within the box it is UpperCls.

To the convolutions an edge of the box is an edge of the image, padded with zeros: a margin keeps it away from the
voxels in question.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from femur3d.network.heads import probability
from femur3d.volume import bounding_box

Function = Callable[..., list[np.ndarray]]
Box = tuple[slice, slice, slice]

SURE = 0.1  # LowerCls is sure where P(femur) is less than this, or more than 1 minus this
MARGIN = 8  # voxels around those that it is unsure about
SCALE = 4  # voxels of the patch along an edge of one of the lower level's; boxes consist of whole ones of these


def make_predict(look: Function, refine: Function) -> Callable[[np.ndarray], np.ndarray]:
    """P(femur): float32 (batch, z, y, x) normalised patches → float32 (batch, z, y, x).

    Args:
        look: an image (1, z, y, x, 1) → LowerCls's logits and the features that they were made of; float32.
        refine: a part of the image and the features that belong to it → UpperCls's logits. It meets many shapes.
    """

    def predict_one(patch: np.ndarray) -> np.ndarray:
        """(z, y, x) → (z, y, x)."""
        coarse, seen = look(_batch(patch))
        found = probability(coarse[0])
        box = unsure_box(found)
        if box is not None:
            z, y, x = (slice(axis.start // SCALE, axis.stop // SCALE) for axis in box)
            (fine,) = refine(_batch(patch[box]), np.ascontiguousarray(seen[:, z, y, x]))
            found[box] = probability(fine[0])
        return found

    return lambda patches: np.stack([predict_one(patch) for patch in patches])


def _batch(patch: np.ndarray) -> np.ndarray:
    """As the network takes it: (z, y, x) → (1, z, y, x, 1)."""
    return np.ascontiguousarray(patch)[np.newaxis, ..., np.newaxis]


def unsure_box(probabilities: np.ndarray) -> Box | None:
    """The smallest box with all voxels of a patch (z, y, x) that are unsure and the margin around; None without any."""
    box = bounding_box((probabilities >= SURE) & (probabilities <= 1 - SURE), (MARGIN,) * 3)
    if box is None:
        return None
    whole = [slice(axis.start // SCALE * SCALE, -(-axis.stop // SCALE) * SCALE) for axis in box]
    return whole[0], whole[1], whole[2]
