"""Which bytes a scan was read from: a digest of its files, by which a changed scan is told from one that is done."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

from femur3d.io.dicom.series import series_files
from femur3d.io.images import TWO_FILES, scan_extension
from femur3d.io.integrity import CHUNK, reading

_DATA_FILE = re.compile(rb"^(?:ElementDataFile *=|data ?file:)(.*)$", re.MULTILINE)


def scan_sha256(path: str | os.PathLike[str], *, series: int | None = None) -> str:
    """Hexadecimal digest of the bytes that a scan was read from: a file, a header and its data file, or a series.

    Raises InputError where the series cannot be told.
    """
    path = Path(path)
    digest = hashlib.sha256()
    for file in series_files(path, series) if path.is_dir() else [path, *_data_file(path)]:
        with reading(file), file.open("rb") as stream:
            for chunk in iter(lambda: stream.read(CHUNK), b""):
                digest.update(chunk)
    return digest.hexdigest()


def _data_file(path: Path) -> list[Path]:
    """The file that a header names as that of its voxels, where it names one that is there."""
    if scan_extension(path) not in TWO_FILES:
        return []
    with reading(path), path.open("rb") as stream:
        named = _DATA_FILE.search(stream.read(CHUNK))
    file = path.parent / named[1].decode("utf-8", "replace").strip() if named else path
    return [file] if file != path and file.is_file() else []
