"""Femur labels from a CT of both hips: a watershed between the femoral heads, roughly known, and the pelvis."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

from femur3d.volume import Volume

HEAD_RADII_MM = range(20, 30)
BONE, CORTEX, SOFT = 90, 220, 0  # Hounsfield units: femur from here on; surely bone; surely none
LATERAL_MM, MEDIAL_MM, ABOVE_MM, BELOW_MM = 110, 45, 40, 400  # the box about a head's centre that holds its femur


def label_femurs(ct: Volume, heads_mm: Sequence[Sequence[float]]) -> Volume:
    """uint8 label map, 1 left and 2 right, of a CT in Hounsfield units, orientation LPS, 1 mm.

    Args:
        ct: with axes along the patient's.
        heads_mm: LPS positions of the right and the left head's centre, to 8 mm.
    """
    result = np.zeros(ct.array.shape, np.uint8)
    for value, head_mm in ((2, heads_mm[0]), (1, heads_mm[1])):
        head = np.rint(ct.index_zyx([head_mm])[0]).astype(int)
        lateral, medial = (LATERAL_MM, MEDIAL_MM) if value == 2 else (MEDIAL_MM, LATERAL_MM)
        low = np.maximum(head - (BELOW_MM, 60, lateral), 0)
        high = np.minimum(np.add(head, (ABOVE_MM, 60, medial)), ct.array.shape)
        box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
        side = -1 if value == 1 else 1  # seen as a right femur, lateral comes first
        seen = head - low if side == 1 else np.array([head[0] - low[0], head[1] - low[1], high[2] - 1 - head[2]])
        femur = _one_femur(ct.array[box][:, :, ::side].astype(np.float32), seen)
        result[box][femur[:, :, ::side]] = value
    return ct.with_array(result)


def find_head(smooth: np.ndarray, near: np.ndarray) -> tuple[np.ndarray, int]:
    """Centre (z, y, x) and radius of the sphere near `near` with the darkest gap about the brightest rim.

    Args:
        smooth: CT (z, y, x), 1 mm, lateral first.
    """
    offsets = np.mgrid[-30:31, -30:31, -30:31]
    distance = np.sqrt(np.square(offsets).sum(axis=0))
    cup = (offsets[0] > -8) & (offsets[2] > -12)  # the acetabulum lies above and medial
    gaps = [np.flatnonzero((np.abs(distance - r) < 0.6) & cup) for r in HEAD_RADII_MM]
    rims = [np.flatnonzero((distance < r - 2) & (distance > r - 4) & cup) for r in HEAD_RADII_MM]
    padded = np.clip(np.pad(smooth, 44, mode="edge"), 0, 300)
    best = (np.inf, near, HEAD_RADII_MM[0])
    for moves in (range(-8, 9, 4), range(-2, 3, 1)):
        middle = best[1]
        for move in np.stack(np.meshgrid(*[moves] * 3), axis=-1).reshape(-1, 3):
            start = middle + move + 14
            ball = padded[tuple(slice(s, s + 61) for s in start)].ravel()
            scores = [ball[gap].mean() - ball[rim].mean() for gap, rim in zip(gaps, rims, strict=True)]
            k = int(np.argmin(scores))
            best = min(best, (float(scores[k]), middle + move, HEAD_RADII_MM[k]), key=lambda found: found[0])
    return best[1], best[2]


def _one_femur(ct: np.ndarray, near: np.ndarray) -> np.ndarray:
    """Mask (z, y, x) of the femur in a box whose x begins laterally."""
    smooth = ndimage.gaussian_filter(ct, 0.8)
    head, radius = find_head(smooth, near)
    z, y, x = np.ogrid[tuple(slice(0, n) for n in ct.shape)]
    distance = np.sqrt((z - head[0]) ** 2 + (y - head[1]) ** 2 + (x - head[2]) ** 2)
    bone, cup = smooth > CORTEX, (distance > radius + 2) & (distance < radius + 15)
    markers = np.zeros(ct.shape, np.uint8)
    markers[(x < head[2] - 0.9 * radius) & (z < head[0] + 8) & bone] = 1  # trochanter and shaft
    markers[distance < radius - 3] = 1
    markers[bone & ((z > head[0] + radius + 6) | (x > head[2] + radius + 6))] = 2
    markers[cup & bone & ((x > head[2] + 5) | ((z > head[0] + 0.4 * radius) & (x > head[2] - 12)))] = 2
    markers[smooth < SOFT] = 3
    landscape = sitk.GetImageFromArray(-np.clip(ndimage.gaussian_filter(ct, 0.6), -200, 400))
    basins = sitk.GetArrayFromImage(
        sitk.MorphologicalWatershedFromMarkers(landscape, sitk.GetImageFromArray(markers), False, False)
    )
    mask = sitk.GetImageFromArray(np.pad((basins == 1) & (smooth > BONE), 8, mode="edge").astype(np.uint8))
    mask = sitk.BinaryMorphologicalClosing(sitk.BinaryMorphologicalOpening(mask, [2] * 3), [6] * 3)
    closed = sitk.GetArrayFromImage(mask)[8:-8, 8:-8, 8:-8] > 0
    solid = np.stack([ndimage.binary_fill_holes(plane) for plane in closed & (basins != 2)]) & (basins != 2)
    pieces, _ = ndimage.label(solid)
    return pieces == np.bincount(pieces.ravel())[1:].argmax() + 1
