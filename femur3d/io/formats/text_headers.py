"""NRRD and MetaImage headers, which are text: how and in which files the voxels are stored, and what is not said.

What a header means (size, spacing, direction) is SimpleITK's to tell, from the header without its voxels; NRRD and
MetaImage files have one header grammar in common, lines of 'name: value' or 'Name = value'. The formats:
https://teem.sourceforge.net/nrrd/format.html, https://itk.org/Wiki/ITK/MetaIO/Documentation.
"""

from __future__ import annotations

import dataclasses
import itertools
import os
import re
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from femur3d.errors import InputError
from femur3d.io.formats.voxels import Encoding, Files, Layout, check_one_scan, read_voxels
from femur3d.io.geometry import orientation_unknown
from femur3d.io.integrity import NRRD, check_voxel_count, damaged, itk_error, quiet_itk, reading, whole_number
from femur3d.volume import Volume

_HEADER_BYTES = 1 << 20  # longer headers are none
_MAX_FILES = 10_000  # of the voxels of one scan
_MAX_NAME = 4096  # characters
# No '%' behind the number's place, or a text of thousands of them would be searched again from each.
_NUMBERED = re.compile(r"(.*)(%0?\d{0,2}d)([^\s%]*)\s+(-?\d{1,9})\s+(-?\d{1,9})(?:\s+(-?\d{1,9}))?(?:\s+\d+)?")
_UNITS = {"m", "cm", "dm", "um", "µm", "nm", "in", "inch", "meter", "metre", "meters", "metres", "micron", "microns"}

_NRRD_STORED = {"encoding", "datafile", "lineskip", "byteskip"}
_NRRD_SPACES = {"leftposteriorsuperior", "lps", "rightanteriorsuperior", "ras", "leftanteriorsuperior", "las"}
_NRRD_TYPES = {
    "signedchar": "i1", "int8": "i1", "int8_t": "i1", "uchar": "u1", "unsignedchar": "u1", "uint8": "u1",
    "uint8_t": "u1", "short": "i2", "shortint": "i2", "signedshort": "i2", "signedshortint": "i2", "int16": "i2",
    "int16_t": "i2", "ushort": "u2", "unsignedshort": "u2", "unsignedshortint": "u2", "uint16": "u2", "uint16_t": "u2",
    "int": "i4", "signedint": "i4", "int32": "i4", "int32_t": "i4", "uint": "u4", "unsignedint": "u4", "uint32": "u4",
    "uint32_t": "u4", "longlong": "i8", "longlongint": "i8", "signedlonglong": "i8", "signedlonglongint": "i8",
    "int64": "i8", "int64_t": "i8", "ulonglong": "u8", "unsignedlonglong": "u8", "unsignedlonglongint": "u8",
    "uint64": "u8", "uint64_t": "u8", "float": "f4", "double": "f8",
}  # fmt: skip
_NRRD_ENCODINGS: dict[str, Encoding] = {
    "raw": "raw", "gzip": "gzip", "gz": "gzip", "bzip2": "bzip2", "bz2": "bzip2", "text": "text", "txt": "text",
    "ascii": "text", "hex": "hex",
}  # fmt: skip

_META_STORED = {"CompressedData", "CompressedDataSize", "HeaderSize", "ElementDataFile"}
_META_TYPES = {
    "CHAR": "i1", "UCHAR": "u1", "SHORT": "i2", "USHORT": "u2", "INT": "i4", "UINT": "u4", "LONG": "i4", "ULONG": "u4",
    "LONG_LONG": "i8", "ULONG_LONG": "u8", "FLOAT": "f4", "DOUBLE": "f8",
}  # fmt: skip
_META_BY_AXIS = {"DimSize", "TransformMatrix", "Rotation", "Offset", "Origin", "Position", "Orientation"}
_META_BY_AXIS |= {"CenterOfRotation", "ElementSpacing", "ElementSize", "AnatomicalOrientation"}


@dataclasses.dataclass(frozen=True)
class TextHeader:
    """What a NRRD or MetaImage header says.

    Attributes:
        layout: how the voxels are stored.
        plain: the header as one of raw voxels in the same file, which SimpleITK reads without them.
        extension: of such a file.
        notes: what it does not say, for the user.
    """

    layout: Layout
    plain: bytes
    extension: str
    notes: tuple[str, ...]


def read_text_headed(path: Path, kind: str, files: Files) -> tuple[Volume, tuple[str, ...]]:
    """A NRRD or MetaImage file and its notes: SimpleITK says what the header means, the voxels are counted."""
    header = (read_nrrd if kind == NRRD else read_metaimage)(path, files.read(path))
    check_voxel_count(path, header.layout.size)
    reader = _described(path, header)
    if reader.GetNumberOfComponents() != 1:
        what = f"{reader.GetNumberOfComponents()} values a voxel (a colour, vector or complex image)"
        raise InputError(f"{path}: {what}.\nA scan has one grey value a voxel: export a single channel.")
    size, n_axes = check_one_scan(path, reader.GetSize()), reader.GetDimension()
    spacing = reader.GetSpacing()[:3]
    if not all(0 < mm < np.inf for mm in spacing):
        raise InputError(f"{path}: voxel sizes {spacing} mm.\nVoxel sizes must be positive numbers: export it again.")
    direction = np.reshape(reader.GetDirection(), (n_axes, n_axes))[:3, :3].ravel()
    array = read_voxels(path, header.layout, files).reshape(size[::-1])
    return Volume(array, spacing, reader.GetOrigin()[:3], tuple(direction.tolist())), header.notes


def read_nrrd(path: Path, content: bytes) -> TextHeader:
    """The header of a NRRD file, attached (.nrrd) or detached (.nhdr). `content`: all bytes of the file.

    Raises:
        InputError: a damaged header, a missing data file, an encoding that is not read, or no voxel size.
    """
    lines, start = _nrrd_lines(content)
    fields = {name: value for name, colon, value in map(_nrrd_field, lines[1:]) if colon}
    sizes = [whole_number(size) for size in fields.get("sizes", "").split()]
    dtype = _NRRD_TYPES.get(_plain(fields.get("type", "")))
    encoding = _NRRD_ENCODINGS.get(_plain(fields.get("encoding", "")))
    if not sizes or str(len(sizes)) != fields.get("dimension") or min(sizes) < 1:
        raise damaged(path, f"its header gives {fields.get('dimension')!r:.20} axes of {fields.get('sizes')!r:.50}")
    if dtype is None:
        raise damaged(path, f"its header gives voxels of type {fields.get('type')!r:.50}")
    if encoding is None:
        known = "raw, gzip, bzip2, ascii and hex are read"
        raise InputError(f"{path}: NRRD of encoding {fields.get('encoding')!r:.50}.\n{known}: save it as gzip.")
    skipped = [fields.get(name, "0") for name in ("lineskip", "byteskip")]
    lines_skipped, bytes_skipped = map(whole_number, skipped)
    from_end = skipped[1] == "-1" and encoding == "raw"
    if lines_skipped < 0 or (bytes_skipped < 0 and not from_end):
        raise damaged(path, f"its header skips {skipped[0]!r:.20} lines and {skipped[1]!r:.20} bytes")
    attached = "datafile" not in fields
    layout = Layout(
        size=tuple(sizes),
        dtype=np.dtype(dtype).newbyteorder(">" if fields.get("endian", "").lower() == "big" else "<"),
        files=(path,) if attached else _data_files(path, fields["datafile"], lines, "datafile"),
        encoding=encoding,
        start=-1 if from_end else start if attached else 0,
        lines=lines_skipped,
        unpacked_start=max(bytes_skipped, 0),
    )
    kept = itertools.takewhile(lambda line: not _is_list(line, "datafile"), lines)
    plain = [line for line in kept if _nrrd_field(line)[0] not in _NRRD_STORED]
    notes = _nrrd_notes(path, fields)
    return TextHeader(layout, "\n".join([*plain, "encoding: raw", "\n"]).encode("latin-1"), ".nrrd", notes)


def read_metaimage(path: Path, content: bytes) -> TextHeader:
    """The header of a MetaImage file (.mha, .mhd). `content`: all bytes of the file.

    Raises:
        InputError: a damaged header, a missing data file, or no voxel size.
    """
    fields, start = _meta_fields(path, content)
    dtype, sizes = _meta_type(path, fields), [int(size) for size in fields["DimSize"].split()]
    named, is_packed = fields["ElementDataFile"], fields.get("CompressedData", "").lower() == "true"
    local = named.upper() == "LOCAL"
    if is_packed and local:
        left, announced = len(content) - start, fields.get("CompressedDataSize", "not said")
        if not 0 <= whole_number(announced) <= left:
            raise damaged(path, f"{left:,} bytes of packed voxels, and CompressedDataSize in its header is {announced}")
    skipped = fields.get("HeaderSize", "0")
    if not re.fullmatch(r"-1|\d{1,9}", skipped):
        raise damaged(path, f"its header has a HeaderSize of {skipped!r:.20}")
    binary = fields.get("BinaryData", "True").lower() == "true"
    lines = content[start : start + _HEADER_BYTES].decode("latin-1").splitlines()
    layout = Layout(
        size=tuple(sizes),
        dtype=dtype,
        files=(path,) if local else _data_files(path, named, [f"ElementDataFile = {named}", *lines], "ElementDataFile"),
        encoding="zlib" if is_packed else "raw" if binary else "text",
        start=start if local else int(skipped),
    )
    plain = [f"{name} = {value}" for name, value in fields.items() if name not in _META_STORED]
    text = "\n".join([*plain, "ElementDataFile = LOCAL\n"]).encode("latin-1")
    return TextHeader(layout, text, ".mha", _meta_notes(path, fields))


def data_files(path: Path) -> tuple[Path, ...]:
    """The other files that hold the voxels of a NRRD or MetaImage file; none where it names none that are there."""
    with reading(path), path.open("rb") as stream:
        content = stream.read(_HEADER_BYTES)
    try:
        files = (read_nrrd if content.startswith(b"NRRD") else read_metaimage)(path, content).layout.files
    except InputError:
        return ()
    return tuple(file for file in files if file != path)


def _described(path: Path, header: TextHeader) -> sitk.ImageFileReader:
    """SimpleITK's reader with what it says of a header: size, spacing, origin, direction, values a voxel.

    Raises InputError, with the name `path`, where it finds something wrong.
    """
    reader = sitk.ImageFileReader()
    with reading(path), tempfile.TemporaryDirectory(prefix="femur3d-") as folder:
        file = Path(folder) / f"header{header.extension}"
        file.write_bytes(header.plain)
        reader.SetFileName(str(file))
        try:
            with quiet_itk():
                reader.ReadImageInformation()
        except RuntimeError as error:
            raise damaged(path, itk_error(error)) from error
    return reader


def _nrrd_lines(content: bytes) -> tuple[list[str], int]:
    """The lines of a header up to the empty one, and where the bytes after that begin."""
    lines, start = [], 0
    while start < min(len(content), _HEADER_BYTES):
        end = content.find(b"\n", start) % (len(content) + 1)
        line = content[start:end].decode("latin-1").rstrip("\r")
        start = end + 1
        if not line:
            break
        lines.append(line)
    return lines, min(start, len(content))


def _nrrd_field(line: str) -> tuple[str, str, str]:
    """Name (in small letters, without spaces), colon and value; no colon for comments and for key:=value pairs."""
    name, colon, value = line.partition(":")
    return (_plain(name), colon, value.strip()) if not line.startswith("#") and value[:1] != "=" else (line, "", "")


def _plain(text: str) -> str:
    return "".join(text.lower().split())


def _nrrd_notes(path: Path, fields: dict[str, str]) -> tuple[str, ...]:
    """What the geometry lacks. InputError where it is the voxel size, or given in other units."""
    spacings = [word for word in fields.get("spacings", "").split() if word.lower() != "nan"]
    if "spacedirections" not in fields and len(spacings) < 3:
        raise _no_voxel_size(path, "neither 'space directions' nor 'spacings'")
    _check_units(path, re.findall(r'"([^"]*)"', f"{fields.get('spaceunits', '')} {fields.get('units', '')}"))
    space = _plain(fields.get("space", "")).replace("-", "").removesuffix("time").removesuffix("t")
    if "spacedirections" in fields and space in _NRRD_SPACES:
        return ()
    missing = "no 'space directions'" if "spacedirections" not in fields else "no anatomical 'space'"
    return (orientation_unknown(missing),)


def _no_voxel_size(path: Path, missing: str) -> InputError:
    advice = "Convert the scan again from its DICOM files, or write its voxel sizes into the header"
    return InputError(f"{path}: its header does not say how large the voxels are ({missing}).\n{advice}.")


def _check_units(path: Path, units: Iterable[str]) -> None:
    if other := sorted(_UNITS.intersection(unit.strip().lower() for unit in units)):
        raise InputError(f"{path}: its lengths are in {other[0]}.\nMillimetres are read: convert the scan.")


def _meta_fields(path: Path, content: bytes) -> tuple[dict[str, str], int]:
    """Fields of a MetaImage header, in their order, and the offset of the first byte after it."""
    fields: dict[str, str] = {}
    start = 0
    while (end := content.find(b"\n", start, start + 4096)) >= 0 or start < len(content):
        end = end if end >= 0 else min(len(content), start + 4096)
        key, equals, value = content[start:end].decode("latin-1").partition("=")
        start = end + 1
        if not equals:
            break
        fields[key.strip()] = value.strip()
        if key.strip() == "ElementDataFile":
            return fields, min(start, len(content))
    raise damaged(path, "its header is not one of lines 'Name = value' up to 'ElementDataFile = …'")


def _meta_type(path: Path, fields: dict[str, str]) -> np.dtype:
    """Type of the stored values. InputError for a header at which SimpleITK would complain on stderr.

    Every field with a value an axis comes after NDims.
    """
    n_axes, sizes = fields.get("NDims", ""), fields.get("DimSize", "").split()
    before = set(list(fields)[: list(fields).index("NDims")]) if "NDims" in fields else set(fields)
    if whole_number(n_axes) < 0 or before & _META_BY_AXIS:
        raise damaged(path, "its header does not begin with the number of axes, 'NDims = 3'")
    if not all(fields.get(name, "True").lower() in ("true", "false") for name in ("BinaryData", "CompressedData")):
        raise damaged(path, "its header does not say by True or False whether its voxels are binary and packed")
    if len(sizes) != whole_number(n_axes) or not all(re.fullmatch(r"[0-9]{1,9}", size) for size in sizes):
        raise damaged(path, f"its header gives {n_axes:.20} axes of {' '.join(sizes)!r:.100} voxels")
    kind = _META_TYPES.get(fields.get("ElementType", "").removeprefix("MET_").removesuffix("_ARRAY"))
    if kind is None:
        raise damaged(path, f"its header gives voxels of type {fields.get('ElementType', '')!r:.100}")
    msb = [fields.get(name, "").lower() for name in ("BinaryDataByteOrderMSB", "ElementByteOrderMSB")]
    return np.dtype(kind).newbyteorder(">" if "true" in msb else "<")


def _meta_notes(path: Path, fields: dict[str, str]) -> tuple[str, ...]:
    if not {"ElementSpacing", "ElementSize"} & fields.keys():
        raise _no_voxel_size(path, "no ElementSpacing")
    _check_units(path, [fields.get("DistanceUnits", "")])
    if {"TransformMatrix", "Rotation", "Orientation"} & fields.keys():
        return ()
    return (orientation_unknown("no TransformMatrix"),)


def _is_list(line: str, field: str) -> bool:
    """Whether a line says that those after it name the data files."""
    name, _, value = line.replace("=", ":").partition(":")
    return _plain(name) == field.lower() and value.split()[:1] == ["LIST"]


def _data_files(path: Path, named: str, lines: Sequence[str], field: str) -> tuple[Path, ...]:
    """The files of the voxels: one, several by a pattern 's%03d.raw 0 34 1', or those that the lines after LIST name.

    Raises:
        InputError: one of them is missing, or there are too many.
    """
    if len(named) > _MAX_NAME:
        raise damaged(path, f"its header names a data file by {len(named):,} characters")
    if named.split()[:1] == ["LIST"]:
        after = itertools.dropwhile(lambda line: not _is_list(line, field), lines)
        names = [line.strip() for line in after if line.strip()][1:]
    elif numbered := _NUMBERED.fullmatch(named):
        head, place, tail = numbered.group(1, 2, 3)
        first, last, step = int(numbered[4]), int(numbered[5]), int(numbered[6] or 1)
        numbers = range(first, last + (1 if step > 0 else -1), step or 1)
        names = [head + place % n + tail for n in numbers[: _MAX_FILES + 1]]
    else:
        names = [named]
    if not 0 < len(names) <= _MAX_FILES:
        raise damaged(path, f"its header names {len(names):,} data files")
    files = tuple(path.parent / name for name in names)
    for file in files:
        if not (os.path.islink(file) or os.path.isfile(file)):  # False for names that no file can have
            raise InputError(f"{path}: its data file {file} is missing.\nKeep the header and its data file together.")
    return files
