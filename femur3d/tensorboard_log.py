"""What TensorBoard shows: scalars of the training, and validation slices with both contours."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import tensorflow as tf
from scipy import ndimage

from femur3d.figures import anatomical
from femur3d.validation import Validated

GREEN, RED = (0, 208, 0), (255, 32, 32)  # reference, prediction; as in figures.py
ZOOM = 2  # screen pixels a voxel


class TensorBoardLog:
    """Event files of one run; close it, or use it in a `with` statement."""

    def __init__(self, folder: Path) -> None:
        self._writer = tf.summary.create_file_writer(str(folder))

    def __enter__(self) -> TensorBoardLog:
        return self

    def __exit__(self, *_: object) -> None:
        self._writer.close()

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Writes scalars by their name."""
        with self._writer.as_default(step=step):
            for name, value in values.items():
                tf.summary.scalar(name, value)
        self._writer.flush()

    def validated(self, step: int, result: Validated) -> None:
        """Writes the coronal slice with most of the reference, with both contours, as an image."""
        with self._writer.as_default(step=step):
            tf.summary.image(f"validation/{result.name}", contour_picture(result)[np.newaxis])


def contour_picture(result: Validated) -> np.ndarray:
    """The coronal slice with most of the reference: uint8 (rows, columns, 3), head up, patient's right on the left.

    The reference's contour is green, the prediction's red and drawn over it.
    """
    grey, spacing_mm = anatomical(result.image)
    masks = [anatomical(result.image.with_array(m))[0] for m in (result.reference, result.prediction)]
    y = int(masks[0].sum(axis=(0, 2)).argmax())
    zooms = (ZOOM * spacing_mm[0] / spacing_mm[2], ZOOM)
    slices = [ndimage.zoom(a[::-1, y].astype(np.float32), zooms, order=1) for a in (grey, *masks)]
    low, high = np.percentile(slices[0], (1, 99))
    picture = np.repeat(np.clip((slices[0] - low) / max(high - low, 1e-6) * 255, 0, 255)[..., np.newaxis], 3, axis=-1)
    for mask, colour in zip(slices[1:], (GREEN, RED), strict=True):
        inside = mask > 0.5
        picture[inside & ~ndimage.binary_erosion(inside)] = colour
    return picture.astype(np.uint8)
