"""Scan files and DICOM folders to `Volume` and back.

SimpleITK lives here, in scan_checks.py, the DICOM modules and preprocess.py.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import gzip
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from femur3d.errors import InputError
from femur3d.io.atomic import replacing
from femur3d.io.dicom.series import Series, SeriesFolder, list_series, read_series, series_folder
from femur3d.io.geometry import SHEAR_KEPT, shear, straightened
from femur3d.io.integrity import (
    CHUNK,
    check_file,
    check_name,
    check_voxel_count,
    damaged,
    is_dicom_file,
    itk_error,
    not_finite,
    quiet_itk,
    reading,
)
from femur3d.io.nifti import NiftiGeometry, NiftiHeader, check_nifti, placement, put_geometry
from femur3d.volume import Volume

__all__ = [
    "SCAN_EXTENSIONS",
    "NiftiGeometry",
    "ScanFile",
    "Series",
    "case_name",
    "list_series",
    "read_scan",
    "read_volume",
    "scan_extension",
    "sitk_from_volume",
    "volume_from_sitk",
    "write_image",
    "write_volume",
]

SCAN_EXTENSIONS = (".nii.gz", ".nhdr", ".nrrd", ".mha", ".mhd", ".nii")  # longest first
TWO_FILES = (".mhd", ".nhdr")  # a header that names a second file with the voxels: read, never written
_WIDENED = {np.dtype(bool): np.uint8, np.dtype(np.float16): np.float32}  # types that the file formats lack
_NIFTI = (".nii", ".nii.gz")
_NOT_WHOLE = "what was written is not whole; is the disk full?"


@dataclasses.dataclass(frozen=True, eq=False)
class ScanFile:
    """A scan as it was read.

    Attributes:
        volume: voxels and geometry; the direction is a rotation or reflection.
        notes: what the user ought to know about how the geometry was understood or put right; a sentence each, without
            the path and a full stop; mostly none.
        nifti: geometry of a NIfTI file as stored, for `write_volume(…, like=…)`; None for other files.
        dicom: the DICOM series, with its files and headers; None for other files.
    """

    volume: Volume
    notes: tuple[str, ...] = ()
    nifti: NiftiGeometry | None = None
    dicom: Series | None = None


def scan_extension(path: str | os.PathLike[str]) -> str:
    """The entry of SCAN_EXTENSIONS that a file name ends with (lower case only), '' where there is none."""
    return next((extension for extension in SCAN_EXTENSIONS if Path(path).name.endswith(extension)), "")


def case_name(path: str | os.PathLike[str]) -> str:
    """Name of the case in a path: no folder, no scan extension or .dcm, no nnU-Net channel suffix '_0000'.

    'imagesTr/hip_07_0000.nii.gz' → 'hip_07'; an existing folder (a DICOM series) gives its own name unchanged.
    """
    path = Path(path)
    if path.is_dir():
        return path.resolve().name
    return path.name.removesuffix(scan_extension(path) or ".dcm").removesuffix("_0000")


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


def read_scan(path: str | os.PathLike[str] | SeriesFolder, *, series: int | None = None) -> ScanFile:
    """Reads a scan that is to be segmented: see `read_volume`; and what the user ought to know about it.

    Args:
        path: the file or folder; or the DICOM series of one or more folders, whose headers are then not read again.
        series: which of several series, by its number.

    Raises:
        InputError: as `read_volume`, and where all voxels have one value.
    """
    if isinstance(path, SeriesFolder):
        where, found = path.path, _put_right(path.path, _read_series(path, series))
    else:
        where, found = Path(path), _read(Path(path), series)
    low, high = found.volume.array.min(), found.volume.array.max()
    if low == high:
        raise InputError(
            f"{where}: every voxel is {low}.\nAn MR scan is needed: export it again, or give another file."
        )
    return found


def read_volume(path: str | os.PathLike[str], *, series: int | None = None) -> Volume:
    """Reads a scan or label map: a file (NIfTI, NRRD, MetaImage) or a folder that holds a DICOM series, or
    a multi-frame DICOM file.

    The dtype is the stored one; where the file carries a rescale slope and intercept they are applied, which may
    give floats. DICOM slices are ordered by position. A direction that is not quite orthonormal (sheared or rounded
    files) is replaced by the nearest rotation as long as no corner of the scan moves by more than half the smallest
    voxel size, and a note of `read_scan` says so; the rounding of six decimals (1e-5) is not worth one. Which transform
    of a NIfTI file counts: see `nifti.placement`.

    Args:
        path: the file or folder.
        series: which series of a DICOM folder that holds several, as numbered by `list_series`.

    Returns:
        The volume, array (z, y, x), at least 2 voxels along every axis.

    Raises:
        InputError: the file is missing, damaged, not three-dimensional, not scalar, too large (over 2**29 voxels),
            without usable geometry, or holds NaN or infinite voxels; the series is incomplete or mixed.
    """
    return _read(Path(path), series).volume


def write_volume(volume: Volume, path: str | os.PathLike[str], like: NiftiGeometry | None = None) -> None:
    """Writes .nii, .nii.gz, .nrrd or .mha: to a temporary name first, then renamed; compressed where the format can.

    NRRD and MetaImage keep the geometry to about 1e-15. NIfTI stores it as float32: spacing, origin and direction come
    back to about 1e-7 of their size (1e-5 mm within 100 mm of the world's origin). A NIfTI file written `like` another
    lies on exactly its grid in every program: it has the other's voxel sizes, units, qform, sform and codes, bit for
    bit, also where reading put the direction right.

    Args:
        volume: what to write; a bool array is written as uint8, float16 as float32.
        path: the file; its folder is created if needed.
        like: `ScanFile.nifti` of the scan whose grid the volume lies on; of no effect in other formats than NIfTI.

    Raises:
        InputError: unknown extension, axes far from right angles, or the file cannot be written there.
        ValueError: the volume has another size than `like`.
    """
    path = Path(path)
    extension = scan_extension(path)
    if not extension or extension in TWO_FILES:
        written = ", ".join(e for e in SCAN_EXTENSIONS if e not in TWO_FILES)
        raise InputError(f"{path}: not a name that a scan can be written to.\nUse one of: {written}.")
    check_name(Path(os.path.realpath(path)))
    image = sitk_from_volume(straightened(path, volume)[0])
    try:
        with quiet_itk(), replacing(path) as temporary:
            if like is None or extension not in _NIFTI:
                write_image(image, temporary)
            else:
                _write_like(image, temporary, like)
    except (RuntimeError, OSError) as error:
        reason = getattr(error, "strerror", None) or itk_error(error)
        message = f"{path}: cannot be written ({reason})"
        raise InputError(f"{message}.\nCheck permissions and free space.") from error


def write_image(image: sitk.Image, path: Path, compressed: bool = True) -> None:
    """SimpleITK's writer, and a look at what it has written: on a full disk some of its formats say nothing.

    Raises:
        RuntimeError: the file cannot be written.
        OSError: the file does not hold the image.
    """
    sitk.WriteImage(image, str(path), useCompression=compressed)
    try:
        written = sitk.ReadImage(str(path))
    except RuntimeError as error:
        raise OSError(errno.EIO, _NOT_WHOLE) from error
    found, meant = (sitk.GetArrayViewFromImage(i) for i in (written, image))
    if not (np.array_equal(found, meant) or np.array_equal(_without_infinity(found), _without_infinity(meant))):
        raise OSError(errno.EIO, _NOT_WHOLE)


def _without_infinity(array: np.ndarray) -> np.ndarray:
    """With 0 for NaN and infinite voxels, which ITK's NIfTI writer keeps and its reader takes for 0."""
    return np.nan_to_num(array, nan=0, posinf=0, neginf=0)


def _read(path: Path, series: int | None) -> ScanFile:
    """A file or DICOM folder, its voxels checked and its direction put right."""
    check_name(path)
    if not path.exists():
        raise InputError(f"{path}: no such file or folder.\nCheck the path; a relative path starts at {Path.cwd()}.")
    if path.is_dir() or _is_dicom(path):
        return _put_right(path, _read_series(series_folder(path), series))
    return _put_right(path, _read_file(path))


def _read_series(folder: SeriesFolder, number: int | None) -> ScanFile:
    chosen = folder.choose(number)
    volume, notes = read_series(chosen)
    return ScanFile(volume, notes, dicom=chosen)


def _is_dicom(path: Path) -> bool:
    """Whether a file that is not called like a scan holds DICOM: it may be a multi-frame one, a scan by itself."""
    with reading(path):
        return not scan_extension(path) and is_dicom_file(path)


def _put_right(path: Path, stored: ScanFile) -> ScanFile:
    """The scan with finite voxels and axes at right angles. Raises InputError where it cannot have them."""
    _check_finite(path, stored.volume.array)
    volume, notes = straightened(path, stored.volume)
    return dataclasses.replace(stored, volume=volume, notes=stored.notes + notes)


def _write_like(image: sitk.Image, path: Path, like: NiftiGeometry) -> None:
    """Writes NIfTI with the geometry of another file, by way of an uncompressed file beside it."""
    plain = path.with_name(path.name.removesuffix(".gz"))
    try:
        write_image(image, plain, compressed=False)
        put_geometry(plain, like)
        if plain != path:
            _pack(plain, path)
    finally:
        if plain != path:
            plain.unlink(missing_ok=True)


def _pack(plain: Path, packed: Path) -> None:
    """A file packed by gzip, without its name and time: the same bytes whenever it is written."""
    with (
        plain.open("rb") as source,
        packed.open("wb") as stream,
        gzip.GzipFile("", "wb", compresslevel=6, fileobj=stream, mtime=0) as target,
    ):
        shutil.copyfileobj(source, target, CHUNK)


def _read_file(path: Path) -> ScanFile:
    """A single scan file, checked before its voxels take memory; the direction as stored."""
    extension = scan_extension(path)
    if not extension:
        raise _unknown_extension(path)
    check_file(path, extension)
    if extension in _NIFTI:
        return _read_nifti(path)
    return ScanFile(_read_image(path))


def _read_nifti(path: Path) -> ScanFile:
    """A NIfTI file: voxels by SimpleITK, geometry by its header.

    SimpleITK refuses a file whose only transform is a little sheared, and in the permissive mode of ITK 5.4 it takes
    the transpose of the right direction.
    """
    header = check_nifti(path)
    with _permissive_nifti() if _is_refused_by_itk(header) else contextlib.nullcontext():
        array = _read_image(path).array
    affine, notes = placement(path, header)
    sizes = np.linalg.norm(affine[:3, :3], axis=0)
    direction = (affine[:3, :3] / sizes).ravel()
    if np.allclose(sizes, header.voxel_mm[:3], rtol=1e-4, atol=0):
        sizes = np.array(header.voxel_mm[:3])  # the same without the rounding of the matrix
    volume = Volume(array, _tuple3(sizes), _tuple3(affine[:3, 3]), tuple(direction.tolist()))
    return ScanFile(volume, notes, header.geometry)


def _is_refused_by_itk(header: NiftiHeader) -> bool:
    """Whether SimpleITK may find no right-angled transform in a NIfTI header."""
    if header.sform is None or header.qform is not None:
        return False
    sizes = np.linalg.norm(header.sform[:3, :3], axis=0)
    return sizes.min() == 0 or shear(header.sform[:3, :3] / sizes) > SHEAR_KEPT


def _read_image(path: Path) -> Volume:
    """A scan file as SimpleITK reads it, its header checked before its voxels are read."""
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        with quiet_itk():
            reader.ReadImageInformation()
            _check_header(path, reader)
            return volume_from_sitk(reader.Execute())
    except RuntimeError as error:
        raise damaged(path, itk_error(error)) from error


def _unknown_extension(path: Path) -> InputError:
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


def _check_finite(path: Path, array: np.ndarray) -> None:
    """InputError where voxels are NaN or infinite; says how many."""
    if np.issubdtype(array.dtype, np.floating):
        bad = array.size - int(np.count_nonzero(np.isfinite(array)))
        if bad:
            raise not_finite(path, bad, array.size)


def _tuple3(values: np.ndarray) -> tuple[float, float, float]:
    x, y, z = (float(v) for v in values)
    return x, y, z
