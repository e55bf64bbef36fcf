"""The files of DICOM folders: which may be slices, and what each of them holds or why it cannot be read."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from femur3d.errors import InputError
from femur3d.io.dicom.headers import may_be_dicom
from femur3d.io.dicom.slices import Slice, read_slices
from femur3d.io.integrity import may_be_file, unreadable

TREE_DEPTH = 8  # folders below a given one that are searched for the rest of its series


def files_by_folder(folder: Path) -> dict[Path, list[Path]]:
    """The files of a folder and of those below it; hidden ones and links are left out."""
    tree = {folder: files_in(folder)}
    for here, below, _ in os.walk(folder):
        depth = len(Path(here).relative_to(folder).parts)
        below[:] = sorted(name for name in below if not name.startswith(".") and depth < TREE_DEPTH)
        below[:] = [name for name in below if not os.path.islink(os.path.join(here, name))]
        tree |= {Path(here, name): files_in(Path(here, name)) for name in below}
    return tree


def files_in(folder: Path) -> list[Path]:
    """The files directly in a folder, those that cannot be opened too; hidden ones are left out; by name."""
    try:
        return sorted(entry for entry in folder.iterdir() if may_be_file(entry) and not entry.name.startswith("."))
    except OSError as error:
        raise unreadable(folder, error) from error


def read_all(files: Iterable[Path]) -> tuple[list[Slice], dict[Path, str]]:
    """The slices among files, and what is wrong with each damaged file.

    A file that cannot be opened is one of them where it is called like the slices beside it, or like some slice.
    """
    slices, problems = [], {}
    for path in files:
        try:
            slices += read_slices(path)
        except InputError as error:
            problems[path] = str(error)
    endings = {one.path.suffix for one in slices}
    for path in [path for path in problems if not os.access(path, os.R_OK)]:
        if not (path.suffix in endings if endings else may_be_dicom(path)):
            del problems[path]
    return slices, problems


def counted(folder: Path, slices: Sequence[Slice], problems: Mapping[Path, str]) -> str:
    """The first of some problems, and of how many of the files with images it is."""
    what, advice = next(iter(problems.values())).split("\n", 1)
    n_files = len({one.path for one in slices} | set(problems))
    how_many = f"{len(problems)} of {n_files} DICOM files of {folder} cannot be read"
    return f"{what.removesuffix('.')}; {how_many}.\n{advice}" if n_files > 1 else f"{what}\n{advice}"
