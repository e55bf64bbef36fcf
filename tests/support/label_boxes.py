"""Tiny label maps made of boxes, and files of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import SimpleITK as sitk

from femur3d.volume import Volume

SHAPE = (6, 8, 30)
LEFT, RIGHT = (slice(1, 5), slice(2, 6), slice(20, 25)), (slice(1, 5), slice(2, 6), slice(4, 9))  # +x is left
SPECK = (slice(2, 3), slice(2, 3), slice(11, 12))  # nearer to the right femur, and touching neither


def label_volume(**boxes_of_labels) -> Volume:
    """A label map with boxes: label_volume(l1=[LEFT], l2=[RIGHT])."""
    array = np.zeros(SHAPE, np.uint8)
    for name, boxes in boxes_of_labels.items():
        for box in boxes:
            array[box] = int(name[1:])
    return Volume(array, (1.0, 1.0, 2.0))


def write(path: Path, volume: Volume, spacing_mm=(1.0, 1.0, 2.0)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = sitk.GetImageFromArray(volume.array)
    image.SetSpacing(spacing_mm)
    sitk.WriteImage(image, str(path))
    return path


BOTH = label_volume(l1=[LEFT], l2=[RIGHT])
