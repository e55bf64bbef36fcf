"""Segmentation from Python: `from femur3d import segment`."""

from __future__ import annotations

import dataclasses
import functools
import os
from pathlib import Path
from typing import Any, Literal

import numpy as np

from femur3d.engines.backend import ENGINE  # first: it says what is wrong with KERAS_BACKEND
from femur3d.errors import InputError
from femur3d.inference.mode import EXACT, FAST
from femur3d.inference.saved_model import SHIPPED, find_model, load_model, read_config
from femur3d.inference.segmenter import Segmentation, Segmenter
from femur3d.io.geometry import orthonormalise
from femur3d.io.images import ScanFile, read_scan, volume_from_sitk
from femur3d.volume import IDENTITY, Volume


def segment(
    scan: str | os.PathLike[str] | Volume | np.ndarray | Any,
    model: str | os.PathLike[str] = SHIPPED,
    *,
    labels: Literal["femur", "sides"] = "sides",
    fast: bool = False,
    series: int | None = None,
    spacing_mm: tuple[float, float, float] | None = None,
    origin_mm: tuple[float, float, float] = (0.0, 0.0, 0.0),
    direction: tuple[float, ...] = IDENTITY,
) -> Segmentation:
    """Segments the femurs of one scan. The model is loaded at the first call and kept for the next ones.

        result = segment("scan.nii.gz")
        result.volumes_ml, result.labels.array, result.quality
        result.save("femurs.nii.gz")

    Args:
        scan: a scan file, a folder with a DICOM series, a SimpleITK image, a `Volume`, or an array (z, y, x) with its
            geometry in the last three arguments.
        model: folder of a trained model, or the name of one that comes with femur3d: 'hip_t1' (the default), 'hip_mr'.
        labels: 'sides' (1 left, 2 right) or 'femur' (1 for both).
        fast: bfloat16, and fewer patches where no femur is near: faster, not quite the same; see `segmentation.FAST`.
        series: number of the series, where a DICOM folder has several.
        spacing_mm: of an array: voxel size along (x, y, z).
        origin_mm: of an array: world position (LPS) of its first voxel.
        direction: of an array: 3×3 matrix, row-major; column a is the world direction of index axis a.

    Returns:
        Label map and probability map on the scan's own grid, and what is out of the ordinary about them.

    Raises:
        InputError: the scan or the model cannot be read, or cannot be used.
    """
    folder = find_model(os.fspath(model)).resolve()
    segmenter = _segmenter(folder, str(read_config(folder)["weights_sha256"]), fast)
    read = _read(scan, series, spacing_mm, origin_mm, direction)
    return dataclasses.replace(segmenter(read.volume, labels), nifti=read.nifti)


@functools.lru_cache(maxsize=2)
def _segmenter(folder: Path, weights_sha256: str, fast: bool) -> Segmenter:
    """The loaded model; the checksum makes a folder that was replaced another one."""
    return Segmenter(load_model(folder), ENGINE, FAST if fast else EXACT)


def _read(
    scan: Any,
    series: int | None,
    spacing_mm: tuple[float, float, float] | None,
    origin_mm: tuple[float, float, float],
    direction: tuple[float, ...],
) -> ScanFile:
    if isinstance(scan, (str, os.PathLike)):
        return read_scan(scan, series=series)
    if isinstance(scan, Volume):
        return _usable("The volume", scan)
    if isinstance(scan, np.ndarray):
        return _usable("The array", _from_array(scan, spacing_mm, origin_mm, direction))
    if hasattr(scan, "GetSpacing"):
        if scan.GetDimension() != 3 or scan.GetNumberOfComponentsPerPixel() != 1:
            received = f"{scan.GetDimension()} dimensions, {scan.GetNumberOfComponentsPerPixel()} values a voxel"
            raise InputError(f"A SimpleITK image of {received}.\nExpected a 3-D grey image.")
        return _usable("The SimpleITK image", volume_from_sitk(scan))
    raise InputError(
        f"A {type(scan).__name__} cannot be segmented.\nExpected a path, a SimpleITK image, a Volume or a NumPy array."
    )


def _usable(what: str, volume: Volume) -> ScanFile:
    """A scan from memory, held to what is asked of one from a file."""
    array = volume.array
    if min(array.shape) < 2 or array.dtype.kind not in "buif" or array.dtype.itemsize > 8:
        raise InputError(f"{what} has shape {array.shape} and {array.dtype}.\nExpected real numbers, axes (z, y, x).")
    straight, notes = orthonormalise(what, volume)
    return ScanFile(straight, notes)


def _from_array(
    array: np.ndarray,
    spacing_mm: tuple[float, float, float] | None,
    origin_mm: tuple[float, float, float],
    direction: tuple[float, ...],
) -> Volume:
    if spacing_mm is None:
        raise InputError("An array without spacing_mm.\nExpected the voxel size (x, y, z) in millimetres.")
    if array.ndim != 3:
        raise InputError(f"An array of shape {array.shape}.\nExpected axes (z, y, x).")
    try:
        x, y, z = (float(mm) for mm in spacing_mm)
        origin_x, origin_y, origin_z = (float(mm) for mm in origin_mm)
        matrix = np.reshape(direction, 9).astype(float).tolist()
    except (TypeError, ValueError) as error:
        geometry = f"spacing_mm={spacing_mm}, origin_mm={origin_mm}, direction={direction}"
        raise InputError(f"An array with {geometry}.\nExpected three, three and nine numbers.") from error
    return Volume(array, (x, y, z), (origin_x, origin_y, origin_z), tuple(matrix))
