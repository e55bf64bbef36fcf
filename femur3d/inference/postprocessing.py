"""Probability map → label map: threshold, one component per femur, holes filled, left and right (section 3.4).

Sides and distances come from world coordinates (LPS: +x is the patient's left, +z is superior), never from the order
of the array. Femurs may touch the border of the field of view.

Not attempted: two femurs that a leak across the midline joins into one component are kept as one, and take one side.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Literal

import numpy as np
from scipy import ndimage

from femur3d.config import THRESHOLD
from femur3d.volume import Volume

LEFT, RIGHT = 1, 2  # label values, the patient's sides
FEMUR = 1  # label value of either femur where sides are not wanted
LABEL_NAMES = {"sides": {LEFT: "left", RIGHT: "right"}, "femur": {FEMUR: "femur"}}

# (ours) A second component is the other femur, and not a fragment, where it has at least this part of the largest
# one's volume and its centroid lies at least this far from the largest one's along the left-right axis. Of a femur that
# the field of view cuts at its left or right border, little more than an edge may be there.
SECOND_FEMUR_VOLUME_FRACTION = 0.2
CUT_FEMUR_VOLUME_FRACTION = 0.05
SECOND_FEMUR_DISTANCE_MM = 80.0

MOST_POSITIONS = 2**22  # of one femur: many more than a femur has, few enough for where everything is called femur


def label_map(probability: Volume, threshold: float = THRESHOLD, labels: Literal["femur", "sides"] = "femur") -> Volume:
    """Label map of a probability map: every femur solid and in one piece, everything else background.

    Args:
        probability: foreground probability, on the scan's own grid.
        threshold: a voxel is foreground where its probability is greater.
        labels: "femur" gives every femur the value 1; "sides" gives the patient's left femur 1 and the right one 2.

    Returns:
        uint8 volume of the same geometry; all zero where nothing exceeds the threshold.

    Raises:
        ValueError: the threshold is not between 0 and 1, or `labels` is neither name.
    """
    if labels not in ("femur", "sides"):
        raise ValueError(f'Expected labels "femur" or "sides". Received: {labels!r}')
    femurs = keep_femurs(probability.with_array(femur_mask(probability, threshold)))
    values = assign_sides(femurs, probability) if labels == "sides" else [FEMUR] * len(femurs)
    result = np.zeros(probability.array.shape, np.uint8)
    for femur, value in zip(femurs, values, strict=True):
        result[femur] = value
    return probability.with_array(result)


def femur_mask(probability: Volume, threshold: float = THRESHOLD) -> np.ndarray:
    """Mask, bool (z, y, x), of the voxels above the threshold; a tie is background, as in an argmax of two classes.

    Raises:
        ValueError: the threshold is not between 0 and 1.
    """
    if not 0 <= threshold <= 1:
        raise ValueError(f"Expected a threshold from 0 to 1. Received: {threshold}")
    return probability.array > threshold


def keep_femurs(mask: Volume) -> list[np.ndarray]:
    """The femurs of a mask, largest first, each one bool (z, y, x) with holes filled: none, one or two.

    The largest component is a femur. Of the components with at least `SECOND_FEMUR_VOLUME_FRACTION` of its volume
    (`CUT_FEMUR_VOLUME_FRACTION` at the field of view's left or right border) and at least `SECOND_FEMUR_DISTANCE_MM`
    from it along the patient's left-right axis, the largest is the other femur.

    Components hang together by faces, 6 neighbours **(ours)**: what touches a femur only along an edge or at a corner
    is more often a leak across the joint space than bone. A hole is also what a femur encloses in a slice across the
    patient's height **(ours)**: the marrow of a shaft that is open above, below or through a gap in its wall. Towards
    the patient's sides, front and back, a cavity that is open to the field of view's border is not a hole.
    """
    components, count = ndimage.label(mask.array)
    if count == 0:
        return []
    boxes = ndimage.find_objects(components)
    sizes = component_sizes(components, count)
    # All voxels have one volume, so sizes in voxels compare like millilitres.
    axis, height = _axis_along(mask, 0), _axis_along(mask, 2)
    is_cut = np.array([box[axis].start == 0 or box[axis].stop == mask.array.shape[axis] for box in boxes])
    least = np.where(is_cut, CUT_FEMUR_VOLUME_FRACTION, SECOND_FEMUR_VOLUME_FRACTION)
    large = np.flatnonzero(sizes >= least * sizes.max())
    first, *others = large[np.argsort(-sizes[large], kind="stable")]

    def x_mm(i: int) -> float:
        return _centroid_x_mm(components[boxes[i]] == i + 1, mask, start=[axis.start for axis in boxes[i]])

    first_x_mm = x_mm(first)
    far = (other for other in others if abs(x_mm(other) - first_x_mm) >= SECOND_FEMUR_DISTANCE_MM)
    return [_solid(components, i + 1, boxes[i], height) for i in (first, *itertools.islice(far, 1))]


def _axis_along(grid: Volume, world: int) -> int:
    """The array axis (0 is z) that runs nearest to a world axis: 0 from right to left, 2 upwards."""
    return 2 - int(np.argmax(np.abs(np.reshape(grid.direction, (3, 3))[world])))


def component_sizes(components: np.ndarray, count: int) -> np.ndarray:
    """Voxels in each of the components 1 … count: int (count,).

    Slice by slice, as counting makes 64-bit integers of all that it counts.
    """
    sizes = np.zeros(count, np.intp)
    for slice_ in components:
        sizes += np.bincount(slice_.ravel(), minlength=count + 1)[1:]
    return sizes


def assign_sides(femurs: Sequence[np.ndarray], grid: Volume) -> list[int]:
    """Label values, `LEFT` or `RIGHT`, of one or two femurs, from anatomy in world coordinates **(ours)**.

    Of two femurs the one further to the patient's left is the left one. A single femur has its head medial to its
    shaft: in a left femur the top quarter of its height lies further to the patient's right than the bottom quarter.
    A body that leans to neither side is called right.

    Args:
        femurs: masks, bool (z, y, x), not empty.
        grid: any volume on their grid.

    Raises:
        ValueError: there are more than two femurs.
    """
    if len(femurs) > 2:
        raise ValueError(f"Expected at most two femurs. Received: {len(femurs)}")
    if len(femurs) == 2:
        first, second = (_centroid_x_mm(femur, grid) for femur in femurs)
        return [LEFT, RIGHT] if first > second else [RIGHT, LEFT]
    return [LEFT if head_offset_mm(positions_mm(femur, grid)) < 0 else RIGHT for femur in femurs]


def positions_mm(mask: np.ndarray, grid: Volume, start: Sequence[int] = (0, 0, 0)) -> np.ndarray:
    """World positions (LPS, mm) of a mask's voxels, float64 (n, 3); of more than `MOST_POSITIONS` every k-th alone.

    Args:
        mask: bool (z, y, x).
        grid: where the mask comes from.
        start: the grid's voxel (z, y, x) that is the mask's first.
    """
    step = 1 + np.count_nonzero(mask) // MOST_POSITIONS
    indices = np.unravel_index(np.flatnonzero(mask)[::step], mask.shape)
    return grid.world_mm(np.stack(indices, axis=-1) + np.asarray(start))


def head_offset_mm(points_mm: np.ndarray) -> float:
    """Mean world x of the most superior quarter of a femur's height minus that of the most inferior quarter.

    Args:
        points_mm: world positions (LPS) of its voxels, (n, 3).
    """
    x, _, z = points_mm.T
    quarter = (z.max() - z.min()) / 4
    return float(x[z >= z.max() - quarter].mean() - x[z <= z.min() + quarter].mean())


def _centroid_x_mm(mask: np.ndarray, grid: Volume, start: Sequence[int] = (0, 0, 0)) -> float:
    """World x of the centroid of a mask whose first voxel is voxel `start` (z, y, x) of the grid."""
    by_axis = [np.count_nonzero(mask, axis=tuple({0, 1, 2} - {axis})) for axis in range(3)]
    centroid = [np.average(np.arange(len(counts)), weights=counts) for counts in by_axis]
    return float(grid.world_mm(np.add(centroid, start))[0])


def _solid(components: np.ndarray, value: int, box: tuple[slice, ...], height: int) -> np.ndarray:
    """Mask, bool (z, y, x), of one component; its holes in the slices across array axis `height` are filled."""
    mask = np.zeros(components.shape, bool)
    mask[box] = _filled(components[box] == value, height)
    return mask


def without_holes(mask: np.ndarray, grid: Volume) -> np.ndarray:
    """The mask of a femur, bool (z, y, x), and what it encloses in a slice across the patient's height.

    Args:
        mask: on a grid of that direction.
        grid: says which axis runs along the patient.
    """
    return _filled(mask, _axis_along(grid, 2))


def _filled(mask: np.ndarray, height: int) -> np.ndarray:
    in_slice = ndimage.generate_binary_structure(3, 1)
    np.moveaxis(in_slice, height, 0)[[0, 2]] = False
    return ndimage.binary_fill_holes(mask, in_slice)
