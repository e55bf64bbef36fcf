"""The eight variants of a volume: rotations by 0, 90, 180 and 270° around z, each with and without a flip along y.

Section 3, "Data augmentation": 10 training images become 80. z is array axis 0, y axis 1, x axis 2.
"""

from __future__ import annotations

import numpy as np

# Variant v: rotation by 90°·(v mod 4) in the plane of array axes (1, 2), then for v ≥ 4 a flip along axis 1.
VARIANTS = tuple(range(8))
MIRROR = 6  # 180° and a flip along y: a flip along x, which turns a left hip into a right one


def variant(array: np.ndarray, number: int) -> np.ndarray:
    """The variant `number` (0 … 7; 0 is the identity) of an array with axes (z, y, x), as a view.

    Raises:
        ValueError: there is no such variant.
    """
    if number not in VARIANTS:
        raise ValueError(f"Expected a variant of 0 to 7. Received: {number}")
    turned = np.rot90(array, k=number % 4, axes=(1, 2))
    return turned[:, ::-1] if number >= 4 else turned
