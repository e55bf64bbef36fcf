"""Folders and zips to look through for scans, and what is found in them or said of them."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest

from femur3d.errors import FemurError, InputError
from femur3d.io.inputs import Scan, open_sources


def touch(top: Path, *names: str) -> Path:
    """Empty files in a folder: to find a scan it need not be read."""
    for name in names:
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).touch()
    return top


def write_zip(path: Path, entries: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    return path


def zip_folder(path: Path, folder: Path) -> Path:
    """The zip of a folder, named relative to it."""
    return write_zip(path, {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()})


def listed(*paths: Path, series: int | None = None, leave_out: Path | None = None) -> list[Scan]:
    with open_sources(paths, series, leave_out=leave_out) as scans:
        return scans


def names(*paths: Path, leave_out: Path | None = None) -> list[str]:
    return [scan.name for scan in listed(*paths, leave_out=leave_out)]


def refused(
    paths: Sequence[Path], *words: str, error: type[FemurError] = InputError, lines: int = 2, series: int | None = None
) -> str:
    """Opens inputs that must be refused: so many lines, none empty, that hold the words."""
    with pytest.raises(error) as caught, open_sources(paths, series):
        pass
    message = str(caught.value)
    assert type(caught.value) is error
    assert len(message.splitlines()) == lines
    assert all(line.strip() for line in message.splitlines())
    for word in words:
        assert word in message
    return message
