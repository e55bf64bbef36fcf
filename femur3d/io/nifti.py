"""NIfTI-1 files: whole or not, where their scan lies, and their geometry's own bytes for another file on the same grid.

SimpleITK 2.5 reads a truncated NIfTI file without an error and fills the rest with whatever was in memory, turns NaN
and infinite voxels into 0, takes voxel sizes that are zero, negative or NaN for 1 mm or a mirrored axis, and writes
transform codes of its own. The layout is that of nifti1.h (https://nifti.nimh.nih.gov/pub/dist/src/niftilib/nifti1.h).
"""

from __future__ import annotations

import dataclasses
import gzip
import math
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, Literal, cast

import numpy as np
from scipy.spatial.transform import Rotation

from femur3d.errors import InputError
from femur3d.io.geometry import LIMIT_VOXELS, farthest_mm, straight_affine
from femur3d.io.integrity import CHUNK, check_voxel_count, damaged, not_finite, reading

_HEADER = np.dtype(
    {
        "names": ["dim", "datatype", "pixdim", "vox_offset", "units", "codes", "qform", "sform", "magic"],
        "formats": ["8i2", "i2", "8f4", "f4", "u1", "2i2", "6f4", "12f4", "S3"],
        "offsets": [40, 70, 76, 108, 123, 252, 256, 280, 344],
        "itemsize": 348,
    }
)
_GEOMETRY = np.dtype(  # the same places as integers: bits are copied, never numbers
    {
        "names": ["qfac_pixdim", "units", "codes", "qform", "sform"],
        "formats": ["4u4", "u1", "2u2", "6u4", "12u4"],
        "offsets": [76, 123, 252, 256, 280],
        "itemsize": 348,
    }
)
_NIFTI2_SIZE = 540
_START_LIMIT = 2**31  # bytes of header and extensions before the first voxel
_FLOATS = {16: "f4", 64: "f8"}  # datatype codes
_BYTES = {2: 1, 4: 2, 8: 4, 16: 4, 32: 8, 64: 8, 128: 3, 256: 1, 512: 2, 768: 4, 1024: 8, 1280: 8, 1536: 16, 1792: 16}
_BYTES |= {2048: 32, 2304: 4}  # a voxel, by datatype code; `bitpix` repeats them
_BYTE_ORDERS: tuple[Literal["little", "big"], ...] = ("little", "big")
_UNIT_MM = {1: 1000.0, 3: 0.001}  # metres, micrometres; all other codes are read as millimetres, as ITK does
_SCANNER = 1  # the transform code for "scanner coordinates"
_LPS_FROM_RAS = np.array([[-1.0], [-1.0], [1.0], [1.0]])  # signs of the rows
_LEFT_UNKNOWN = (
    "its header has neither a qform nor an sform, so it does not say how the scan lies in the body: the axes i, j, k "
    "were taken to point left, backwards and up (as ITK does), and left and right may be exchanged"
)


@dataclasses.dataclass(frozen=True, eq=False)
class NiftiGeometry:
    """The bits of a NIfTI-1 header that place its voxels: pixdim 0-3, units, both codes, qform and sform.

    Attributes:
        size: voxels along (i, j, k).
        bits: one record of unsigned integers in this machine's byte order, whatever the file's was.
    """

    size: tuple[int, ...]
    bits: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class NiftiHeader:
    """What femur3d asks of a NIfTI-1 header.

    Attributes:
        size: voxels along the file's axes (i, j, k, …).
        voxel_mm: voxel sizes along (i, j, k, …): pixdim in millimetres.
        dtype: of the stored voxels where these are floats, byte order included, else None.
        start: offset of the first voxel in the (uncompressed) file, bytes.
        n_bytes: bytes that the voxels take.
        codes: qform_code, sform_code.
        quaternion: b, c, d of the qform, as stored.
        qform: 4×4 matrix, (i, j, k, 1) → LPS millimetres, float64; None where the header's code says that it has none.
        sform: the same from the header's three rows.
        geometry: all of it as stored.
    """

    size: tuple[int, ...]
    voxel_mm: tuple[float, ...]
    dtype: np.dtype | None
    start: int
    n_bytes: int
    codes: tuple[int, int]
    quaternion: tuple[float, ...]
    qform: np.ndarray | None
    sform: np.ndarray | None
    geometry: NiftiGeometry


def check_nifti(path: Path) -> NiftiHeader:
    """The header of a .nii or .nii.gz file that is whole.

    Raises:
        InputError: no single-file NIfTI-1, cut short, corrupt, or with sizes, places or voxels that are no numbers.
    """
    with reading(path):
        header = read_nifti_header(path)
        _check_numbers(path, header)
        check_voxel_count(path, header.size)
        _check_voxels(path, header)
    return header


def read_nifti_header(path: Path) -> NiftiHeader:
    """Header of a .nii or .nii.gz file.

    Raises:
        InputError: it is no single-file NIfTI-1 header, or has impossible sizes.
        OSError, EOFError, zlib.error: the file cannot be read or unpacked.
    """
    with _open(path) as stream:
        head = stream.read(_HEADER.itemsize)
    for order in _BYTE_ORDERS:
        size = int.from_bytes(head[:4], order)
        if size == _NIFTI2_SIZE and head[4:7] == b"n+2":
            raise InputError(f"{path}: a NIfTI-2 file.\nNIfTI-1 is read: convert it, for example with nibabel.")
        if size == _HEADER.itemsize <= len(head):
            fields = np.frombuffer(head, _HEADER.newbyteorder(order), count=1)[0]
            if fields["magic"] == b"n+1":
                bits = np.frombuffer(head, _GEOMETRY.newbyteorder(order), count=1)
                with np.errstate(all="ignore"):  # whatever the numbers are, they are checked afterwards
                    return _header(path, fields, bits, order)
    raise damaged(path, "it does not begin with the header of a single-file NIfTI scan")


def placement(path: Path, header: NiftiHeader) -> tuple[np.ndarray, tuple[str, ...]]:
    """Where the voxels of a 3-D NIfTI scan lie, and notes for the user where the header leaves room for doubt.

    The sform counts where it gives scanner coordinates (code 1) and its voxels have right angles and the sizes of
    pixdim, to within half a voxel over the whole scan; or where there is no qform. Otherwise the qform counts: ITK's
    rule, by which 3D Slicer and ITK-SNAP show the scan. (nibabel prefers an sform of any code.) Without either the
    axes are taken to point to LPS, as ITK does.

    Returns:
        4×4 matrix (i, j, k, 1) → LPS millimetres, which may be a little sheared, and the notes.

    Raises:
        InputError: the transform that counts cannot be one.
    """
    if header.sform is None and header.qform is None:
        return np.diag([*header.voxel_mm[:3], 1.0]), (_LEFT_UNKNOWN,)
    if header.sform is None:
        return _rotation(path, header), ()
    if header.qform is None:
        return _lone_sform(path, header, header.sform)
    return _one_of_two(path, header, header.sform, header.qform)


def put_geometry(path: Path, geometry: NiftiGeometry) -> None:
    """Replaces what places the voxels of an uncompressed NIfTI-1 file, in its own byte order; all else stays.

    Raises ValueError where `path` is no such file, or has other sizes.
    """
    with path.open("r+b") as stream:
        head = bytearray(stream.read(_HEADER.itemsize))
        order = next((o for o in _BYTE_ORDERS if int.from_bytes(head[:4], o) == _HEADER.itemsize), None)
        if order is None or len(head) < _HEADER.itemsize:
            raise ValueError(f"{path} is no NIfTI-1 file. Received: {len(head)} bytes beginning {bytes(head[:4])!r}")
        size = tuple(np.frombuffer(head, _HEADER.newbyteorder(order), count=1)["dim"][0, 1:4].tolist())
        if size != geometry.size:
            raise ValueError(f"Expected a file of {geometry.size} voxels. Received: {size}")
        target = np.frombuffer(head, _GEOMETRY.newbyteorder(order), count=1)
        for name in _GEOMETRY.names or ():
            target[name] = geometry.bits[name]
        stream.seek(0)
        stream.write(head)


def _open(path: Path) -> BinaryIO:
    """The file's bytes, unpacked where its name ends in .gz."""
    return cast(BinaryIO, gzip.open(path)) if path.name.endswith(".gz") else path.open("rb")


def _header(path: Path, fields: np.void, bits: np.ndarray, order: Literal["little", "big"]) -> NiftiHeader:
    n_axes = int(fields["dim"][0])
    size = tuple(int(n) for n in fields["dim"][1 : n_axes + 1])
    if not 1 <= n_axes <= 7 or min(size) < 1:
        raise damaged(path, f"its header gives {n_axes} axes of {size} voxels")
    if not abs(fields["vox_offset"]) < _START_LIMIT:
        raise damaged(path, f"its header puts the first voxel at byte {fields['vox_offset']:g}")
    datatype = int(fields["datatype"])
    if datatype not in _BYTES:
        raise damaged(path, f"its header gives voxels of type {datatype}, which NIfTI does not have")
    floats = _FLOATS.get(datatype)
    codes = (int(fields["codes"][0]), int(fields["codes"][1]))
    unit_mm = _UNIT_MM.get(int(fields["units"]) & 7, 1.0)
    return NiftiHeader(
        size=size,
        voxel_mm=tuple(float(x) * unit_mm for x in fields["pixdim"][1 : n_axes + 1]),
        dtype=np.dtype(floats).newbyteorder(order) if floats else None,
        start=max(int(fields["vox_offset"]), _HEADER.itemsize),
        n_bytes=math.prod(size) * _BYTES[datatype],
        codes=codes,
        quaternion=tuple(fields["qform"][:3].tolist()),
        qform=_qform(fields, unit_mm) if codes[0] > 0 else None,
        sform=_sform(fields["sform"], unit_mm) if codes[1] > 0 else None,
        geometry=NiftiGeometry(size[:3], bits.astype(_GEOMETRY)),
    )


def _sform(rows: np.ndarray, unit_mm: float) -> np.ndarray:
    """The twelve numbers of an sform (right-anterior-superior) as a 4×4 matrix to LPS millimetres."""
    affine = np.eye(4)
    affine[:3] = np.reshape(rows, (3, 4)).astype(np.float64) * unit_mm
    return _LPS_FROM_RAS * affine


def _qform(fields: np.void, unit_mm: float) -> np.ndarray:
    """Quaternion, voxel sizes and offset of a qform (right-anterior-superior) as a 4×4 matrix to LPS millimetres.

    The quaternion's first number is not stored: it completes the others to length 1. pixdim[0] < 0 mirrors k.
    """
    bcd = fields["qform"][:3].astype(np.float64)
    sizes = fields["pixdim"][1:4].astype(np.float64) * (1, 1, -1 if fields["pixdim"][0] < 0 else 1)
    affine = np.full((4, 4), np.nan)
    if np.isfinite(bcd).all():
        affine[:3, :3] = Rotation.from_quat([*bcd, math.sqrt(max(1 - bcd @ bcd, 0.0))]).as_matrix() * sizes * unit_mm
    affine[:3, 3] = fields["qform"][3:].astype(np.float64) * unit_mm
    affine[3] = (0, 0, 0, 1)
    return _LPS_FROM_RAS * affine


def _check_numbers(path: Path, header: NiftiHeader) -> None:
    """Voxel sizes are positive, and the transforms that the header announces are numbers."""
    if not all(0 < mm < math.inf for mm in header.voxel_mm[:3]):
        raise InputError(
            f"{path}: voxel sizes (pixdim) {header.voxel_mm[:3]} mm.\n"
            "Voxel sizes must be positive numbers: convert the scan again from its DICOM files."
        )
    for name, matrix in (("qform", header.qform), ("sform", header.sform)):
        if matrix is not None and not np.isfinite(matrix).all():
            message = f"{path}: its {name} holds values that are no numbers: {np.round(matrix[:3], 3).tolist()}"
            raise InputError(f"{message}.\nConvert the scan again from its DICOM files.")


def _check_voxels(path: Path, header: NiftiHeader) -> None:
    """All voxels are there and, where they are floats, all are numbers."""
    found = bad = 0
    with _open(path) as stream:
        stream.seek(header.start)
        for chunk in iter(lambda: stream.read(CHUNK), b""):
            bad += _count_not_finite(chunk[: max(header.n_bytes - found, 0)], header.dtype)
            found += len(chunk)
    if found < header.n_bytes:
        raise damaged(path, f"{found:,} bytes of voxels where its header announces {header.n_bytes:,}")
    if bad:
        raise not_finite(path, bad, math.prod(header.size))


def _count_not_finite(chunk: bytes, dtype: np.dtype | None) -> int:
    """Number of NaN and infinite values among the whole values of a chunk; 0 for integers (dtype None)."""
    if dtype is None:
        return 0
    values = np.frombuffer(chunk, dtype, count=len(chunk) // dtype.itemsize)
    return values.size - int(np.count_nonzero(np.isfinite(values)))


def _rotation(path: Path, header: NiftiHeader) -> np.ndarray:
    """The qform; InputError where its quaternion is longer than 1, beyond rounding."""
    length = math.hypot(*header.quaternion)
    if header.qform is None or length > 1.001:
        message = f"{path}: its qform is no rotation: quaternion {header.quaternion} of length {length:.4g}"
        raise InputError(f"{message}.\nConvert the scan again from its DICOM files.")
    return header.qform


def _lone_sform(path: Path, header: NiftiHeader, sform: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
    """An sform without a qform beside it: it counts, even against pixdim."""
    sizes = np.linalg.norm(sform[:3, :3], axis=0)
    if sizes.min() == 0:
        message = f"{path}: its sform matrix is not usable: {sform[:3].tolist()}"
        raise InputError(f"{message}.\nConvert the scan again from its DICOM files.")
    if farthest_mm(header.size, sform, _resized(sform, header.voxel_mm)) <= LIMIT_VOXELS * sizes.min():
        return sform, ()
    stored = f"{np.round(sizes, 4).tolist()} mm by its sform, {np.round(header.voxel_mm[:3], 4).tolist()} mm by pixdim"
    return sform, (f"its header gives two voxel sizes, {stored}: the sform was used",)


def _one_of_two(
    path: Path, header: NiftiHeader, sform: np.ndarray, qform: np.ndarray
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Sform or qform of a header that has both (see `placement`)."""
    size, limit_mm = header.size, LIMIT_VOXELS * min(header.voxel_mm[:3])
    is_scanner = header.codes[1] == _SCANNER
    apart_mm = farthest_mm(size, sform, qform)
    both = f"its sform (code {header.codes[1]}) and qform (code {header.codes[0]}) place voxels"
    both += f" up to {apart_mm:.3g} mm apart"
    if is_scanner and _misfit_mm(size, sform, header.voxel_mm) <= limit_mm:
        return sform, (f"{both}: the sform was used",) if apart_mm > limit_mm else ()
    if is_scanner:
        return _rotation(path, header), (f"{both}: the qform was used, as the sform is no right-angled grid",)
    return _rotation(path, header), (f"{both}: the qform was used",) if apart_mm > limit_mm else ()


def _misfit_mm(size: Sequence[int], sform: np.ndarray, voxel_mm: Sequence[float]) -> float:
    """How far voxels lie from a right-angled grid with the voxel sizes of pixdim, mm; infinite for no grid at all."""
    if np.linalg.norm(sform[:3, :3], axis=0).min() == 0:
        return math.inf
    return farthest_mm(size, sform, _resized(straight_affine(sform), voxel_mm))


def _resized(affine: np.ndarray, voxel_mm: Sequence[float]) -> np.ndarray:
    """A 4×4 matrix (i, j, k, 1) → mm with its columns brought to other lengths."""
    resized = affine.copy()
    resized[:3, :3] *= np.asarray(voxel_mm[:3]) / np.linalg.norm(affine[:3, :3], axis=0)
    return resized
