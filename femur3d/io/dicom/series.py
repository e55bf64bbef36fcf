"""DICOM series: which ones folders hold, over however many folders one is spread, and one as a volume.

A series is identified by its SeriesInstanceUID; a multi-frame series (Enhanced MR) of several stacks, echoes, time
points or b-values counts as several, one for each volume.
"""

from __future__ import annotations

import dataclasses
import itertools
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from femur3d.errors import InputError
from femur3d.io.dicom.files import counted, files_by_folder, files_in, read_all
from femur3d.io.dicom.headers import numbers
from femur3d.io.dicom.multiframe import volumes_of
from femur3d.io.dicom.pixels import read_voxels
from femur3d.io.dicom.slices import Slice, read_slices
from femur3d.io.dicom.stack import check_alike, slice_spacing_mm
from femur3d.io.integrity import listed
from femur3d.volume import Volume


@dataclasses.dataclass(frozen=True)
class Series:
    """One DICOM series, its headers read.

    Attributes:
        number: 1, 2, … in its folders, ordered by the scanner's SeriesNumber: what `read_volume(series=…)` takes.
        description: SeriesDescription, and what tells it from other volumes of a multi-frame series; may be ''.
        size: columns, rows, slices.
        spacing_mm: between columns, between rows, between slices (median; 0 for a single slice).
        path: the folder or multi-frame file in which it lies, to be named in messages.
        slices: by position along their normal.
    """

    number: int
    description: str
    size: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    path: Path = dataclasses.field(repr=False, default=Path())
    slices: tuple[Slice, ...] = dataclasses.field(repr=False, default=())

    def __str__(self) -> str:
        size = "×".join(map(str, self.size))
        spacing = "×".join(f"{mm:.3g}" for mm in self.spacing_mm)
        return f"{self.number} = {self.description or 'no description'} ({size} voxels of {spacing} mm)"

    @property
    def files(self) -> tuple[Path, ...]:
        """The files of its slices, in the order of these, each once."""
        return tuple(dict.fromkeys(one.path for one in self.slices))


@dataclasses.dataclass(frozen=True)
class SeriesFolder:
    """Folders that hold parts of the same series, such as those of an export CD with 20 files each; mostly one.

    Attributes:
        path: the innermost folder that holds all of them; or a multi-frame file.
        folders: all of them, in the order of their names.
        series: what they hold; empty where there is a problem.
        problem: the message of an InputError where a file is damaged; '' elsewhere.
        damaged: the damaged files.
        has_images: whether there are sound images beside the damaged files.
    """

    path: Path
    folders: tuple[Path, ...]
    series: tuple[Series, ...] = dataclasses.field(repr=False, default=())
    problem: str = ""
    damaged: tuple[Path, ...] = ()
    has_images: bool = True

    def choose(self, number: int | None) -> Series:
        """The series of a number, or the only one. Raises InputError where there is a problem, or no such series."""
        if self.problem:
            raise InputError(self.problem)
        if number is None and len(self.series) == 1:
            return self.series[0]
        if number is not None and 1 <= number <= len(self.series):
            return self.series[number - 1]
        known = "; ".join(map(str, self.series))
        received = f"{len(self.series)} DICOM series" if number is None else f"no series number {number}"
        raise InputError(f"{self.path}: {received}.\nChoose a series by its number: {known}.")


def series_of(tree: Mapping[Path, Sequence[Path]]) -> list[SeriesFolder]:
    """The DICOM series of a tree of folders: parts of one series in several folders are joined by SeriesInstanceUID.

    Args:
        tree: the files of each folder that may be slices; others among them are passed over.

    Returns:
        Folders with DICOM images, sound or damaged, in the order of the tree's first folder of each. Folders between
        which no series is shared stay apart, unless the innermost folder that holds each group is the same; so do
        copies of a series.
    """
    found = {folder: read_all(files) for folder, files in tree.items()}
    by_path: dict[Path, tuple[Path, ...]] = {}
    for folders in _joined({folder: slices for folder, (slices, _) in found.items()}):
        path = Path(os.path.commonpath(folders))
        by_path[path] = (*by_path.get(path, ()), *folders)
    groups = []
    for path, folders in by_path.items():
        slices = [one for folder in folders for one in found[folder][0]]
        problems = {file: problem for folder in folders for file, problem in found[folder][1].items()}
        if problems:
            problem = counted(path, slices, problems)
            groups.append(SeriesFolder(path, folders, (), problem, tuple(problems), has_images=bool(slices)))
        elif slices:
            groups.append(SeriesFolder(path, folders, _listed(path, slices)))
    return groups


def series_folder(path: Path) -> SeriesFolder:
    """The series of a folder, with what of them lies in folders below it, or those of one multi-frame file.

    Raises:
        InputError: no DICOM images there, or a damaged one.
    """
    if not path.is_dir():
        return _of_one_file(path)
    found = series_of(files_by_folder(path))
    own = [one for one in found if path in (one.path, *one.folders)] or found
    if len(own) != 1:
        raise _no_images(path)
    if own[0].problem:
        raise InputError(own[0].problem)
    return own[0]


def read_series(series: Series) -> tuple[Volume, tuple[str, ...]]:
    """One series as a volume: slices ordered by position along their normal, whatever the files are called.

    The slices must show one contrast (see contrast.py) and lie on an even grid: along the normal to 1% of the slice
    distance or 0.02 mm, whichever is larger, and within the slice plane to half a pixel over the whole stack (no gantry
    tilt).

    Returns:
        The volume, whose third axis runs along the cross product of the row and column directions; and notes for the
        user on its intensities.

    Raises:
        InputError: slices missing, repeated, uneven or mixed, or a damaged file.
    """
    slices = series.slices
    check_alike(series.path, slices)
    spacing_mm = slice_spacing_mm(series.path, slices)
    array, notes = read_voxels(slices)
    first = slices[0]
    origin, direction = tuple(first.position_mm.tolist()), tuple(first.direction.ravel().tolist())
    return Volume(array, (*first.spacing_mm, spacing_mm), origin, direction), notes


# ---- files and folders


def _of_one_file(path: Path) -> SeriesFolder:
    slices = read_slices(path)
    if not slices:
        raise InputError(f"{path}: a DICOM file without an image.\nGive the folder that holds the slices of a series.")
    if slices[0].frame is None and slices[0].header["NumberOfFrames"] in ("", "0", "1"):
        raise InputError(f"{path}: a single DICOM file.\nGive the folder that holds all the slices of its series.")
    return SeriesFolder(path, (path.parent,), _listed(path, slices))


def _no_images(folder: Path) -> InputError:
    holds = listed([path.name for path in files_in(folder)]) or "no files"
    message = f"{folder}: no DICOM images in this folder (it holds {holds})"
    return InputError(f"{message}.\nGive one scan file, or the folder that itself holds the slices of a series.")


def _joined(slices: Mapping[Path, Sequence[Slice]]) -> list[tuple[Path, ...]]:
    """The folders in groups that hold parts of the same series, in their order.

    A folder whose slices of a series all lie where another's lie holds a copy of it, an echo or a time point, and stays
    for itself.
    """
    places = {folder: _places_by_series(own) for folder, own in slices.items()}
    sharing: dict[str, list[Path]] = {}
    for folder, own in places.items():
        for uid in own:
            sharing.setdefault(uid, []).append(folder)
    first_of = {folder: folder for folder in slices}  # the first folder of the group of each
    for uid, folders in sharing.items():
        for one, other in itertools.combinations(folders, 2):
            mine, theirs = first_of[one], first_of[other]
            here, there = places[one][uid], places[other][uid]
            if mine != theirs and not (here <= there or there <= here):
                first_of = {folder: mine if first == theirs else first for folder, first in first_of.items()}
    groups: dict[Path, list[Path]] = {}
    for folder, first in first_of.items():
        groups.setdefault(first, []).append(folder)
    return [tuple(group) for group in groups.values()]


def _places_by_series(slices: Sequence[Slice]) -> dict[str, set[tuple[float, ...]]]:
    """Where the slices of each series lie, mm, rounded; pictures lie nowhere."""
    places: dict[str, set[tuple[float, ...]]] = {}
    for one in slices:
        if not one.is_picture and one.header["SeriesInstanceUID"]:
            place = tuple(np.round(one.position_mm, 2).tolist())
            places.setdefault(one.header["SeriesInstanceUID"], set()).add(place)
    return places


# ---- the series of some slices


def _listed(path: Path, slices: Sequence[Slice]) -> tuple[Series, ...]:
    """The series of some slices, sorted by the scanner's number.

    Series of pictures only (screenshots, reports in colour) are left out, unless there is nothing else.
    """
    groups: dict[str, list[Slice]] = {}
    for one in slices:
        groups.setdefault(one.header["SeriesInstanceUID"], []).append(one)
    scans = [group for group in groups.values() if not all(s.is_picture for s in group)] or list(groups.values())
    scans.sort(key=lambda group: (_series_number(group[0]), group[0].header["SeriesInstanceUID"]))
    volumes = [volume for group in scans for volume in _volumes(group)]
    return tuple(_series(number, path, label, members) for number, (label, members) in enumerate(volumes, start=1))


def _volumes(slices: Sequence[Slice]) -> list[tuple[str, list[Slice]]]:
    """The volumes of one series and their labels, each sorted by position."""
    volumes = [("", list(range(len(slices))))]
    if any(one.frame is not None for one in slices):
        volumes = volumes_of([one.header for one in slices])
    return [
        (label, sorted((slices[i] for i in members), key=lambda s: (s.height_mm, s.path.name, s.frame or 0)))
        for label, members in volumes
    ]


def _series_number(one: Slice) -> float:
    return next(iter(numbers(one.header["SeriesNumber"])), 0.0)


def _series(number: int, path: Path, label: str, slices: Sequence[Slice]) -> Series:
    first = slices[0]
    gaps = np.diff([s.height_mm for s in slices])
    return Series(
        number=number,
        description=", ".join(filter(None, (first.header["SeriesDescription"], label))),
        size=(*first.size, len(slices)),
        spacing_mm=(*first.spacing_mm, float(np.median(gaps)) if len(gaps) else 0.0),
        path=path,
        slices=tuple(slices),
    )
