"""Scan files and DICOM folders to `Volume` and back. SimpleITK lives here, in dicom.py and in preprocess.py only."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from femur3d.atomic import replacing
from femur3d.dicom import Series, itk_error, list_series, quiet_itk, read_series
from femur3d.errors import InputError
from femur3d.scan_checks import (
    check_file,
    check_voxel_count,
    damaged,
    is_dicom_file,
    not_finite,
    read_nifti_header,
    unreadable,
)
from femur3d.volume import Volume

__all__ = [
    "SCAN_EXTENSIONS",
    "Series",
    "case_name",
    "list_series",
    "read_volume",
    "scan_extension",
    "sitk_from_volume",
    "volume_from_sitk",
    "write_volume",
]

SCAN_EXTENSIONS = (".nii.gz", ".nhdr", ".nrrd", ".mha", ".mhd", ".nii")  # longest first
_TWO_FILES = (".mhd", ".nhdr")  # a header that names a second file with the voxels: read, never written
_WIDENED = {np.dtype(bool): np.uint8, np.dtype(np.float16): np.float32}  # types that the file formats lack
_ORTHONORMAL = 1e-6  # directions this close to a rotation are kept as stored


def scan_extension(path: str | os.PathLike[str]) -> str:
    """The entry of SCAN_EXTENSIONS that a file name ends with (lower case only), '' where there is none."""
    return next((extension for extension in SCAN_EXTENSIONS if Path(path).name.endswith(extension)), "")


def case_name(path: str | os.PathLike[str]) -> str:
    """Name of the case in a path: no folder, no scan extension, no nnU-Net channel suffix '_0000'.

    'imagesTr/hip_07_0000.nii.gz' → 'hip_07'; an existing folder (a DICOM series) gives its own name unchanged.
    """
    path = Path(path)
    if path.is_dir():
        return path.resolve().name
    return path.name.removesuffix(scan_extension(path)).removesuffix("_0000")


def volume_from_sitk(image: sitk.Image) -> Volume:
    """A scalar 3-D SimpleITK image as a Volume: array (z, y, x) copied, dtype kept, geometry exact (float64)."""
    return Volume(sitk.GetArrayFromImage(image), image.GetSpacing(), image.GetOrigin(), image.GetDirection())


def sitk_from_volume(volume: Volume) -> sitk.Image:
    """A Volume as a SimpleITK image, geometry exact. bool becomes uint8 and float16 float32; other dtypes are kept."""
    array = volume.array.astype(_WIDENED.get(volume.array.dtype, volume.array.dtype.newbyteorder("=")), copy=False)
    image = sitk.GetImageFromArray(array, isVector=False)
    image.SetSpacing([float(mm) for mm in volume.spacing_mm])
    image.SetOrigin([float(mm) for mm in volume.origin_mm])
    image.SetDirection([float(cosine) for cosine in volume.direction])
    return image


def read_volume(path: str | os.PathLike[str], *, series: int | None = None) -> Volume:
    """Reads a scan file (NIfTI, NRRD, MetaImage) or a folder that holds a DICOM series.

    The dtype is the stored one; where the file carries a rescale slope and intercept they are applied, which may
    give floats. DICOM slices are ordered by position. A direction that is not quite orthonormal (sheared or rounded
    files) is replaced by the nearest rotation as long as no corner of the scan moves by more than half the smallest
    voxel size.

    Args:
        path: the file or folder.
        series: which series of a DICOM folder that holds several, as numbered by `list_series`.

    Returns:
        The scan, array (z, y, x), at least 2 voxels along every axis.

    Raises:
        InputError: the scan is missing, damaged, not three-dimensional, not scalar, too large (over 2**29 voxels),
            without usable geometry, or holds NaN or infinite voxels.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path}: no such file or folder.\nCheck the path; a relative path starts at {Path.cwd()}.")
    stored = volume_from_sitk(read_series(path, series)) if path.is_dir() else _read_file(path)
    _check_finite(path, stored.array)
    return _orthonormal(path, stored)


def write_volume(volume: Volume, path: str | os.PathLike[str]) -> None:
    """Writes .nii, .nii.gz, .nrrd or .mha: to a temporary name first, then renamed; compressed where the format can.

    NRRD and MetaImage keep the geometry to about 1e-15. NIfTI stores it as float32: spacing, origin and direction come
    back to about 1e-7 of their size (1e-5 mm within 100 mm of the world's origin).

    Args:
        volume: what to write; a bool array is written as uint8, float16 as float32.
        path: the file; its folder is created if needed.

    Raises:
        InputError: unknown extension, axes far from right angles, or the file cannot be written there.
    """
    path = Path(path)
    extension = scan_extension(path)
    if not extension or extension in _TWO_FILES:
        written = ", ".join(e for e in SCAN_EXTENSIONS if e not in _TWO_FILES)
        raise InputError(f"{path}: not a name that a scan can be written to.\nUse one of: {written}.")
    try:
        with quiet_itk(), replacing(path) as temporary:
            sitk.WriteImage(sitk_from_volume(_orthonormal(path, volume)), str(temporary), useCompression=True)
    except (RuntimeError, OSError) as error:
        message = f"{path}: cannot be written ({itk_error(error)})"
        raise InputError(f"{message}.\nCheck permissions and free space.") from error


def _read_file(path: Path) -> Volume:
    """A single scan file, checked before its voxels take memory."""
    extension = scan_extension(path)
    if not extension:
        raise _unknown_extension(path)
    check_file(path, extension)
    sform = _lone_sform(path) if extension in (".nii", ".nii.gz") else None
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        with quiet_itk(), contextlib.nullcontext() if sform is None else _permissive_nifti():
            reader.ReadImageInformation()
            _check_header(path, reader)
            volume = volume_from_sitk(reader.Execute())
    except RuntimeError as error:
        raise damaged(path, itk_error(error)) from error
    return volume if sform is None else _placed(volume, sform)


def _unknown_extension(path: Path) -> InputError:
    try:
        single_slice = is_dicom_file(path)
    except OSError as error:
        return unreadable(path, error)
    if single_slice:
        return InputError(f"{path}: a single DICOM file.\nGive the folder that holds all the slices of its series.")
    accepted = ", ".join(SCAN_EXTENSIONS)
    return InputError(
        f"{path}: not a scan by its name.\nAccepted: {accepted}, lower case, or a folder of DICOM slices."
    )


def _check_header(path: Path, reader: sitk.ImageFileReader) -> None:
    """InputError unless the header announces a scalar 3-D scan of a size and spacing that can be used."""
    size, spacing = reader.GetSize(), reader.GetSpacing()
    if reader.GetNumberOfComponents() != 1:
        what = f"{reader.GetNumberOfComponents()} values a voxel (a colour, vector or complex image)"
        raise InputError(f"{path}: {what}.\nA scan has one grey value a voxel: export a single channel.")
    if len(size) != 3 or min(size) < 2:
        what = f"{len(size)}-D image of {'×'.join(map(str, size))} voxels"
        raise InputError(f"{path}: a {what}.\nA 3-D scan with at least 2 voxels along each axis is needed.")
    check_voxel_count(path, size)
    if not all(0 < mm < np.inf for mm in spacing):
        raise InputError(f"{path}: voxel sizes {spacing} mm.\nVoxel sizes must be positive numbers: export it again.")


def _lone_sform(path: Path) -> np.ndarray | None:
    """The sform of a NIfTI file that has no qform beside it: 4×4 to LPS millimetres. None for all other files.

    SimpleITK refuses such a file where the matrix is a little sheared, and in the permissive mode of ITK 5.4 it takes
    the transpose of the right direction; so the voxels are read in that mode and placed by `_placed`.
    """
    header = read_nifti_header(path)
    if header.qform is not None or header.sform is None:
        return None
    if np.linalg.norm(header.sform[:3, :3], axis=0).min() == 0:
        message = f"{path}: its sform matrix is not usable: {header.sform[:3].tolist()}"
        raise InputError(f"{message}.\nConvert the scan again from its DICOM files.")
    return header.sform


def _placed(volume: Volume, affine: np.ndarray) -> Volume:
    """The same voxels with the geometry of a 4×4 matrix (i, j, k, 1) → LPS millimetres, shear included."""
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    direction = (affine[:3, :3] / spacing).ravel()
    return Volume(volume.array, tuple(spacing.tolist()), tuple(affine[:3, 3].tolist()), tuple(direction.tolist()))


@contextlib.contextmanager
def _permissive_nifti() -> Iterator[None]:
    """Within the block ITK reads NIfTI files whose direction is not orthonormal (an environment variable of ITK's)."""
    name = "ITK_NIFTI_SFORM_PERMISSIVE"
    before = os.environ.get(name)
    os.environ[name] = "ON"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def _orthonormal(path: Path, volume: Volume) -> Volume:
    """The volume with a direction that is a rotation or reflection; InputError where it is too far from one."""
    if not np.isfinite(volume.affine).all():
        message = f"{path}: its place in the world is not given in numbers: origin {volume.origin_mm} mm"
        raise InputError(f"{message}, direction {volume.direction}.\nConvert the scan again from its DICOM files.")
    direction = np.reshape(volume.direction, (3, 3))
    if np.abs(direction.T @ direction - np.eye(3)).max() <= _ORTHONORMAL:
        return volume
    left, _, right = np.linalg.svd(direction)
    nearest = left @ right
    reach = np.multiply(volume.spacing_mm, np.array(volume.array.shape[::-1]) - 1)
    corners = np.stack(np.meshgrid(*((0, mm) for mm in reach)), axis=-1).reshape(8, 3)
    moved = np.linalg.norm(corners @ (direction - nearest).T, axis=1).max()
    if moved > 0.5 * min(volume.spacing_mm):
        message = f"{path}: its axes are not at right angles (righting them would move a corner by {moved:.2f} mm)"
        raise InputError(f"{message}.\nUp to half a voxel is accepted: resample the scan to an orthogonal grid.")
    return dataclasses.replace(volume, direction=tuple(nearest.ravel().tolist()))


def _check_finite(path: Path, array: np.ndarray) -> None:
    """InputError where voxels are NaN or infinite; says how many."""
    if np.issubdtype(array.dtype, np.floating):
        bad = array.size - int(np.count_nonzero(np.isfinite(array)))
        if bad:
            raise not_finite(path, bad, array.size)
