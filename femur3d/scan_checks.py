"""Is a scan file whole? Answered from its bytes, before SimpleITK sees it.

SimpleITK 2.5 reads a truncated NIfTI file, or a damaged compressed MetaImage, without an error and fills the rest with
whatever was in memory. In NIfTI it also turns NaN and infinite voxels into 0, and takes voxel sizes that are zero,
negative or NaN for 1 mm or a mirrored axis.
"""

from __future__ import annotations

import dataclasses
import gzip
import math
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, Literal, cast

import numpy as np

from femur3d.errors import InputError

MAX_VOXELS = 2**29  # 2 GiB as float32
_CHUNK = 1 << 20
_NIFTI1 = np.dtype(
    {
        "names": ["dim", "datatype", "bitpix", "pixdim", "vox_offset", "codes", "qform", "sform", "magic"],
        "formats": ["8i2", "i2", "i2", "8f4", "f4", "2i2", "6f4", "12f4", "S3"],
        "offsets": [40, 70, 72, 76, 108, 252, 256, 280, 344],
        "itemsize": 348,
    }
)
_NIFTI2_SIZE = 540
_NIFTI_FLOATS = {16: "f4", 64: "f8"}  # datatype codes
_BYTE_ORDERS: tuple[Literal["little", "big"], ...] = ("little", "big")
_META_BYTES = {"CHAR": 1, "SHORT": 2, "INT": 4, "LONG": 4, "LONG_LONG": 8, "FLOAT": 4, "DOUBLE": 8}

_DICOM_KIND = b"\x02\x00\x02\x00UI"  # tag (0002,0002) in explicit little endian: which kind of object a file holds
_DICOM_IMAGES = {f"1.2.840.10008.5.1.4.1.1.{kind}" for kind in ("2", "2.1", "4", "4.1", "4.4", "7")}  # CT, MR, capture


@dataclasses.dataclass(frozen=True, eq=False)
class NiftiHeader:
    """What femur3d asks of a NIfTI-1 header.

    Attributes:
        size: voxels along the file's axes (i, j, k, …).
        pixdim: voxel sizes along (i, j, k, …), as stored.
        dtype: of the stored voxels where these are floats, byte order included, else None.
        start: offset of the first voxel in the (uncompressed) file, bytes.
        n_bytes: bytes that the voxels take.
        qform: quaternion b, c, d and origin (RAS) as stored, or None where the header's code says that it holds none.
        sform: 4×4 matrix, (i, j, k, 1) → LPS millimetres, float64, or None where the header holds none.
    """

    size: tuple[int, ...]
    pixdim: tuple[float, ...]
    dtype: np.dtype | None
    start: int
    n_bytes: int
    qform: tuple[float, ...] | None
    sform: np.ndarray | None


def damaged(path: Path, what: str) -> InputError:
    """The error for a file that is cut short or corrupt. `what`: a phrase that says where it shows."""
    return InputError(f"{path}: the file is damaged or incomplete: {what}.\nCopy or export it again.")


def unreadable(path: Path, error: OSError) -> InputError:
    """The error for a file or folder that the system does not let us read."""
    return InputError(f"{path}: cannot be opened ({error.strerror}).\nCheck its permissions and the disk it lies on.")


def check_voxel_count(path: Path, size: Sequence[int]) -> None:
    """Raises InputError where a scan has more than MAX_VOXELS voxels. `size`: voxels per axis."""
    if math.prod(size) > MAX_VOXELS:
        received = "×".join(map(str, size))
        raise InputError(
            f"{path}: {received} voxels.\nAt most {MAX_VOXELS:,} voxels are read: crop or resample the scan."
        )


def check_file(path: Path, extension: str) -> None:
    """Raises InputError where a scan file is empty, cut short, corrupt or (NIfTI) without usable voxel sizes.

    Args:
        path: an existing file.
        extension: its scan extension, such as '.nii.gz'.
    """
    try:
        if path.stat().st_size == 0:
            raise InputError(f"{path}: the file is empty (0 bytes).\nCopy or export it again.")
        if extension in (".nii", ".nii.gz"):
            _check_nifti(path)
        elif extension in (".mha", ".mhd"):
            _check_metaimage(path)
        elif extension == ".nrrd":
            _check_nrrd(path)
    except (zlib.error, EOFError, gzip.BadGzipFile) as error:
        raise damaged(path, f"its compressed data do not unpack ({error})") from error
    except OSError as error:
        raise unreadable(path, error) from error


def not_finite(path: Path, bad: int, total: int) -> InputError:
    """The error for a scan with `bad` NaN or infinite voxels among `total`."""
    message = f"{path}: {bad} of {total} voxels are NaN or infinite"
    return InputError(f"{message}.\nEvery voxel must be a number: replace them, or export the scan again.")


def is_dicom_file(path: Path) -> bool:
    """Whether a file carries DICOM's mark, four letters after a preamble of 128 bytes."""
    with path.open("rb") as stream:
        return stream.read(132)[128:] == b"DICM"


def claims_dicom_image(path: Path) -> bool:
    """Whether a file says that it is a CT, MR or secondary-capture image, or is an empty .dcm file."""
    with path.open("rb") as stream:
        head = stream.read(1024)
    field = head.partition(_DICOM_KIND)[2]
    kind = field[2 : 2 + int.from_bytes(field[:2], "little")].strip(b" \0").decode("latin-1")
    return kind in _DICOM_IMAGES or (not head and path.suffix.lower() == ".dcm")


def read_nifti_header(path: Path) -> NiftiHeader:
    """Header of a .nii or .nii.gz file.

    Raises:
        InputError: it is no single-file NIfTI-1 header, or has impossible sizes.
        OSError, EOFError, zlib.error: the file cannot be read or unpacked.
    """
    with _open(path) as stream:
        head = stream.read(_NIFTI1.itemsize)
    for order in _BYTE_ORDERS:
        size = int.from_bytes(head[:4], order)
        if size == _NIFTI2_SIZE and head[4:7] == b"n+2":
            raise InputError(f"{path}: a NIfTI-2 file.\nNIfTI-1 is read: convert it, for example with nibabel.")
        if size == _NIFTI1.itemsize <= len(head):
            fields = np.frombuffer(head, _NIFTI1.newbyteorder(order), count=1)[0]
            if fields["magic"] == b"n+1":
                return _nifti_header(path, fields, order)
    raise damaged(path, "it does not begin with the header of a single-file NIfTI scan")


def _open(path: Path) -> BinaryIO:
    """The file's bytes, unpacked where its name ends in .gz."""
    return cast(BinaryIO, gzip.open(path)) if path.name.endswith(".gz") else path.open("rb")


def _nifti_header(path: Path, fields: np.void, order: Literal["little", "big"]) -> NiftiHeader:
    n_axes = int(fields["dim"][0])
    size = tuple(int(n) for n in fields["dim"][1 : n_axes + 1])
    if not 1 <= n_axes <= 7 or min(size) < 1 or not np.isfinite(fields["vox_offset"]):
        raise damaged(path, f"its header gives {n_axes} axes of {size} voxels")
    floats = _NIFTI_FLOATS.get(int(fields["datatype"]))
    return NiftiHeader(
        size=size,
        pixdim=tuple(float(x) for x in fields["pixdim"][1 : n_axes + 1]),
        dtype=np.dtype(floats).newbyteorder(order) if floats else None,
        start=max(int(fields["vox_offset"]), _NIFTI1.itemsize),
        n_bytes=math.prod(size) * int(fields["bitpix"]) // 8,
        qform=tuple(fields["qform"].tolist()) if fields["codes"][0] > 0 else None,
        sform=_lps(fields["sform"]) if fields["codes"][1] > 0 else None,
    )


def _lps(rows: np.ndarray) -> np.ndarray:
    """The twelve numbers of a NIfTI sform (right-anterior-superior) as a 4×4 matrix to LPS."""
    affine = np.vstack([np.reshape(rows, (3, 4)).astype(np.float64), [0, 0, 0, 1]])
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine


def _check_nifti(path: Path) -> None:
    header = read_nifti_header(path)
    if not all(0 < mm < math.inf for mm in header.pixdim[:3]):
        raise InputError(
            f"{path}: voxel sizes (pixdim) {header.pixdim[:3]} mm.\n"
            "Voxel sizes must be positive numbers: convert the scan again from its DICOM files."
        )
    for name, numbers in (("qform", header.qform), ("sform", header.sform)):
        if numbers is not None and not np.isfinite(numbers).all():
            message = f"{path}: its {name} holds values that are no numbers: {np.asarray(numbers).tolist()}"
            raise InputError(f"{message}.\nConvert the scan again from its DICOM files.")
    check_voxel_count(path, header.size)
    _check_nifti_voxels(path, header)


def _check_nifti_voxels(path: Path, header: NiftiHeader) -> None:
    """All voxels are there and, where they are floats, all are numbers."""
    found = bad = 0
    with _open(path) as stream:
        stream.seek(header.start)
        for chunk in iter(lambda: stream.read(_CHUNK), b""):
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


def _check_metaimage(path: Path) -> None:
    """MetaImage: the header is whole, and so are the voxels, in the same file or in the one that it names."""
    fields, start = _metaimage_header(path)
    name = fields["ElementDataFile"]
    if name.startswith("LIST") or "%" in name:
        raise InputError(f"{path}: its voxels are spread over several files.\nOne scan is read from one data file.")
    data = path if name.upper() == "LOCAL" else path.parent / name
    if not data.is_file():
        raise InputError(f"{path}: its data file {data} is missing.\nKeep the header and its data file together.")
    expected = _metaimage_bytes(fields)
    with data.open("rb") as stream:
        stream.seek(start if data == path else 0)
        if fields.get("CompressedData", "").lower() == "true":
            found = _zlib_length(stream)
        else:
            found = data.stat().st_size - stream.tell()
    if found < expected:
        raise damaged(path, f"{found:,} bytes of voxels where its header announces {expected:,}")


def _metaimage_header(path: Path) -> tuple[dict[str, str], int]:
    """Fields of a MetaImage header and the offset of the first byte after it."""
    fields: dict[str, str] = {}
    with path.open("rb") as stream:
        while line := stream.readline(4096):
            key, _, value = line.decode("latin-1").partition("=")
            fields[key.strip()] = value.strip()
            if key.strip() == "ElementDataFile":
                return fields, stream.tell()
    raise damaged(path, "its header has no line 'ElementDataFile = …'")


def _metaimage_bytes(fields: dict[str, str]) -> int:
    """Least number of bytes that the voxels take; 0 where the header does not say (SimpleITK then complains)."""
    name = fields.get("ElementType", "").removeprefix("MET_").removeprefix("U").removesuffix("_ARRAY")
    size = [int(n) for n in fields.get("DimSize", "").split() if n.isdigit()]
    return math.prod(size) * _META_BYTES.get(name, 0) if size else 0


def _zlib_length(stream: BinaryIO) -> int:
    """Bytes that a zlib stream unpacks to. Raises zlib.error where it is corrupt, EOFError where it ends too early."""
    unpacker, total = zlib.decompressobj(), 0
    while not unpacker.eof:
        packed = unpacker.unconsumed_tail or stream.read(_CHUNK)
        if not packed:
            raise EOFError("the data end too early")
        total += len(unpacker.decompress(packed, _CHUNK))  # at most so many bytes at a time, whatever the file holds
    return total


def _check_nrrd(path: Path) -> None:
    """NRRD packed by gzip: unpacks to its end. In other encodings SimpleITK notices missing bytes by itself."""
    packed = False
    with path.open("rb") as stream:
        while (line := stream.readline(4096).strip()) != b"":  # an empty line ends the header
            packed = packed or line.lower().replace(b" ", b"") in (b"encoding:gzip", b"encoding:gz")
        if packed:
            with gzip.GzipFile(fileobj=stream) as unpacked:
                for _ in iter(lambda: unpacked.read(_CHUNK), b""):
                    pass
