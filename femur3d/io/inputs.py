"""What a user gives to `-i`, as a list of scans: files, DICOM folders, folders of folders, and zips of any of these.

Inside a folder or a zip hidden files, other files (README, JSON, pictures, DICOMDIR), results of `femur3d.infer` and
links are passed over; only a link to a file that lies in the same folder is followed. What the user named himself is
never passed over: if it is no scan it stays in the list, and `read_volume` says what is wrong with it when its turn
comes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import os
import re
import unicodedata
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from femur3d.errors import InputError, UsageError
from femur3d.io.archives import is_device, unpacked
from femur3d.io.dicom.series import SeriesFolder, series_folder, series_of
from femur3d.io.images import SCAN_EXTENSIONS, case_name, scan_extension
from femur3d.io.integrity import printable

FOLDER_DEPTH = 8  # archives export patient/study/series, some with two or three folders around: 8 leaves room
LABEL_FOLDERS = ("labelsTr", "labelsTs")  # nnU-Net's: label maps are no scans

_BAD_CHARACTERS = re.compile(r'[<>:"/\\|?*]')  # in the file names of one system or another


@dataclasses.dataclass(frozen=True)
class Scan:
    """One scan to be read.

    Attributes:
        name: name of the case, unlike that of any other scan of the list (upper and lower case count as the same), and
            fit for a file name: results are called NAME.nii.gz.
        path: scan file or DICOM folder; inside a temporary folder where it comes out of a zip.
        series: what `read_volume(series=…)` takes; None for a scan file.
        source: the path as the user knows it, to print and to store; 'scans.zip/inner/path' for a scan in a zip.
        problem: of one input among several, why there is nothing to be read in it; '' elsewhere.
        dicom: the series of a DICOM folder, their headers read: what `read_scan` takes instead of the path.
    """

    name: str
    path: Path
    series: int | None
    source: str
    problem: str = ""
    dicom: SeriesFolder | None = dataclasses.field(repr=False, compare=False, default=None)

    def with_given_paths(self, message: str) -> str:
        """A message about this scan with the user's paths instead of those of the temporary folder."""
        here, there = self.path, Path(self.source)
        while here.name and here.name == there.name:  # up to the zip, whose other files may be named too
            here, there = here.parent, there.parent
        return "\n".join(printable(line) for line in message.replace(str(here), str(there)).split("\n"))


ResultsIn = Callable[[Path], Collection[str]]


@dataclasses.dataclass(frozen=True)
class _PassedOver:
    """The `leave_out` and `results_in` of `open_sources`."""

    leave_out: Path | None
    results_in: ResultsIn

    def is_folder_of_results(self, folder: Path) -> bool:
        return self.leave_out is not None and folder.resolve() == self.leave_out.resolve()


@contextlib.contextmanager
def open_sources(
    paths: Sequence[Path],
    series: int | None = None,
    *,
    leave_out: Path | None = None,
    results_in: ResultsIn = lambda folder: (),
) -> Iterator[list[Scan]]:
    """The scans that the given paths stand for, in their order and by name inside a folder.

        with open_sources([Path("patients.zip"), Path("hip.nii.gz")]) as scans:
            for scan in scans:
                volume = read_volume(scan.path, series=scan.series)

    Zips are unpacked to temporary folders that are removed when the block ends, however it ends.

    Args:
        paths: scan files, DICOM folders, folders of these (FOLDER_DEPTH levels deep), zips of these.
        series: which series of every DICOM folder is meant, as numbered by `list_series`.
        leave_out: a folder that is passed over where it lies inside a given folder: that of the results.
        results_in: gives the names of the files in a folder that are results of an earlier run and no scans.

    Yields:
        At least one scan. A DICOM folder with several series and no choice is among them where there are other scans:
        `read_volume` refuses it.

    Raises:
        UsageError: no path, or two scans for which no two names are found.
        InputError: the only input is a folder or zip without scans, a DICOM folder with several series and no choice,
            or a choice that it does not have, or a zip that is damaged, encrypted, too large or unsafe to unpack. Among
            others such an input is a scan with a problem.
    """
    if not paths:
        raise UsageError("No input was given.\nExpected -i with a scan file, a folder or a .zip.")
    with contextlib.ExitStack() as stack:
        places = [_opened(Path(path), _PassedOver(leave_out, results_in), stack) for path in paths]
        dicom = _series_folders(places)
        found = [scan for place in places for scan in _scans(place, dicom, series, len(paths) == 1)]
        if len(found) == 1:
            _check_choice(found[0])
        yield _named(found)


@dataclasses.dataclass(frozen=True)
class _Place:
    """One input, looked through.

    Attributes:
        given: as the user calls it.
        top: itself, or the temporary folder with what a zip held.
        folders: of each folder the scan files and the other files, which may be slices; empty for a scan file.
        problem: why a zip cannot be looked through.
    """

    given: Path
    top: Path
    folders: dict[Path, tuple[list[Path], list[Path]]] = dataclasses.field(default_factory=dict)
    problem: InputError | None = None


def _opened(path: Path, passed_over: _PassedOver, stack: contextlib.ExitStack) -> _Place:
    """One input. `stack` keeps the folder of a zip until it is closed."""
    is_zip = path.suffix.lower() == ".zip" and os.path.isfile(path)
    if not is_zip and not os.path.isdir(path):
        return _Place(path, path)
    try:
        top = stack.enter_context(unpacked(path)) if is_zip else path
        return _Place(path, top, dict(_walk(top, top, passed_over)))
    except InputError as error:
        return _Place(path, path, problem=error)


def _series_folders(places: Sequence[_Place]) -> dict[Path, SeriesFolder]:
    """The DICOM series of all inputs, by each of their folders. A series may go on in another input, but in no zip."""
    plain: dict[Path, list[Path]] = {}
    trees = [plain]
    for place in places:
        others = {folder: other for folder, (_, other) in place.folders.items()}
        if place.top == place.given:
            plain.update(others)
        else:
            trees.append(others)
    found = [one for tree in trees for one in series_of(tree) if not _is_doubtful(one)]
    return {folder: one for one in found for folder in one.folders}


def _is_doubtful(found: SeriesFolder) -> bool:
    """Whether nothing tells of DICOM but one file that is empty or cut short: it may be an empty README."""
    return not found.has_images and len(found.damaged) == 1 and not found.damaged[0].suffix


def _scans(place: _Place, dicom: Mapping[Path, SeriesFolder], series: int | None, alone: bool) -> list[Scan]:
    """The scans of one input; one with a problem where it has none, unless it is `alone`: then InputError."""
    problem, found = place.problem, []
    if not place.folders and not problem:
        return [_scan_file(place.given, series)]
    for folder, (files, _) in place.folders.items():
        if folder in dicom and dicom[folder].folders[0] == folder:
            found.append(_scan_inside(place, dicom[folder].path, series, dicom[folder]))
        found += [_scan_inside(place, file, series if os.path.isdir(file) else None) for file in files]
    if not found and not problem and not any(folder in dicom for folder in place.folders):
        problem = _nothing_in(place.top, place.given)
    if problem and alone:
        raise problem
    return [Scan(place.given.stem, place.given, None, printable(str(place.given)), str(problem))] if problem else found


def _scan_file(path: Path, series: int | None) -> Scan:
    """A file that was given itself; a DICOM one may hold several series."""
    is_dicom = not scan_extension(path) and os.path.isfile(path)
    return Scan(case_name(path), path, series if is_dicom else None, printable(str(path)))


def _scan_inside(place: _Place, inside: Path, series: int | None, dicom: SeriesFolder | None = None) -> Scan:
    """A file or folder found in an input as a scan."""
    is_whole_zip = inside == place.top != place.given
    source = place.given / inside.relative_to(place.top) if inside.is_relative_to(place.top) else inside
    name = place.given.stem if is_whole_zip else case_name(inside)
    return Scan(name, inside, series, printable(str(source)), dicom=dicom)


def _walk(
    folder: Path, top: Path, passed_over: _PassedOver, depth: int = 0
) -> Iterator[tuple[Path, tuple[list[Path], list[Path]]]]:
    """A folder and those below it, each with its scan files and other files; one that cannot be opened is a scan."""
    try:
        entries = sorted(entry for entry in folder.iterdir() if _is_followed(entry, top))
    except OSError:
        yield folder, ([folder], [])  # read_volume says why; to pass over it would hide a patient
        return
    results = passed_over.results_in(folder)
    files = [entry for entry in entries if entry.is_file() and entry.name not in results]
    scans = [file for file in files if scan_extension(file.name.lower())]  # B.NII: read_volume says why not
    yield folder, (scans, [file for file in files if file not in scans])
    if depth < FOLDER_DEPTH:
        for entry in entries:
            if entry.is_dir() and not passed_over.is_folder_of_results(entry):
                yield from _walk(entry, top, passed_over, depth + 1)


def _is_followed(entry: Path, top: Path) -> bool:
    """Not hidden, no label maps of a dataset, and no link other than to a file inside `top`, which may lead round."""
    if entry.name.startswith(".") or entry.name in LABEL_FOLDERS:
        return False
    return not entry.is_symlink() or (entry.is_file() and entry.resolve().is_relative_to(top.resolve()))


def _check_choice(scan: Scan) -> None:
    """InputError with the list of series where a DICOM folder has several, or not the one that was chosen."""
    if scan.dicom is None and (scan_extension(scan.path) or not os.path.exists(scan.path)):
        return
    try:
        known = (scan.dicom or series_folder(scan.path)).series
    except InputError:
        return  # damaged: read_volume says so
    if not known:
        return
    if (scan.series is None and len(known) == 1) or scan.series in [one.number for one in known]:
        return
    received = f"{len(known)} DICOM series in one {'folder' if os.path.isdir(scan.path) else 'file'}"
    if scan.series is not None:
        received = f"no series number {scan.series} among {received}"
    listed = "\n".join(f"  {printable(str(one))}" for one in known)
    raise InputError(f"{scan.source}: {received}.\n{listed}\nChoose one of them with --series N.")


def _nothing_in(top: Path, given: Path) -> InputError:
    """The error for a folder or zip without scans: what it holds instead."""
    names = list(itertools.islice(_visible_files(top), 4))
    holds = ", ".join(names[:3]) + (", …" if len(names) > 3 else "") or "no files"
    accepted = f"{', '.join(SCAN_EXTENSIONS)} (lower case) and folders of DICOM slices, {FOLDER_DEPTH} folders deep"
    return InputError(
        f"{given}: no scans in this {'folder' if top == given else 'zip'} (it holds {holds}).\n"
        f"Accepted: {accepted}; hidden files, links out of the folder and zips inside it are passed over."
    )


def _visible_files(top: Path) -> Iterator[str]:
    """Relative paths of all files in and below a folder, hidden ones left out."""
    for folder, folders, files in os.walk(top):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(name for name in files if not name.startswith(".")):
            yield printable(os.path.relpath(os.path.join(folder, name), top))


# ---- names


def _named(scans: Sequence[Scan]) -> list[Scan]:
    """The scans with names that differ: where two are the same, folders are put in front, one more in every round.

    'P1/t1.nii.gz', 'P2/t1.nii.gz' and 'P2/t2.nii.gz' are called P1_t1, P2_t1 and t2. Raises UsageError where the
    folders are used up.
    """
    words = [[*Path(os.path.abspath(scan.source)).parts[1:-1], scan.name] for scan in scans]
    levels = [0] * len(scans)  # folders in front of each name
    while True:
        names = [_file_name("_".join(w[-1 - level :])) for w, level in zip(words, levels, strict=True)]
        alike = _alike(names)
        if not alike:
            return [dataclasses.replace(scan, name=name) for scan, name in zip(scans, names, strict=True)]
        for group in alike:
            free = [i for i in group if levels[i] < len(words[i]) - 1]
            if not free:
                first, second = (scans[i] for i in group[:2])
                what = f"{first.source} and {second.source} would both be called {_file_name(first.name)!r}"
                raise UsageError(f"{what}.\nGive every scan once, or segment these two into different folders.")
            highest = max(levels[i] for i in free)  # 'x_b.nii' keeps its name when 'x/b.nii' comes to x_b
            for i in free:
                levels[i] += levels[i] == highest


def _alike(names: Iterable[str]) -> list[list[int]]:
    """Places of equal names, grouped: equal to a file system that knows no upper case and one way to store accents."""
    groups: dict[str, list[int]] = {}
    for place, name in enumerate(names):
        groups.setdefault(unicodedata.normalize("NFC", name).casefold(), []).append(place)
    return [group for group in groups.values() if len(group) > 1]


def _file_name(text: str) -> str:
    """`text` with '_' for what some system refuses in file names; never empty, never '.' or '-' in front."""
    name = _BAD_CHARACTERS.sub("_", printable(text).replace("�", "_")).lstrip(".- ").rstrip(". ") or "scan"
    return f"_{name}" if is_device(name) else name
