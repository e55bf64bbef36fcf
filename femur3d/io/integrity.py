"""Is a file what it claims to be, and whole? And the errors that say so, alike for every kind of file."""

from __future__ import annotations

import contextlib
import gzip
import json
import math
import os
import re
import stat
import struct
import threading
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from femur3d.errors import InputError
from femur3d.io.atomic import replacing

MAX_VOXELS = 2**29  # 2 GiB as float32
MAX_FILE_BYTES = 8 * MAX_VOXELS + (1 << 28)  # as float64, and some room for a header
MAX_JSON_BYTES = 64 << 20
CHUNK = 1 << 20
NIFTI, NRRD, METAIMAGE = "NIfTI", "NRRD", "MetaImage"
_NIFTI_STARTS = {struct.pack(order, size) for size in (348, 540) for order in ("<i", ">i")}
_META_START = re.compile(rb"^[ \t]*(ObjectType|NDims|ObjectSubType)[ \t]*=", re.MULTILINE)
_NO_SCANS = (  # what goes by the name of a scan: how it begins, what it is, what to do
    (re.compile(rb"version https://git-lfs"), "a Git-LFS pointer: the scan itself is not here", "Run git lfs pull"),
    (re.compile(rb"\S*/annex/objects/"), "a git-annex pointer: the scan itself is not here", "Run git annex get"),
    (re.compile(rb"\s*(<!--|<!doctype html|<html|<head)", re.I), "a web page", "Download the scan again"),
    (re.compile(rb"\s*<\?xml"), "an XML text, perhaps an error of a server", "Download the scan again"),
    (re.compile(rb"\s*\{\s*\""), "a JSON text, perhaps an error of a server", "Download the scan again"),
    (re.compile(rb"PK\x03\x04"), "a zip", "Call it .zip, or unpack it"),
    (re.compile(rb".{128}DICM", re.S), "a single DICOM file", "Give the folder that holds all slices of its series"),
)
_DICOM_KIND = b"\x02\x00\x02\x00UI"  # tag (0002,0002) in explicit little endian: which kind of object a file holds
_QUIET = threading.Lock()
_displayed: list[bool] = []  # whether ITK showed its warnings when each of the open blocks of `quiet_itk` began
_ITK_PREFIX = re.compile(r"^(?:s?itk::ERROR:|ITK ERROR:)?\s*(?:\w+\(0x[0-9a-f]+\):\s*)?")


def printable(text: str) -> str:
    """`text` with '�' for control characters and broken bytes, which would upset a terminal or a JSON file."""
    return "".join(c if c.isprintable() else "�" for c in text)


def listed(names: Sequence[str], most: int = 3) -> str:
    """The first of some names for a message, and '…' where there are more."""
    return ", ".join(names[:most]) + (", …" if len(names) > most else "")


def whole_number(text: str) -> int:
    """The number that a text of 1 to 18 digits stands for; −1 for any other, such as '²', which `isdigit` lets pass."""
    return int(text) if re.fullmatch(r"[0-9]{1,18}", text) else -1


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
    import SimpleITK as sitk  # here: a training on a packed file does without it

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


@contextlib.contextmanager
def writing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """`atomic.replacing`; what disks and SimpleITK refuse becomes an InputError that names the file."""
    try:
        with replacing(path) as temporary:
            yield temporary
    except (RuntimeError, OSError) as error:
        reason = getattr(error, "strerror", None) or itk_error(error)
        raise InputError(f"{path}: cannot be written ({reason}).\nCheck permissions and free space.") from error


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


def check_regular(path: Path) -> None:
    """Raises InputError, before anything can wait for it, where there is no file, or a pipe or device in its place."""
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError) as error:
        if path.is_symlink():
            advice = "Fetch what it leads to (git annex get, datalad get), or mend the link"
            raise InputError(f"{path}: a link that leads nowhere (to {os.readlink(path)}).\n{advice}.") from error
        here = f"Check the path; a relative path starts at {Path.cwd()}"
        raise InputError(f"{path}: no such file or folder.\n{here}.") from error
    except OSError as error:
        raise unreadable(path, error) from error
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise InputError(f"{path}: neither a file nor a folder but a pipe or device.\nGive a file.")


def may_be_file(path: Path) -> bool:
    """A file, or something that cannot be looked at, such as a link that leads nowhere; False for folders and pipes."""
    return os.path.isfile(path) or not os.path.exists(path)


def read_bytes(path: Path, limit: int = MAX_FILE_BYTES) -> bytes:
    """All bytes of a file. Raises InputError where it cannot be read, is no file, or has more than `limit` bytes."""
    check_regular(path)
    with reading(path), path.open("rb") as stream:
        n_bytes = os.fstat(stream.fileno()).st_size
        if n_bytes > limit:
            raise InputError(f"{path}: a file of {n_bytes:,} bytes.\nAt most {limit:,} are read.")
        return stream.read(n_bytes)  # Python asks for the memory of as many bytes as are wanted, at once


def read_json(path: Path, limit: int = MAX_JSON_BYTES, advice: str = "Correct the file.") -> Any:
    """The content of a JSON file, in UTF-8, of at most `limit` bytes. `advice`: where it is not JSON.

    Raises:
        InputError: it is missing, unreadable, too large, or not JSON (or JSON that is nested too deep, or with numbers
            that are too long).
    """
    content = read_bytes(path, limit)
    try:
        return json.loads(content.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: cannot be read as text ({error}).\nA JSON file in UTF-8 is needed.") from error
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}: {error.msg}"
        raise InputError(f"{path}: not JSON ({where}).\n{advice}") from error
    except (RecursionError, ValueError) as error:  # a hundred thousand brackets, a number of five thousand digits
        what = "nested too deep" if isinstance(error, RecursionError) else "a number that is too long"
        raise InputError(f"{path}: not JSON that can be read ({what}).\n{advice}") from error


def write_json(path: str | os.PathLike[str], value: Any, infinite: Callable[[float], str | None] = str) -> None:
    """Writes a JSON file, whole or not at all, with what `valid_json` makes of a value."""
    text = json.dumps(valid_json(value, infinite), indent=2, allow_nan=False)
    with replacing(path) as temporary:
        temporary.write_text(f"{text}\n", encoding="utf-8")


def part(content: Any, name: str) -> dict[str, Any]:
    """An object by its name within JSON that anybody may have written; {} where there is none."""
    found = content.get(name) if isinstance(content, dict) else None
    return found if isinstance(found, dict) else {}


def valid_json(value: Any, infinite: Callable[[float], str | None] = str) -> Any:
    """A value as JSON knows it: NaN is None, and an infinite number what `infinite` makes of it: "inf" or "-inf"."""
    if isinstance(value, Mapping):
        return {key: valid_json(item, infinite) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [valid_json(item, infinite) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else infinite(value)
    return value


def kind_of_scan(path: Path, content: bytes, unpacked: bytes, expected: str) -> str:
    """Which format a file holds; where it holds none of them `expected`, so that its reader says what is wrong.

    Args:
        path: the file.
        content: its bytes.
        unpacked: the first of them, unpacked where they are packed.
        expected: the format of its name.

    Raises:
        InputError: it is empty, or something else that goes by the name of a scan.
    """
    if not content:
        raise InputError(f"{path}: the file is empty (0 bytes).\nCopy or export it again.")
    if unpacked[:4] in _NIFTI_STARTS:
        return NIFTI
    if content.startswith(b"NRRD"):
        return NRRD
    if _META_START.search(content[:1000]):
        return METAIMAGE
    for mark, what, advice in _NO_SCANS:
        if mark.match(unpacked[:1000]):
            raise InputError(f"{path}: no scan but {what}.\n{advice}.")
    return expected


def is_dicom_file(path: Path) -> bool:
    """Whether a file carries DICOM's mark, four letters after a preamble of 128 bytes."""
    with path.open("rb") as stream:
        return stream.read(132)[128:] == b"DICM"


def dicom_kind(head: bytes) -> str:
    """Which kind of DICOM object (UID) a file says it holds in its first kilobyte; '' where it does not say."""
    field = head.partition(_DICOM_KIND)[2]
    return field[2 : 2 + int.from_bytes(field[:2], "little")].strip(b" \0").decode("latin-1")
