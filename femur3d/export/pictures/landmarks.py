"""Where the head, the neck and the shaft of a segmented femur lie: what a preview cuts through.

All arrays are turned by `volume.anatomical`: axes (z, y, x) from inferior to superior, from anterior to posterior, from
right to left. Places are in mm along these axes, the first voxel's centre at 0.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from scipy import ndimage

from femur3d.volume import bounding_box

Spacing = tuple[float, float, float]

HEAD_DEPTH_MM = 35.0  # the centre of a head lies less than this below the femur's top: 19 to 25 mm in 24 real femurs
SHAFT_PART = 0.3  # of a femur's height, from below: the shaft, in a field of view that shows any of it
STEEPEST = 1.0  # mm to the side per mm of height; a line through fewer slices than a shaft has may lean more


@dataclasses.dataclass(frozen=True, eq=False)
class Line:
    """A line in mm along (z, y, x): a point of it and its direction, of length 1, upwards."""

    point: np.ndarray
    direction: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class Plane:
    """A picture's plane in mm along (z, y, x): its origin, and the directions, of length 1, of its rows and columns.

    Along `up` the row number grows, along `across` the column number.
    """

    origin: np.ndarray
    up: np.ndarray
    across: np.ndarray


def head_centre(femur: np.ndarray, spacing_mm: Spacing) -> tuple[int, int, int]:
    """Array indices of the centre of the femoral head: of the largest ball inside the top of the femur.

    Within HEAD_DEPTH_MM of its upper end the head is the thickest part of a femur. The region about the trochanters
    would hold a ball almost as large, but further down. Holes are filled first: one voxel would halve the ball.

    Args:
        femur: bool, not empty, in one piece; axis 0 from inferior to superior.
        spacing_mm: along (z, y, x).
    """
    box = bounding_box(femur)
    assert box is not None
    solid = np.pad(ndimage.binary_fill_holes(femur[box]), 1)
    distance_mm = ndimage.distance_transform_edt(solid, sampling=spacing_mm)[1:-1, 1:-1, 1:-1]
    low = max(len(distance_mm) - int(np.ceil(HEAD_DEPTH_MM / spacing_mm[0])), 0)
    place = np.unravel_index(int(distance_mm[low:].argmax()), distance_mm[low:].shape)
    z, y, x = (int(i) + axis.start for i, axis in zip(place, box, strict=True))
    return z + low, y, x


def shaft_axis(femur: np.ndarray, spacing_mm: Spacing) -> Line:
    """The line through the centroids of the lowest SHAFT_PART of a femur's height; its point is half-way up that part.

    Vertical where these are too few or lean too much, as where the field of view ends above the shaft.

    Args:
        femur: bool, not empty.
        spacing_mm: along (z, y, x).
    """
    levels = np.flatnonzero(femur.any(axis=(1, 2)))
    levels = levels[: max(int(np.ceil(SHAFT_PART * len(levels))), 1)]
    centroids = np.array([[np.argwhere(femur[z]).mean(axis=0)] for z in levels])[:, 0] * spacing_mm[1:]
    heights = levels * spacing_mm[0]
    lean = np.zeros(2)
    if len(levels) > 2:
        lean = np.polyfit(heights - heights.mean(), centroids, 1)[0]
    if np.abs(lean).max() > STEEPEST:
        lean = np.zeros(2)
    direction = np.array([1.0, *lean])
    return Line(np.array([heights.mean(), *centroids.mean(axis=0)]), direction / np.linalg.norm(direction))


def neck_plane(femur: np.ndarray, spacing_mm: Spacing) -> Plane:
    """The plane of the head's centre and the shaft's axis: it runs along the neck and the shaft.

    Upwards along the shaft, and across towards the patient's left, so that it looks like a coronal slice. Its origin is
    the point of `shaft_axis`.

    Args:
        femur: bool, not empty, in one piece.
        spacing_mm: along (z, y, x).
    """
    shaft = shaft_axis(femur, spacing_mm)
    offset = np.multiply(head_centre(femur, spacing_mm), spacing_mm) - shaft.point
    across = offset - (offset @ shaft.direction) * shaft.direction
    if np.linalg.norm(across) < max(spacing_mm):  # the head right above the shaft: any plane is as good
        across = np.array([0.0, 0.0, 1.0]) - shaft.direction[2] * shaft.direction
    across /= np.linalg.norm(across)
    return Plane(shaft.point, shaft.direction, across if across[2] >= 0 else -across)


def sample_plane(
    array: np.ndarray,
    spacing_mm: Spacing,
    plane: Plane,
    rows_mm: tuple[float, float],
    columns_mm: tuple[float, float],
    step_mm: float,
) -> np.ndarray:
    """A picture of an array in a plane by linear interpolation, float32 (rows, columns); 0 beyond the array.

    Args:
        array: (z, y, x).
        spacing_mm: along (z, y, x).
        plane: where to cut.
        rows_mm, columns_mm: from where to where along `plane.up` and `plane.across`, from its origin.
        step_mm: between rows and between columns.
    """
    up, across = (np.arange(low, high + step_mm / 2, step_mm) for low, high in (rows_mm, columns_mm))
    places = plane.origin + up[:, None, None] * plane.up + across[None, :, None] * plane.across
    index = np.moveaxis(places / spacing_mm, -1, 0)
    return ndimage.map_coordinates(array.astype(np.float32, copy=False), index, order=1)


def extent_in(plane: Plane, femur: np.ndarray, spacing_mm: Spacing) -> tuple[tuple[float, float], tuple[float, float]]:
    """From where to where a femur reaches along a plane's rows and columns, in mm from its origin.

    Args:
        plane: the plane.
        femur: bool (z, y, x), not empty.
        spacing_mm: along (z, y, x).
    """
    offsets = np.argwhere(femur) * spacing_mm - plane.origin
    rows, columns = offsets @ plane.up, offsets @ plane.across
    return (float(rows.min()), float(rows.max())), (float(columns.min()), float(columns.max()))
