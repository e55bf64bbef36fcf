"""The header of a DICOM file, read once, by pydicom: its attributes as text, or why the file is no image.

The text of an attribute is what the file says, several values joined by backslashes, decoded by SpecificCharacterSet.
"""

from __future__ import annotations

import io
import math
import sys
import warnings
import zlib
from pathlib import Path
from typing import Any, BinaryIO

import pydicom
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.filereader import read_partial
from pydicom.multival import MultiValue
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian

from femur3d.errors import InputError
from femur3d.io.dicom.contrast import CONTRAST_ATTRIBUTES
from femur3d.io.integrity import check_name, check_regular, damaged, dicom_kind, printable, reading, whole_number

GEOMETRY = ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing")
ATTRIBUTES = (
    *("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"),
    *("SeriesNumber", "SeriesDescription", "InstanceNumber"),
    *("Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation", "NumberOfFrames"),
    *("BitsAllocated", "PixelRepresentation", "PixelPaddingValue", "PixelPaddingRangeLimit"),
    *("RescaleSlope", "RescaleIntercept", "SpacingBetweenSlices", "SliceThickness"),
    *GEOMETRY,
    *CONTRAST_ATTRIBUTES,
)
_SEQUENCES = ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence", "DimensionIndexSequence")
_CONCATENATION = ("InConcatenationTotalNumber", "PulseSequenceName", "ComplexImageComponent")
_TAGS: list[Any] = [tag_for_keyword(name) for name in (*ATTRIBUTES, *_SEQUENCES, *_CONCATENATION)]
_PIXELS = 0x7FE00008  # the first of the three tags that hold pixels; whatever a header has comes before
_UNDEFINED = 0xFFFFFFFF  # length of compressed pixels
_TEXT = ("LO", "SH", "PN", "LT", "ST", "UC", "UT")  # what SpecificCharacterSet applies to
_FIRST_TAGS = (b"\x02\x00", b"\x08\x00", b"\x00\x08")  # groups with which a file without DICOM's mark begins
_BY_NAME = (".dcm", ".ima")
_MOST_TIMES = 64  # as long as it is itself, at most, that a deflated file may be: images never shrink that far …
_INFLATED_BYTES = 1 << 20  # … but for small ones


class _DicomFile(io.BufferedReader):
    """A file for pydicom, which reads the rest of one at once where it is deflated, and then inflates all of it."""

    def read(self, size: int | None = -1, /) -> bytes:
        """Some bytes, or the rest. Raises ValueError where these inflate to far more than an image would."""
        content = super().read(size)
        if size is None or size < 0:
            most = _MOST_TIMES * len(content) + _INFLATED_BYTES
            if len(zlib.decompressobj(-zlib.MAX_WBITS).decompress(content, most)) == most:
                raise ValueError(f"it inflates to more than {_MOST_TIMES} times its length")
        return content


def read_header(path: Path) -> pydicom.Dataset | None:
    """The attributes that are used here of a DICOM image; None for any other file, DICOM or not.

    Reports, segmentations, doses, structure sets, presentation states and the like are no images.

    Raises:
        InputError: the file is what is left of an image, empty, or called .dcm or .ima and no DICOM at all.
    """
    check_name(path)
    check_regular(path)
    with reading(path), _DicomFile(path.open("rb", buffering=0)) as stream:
        head = stream.read(1024)
        is_marked = head[128:132] == b"DICM"
        if not is_marked and not may_be_dicom(path):
            return None
        _check_not_blank(path, head)
        if not is_marked and not head.startswith(_FIRST_TAGS):
            if path.suffix.lower() in _BY_NAME:
                raise damaged(path, "it is called like a DICOM file and is none")
            return None
        return _parsed(path, stream, head)


def may_be_dicom(path: Path) -> bool:
    """A name under which files of old systems come without DICOM's mark, such as 'IM3' or '1.2.840.17'."""
    return path.suffix.lower() in ("", *_BY_NAME) or path.suffix[1:].isdigit()


def text(dataset: pydicom.Dataset, keyword: str) -> str:
    """An attribute as printable text, '' where it is missing; '�' stands for what would upset a terminal."""
    found = printable(_text(dataset, keyword).strip(" \0"))
    return sys.intern(found)  # most are the same in all slices of a series


def numbers(value: str) -> list[float]:
    """The numbers of a DICOM text of several parts; none where one of the parts is no finite number."""
    try:
        found = [float(part) for part in value.split("\\")]
    except ValueError:
        return []
    return found if all(map(math.isfinite, found)) else []


def transfer_syntax(dataset: pydicom.Dataset) -> UID:
    """How the pixels of a file are stored; Implicit VR Little Endian, DICOM's default, where it does not say."""
    stated = getattr(dataset, "file_meta", pydicom.Dataset())
    return UID(text(stated, "TransferSyntaxUID") or "1.2.840.10008.1.2")


def _check_not_blank(path: Path, head: bytes) -> None:
    if not head:
        raise InputError(f"{path}: the file is empty (0 bytes).\nCopy it again, or remove it if it is no slice.")
    if not any(head):
        raise damaged(path, "it holds zeros only")


def _parsed(path: Path, stream: BinaryIO, head: bytes) -> pydicom.Dataset | None:
    """The header of a file that begins as DICOM does; None where it says that it is no image."""
    stream.seek(0, 2)
    size = stream.tell()
    stream.seek(0)
    pixels: list[tuple[int, int]] = []  # length as stated, bytes that are there

    def at_pixels(tag: int, vr: str | None, length: int) -> bool:
        if tag >= _PIXELS:
            pixels.append((length, size - stream.tell()))
        return tag >= _PIXELS

    kind, trouble = dicom_kind(head), "it ends before its pixels"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dataset: pydicom.Dataset = read_partial(stream, at_pixels, force=True, specific_tags=_TAGS)
            kind = text(dataset, "SOPClassUID") or kind
    except Exception as error:  # a damaged file makes pydicom stumble in any way
        dataset, trouble = pydicom.Dataset(), f"{type(error).__name__}: {error}"[:100]
        pixels.clear()
    if kind and not _may_be_image(kind):
        return None
    if not pixels:
        if not kind or _is_image(kind):
            raise damaged(path, trouble)
        return None  # of a kind of its maker's own, without an image
    _check_whole(path, dataset, *pixels[0])
    return dataset


def _is_image(kind: str) -> bool:
    return "Image Storage" in UID(kind).name


def _may_be_image(kind: str) -> bool:
    """Whether a kind of DICOM object (SOP class) is one of images, or one that the standard does not know."""
    return _is_image(kind) or UID(kind).name == kind


def _check_whole(path: Path, dataset: pydicom.Dataset, stated: int, there: int) -> None:
    """Raises InputError where the header gives no size, or more pixels than the file has."""
    rows, columns, bits = (whole_number(text(dataset, name)) for name in ("Rows", "Columns", "BitsAllocated"))
    if min(rows, columns, bits) < 1:
        raise damaged(path, "it does not say how many rows and columns it has, and of how many bits")
    if stated == _UNDEFINED or transfer_syntax(dataset) == DeflatedExplicitVRLittleEndian:
        return  # compressed: its reader tells
    frames, samples = (whole_number(text(dataset, name)) for name in ("NumberOfFrames", "SamplesPerPixel"))
    needed = rows * columns * bits * abs(samples * frames) // 8  # −1: not said, which is one
    if "YBR" in text(dataset, "PhotometricInterpretation"):
        needed = 0  # colours may share their samples
    if max(stated, needed) > there or stated < needed:
        received = f"{min(stated, there):,} bytes of pixels"
        raise damaged(path, f"{received} where its header announces {max(stated, needed):,}")


def _text(dataset: pydicom.Dataset, keyword: str) -> str:
    tag: Any = tag_for_keyword(keyword)
    stored = dataset.get_item(tag)
    if stored is None:
        return ""
    raw = stored.value if isinstance(stored, RawDataElement) and isinstance(stored.value, bytes) else b""
    if dictionary_VR(tag) in _TEXT and not dataset.get("SpecificCharacterSet") and not raw.isascii():
        return _undeclared(raw)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            value = dataset[tag].value
    except Exception:  # no number where one is due, or an unknown character set: shown as it is
        return raw.decode("latin-1")
    if value is None or isinstance(value, bytes):
        return (value or b"").decode("latin-1")
    several = isinstance(value, list | tuple | MultiValue)
    return "\\".join(map(str, value)) if several else str(value)


def _undeclared(raw: bytes) -> str:
    """Text with letters beyond ASCII in a file that names no character set: UTF-8 where it can be that, or Latin-1."""
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw.decode("latin-1")
