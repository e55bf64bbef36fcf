"""The voxels of a scan file: its files are read once, hashed as they are read, unpacked, counted, and made an array.

Why not by SimpleITK, which keeps the meaning of NRRD and MetaImage headers, DICOM and all writing: version 2.5 reads
truncated NIfTI and damaged MetaImage files without an error and fills the rest with whatever was in memory, turns NaN
into 0, does not see that a detached NRRD file has other bytes than its header announces, and knows no bzip2.
"""

from __future__ import annotations

import bz2
import dataclasses
import gzip
import hashlib
import io
import math
import zlib
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import IO, Literal, cast

import numpy as np

from femur3d.errors import InputError
from femur3d.io.integrity import CHUNK, MAX_FILE_BYTES, check_voxel_count, damaged, read_bytes, reading

Encoding = Literal["raw", "gzip", "bzip2", "zlib", "text", "hex"]
GZIP_MARK = b"\x1f\x8b"
_LINE_BYTES = 1000  # at most, of a line of text before packed voxels
_NUMBER_BYTES = 64  # at most, of a voxel in text: the longest takes this room in an array of all
_SURPLUS_LIMIT = 1 << 30  # bytes behind the voxels that are unpacked to see whether a file is whole; no scan has more


@dataclasses.dataclass(frozen=True)
class Layout:
    """How the voxels of a scan are stored, as its header announces it.

    Attributes:
        size: voxels along (i, j, k, …), the first axis fastest.
        dtype: of a stored voxel, byte order included.
        files: that hold the voxels, in order, an equal share each; mostly one, which may be the header's own.
        encoding: of each file from `start` on.
        start: bytes before the packed voxels; −1: raw voxels are the last bytes of the file.
        lines: lines of text to skip after that; where packed data begin there at once, the lines are packed too.
        unpacked_start: bytes to skip after unpacking.
        may_have_more: whether the format allows other bytes behind the voxels.
    """

    size: tuple[int, ...]
    dtype: np.dtype
    files: tuple[Path, ...]
    encoding: Encoding = "raw"
    start: int = 0
    lines: int = 0
    unpacked_start: int = 0
    may_have_more: bool = False

    @property
    def n_bytes(self) -> int:
        """Bytes that the voxels of one file take."""
        return math.prod(self.size) * self.dtype.itemsize // len(self.files)


class Files:
    """The files of one scan, each read once."""

    def __init__(self) -> None:
        self._contents: dict[Path, bytes] = {}
        self._digest = hashlib.sha256()

    def read(self, path: Path) -> bytes:
        """All bytes of a file. Raises InputError where it cannot be read, is no regular file or is too large."""
        if path not in self._contents:
            self._contents[path] = read_bytes(path)
            self._digest.update(self._contents[path])
        return self._contents[path]

    @property
    def sha256(self) -> str:
        """Hexadecimal digest of all bytes that were read."""
        return self._digest.hexdigest()


def file_state(file: Path) -> tuple[int, int, int]:
    """What changes where a file is replaced or written to."""
    with reading(file):
        stat = file.stat()
    return stat.st_ino, stat.st_size, stat.st_mtime_ns


def sha256_of(files: Iterable[Path]) -> str:
    """Hexadecimal digest of all bytes of some files, each counted once."""
    digest = hashlib.sha256()
    for file in dict.fromkeys(files):
        with reading(file), file.open("rb") as stream:
            for chunk in iter(partial(stream.read, CHUNK), b""):
                digest.update(chunk)
    return digest.hexdigest()


def read_voxels(path: Path, layout: Layout, files: Files) -> np.ndarray:
    """The voxels as an array (…, k, j, i) in this machine's byte order.

    Raises:
        InputError: `path` has more or fewer voxels than announced, too many, or damaged ones.
    """
    check_voxel_count(path, layout.size)
    if math.prod(layout.size) % len(layout.files):
        raise damaged(path, f"{math.prod(layout.size):,} voxels cannot be shared evenly by {len(layout.files)} files")
    parts = []
    for file in layout.files:
        with reading(file):
            parts.append(_one_file(file, layout, files.read(file)))
    array = np.concatenate(parts) if len(parts) > 1 else parts[0]
    return array.astype(layout.dtype.newbyteorder("=")).reshape(layout.size[::-1])


def unpack(
    file: Path, stored: bytes | memoryview, limit: int, encoding: Encoding = "gzip"
) -> tuple[bytes | bytearray, int]:
    """The first `limit` bytes of packed data, and how many there are in all. Reads to the end, where checksums are.

    Raises:
        InputError: far more bytes than `limit`.
        zlib.error, EOFError, OSError: damaged data.
    """
    if encoding == "zlib":
        unpacker = zlib.decompressobj(zlib.MAX_WBITS | 32)  # zlib or gzip: MetaIO takes both
        data = unpacker.decompress(stored, limit + 1)
        if len(data) <= limit and not unpacker.eof:
            raise EOFError("the data end too early")
        return data[:limit], len(data) + len(unpacker.unused_data)
    packed = io.BytesIO(stored)
    stream = cast(IO[bytes], bz2.BZ2File(packed) if encoding == "bzip2" else gzip.GzipFile(fileobj=packed))
    found, total = bytearray(), 0
    while len(found) < limit and (
        more := stream.read(min(limit - len(found), CHUNK))
    ):  # a header may announce anything
        found += more
    for more in iter(lambda: stream.read(CHUNK), b""):
        total += len(more)
        if total > _SURPLUS_LIMIT:
            raise damaged(file, f"it unpacks to far more than the {limit:,} bytes that its header announces")
    return found, len(found) + total


def _one_file(file: Path, layout: Layout, content: bytes) -> np.ndarray:
    """The voxels of one file as they are stored, in one row; exactly as many as the header announces."""
    stored, expected = _after_skipped(content, layout), layout.n_bytes
    if layout.encoding in ("text", "hex"):
        return _from_text(file, stored, layout)
    if layout.encoding == "raw":
        found = len(stored) - layout.unpacked_start
        voxels = memoryview(stored)[layout.unpacked_start :][:expected]
    else:
        lines = layout.lines if _begins_packed(content, layout) else 0
        limit = min(layout.unpacked_start + expected + lines * _LINE_BYTES, MAX_FILE_BYTES)
        unpacked, total = unpack(file, stored, limit, layout.encoding)
        start = layout.unpacked_start + _end_of_lines(unpacked, 0, lines)
        found, voxels = total - start, memoryview(unpacked)[start:][:expected]
    if found < expected or (found > expected and not layout.may_have_more):
        raise damaged(file, f"{max(found, 0):,} bytes of voxels where its header announces {expected:,}")
    return np.frombuffer(voxels, layout.dtype)


def _after_skipped(content: bytes, layout: Layout) -> bytes | memoryview:
    """The bytes behind those that the header says are to be skipped."""
    if layout.start < 0:
        return memoryview(content)[max(len(content) - layout.n_bytes, 0) :]
    lines = 0 if _begins_packed(content, layout) else layout.lines
    return memoryview(content)[_end_of_lines(content, layout.start, lines) :]


def _begins_packed(content: bytes, layout: Layout) -> bool:
    """Whether the data begin as packed ones do, so that lines before the voxels are packed with them."""
    mark = {"gzip": GZIP_MARK, "bzip2": b"BZh"}.get(layout.encoding)
    return mark is not None and content.startswith(mark, layout.start)


def _end_of_lines(content: bytes | bytearray, start: int, lines: int) -> int:
    """Where so many lines end; the end of all where there are fewer."""
    for _ in range(min(lines, len(content) + 1)):  # a header may announce anything
        end = content.find(b"\n", start)
        start = len(content) if end < 0 else end + 1
    return start


def _from_text(file: Path, stored: bytes | memoryview, layout: Layout) -> np.ndarray:
    """Voxels that are written as numbers, or as two hexadecimal digits a byte."""
    expected = layout.n_bytes // layout.dtype.itemsize
    try:
        if layout.encoding == "hex":
            values = np.frombuffer(bytes.fromhex(bytes(stored).decode("ascii")), layout.dtype)
        else:
            words = bytes(stored).split(None, expected + 1)[: expected + 1]
            if max(map(len, words), default=0) > _NUMBER_BYTES:
                raise ValueError("a number of too many digits")
            values = np.array(words).astype(layout.dtype)
    except (ValueError, OverflowError) as error:
        raise damaged(file, "its voxels are not written as numbers") from error
    if values.size != expected:
        raise damaged(file, f"{values.size:,} voxels in its text where its header announces {expected:,}")
    return values


def check_one_scan(path: Path, size: tuple[int, ...]) -> tuple[int, int, int]:
    """Voxels along (i, j, k) of a scan that may have further axes of one volume. InputError where it is no 3-D scan."""
    while len(size) > 3 and size[-1] == 1:
        size = size[:-1]
    if len(size) != 3 or min(size) < 2:
        what = f"{len(size)}-D image of {'×'.join(map(str, size))} voxels"
        raise InputError(f"{path}: a {what}.\nA 3-D scan with at least 2 voxels along each axis is needed.")
    i, j, k = size
    return i, j, k
