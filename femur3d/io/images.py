"""Scan files and DICOM folders to `Volume` and back. A scan is read in one trip, which finds all there is to know."""

from __future__ import annotations

import dataclasses
import errno
import gzip
import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import SimpleITK as sitk

from femur3d.errors import InputError
from femur3d.io.formats.nifti import Nifti1Header, nifti_bytes, nifti_head, read_nifti
from femur3d.io.formats.text_headers import read_text_headed
from femur3d.io.formats.voxels import Files, file_state, sha256_of
from femur3d.io.geometry import orthonormalise
from femur3d.io.integrity import (
    METAIMAGE,
    NIFTI,
    NRRD,
    check_name,
    check_regular,
    is_dicom_file,
    kind_of_scan,
    not_finite,
    quiet_itk,
    reading,
    writing,
)
from femur3d.volume import Volume

if TYPE_CHECKING:  # pydicom takes half a second, of which other files need nothing
    from femur3d.io.dicom.series import Series, SeriesFolder

SCAN_EXTENSIONS = (".nii.gz", ".nhdr", ".nrrd", ".mha", ".mhd", ".nii")  # longest first
TWO_FILES = (".mhd", ".nhdr")  # a header that names a second file with the voxels: read, never written
_WIDENED = {np.dtype(bool): np.uint8, np.dtype(np.float16): np.float32}  # types that the file formats lack
_KIND_OF_NAME = {".nii": NIFTI, ".nii.gz": NIFTI, ".nrrd": NRRD, ".nhdr": NRRD, ".mha": METAIMAGE, ".mhd": METAIMAGE}
_NOT_WHOLE = "what was written is not whole; is the disk full?"


@dataclasses.dataclass(frozen=True, eq=False)
class ScanFile:
    """A scan as it was read.

    Attributes:
        volume: voxels and geometry; the direction is a rotation or reflection.
        notes: what the user ought to know about how the geometry was understood or put right; a sentence each, without
            the path and a full stop; mostly none.
        nifti: header of a NIfTI file as stored, for `write_volume(…, like=…)`; None for other files.
        dicom: the DICOM series, with its files and headers; None for other files.
        sha256: hexadecimal digest of the bytes that were read, of all files; '' for what was never a file.
    """

    volume: Volume
    notes: tuple[str, ...] = ()
    nifti: Nifti1Header | None = None
    dicom: Series | None = None
    sha256: str = ""


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
    if isinstance(path, (str, os.PathLike)):
        where, found = Path(path), _read(Path(path), series)
    else:
        where, found = path.path, _put_right(path.path, _read_series(path, series))
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
        series: which series of a DICOM folder that holds several, as numbered by `dicom.series.series_folder`.

    Returns:
        The volume, array (z, y, x), at least 2 voxels along every axis.

    Raises:
        InputError: the file is missing, damaged, not three-dimensional, not scalar, too large (over 2**29 voxels),
            without usable geometry, or holds NaN or infinite voxels; the series is incomplete or mixed.
    """
    return _read(Path(path), series).volume


def write_volume(volume: Volume, path: str | os.PathLike[str], like: Nifti1Header | None = None) -> None:
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
    image = sitk_from_volume(orthonormalise(path, volume)[0])
    with quiet_itk(), writing(path) as temporary:
        if like is None or _KIND_OF_NAME[extension] != NIFTI:
            write_image(image, temporary)
        else:
            _write_like(image, temporary, like)


def write_image(image: sitk.Image, path: Path) -> None:
    """SimpleITK's writer, and a look at what it has written: on a full disk some of its formats say nothing.

    Raises:
        RuntimeError: the file cannot be written.
        OSError: the file does not hold the image.
    """
    sitk.WriteImage(image, str(path), useCompression=True)
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
    check_regular(path)
    if path.is_dir() or _is_dicom(path):
        from femur3d.io.dicom.series import series_folder

        return _put_right(path, _read_series(series_folder(path), series))
    return _put_right(path, _read_file(path))


def _is_dicom(path: Path) -> bool:
    """Whether a file that is not called like a scan holds DICOM: it may be a multi-frame one, a scan by itself."""
    with reading(path):
        return not scan_extension(path) and is_dicom_file(path)


def _put_right(path: Path, stored: ScanFile) -> ScanFile:
    """The scan with finite voxels and axes at right angles. Raises InputError where it cannot have them."""
    _check_finite(path, stored.volume.array)
    volume, notes = orthonormalise(path, stored.volume)
    return dataclasses.replace(stored, volume=volume, notes=stored.notes + notes)


def _read_series(folder: SeriesFolder, number: int | None) -> ScanFile:
    """A DICOM series, whose files must not change while they are read and hashed."""
    from femur3d.io.dicom.series import read_series

    chosen = folder.choose(number)
    before = [file_state(file) for file in chosen.files]
    volume, notes = read_series(chosen)
    sha256 = sha256_of(chosen.files)
    if [file_state(file) for file in chosen.files] != before:
        raise InputError(f"{chosen.path}: its files were changed while they were read.\nTry again when they are whole.")
    return ScanFile(volume, notes, dicom=chosen, sha256=sha256)


def _read_file(path: Path) -> ScanFile:
    """A single scan file, read by what it holds, whatever of a scan's names it has; the direction as stored."""
    if not scan_extension(path):
        raise _unknown_extension(path)
    files, expected, header = Files(), _KIND_OF_NAME[scan_extension(path)], None
    content = files.read(path)
    kind = kind_of_scan(path, content, nifti_head(path, content), expected)
    if kind == NIFTI:
        volume, notes, header = read_nifti(path, files)
    else:
        volume, notes = read_text_headed(path, kind, files)
    if kind != expected:
        notes += (f"its name is that of a {expected} file, but it holds {kind}: it was read as that",)
    return ScanFile(volume, notes, header, sha256=files.sha256)


def _unknown_extension(path: Path) -> InputError:
    accepted = ", ".join(SCAN_EXTENSIONS)
    return InputError(
        f"{path}: not a scan by its name.\nAccepted: {accepted}, lower case, or a folder of DICOM slices."
    )


def _check_finite(path: Path, array: np.ndarray) -> None:
    """InputError where voxels are NaN or infinite; says how many."""
    if np.issubdtype(array.dtype, np.floating):
        bad = array.size - int(np.count_nonzero(np.isfinite(array)))
        if bad:
            raise not_finite(path, bad, array.size)


def _write_like(image: sitk.Image, path: Path, like: Nifti1Header) -> None:
    """Writes NIfTI on the grid of another file; packed by gzip without a name and time: the same bytes every time."""
    content = nifti_bytes(sitk.GetArrayViewFromImage(image), like)
    with path.open("wb") as stream:
        if path.name.endswith(".gz"):
            with gzip.GzipFile("", "wb", compresslevel=6, fileobj=stream, mtime=0) as packed:
                packed.write(content)
        else:
            stream.write(content)
