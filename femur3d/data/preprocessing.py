"""A scan to the network's grid and back: orient, resample, cut one volume per hip, normalise; then restore.

Every step keeps the world geometry right, so the way back is one resampling onto the scan's own grid.
SimpleITK is used here for reorientation and resampling only.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import SimpleITK as sitk

from femur3d.config import IGNORED, Preprocessing
from femur3d.data.cleaning import AIR, without_outliers, without_padding
from femur3d.errors import InputError
from femur3d.io.images import sitk_from_volume, volume_from_sitk
from femur3d.io.integrity import MAX_VOXELS
from femur3d.volume import Volume, bounding_box, signed_distance_mm, triple


@dataclasses.dataclass(frozen=True, eq=False)
class Hip:
    """One hip on the network's grid, for training and validation.

    Attributes:
        label_value: the femur's value in the dataset's label map (e.g. 1 = left).
        image: float32, zero mean and unit variance over the volume.
        label: uint8, 0 background, 1 femur, IGNORED; same grid as `image`.
    """

    label_value: int
    image: Volume
    label: Volume


def prepare_scan(scan: Volume, preprocessing: Preprocessing) -> Volume:
    """A scan as the network takes it: oriented, resampled, normalised; float32 (z, y, x), its geometry kept right."""
    oriented = orient(scan.with_array(without_outliers(without_padding(scan.array))), preprocessing.orientation)
    resampled = resample_image(oriented, preprocessing.spacing_mm)
    return normalise(resampled, preprocessing.normalisation)


def prepare_case(
    scan: Volume, label: Volume, preprocessing: Preprocessing, ignored: np.ndarray | None = None
) -> list[Hip]:
    """A scan and its label map as one `Hip` for every femur, cut out with the margin and ascending by label value.

    Args:
        scan: any orientation and spacing.
        label: integers on the scan's grid; 0 background, every other value one femur.
        preprocessing: orientation, spacing, margin.
        ignored: bool (z, y, x) on the scan's grid, what counts for nothing; None where there is no such voxel.
    """
    image = prepare_scan(scan, preprocessing)
    oriented = orient(label, preprocessing.orientation)
    values = [int(v) for v in np.unique(label.array) if v]
    masks = {v: resample_mask(oriented.with_array(oriented.array == v), preprocessing.spacing_mm) for v in values}
    femurs = image.with_array(np.any([m.array for m in masks.values()], axis=0).astype(np.uint8))
    if ignored is not None:
        oriented = orient(label.with_array(ignored.astype(np.uint8)), preprocessing.orientation)
        where = resample_mask(oriented.with_array(oriented.array == 1), preprocessing.spacing_mm)
        femurs.array[where.array & (femurs.array == 0)] = IGNORED
    boxes = hip_boxes({v: m.array for v, m in masks.items()}, preprocessing)
    kind = preprocessing.normalisation
    return [Hip(v, normalise(cut(image, box), kind), cut(femurs, box)) for v, box in boxes.items()]


def restore(prediction: Volume, scan: Volume) -> Volume:
    """A map on the network's grid, float32, taken back to the scan's own grid by linear interpolation in the world.

    Undoes orientation, resampling and cutting at once. The map's border is repeated one voxel beyond it; further out
    the result is 0.
    """
    padded = dataclasses.replace(
        prediction, array=np.pad(prediction.array, 1, mode="edge"), origin_mm=triple(prediction.world_mm((-1, -1, -1)))
    )
    resampler = sitk.ResampleImageFilter()
    resampler.SetReferenceImage(_empty_like(scan))
    resampler.SetInterpolator(sitk.sitkLinear)
    resampler.SetOutputPixelType(sitk.sitkFloat32)
    return scan.with_array(sitk.GetArrayFromImage(resampler.Execute(sitk_from_volume(padded))))


def rounded(volume: Volume) -> Volume:
    """The volume with spacing and direction to 5 decimals and its origin to 3 **(ours)**: 0.002 mm across a pelvis.

    A NIfTI header holds float32, a DICOM file decimals: rounded, both of one scan lead to the same bits.
    """
    return dataclasses.replace(
        volume,
        spacing_mm=triple(np.round(volume.spacing_mm, 5)),
        origin_mm=triple(np.round(volume.origin_mm, 3)),
        direction=tuple(np.round(volume.direction, 5).tolist()),
    )


def orient(volume: Volume, code: str) -> Volume:
    """Axes permuted and flipped, without interpolation, so that index axes (i, j, k) point as `code` says, e.g. LPS."""
    return volume_from_sitk(sitk.DICOMOrient(sitk_from_volume(volume), code))


def resample_image(volume: Volume, spacing_mm: tuple[float, ...]) -> Volume:
    """An image at another spacing (x, y, z), float32, interpolated linearly **(ours)**; its first voxel stays."""
    target = _target_grid(volume, spacing_mm)
    return _resample(dataclasses.replace(volume, array=volume.array.astype(np.float32)), target)


def resample_mask(mask: Volume, spacing_mm: tuple[float, ...]) -> Volume:
    """A bool mask at another spacing (x, y, z) by its signed distance **(ours)**: of thick slices, smooth surfaces."""
    target = _target_grid(mask, spacing_mm)
    distance = mask.with_array(near_distance_mm(mask))
    resampled = _resample(distance, target)
    return resampled.with_array(resampled.array > 0)


def near_distance_mm(mask: Volume) -> np.ndarray:
    """The mask's `signed_distance_mm` (positive inside) up to 20 mm, float32; interpolated, its zero is the surface.

    Computed in the mask's bounding box and a margin of 20 mm.
    """
    spacing = mask.spacing_mm[::-1]
    box = bounding_box(mask.array, [int(np.ceil(20 / s)) + 1 for s in spacing])
    distance = np.full(mask.array.shape, -20.0, np.float32)
    if box is not None:
        distance[box] = np.clip(signed_distance_mm(mask.array[box], spacing), -20.0, 20.0)
    return distance


def hip_boxes(masks: dict[int, np.ndarray], preprocessing: Preprocessing) -> dict[int, tuple[slice, ...]]:
    """Where to cut each femur's volume: its bounding box and the margin, clipped to the array and at the other femur.

    Args:
        masks: bool arrays (z, y, x) of one shape, by label value; a femur lost by resampling is left out.
        preprocessing: margin and spacing; the orientation says which array axis is left-right.
    """
    spacing = preprocessing.spacing_mm[::-1]
    margin = [int(np.ceil(preprocessing.margin_mm / s)) for s in spacing]
    axis = 2 - [c in "LR" for c in preprocessing.orientation].index(True)
    tight = {v: box for v, mask in masks.items() if (box := bounding_box(mask)) is not None}
    boxes = {}
    for value, box in tight.items():
        wide = list(bounding_box(masks[value], margin) or box)
        for other in (b for v, b in tight.items() if v != value):
            if other[axis].start >= box[axis].stop:
                wide[axis] = slice(wide[axis].start, min(wide[axis].stop, other[axis].start))
            elif other[axis].stop <= box[axis].start:
                wide[axis] = slice(max(wide[axis].start, other[axis].stop), wide[axis].stop)
        boxes[value] = tuple(wide)
    return boxes


def cut(volume: Volume, box: tuple[slice, ...]) -> Volume:
    """The part of a volume in a box of array slices (z, y, x), its origin moved along."""
    origin = volume.world_mm([s.start or 0 for s in box])
    return dataclasses.replace(volume, array=volume.array[box], origin_mm=triple(origin))


def normalise(volume: Volume, kind: str = "patch") -> Volume:
    """Zero mean and unit variance, float32 **(ours)**; a constant volume becomes zeros.

    With 'patch' over the whole volume: each patch is normalised again later, as in the paper, and this makes float16
    storage safe. With 'body' over the voxels that are not air, so that neither a wide field of view nor an empty
    corner of a patch changes what bone looks like.
    """
    array = volume.array.astype(np.float32)
    voxels = array[array > air_level(array)] if kind == "body" else array
    if not voxels.size:
        voxels = array
    array -= np.float32(voxels.mean(dtype=np.float64))
    deviation = voxels.std(dtype=np.float64)
    if not np.isfinite(deviation):
        raise InputError("Intensities beyond the range of float32.\nExpected an MR scan; rescale it first.")
    return volume.with_array(array / np.float32(deviation) if deviation > 0 else np.zeros_like(array))


def air_level(array: np.ndarray) -> float:
    """The intensity below which a voxel (z, y, x) is air: a tenth of the way from the darkest to the bright ones."""
    darkest, bright = np.percentile(array[::4, ::2, ::4], (1, 99))
    return float(darkest + AIR * (bright - darkest))


def _target_grid(volume: Volume, spacing_mm: tuple[float, ...]) -> sitk.ResampleImageFilter:
    """A resampler onto a grid of the wanted spacing that begins at the volume's first voxel centre and ends in it.

    Where the spacing divides the scan's slice distance, every slice of the scan is a slice of the grid: labels keep
    their bits there. (With matching extents instead, 2.6 mm put each 5.2 mm slice half-way between two of the grid,
    and the femurs of the real hips lost 3% of their voxels on the way there and back, instead of 1.5%.)
    """
    old, new = np.asarray(volume.spacing_mm), np.asarray(spacing_mm, dtype=float)
    size = np.floor((np.asarray(volume.array.shape[::-1]) - 1) * old / new + 1e-6) + 1
    if not size.prod() <= MAX_VOXELS:
        raise InputError(
            f"The scan of {volume.array.shape[::-1]} voxels of {np.round(old, 3).tolist()} mm "
            f"needs {size.prod():.3g} voxels of {new.tolist()} mm.\n"
            f"Expected at most {MAX_VOXELS} voxels: crop the scan to the hips first."
        )
    resampler = sitk.ResampleImageFilter()
    resampler.SetSize(size.astype(int).tolist())
    resampler.SetOutputSpacing(new.tolist())
    resampler.SetOutputOrigin(volume.origin_mm)
    resampler.SetOutputDirection(volume.direction)
    return resampler


def _resample(volume: Volume, resampler: sitk.ResampleImageFilter) -> Volume:
    resampler.SetInterpolator(sitk.sitkLinear)
    resampler.UseNearestNeighborExtrapolatorOn()
    return volume_from_sitk(resampler.Execute(sitk_from_volume(volume)))


def _empty_like(volume: Volume) -> sitk.Image:
    image = sitk.Image(*volume.array.shape[::-1], sitk.sitkUInt8)
    image.SetSpacing(volume.spacing_mm)
    image.SetOrigin(volume.origin_mm)
    image.SetDirection(volume.direction)
    return image
