"""The slices of a case for a web page: one small picture of all of them, the label maps, and a thumbnail.

A page gets the femurs' surroundings only, as one WebP picture in which the slices of the scan lie side by side, and
both label maps as packed bytes; the three planes are cut from these in the browser.
"""

from __future__ import annotations

import base64
import dataclasses
import io
import math
import zlib
from typing import Any

import numpy as np
from PIL import Image
from scipy import ndimage

from femur3d.evaluation.contour_figure import femur_region, windowed
from femur3d.volume import Volume, anatomical

FINEST_MM = 0.9  # finer scans are shown with voxels of about this size
MOST_VOXELS = 3_000_000  # of a case, else it is shown more coarsely
PICTURE_BYTES = 190_000  # of a case: twelve of them, their surfaces and the program fit into 5 MB
QUALITIES = (80, 65, 50, 38, 28)  # of WebP: the best that is small enough
REFERENCE_BIT = 4  # a voxel's byte is the prediction's label and this much for each of the reference's
THUMBNAIL = (176, 112)  # pixels
SIDE_COLOURS = {1: (86, 180, 233), 2: (230, 159, 0)}  # those of export.segments: sky blue and orange
REFERENCE_COLOUR = (0, 208, 0)


@dataclasses.dataclass(frozen=True, eq=False)
class Stack:
    """What is shown of a case; axes (z, y, x) run inferior → superior, anterior → posterior, right → left.

    Attributes:
        grey: uint8; None where the scan is not at hand.
        labels: of the prediction, uint8.
        reference: uint8; None where there is none.
        spacing_mm: along (z, y, x).
    """

    grey: np.ndarray | None
    labels: np.ndarray
    reference: np.ndarray | None
    spacing_mm: tuple[float, float, float]


def stack_of(scan: Volume | None, labels: Volume, reference: Volume | None) -> Stack:
    """The surroundings of the femurs, by the axes of the body, with voxels of at least about FINEST_MM.

    Args:
        scan, labels, reference: on one grid.
    """
    turned, spacing_mm = anatomical(labels)
    truth = None if reference is None else anatomical(reference)[0]
    shown = (turned != 0) if truth is None else (turned != 0) | (truth != 0)
    box = femur_region(shown, spacing_mm)
    steps = _steps(turned[box].shape, spacing_mm)
    grey = None
    if scan is not None:
        part = anatomical(scan)[0][box]
        grey = np.round(255 * windowed(_averaged(part, steps), part)).astype(np.uint8)
    picked = [None if array is None else _picked(array[box], steps) for array in (turned, truth)]
    assert picked[0] is not None
    z, y, x = (float(mm * step) for mm, step in zip(spacing_mm, steps, strict=True))
    return Stack(grey, picked[0], picked[1], (z, y, x))


def _steps(shape: tuple[int, ...], spacing_mm: tuple[float, float, float]) -> list[int]:
    """How many voxels along each axis become one."""
    steps = [max(1, int(FINEST_MM / mm + 0.35)) for mm in spacing_mm]
    while math.prod(n // step for n, step in zip(shape, steps, strict=True)) > MOST_VOXELS:
        finest = min(range(3), key=lambda axis: spacing_mm[axis] * steps[axis])
        steps[finest] += 1
    return [min(step, n) for step, n in zip(steps, shape, strict=True)]


def _averaged(array: np.ndarray, steps: list[int]) -> np.ndarray:
    z, y, x = (n // step for n, step in zip(array.shape, steps, strict=True))
    cut = array[: z * steps[0], : y * steps[1], : x * steps[2]].astype(np.float32)
    return cut.reshape(z, steps[0], y, steps[1], x, steps[2]).mean(axis=(1, 3, 5))


def _picked(array: np.ndarray, steps: list[int]) -> np.ndarray:
    cut = tuple(slice(step // 2, n // step * step, step) for n, step in zip(array.shape, steps, strict=True))
    return array[cut]


def packed_stack(stack: Stack) -> dict[str, Any]:
    """A stack as JSON can hold it: shape, spacing, the slices' picture and how they lie in it, and the label maps."""
    both = stack.labels.astype(np.uint8)
    if stack.reference is not None:
        both = both + REFERENCE_BIT * stack.reference.astype(np.uint8)
    packed = {
        "shape": both.shape,
        "spacing": [round(mm, 4) for mm in stack.spacing_mm],
        "labels": packed_bytes(both),
        "reference": stack.reference is not None,
    }
    if stack.grey is not None:
        axis = int(np.argmax(stack.spacing_mm))  # thick slices are the sharpest
        packed |= {"axis": axis, **_picture(np.moveaxis(stack.grey, axis, 0))}
    return packed


def _picture(slices: np.ndarray) -> dict[str, Any]:
    """All slices (n, rows, columns) in one WebP picture, row by row."""
    count, rows, columns = slices.shape
    across = max(1, min(count, round(math.sqrt(count * rows / columns))))
    sheet = np.zeros((math.ceil(count / across) * rows, across * columns), np.uint8)
    for index, one in enumerate(slices):
        top, left = index // across * rows, index % across * columns
        sheet[top : top + rows, left : left + columns] = one
    for quality in QUALITIES:
        content = _webp(Image.fromarray(sheet), quality)
        if len(content) <= PICTURE_BYTES:
            break
    return {"across": across, "picture": base64.b64encode(content).decode()}


def _webp(picture: Image.Image, quality: int) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, "WEBP", quality=quality, method=4)
    return stream.getvalue()


def packed_bytes(array: np.ndarray) -> str:
    """An array's bytes, packed by zlib, as base64."""
    return base64.b64encode(zlib.compress(np.ascontiguousarray(array).tobytes(), 9)).decode()


def thumbnail(stack: Stack) -> bytes:
    """A small WebP: the coronal slice with the most of the femurs, tinted, and the reference's outline."""
    counts = (stack.labels != 0).sum(axis=(0, 2))
    index = int(counts.argmax()) if counts.any() else stack.labels.shape[1] // 2
    parts = [stack.grey, stack.labels, stack.reference]
    grey, labels, truth = (None if part is None else part[::-1, index] for part in parts)
    assert labels is not None
    picture = np.repeat((np.zeros(labels.shape) if grey is None else grey).astype(np.float32)[..., None], 3, axis=2)
    for value, colour in SIDE_COLOURS.items():
        picture[labels == value] = 0.55 * picture[labels == value] + 0.45 * np.array(colour)
    if truth is not None:
        picture[(truth != 0) & ~ndimage.binary_erosion(truth != 0)] = REFERENCE_COLOUR
    return _webp(_fitted(Image.fromarray(picture.astype(np.uint8)), stack.spacing_mm[0], stack.spacing_mm[2]), 60)


def _fitted(picture: Image.Image, row_mm: float, column_mm: float) -> Image.Image:
    """The picture at its true proportions in the middle of a black THUMBNAIL."""
    wide, tall = picture.width * column_mm, picture.height * row_mm
    scale = min(THUMBNAIL[0] / wide, THUMBNAIL[1] / tall)
    small = picture.resize((max(1, round(wide * scale)), max(1, round(tall * scale))), Image.Resampling.LANCZOS)
    whole = Image.new("RGB", THUMBNAIL)
    whole.paste(small, ((THUMBNAIL[0] - small.width) // 2, (THUMBNAIL[1] - small.height) // 2))
    return whole
