"""Is a scan file whole? Answered from its bytes, before SimpleITK sees it; and the errors that say so.

SimpleITK 2.5 reads a damaged compressed MetaImage without an error and fills the rest with whatever was in memory.
NIfTI has its own checks in nifti.py, DICOM in dicom_header.py.
"""

from __future__ import annotations

import contextlib
import gzip
import math
import re
import threading
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import SimpleITK as sitk

from femur3d.errors import InputError

MAX_VOXELS = 2**29  # 2 GiB as float32
CHUNK = 1 << 20
_META_BYTES = {"CHAR": 1, "SHORT": 2, "INT": 4, "LONG": 4, "LONG_LONG": 8, "FLOAT": 4, "DOUBLE": 8}
_META_BY_AXIS = {"DimSize", "TransformMatrix", "Rotation", "Offset", "Origin", "Position", "Orientation"}
_META_BY_AXIS |= {"CenterOfRotation", "ElementSpacing", "ElementSize", "AnatomicalOrientation"}
_DICOM_KIND = b"\x02\x00\x02\x00UI"  # tag (0002,0002) in explicit little endian: which kind of object a file holds
_DICOM_IMAGES = {f"1.2.840.10008.5.1.4.1.1.{kind}" for kind in ("2", "2.1", "4", "4.1", "4.4", "7")}  # CT, MR, capture
_DICOM_SEGMENTATION = "1.2.840.10008.5.1.4.1.1.66.4"
_QUIET = threading.Lock()
_displayed: list[bool] = []  # whether ITK showed its warnings when each of the open blocks of `quiet_itk` began
_ITK_PREFIX = re.compile(r"^(?:s?itk::ERROR:|ITK ERROR:)?\s*(?:\w+\(0x[0-9a-f]+\):\s*)?")


def damaged(path: Path, what: str) -> InputError:
    """The error for a file that is cut short or corrupt. `what`: a phrase that says where it shows."""
    return InputError(f"{path}: the file is damaged or incomplete: {what}.\nCopy or export it again.")


def unreadable(path: Path, error: OSError) -> InputError:
    """The error for a file or folder that the system does not let us read."""
    return InputError(f"{path}: cannot be opened ({error.strerror}).\nCheck its permissions and the disk it lies on.")


def not_finite(path: Path, bad: int, total: int) -> InputError:
    """The error for a scan with `bad` NaN or infinite voxels among `total`."""
    message = f"{path}: {bad} of {total} voxels are NaN or infinite"
    return InputError(f"{message}.\nEvery voxel must be a number: replace them, or export the scan again.")


def itk_error(error: Exception) -> str:
    """The last line of a SimpleITK error, without the names of its source files: the one that says what happened."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return _ITK_PREFIX.sub("", lines[-1])[:200].rstrip(".")


@contextlib.contextmanager
def quiet_itk() -> Iterator[None]:
    """Within the block ITK prints no warnings to stderr; its errors are raised as ever.

    The switch is one for the whole process: threads whose blocks overlap put it back when the last of them is done.
    """
    with _QUIET:
        _displayed.append(sitk.ProcessObject.GetGlobalWarningDisplay())
        sitk.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        yield
    finally:
        with _QUIET:
            before = _displayed.pop()
            if not _displayed:
                sitk.ProcessObject.SetGlobalWarningDisplay(before)


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Within the block a failure to open or unpack `path` becomes an InputError that names it."""
    try:
        yield
    except (zlib.error, EOFError, gzip.BadGzipFile) as error:
        raise damaged(path, f"its compressed data do not unpack ({error})") from error
    except OSError as error:
        raise unreadable(path, error) from error


def check_name(path: Path) -> None:
    """Raises InputError for a path that is not in UTF-8, such as one in Latin-1: SimpleITK would end the process."""
    try:
        str(path).encode("utf-8")
    except UnicodeEncodeError as error:
        raise InputError(f"{path}: its name is not in UTF-8.\nRename it (the file, or a folder above it).") from error


def check_voxel_count(path: Path, size: Sequence[int]) -> None:
    """Raises InputError where a scan has more than MAX_VOXELS voxels. `size`: voxels per axis."""
    if math.prod(size) > MAX_VOXELS:
        received = "×".join(map(str, size))
        raise InputError(
            f"{path}: {received} voxels.\nAt most {MAX_VOXELS:,} voxels are read: crop or resample the scan."
        )


def check_file(path: Path, extension: str) -> None:
    """Raises InputError where a scan file is empty or, being MetaImage or NRRD, cut short or corrupt.

    Args:
        path: an existing file.
        extension: its scan extension, such as '.mha'.
    """
    with reading(path):
        if path.stat().st_size == 0:
            raise InputError(f"{path}: the file is empty (0 bytes).\nCopy or export it again.")
        if extension in (".mha", ".mhd"):
            _check_metaimage(path)
        elif extension == ".nrrd":
            _check_nrrd(path)


def is_dicom_file(path: Path) -> bool:
    """Whether a file carries DICOM's mark, four letters after a preamble of 128 bytes."""
    with path.open("rb") as stream:
        return stream.read(132)[128:] == b"DICM"


def is_dicom_segmentation(path: Path) -> bool:
    """Whether a file says that it is a DICOM segmentation: a result, such as our own, and no scan."""
    with path.open("rb") as stream:
        return dicom_kind(stream.read(1024)) == _DICOM_SEGMENTATION


def claims_dicom_image(path: Path) -> bool:
    """Whether a file says that it is a CT, MR or secondary-capture image, or is an empty .dcm file."""
    with path.open("rb") as stream:
        head = stream.read(1024)
    return dicom_kind(head) in _DICOM_IMAGES or (not head and path.suffix.lower() == ".dcm")


def dicom_kind(head: bytes) -> str:
    """Which kind of DICOM object (UID) a file says it holds in its first kilobyte; '' where it does not say."""
    field = head.partition(_DICOM_KIND)[2]
    return field[2 : 2 + int.from_bytes(field[:2], "little")].strip(b" \0").decode("latin-1")


def _check_metaimage(path: Path) -> None:
    """MetaImage: the header is whole, and so are the voxels, in the same file or in the one that it names."""
    fields, start = _metaimage_header(path)
    name = fields["ElementDataFile"]
    if name.startswith("LIST") or "%" in name:
        raise InputError(f"{path}: its voxels are spread over several files.\nOne scan is read from one data file.")
    data = path if name.upper() == "LOCAL" else path.parent / name
    if not data.is_file():
        raise InputError(f"{path}: its data file {data} is missing.\nKeep the header and its data file together.")
    expected = _metaimage_bytes(path, fields)
    with data.open("rb") as stream:
        stream.seek(start if data == path else 0)
        left = data.stat().st_size - stream.tell()
        if fields.get("CompressedData", "").lower() == "true":
            size = fields.get("CompressedDataSize", "not said" if data == path else str(left))
            if not size.isdigit() or int(size) > left:
                raise damaged(path, f"{left:,} bytes of packed voxels, and CompressedDataSize in its header is {size}")
            left = _zlib_length(stream, int(size))
    if left < expected:
        raise damaged(path, f"{left:,} bytes of voxels where its header announces {expected:,}")


def _metaimage_header(path: Path) -> tuple[dict[str, str], int]:
    """Fields of a MetaImage header, in their order, and the offset of the first byte after it."""
    fields: dict[str, str] = {}
    with path.open("rb") as stream:
        while line := stream.readline(4096):
            key, equals, value = line.decode("latin-1").partition("=")
            if not equals:
                break
            fields[key.strip()] = value.strip()
            if key.strip() == "ElementDataFile":
                return fields, stream.tell()
    raise damaged(path, "its header is not one of lines 'Name = value' up to 'ElementDataFile = …'")


def _metaimage_bytes(path: Path, fields: dict[str, str]) -> int:
    """Least number of bytes that the voxels take. InputError for a header at which SimpleITK would complain on stderr.

    Every field with a value an axis comes after NDims.
    """
    n_axes, sizes = fields.get("NDims", ""), fields.get("DimSize", "").split()
    kind = fields.get("ElementType", "").removeprefix("MET_").removeprefix("U").removesuffix("_ARRAY")
    before = set(list(fields)[: list(fields).index("NDims")]) if "NDims" in fields else set(fields)
    if not n_axes.isdigit() or before & _META_BY_AXIS:
        raise damaged(path, "its header does not begin with the number of axes, 'NDims = 3'")
    if not all(fields.get(name, "True").lower() in ("true", "false") for name in ("BinaryData", "CompressedData")):
        raise damaged(path, "its header does not say by True or False whether its voxels are binary and packed")
    if len(sizes) != int(n_axes) or not all(size.isdigit() for size in sizes):
        raise damaged(path, f"its header gives {n_axes} axes of {' '.join(sizes)!r:.100} voxels")
    if kind not in _META_BYTES:
        raise damaged(path, f"its header gives voxels of type {fields.get('ElementType', '')!r:.100}")
    return math.prod(map(int, sizes)) * _META_BYTES[kind]


def _zlib_length(stream: BinaryIO, left: int) -> int:
    """Bytes that a zlib stream of `left` bytes unpacks to; zlib.error if it is corrupt, EOFError if it ends early."""
    unpacker, total = zlib.decompressobj(), 0
    while not unpacker.eof:
        packed = unpacker.unconsumed_tail
        if not packed:
            packed = stream.read(min(CHUNK, left))
            left -= len(packed)
        if not packed:
            raise EOFError("the data end too early")
        total += len(unpacker.decompress(packed, CHUNK))  # at most so many bytes at a time, whatever the file holds
    return total


def _check_nrrd(path: Path) -> None:
    """NRRD packed by gzip: unpacks to its end. In other encodings SimpleITK notices missing bytes by itself."""
    packed = False
    with path.open("rb") as stream:
        while (line := stream.readline(4096).strip()) != b"":  # an empty line ends the header
            packed = packed or line.lower().replace(b" ", b"") in (b"encoding:gzip", b"encoding:gz")
        if packed:
            with gzip.GzipFile(fileobj=stream) as unpacked:
                for _ in iter(lambda: unpacked.read(CHUNK), b""):
                    pass
