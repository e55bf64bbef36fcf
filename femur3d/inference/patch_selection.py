"""Fewer patches than the whole grid **(ours)**: none of air, and all that overlap only where a femur may be."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from femur3d.config import THRESHOLD
from femur3d.data.patches import Index, crop
from femur3d.inference.sliding_window import SlidingWindow


def look_past_air(window: SlidingWindow, air_level: float, origins: np.ndarray) -> None:
    """Predicts the patches at `origins` with a voxel of `air_level` or more; the others count as background."""
    is_air = np.array([crop(window.array, origin, window.patch_size).max() < air_level for origin in origins], bool)
    window.count(origins[is_air])
    window.look(origins[~is_air])


def refine_region(window: SlidingWindow, look: Callable[[np.ndarray], None], femur_share: float) -> None:
    """Predicts as few patches as cover the volume, then of the others those in which these found femur.

    So the mean is that of all patches wherever there is more than a corner of a femur.

    Args:
        window: of which nothing was predicted yet.
        look: predicts the patches at the origins that it is given: `window.look`, or `look_past_air`.
        femur_share: a patch is worth a look if more than this part of its voxels has Σ P(femur) > 0.5.
    """
    first = covering(window.origins, window.patch_size)
    look(window.origins[first])
    others = window.origins[~first]
    shares = [np.mean(crop(window.total, origin, window.patch_size) > THRESHOLD) for origin in others]
    is_near = np.array(shares) > femur_share
    window.pass_over(others[~is_near])
    look(others[is_near])


def covering(origins: np.ndarray, patch_size: Index) -> np.ndarray:
    """Which of the patches of a grid, bool (n,), cover the volume with as few as that grid allows."""
    chosen = np.ones(len(origins), bool)
    for axis, patch in enumerate(patch_size):
        starts = np.unique(origins[:, axis])
        kept = [starts[0]]
        while kept[-1] < starts[-1]:
            kept.append(starts[starts <= kept[-1] + patch][-1])  # the farthest that leaves no gap
        chosen &= np.isin(origins[:, axis], kept)
    return chosen
