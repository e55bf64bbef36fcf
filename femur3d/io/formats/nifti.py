"""NIfTI-1 and NIfTI-2 files: where their voxels are stored and lie, and files on exactly the same grid.

NiBabel reads and writes the headers. Ours is which transform counts: NiBabel prefers an sform of any code, even one
that is a registration to an atlas, and takes the axes of a file without transforms to point elsewhere than ITK, 3D
Slicer and ITK-SNAP do; and the qform's matrix: NiBabel refuses a quaternion that rounding made longer than 1 and sets
its first number to 0 where it is below 6e-4, which turns a scan by up to 0.07°.
"""

from __future__ import annotations

import gzip
import io
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from femur3d.errors import InputError
from femur3d.io.formats.optional import without
from femur3d.io.formats.voxels import GZIP_MARK, Files, Layout, check_one_scan, read_voxels
from femur3d.io.geometry import LIMIT_VOXELS, farthest_mm, orientation_unknown, orthogonal_affine
from femur3d.io.integrity import damaged, reading
from femur3d.volume import Volume

with without(["pydicom"]):  # nibabel would import it for DICOM, which it is not asked for
    from nibabel.nifti1 import Nifti1Header
    from nibabel.nifti2 import Nifti2Header
    from nibabel.quaternions import quat2mat
    from nibabel.spatialimages import HeaderDataError

HEADER_BYTES = 540  # of NIfTI-2, the longer one
_START_LIMIT = 2**31  # bytes of header and extensions before the first voxel
_UNIT_MM = {1: 1000.0, 3: 0.001}  # metres, micrometres; all other codes are read as millimetres, as ITK does
_SCANNER = 1  # the transform code for "scanner coordinates"
_LPS_FROM_RAS = np.array([[-1.0], [-1.0], [1.0], [1.0]])  # signs of the rows
_PLACE = (
    "xyzt_units", "qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y",
    "qoffset_z", "srow_x", "srow_y", "srow_z",
)  # fmt: skip


def nifti_head(path: Path, content: bytes) -> bytes:
    """The first bytes of a file that may be NIfTI, unpacked where they are packed by gzip; '' where they do not."""
    if not content.startswith(GZIP_MARK):
        return content[:HEADER_BYTES]
    with reading(path):
        return gzip.GzipFile(fileobj=io.BytesIO(content)).read(HEADER_BYTES)


def read_header(path: Path, head: bytes) -> Nifti1Header:
    """The header of a single-file NIfTI scan; NiBabel's NIfTI-2 header is one of NIfTI-1 with other types.

    Raises:
        InputError: it is none, or has impossible sizes, types or places.
    """
    for kind, magic in ((Nifti1Header, b"n+1"), (Nifti2Header, b"n+2")):
        size = kind.sizeof_hdr
        order = {size.to_bytes(4, "little"): "<", size.to_bytes(4, "big"): ">"}.get(head[:4])
        if order and len(head) >= size:
            header = kind(head[:size], endianness=order, check=False)
            if bytes(header["magic"]).startswith(magic):
                _check_stored(path, header)
                return header
    raise damaged(path, "it does not begin with the header of a single-file NIfTI scan")


def read_nifti(path: Path, files: Files) -> tuple[Volume, tuple[str, ...], Nifti1Header]:
    """A scan with its direction as stored, notes for the user, and the header as stored.

    Voxels have their stored type; with a slope or intercept float32, or float64 where they are float64: ITK's rule.

    Raises:
        InputError: the file is damaged, no 3-D scan, or its sizes, places or voxels are no numbers.
    """
    content = files.read(path)
    header = read_header(path, nifti_head(path, content))
    _check_numbers(path, header)
    dtype, size = header.get_data_dtype(), check_one_scan(path, stored_size(header))
    start = max(int(header["vox_offset"]), header.sizeof_hdr)
    packed = content.startswith(GZIP_MARK)
    layout = Layout(size, dtype, (path,), "gzip" if packed else "raw", unpacked_start=start, may_have_more=True)
    affine, notes = placement(path, header)
    array = _scaled(path, read_voxels(path, layout, files), header)
    return _placed(array, affine, voxel_mm(header)), notes, header


def stored_size(header: Nifti1Header) -> tuple[int, ...]:
    """Voxels along (i, j, k, …)."""
    return tuple(int(n) for n in header["dim"][1 : int(header["dim"][0]) + 1])


def voxel_mm(header: Nifti1Header) -> tuple[float, float, float]:
    """Voxel sizes along (i, j, k): pixdim in millimetres."""
    i, j, k = (float(size) * _unit_mm(header) for size in header["pixdim"][1:4])
    return i, j, k


def placement(path: Path, header: Nifti1Header) -> tuple[np.ndarray, tuple[str, ...]]:
    """Where the voxels of a 3-D NIfTI scan lie, and notes for the user where the header leaves room for doubt.

    The sform counts where it gives scanner coordinates (code 1) and its voxels have right angles and the sizes of
    pixdim, to within half a voxel over the whole scan; or where there is no qform. Otherwise the qform counts: ITK's
    rule, by which 3D Slicer and ITK-SNAP show the scan. Without either the axes are taken to point to LPS, as ITK does.

    Returns:
        4×4 matrix (i, j, k, 1) → LPS millimetres, which may be a little sheared, and the notes.

    Raises:
        InputError: the transform that counts cannot be one.
    """
    sform, qform = lps_sform(header), lps_qform(header)
    if sform is None and qform is None:
        return np.diag([*voxel_mm(header), 1.0]), (orientation_unknown("neither a qform nor an sform"),)
    if sform is None:
        return _rotation(path, header, qform), ()
    if qform is None:
        return _lone_sform(path, header, sform)
    return _one_of_two(path, header, sform, qform)


def lps_sform(header: Nifti1Header) -> np.ndarray | None:
    """The sform as a 4×4 matrix to LPS millimetres; None where the header's code says that it has none."""
    if header["sform_code"] <= 0:
        return None
    affine = header.get_sform().astype(np.float64)
    affine[:3] *= _unit_mm(header)
    return _LPS_FROM_RAS * affine


def lps_qform(header: Nifti1Header) -> np.ndarray | None:
    """The qform as a 4×4 matrix to LPS millimetres; None where the header's code says that it has none.

    The quaternion's first number is not stored: it completes the others to length 1. pixdim[0] < 0 mirrors k.
    """
    if header["qform_code"] <= 0:
        return None
    bcd = np.array(_quaternion(header))
    sizes = np.multiply(voxel_mm(header), (1, 1, -1 if header["pixdim"][0] < 0 else 1))
    affine = np.full((4, 4), np.nan)
    if np.isfinite(bcd).all():
        affine[:3, :3] = quat2mat([math.sqrt(max(1 - bcd @ bcd, 0.0)), *bcd]) * sizes
    affine[:3, 3] = [float(header[f"qoffset_{axis}"]) * _unit_mm(header) for axis in "xyz"]
    affine[3] = (0, 0, 0, 1)
    return _LPS_FROM_RAS * affine


def nifti_bytes(array: np.ndarray, like: Nifti1Header) -> bytes:
    """A NIfTI file, not packed, of the kind of another and on exactly its grid.

    Voxel sizes, units, qform, sform and both codes are the other's bit for bit, whatever its byte order; all else is
    that of a plain image.

    Args:
        array: voxels (z, y, x).
        like: header of the other file, as `read_nifti` gives it.

    Raises:
        ValueError: the array has other sizes.
    """
    if stored_size(like)[:3] != array.shape[::-1]:
        raise ValueError(f"Expected a file of {stored_size(like)[:3]} voxels. Received: {array.shape[::-1]}")
    header = type(like)(endianness="<")
    header.set_data_dtype(array.dtype)
    header.set_data_shape(array.shape[::-1])
    for name in _PLACE:
        header[name] = like[name]
    header["pixdim"] = [*like["pixdim"][:4], 0, 0, 0, 0]
    header["vox_offset"] = header.single_vox_offset
    if not isinstance(header, Nifti2Header):
        header["regular"] = b"r"  # as ITK and the standard's own programs write it
    header["scl_slope"], header["scl_inter"] = 1, 0
    start = bytes(header.binaryblock).ljust(header.single_vox_offset, b"\0")
    return start + array.astype(array.dtype.newbyteorder("<")).tobytes()


def _placed(array: np.ndarray, affine: np.ndarray, stated_mm: tuple[float, float, float]) -> Volume:
    """The volume of voxels and a 4×4 matrix; `stated_mm` are its voxel sizes where they agree with the matrix."""
    sizes = np.linalg.norm(affine[:3, :3], axis=0)
    direction = (affine[:3, :3] / sizes).ravel()
    if np.allclose(sizes, stated_mm, rtol=1e-4, atol=0):
        sizes = np.array(stated_mm)  # the same without the rounding of the matrix
    return Volume(array, tuple(sizes.tolist()), tuple(affine[:3, 3].tolist()), tuple(direction.tolist()))


def _unit_mm(header: Nifti1Header) -> float:
    return _UNIT_MM.get(int(header["xyzt_units"]) & 7, 1.0)


def _quaternion(header: Nifti1Header) -> tuple[float, float, float]:
    return float(header["quatern_b"]), float(header["quatern_c"]), float(header["quatern_d"])


def _check_stored(path: Path, header: Nifti1Header) -> None:
    """InputError unless sizes, place and type of the stored voxels are possible, and one grey value a voxel."""
    n_axes, start = int(header["dim"][0]), float(header["vox_offset"])
    if not 1 <= n_axes <= 7 or min(stored_size(header)) < 1:
        raise damaged(path, f"its header gives {n_axes} axes of {stored_size(header)} voxels")
    if not 0 <= abs(start) < _START_LIMIT:
        raise damaged(path, f"its header puts the first voxel at byte {start:g}")
    try:
        dtype = header.get_data_dtype()
    except (HeaderDataError, KeyError) as error:
        what = f"its header gives voxels of type {int(header['datatype'])}, which NIfTI does not have"
        raise damaged(path, what) from error
    size = stored_size(header)
    n_values = size[4] if len(size) == 5 and size[3] == 1 else len(dtype.names or "1")  # the fifth axis is for vectors
    if n_values > 1 or dtype.kind not in "iuf" or dtype.itemsize > 8:
        values = f"{n_values} values a voxel" if n_values > 1 else f"voxels of type {dtype}"
        message = f"{path}: {values} (a colour, vector or complex image)"
        raise InputError(f"{message}.\nA scan has one grey value a voxel: export a single channel.")


def _check_numbers(path: Path, header: Nifti1Header) -> None:
    """Voxel sizes are positive, and the transforms that the header announces are numbers."""
    if not all(0 < mm < math.inf for mm in voxel_mm(header)):
        raise InputError(
            f"{path}: voxel sizes (pixdim) {voxel_mm(header)} mm.\n"
            "Voxel sizes must be positive numbers: convert the scan again from its DICOM files."
        )
    for name, matrix in (("qform", lps_qform(header)), ("sform", lps_sform(header))):
        if matrix is not None and not np.isfinite(matrix).all():
            message = f"{path}: its {name} holds values that are no numbers: {np.round(matrix[:3], 3).tolist()}"
            raise InputError(f"{message}.\nConvert the scan again from its DICOM files.")


def _scaled(path: Path, array: np.ndarray, header: Nifti1Header) -> np.ndarray:
    """The voxels with the header's slope and intercept applied, where it has them."""
    try:
        slope, intercept = header.get_slope_inter()
    except HeaderDataError as error:
        raise damaged(path, f"its header gives an intercept of {header['scl_inter']}") from error
    if slope is None or (slope, intercept) == (1, 0):
        return array
    with np.errstate(all="ignore"):
        scaled = array.astype(np.float64) * slope + intercept
        return scaled.astype(array.dtype if array.dtype == np.float64 else np.float32)


def _rotation(path: Path, header: Nifti1Header, qform: np.ndarray | None) -> np.ndarray:
    """The qform; InputError where its quaternion is longer than 1, beyond rounding."""
    length = math.hypot(*_quaternion(header))
    if qform is None or length > 1.001:
        message = f"{path}: its qform is no rotation: quaternion {_quaternion(header)} of length {length:.4g}"
        raise InputError(f"{message}.\nConvert the scan again from its DICOM files.")
    return qform


def _lone_sform(path: Path, header: Nifti1Header, sform: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
    """An sform without a qform beside it: it counts, even against pixdim."""
    sizes = np.linalg.norm(sform[:3, :3], axis=0)
    if sizes.min() == 0:
        message = f"{path}: its sform matrix is not usable: {sform[:3].tolist()}"
        raise InputError(f"{message}.\nConvert the scan again from its DICOM files.")
    stated = voxel_mm(header)
    if farthest_mm(stored_size(header), sform, _resized(sform, stated)) <= LIMIT_VOXELS * sizes.min():
        return sform, ()
    stored = f"{np.round(sizes, 4).tolist()} mm by its sform, {np.round(stated, 4).tolist()} mm by pixdim"
    return sform, (f"its header gives two voxel sizes, {stored}: the sform was used",)


def _one_of_two(
    path: Path, header: Nifti1Header, sform: np.ndarray, qform: np.ndarray
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Sform or qform of a header that has both (see `placement`)."""
    size, limit_mm = stored_size(header), LIMIT_VOXELS * min(voxel_mm(header))
    is_scanner = header["sform_code"] == _SCANNER
    apart_mm = farthest_mm(size, sform, qform)
    both = f"its sform (code {header['sform_code']}) and qform (code {header['qform_code']}) place voxels"
    both += f" up to {apart_mm:.3g} mm apart"
    if is_scanner and _misfit_mm(size, sform, voxel_mm(header)) <= limit_mm:
        return sform, (f"{both}: the sform was used",) if apart_mm > limit_mm else ()
    if is_scanner:
        return _rotation(path, header, qform), (f"{both}: the qform was used, as the sform is no right-angled grid",)
    return _rotation(path, header, qform), (f"{both}: the qform was used",) if apart_mm > limit_mm else ()


def _misfit_mm(size: Sequence[int], sform: np.ndarray, voxel_mm: Sequence[float]) -> float:
    """How far voxels lie from a right-angled grid with the voxel sizes of pixdim, mm; infinite for no grid at all."""
    if np.linalg.norm(sform[:3, :3], axis=0).min() == 0:
        return math.inf
    return farthest_mm(size, sform, _resized(orthogonal_affine(sform), voxel_mm))


def _resized(affine: np.ndarray, voxel_mm: Sequence[float]) -> np.ndarray:
    """A 4×4 matrix (i, j, k, 1) → mm with its columns brought to other lengths."""
    resized = affine.copy()
    resized[:3, :3] *= np.asarray(voxel_mm[:3]) / np.linalg.norm(affine[:3, :3], axis=0)
    return resized
