"""Zips of scans, unpacked to a temporary folder: nothing outside it is written, and no more than was announced."""

from __future__ import annotations

import contextlib
import errno
import shutil
import stat
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath

from femur3d.errors import InputError
from femur3d.io.integrity import printable

MAX_ZIP_FILES = 20_000  # a study of ten series of 200 slices has 2,000 files; more than ten of these are given unpacked
MAX_ZIP_BYTES = 8 << 30  # about 400 scans of a pelvis of 20 MB; what a temporary folder can be asked to hold

_CHUNK = 1 << 20
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # zipfile unpacks bzip2 and LZMA without a limit on memory
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
_DEVICES = {"CON", "PRN", "AUX", "NUL", *(f"{port}{n}" for port in ("COM", "LPT") for n in range(1, 10))}  # of Windows
_PACK_AGAIN = "Nothing was unpacked. Pack the scans again: plain files and folders, named relative to the zip."


@contextlib.contextmanager
def unpacked(path: Path) -> Iterator[Path]:
    """A temporary folder with what a zip holds, hidden files left out. Raises InputError."""
    with contextlib.ExitStack() as stack:
        with _zip_errors(path):
            temporary = tempfile.TemporaryDirectory(prefix="femur3d-", ignore_cleanup_errors=True)
            folder = Path(stack.enter_context(temporary))
            with zipfile.ZipFile(path) as archive:
                entries = _wanted(path, archive.infolist())
                _check_amount(path, entries, folder)
                for entry in entries:
                    _unpack(archive, entry, folder)
        yield folder


@contextlib.contextmanager
def _zip_errors(path: Path) -> Iterator[None]:
    """Within the block errors of the system and of zipfile (for a damaged zip it has many) become InputErrors."""
    try:
        yield
    except InputError:
        raise
    except OSError as error:
        if error.errno in _DISK_FULL:
            raise _no_space(path, "the disk became full") from error
        if error.errno == errno.EINVAL:  # zipfile went to a place before the first byte
            raise _damaged(path, error) from error
        advice = "Check its permissions, or unpack it yourself and give the folder"
        raise InputError(f"{path}: cannot be unpacked ({error.strerror or error}).\n{advice}.") from error
    except (zipfile.BadZipFile, zlib.error, EOFError, struct.error, RuntimeError, ValueError, IndexError) as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> InputError:
    what = printable(" ".join(str(error).split()))[:200] or "it ends too early"
    return InputError(f"{path}: the zip is damaged or of an unknown kind ({what}).\nCopy or download it again.")


def _no_space(path: Path, what: str) -> InputError:
    return InputError(
        f"{path}: {what} while it was unpacked to {tempfile.gettempdir()}.\n"
        "Free some space there, or set TMPDIR to a folder on a larger disk."
    )


def _wanted(path: Path, entries: Iterable[zipfile.ZipInfo]) -> list[zipfile.ZipInfo]:
    """The files to be unpacked. InputError where any entry is unsafe, or one of these cannot be unpacked."""
    wanted = []
    for entry in entries:
        name = printable(entry.orig_filename)[:200]
        if problem := _danger(entry):
            raise InputError(f"{path}: its entry {name!r} {problem}.\n{_PACK_AGAIN}")
        if _name(entry).endswith("/") or any(p.startswith(".") or p == "__MACOSX" for p in _parts(entry)):
            continue
        if problem := _obstacle(entry):
            raise InputError(f"{path}: its entry {name!r} {problem}.\nUnpack it yourself and give the folder.")
        wanted.append(entry)
    return wanted


def _parts(entry: zipfile.ZipInfo) -> tuple[str, ...]:
    """The folders and the name of an entry that is not in `_danger`; '.' and empty ones left out."""
    return PurePosixPath(_name(entry)).parts


def _name(entry: zipfile.ZipInfo) -> str:
    """The name with '/' between folders, also where a program of Windows wrote backslashes."""
    return entry.orig_filename.replace("\\", "/")


def _danger(entry: zipfile.ZipInfo) -> str:
    """What makes an entry unsafe on some system, '' for an ordinary one."""
    name = _name(entry)
    parts = name.split("/")
    kind = stat.S_IFMT(entry.external_attr >> 16)
    checks = {
        "has an absolute path": name.startswith("/"),
        "leads out of the folder": ".." in parts,
        "has a zero byte in its name": "\0" in name,
        "has a drive letter": any(part[1:2] == ":" for part in parts),
        "is called like a device": any(map(is_device, parts)),
        "is a link": kind == stat.S_IFLNK,
        "is neither a file nor a folder": kind not in (0, stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK),
    }
    return next((problem for problem, found in checks.items() if found), "")


def _obstacle(entry: zipfile.ZipInfo) -> str:
    """Why a harmless file cannot be unpacked here, '' where it can."""
    if entry.flag_bits & 0x1:
        return "is encrypted"
    if entry.filename.lower().endswith(".zip"):
        return "is a zip inside the zip"
    if entry.compress_type not in _METHODS:
        return f"is packed by method {entry.compress_type}, and only 0 (stored) and 8 (deflate) are read"
    return ""


def _check_amount(path: Path, entries: Sequence[zipfile.ZipInfo], folder: Path) -> None:
    """InputError where a zip announces more files or bytes than are unpacked, or than the disk has room for."""
    n_bytes = sum(entry.file_size for entry in entries)
    if len(entries) > MAX_ZIP_FILES or n_bytes > MAX_ZIP_BYTES:
        received = f"{len(entries):,} files of {n_bytes / 2**30:.2f} GiB in all"
        limit = f"Up to {MAX_ZIP_FILES:,} files and {MAX_ZIP_BYTES / 2**30:.0f} GiB are unpacked"
        raise InputError(f"{path}: {received}.\n{limit}: unpack it yourself and give the folder.")
    if n_bytes > shutil.disk_usage(folder).free:
        raise _no_space(path, f"{n_bytes / 2**30:.2f} GiB are more than the disk holds")


def _unpack(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, folder: Path) -> None:
    """Writes one file, no byte more than the zip's directory announced; zipfile compares the checksum at its end."""
    target = folder.joinpath(*_parts(entry))
    target.parent.mkdir(parents=True, exist_ok=True)
    written = 0
    with archive.open(entry) as packed, target.open("xb") as stream:  # x: a second entry of one name is an error
        for chunk in iter(lambda: packed.read(_CHUNK), b""):
            written += len(chunk)
            if written > entry.file_size:
                break
            stream.write(chunk)
    if written != entry.file_size:
        raise zipfile.BadZipFile(f"{entry.filename} does not have the {entry.file_size:,} bytes that are announced")


def is_device(name: str) -> bool:
    """Whether Windows takes a file name for one of its devices, whatever its extension."""
    return name.split(".")[0].rstrip().upper() in _DEVICES
