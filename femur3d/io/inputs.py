"""What a user gives to `-i`, as a list of scans: files, DICOM folders, folders of folders, and zips of any of these.

Inside a folder or a zip hidden files, other files (README, JSON, pictures, DICOMDIR), results of `femur3d.infer` and
links out of the folder are passed over. What the user named himself is never passed over, nor what is called like a
scan or a slice and cannot be opened, such as a link that leads nowhere: it stays in the list, and `read_volume` says
what is wrong with it when its turn comes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from femur3d.errors import InputError, UsageError
from femur3d.io.case_names import Wish, distinct
from femur3d.io.channels import further_channels
from femur3d.io.formats.archives import unpacked
from femur3d.io.images import SCAN_EXTENSIONS, case_name, scan_extension
from femur3d.io.integrity import listed, printable
from femur3d.io.search import FOLDER_DEPTH, Files, ResultsIn, Search

if TYPE_CHECKING:  # pydicom takes half a second, of which other files need nothing
    from femur3d.io.dicom.series import SeriesFolder


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
    folders_in_name: int = dataclasses.field(repr=False, compare=False, default=0)  # those above it, for `case_names`

    def with_given_paths(self, message: str) -> str:
        """A message about this scan with the user's paths instead of those of the temporary folder."""
        here, there = self.path, Path(self.source)
        while here.name and here.name == there.name:  # up to the zip, whose other files may be named too
            here, there = here.parent, there.parent
        return "\n".join(printable(line) for line in message.replace(str(here), str(there)).split("\n"))


@contextlib.contextmanager
def open_sources(
    paths: Sequence[Path],
    series: int | None = None,
    *,
    leave_out: Path | None = None,
    results_in: ResultsIn = lambda folder: (),
    follow_links: bool = False,
    pattern: str = "",
    say: Callable[[str], None] = lambda message: None,
) -> Iterator[list[Scan]]:
    """The scans that the given paths stand for, in their order and by name inside a folder.

        with open_sources([Path("patients.zip"), Path("hip.nii.gz")]) as scans:
            for scan in scans:
                volume = read_volume(scan.path, series=scan.series)

    Zips are unpacked to temporary folders that are removed when the block ends, however it ends.

    Args:
        paths: scan files, DICOM folders, folders of these (FOLDER_DEPTH levels deep), zips of these.
        series: which series of every DICOM folder is meant, as numbered by `series_folder`.
        leave_out: a folder that is passed over where it lies inside a given folder: that of the results.
        results_in: gives the names of the files in a folder that are results of an earlier run and no scans.
        follow_links: whether links out of a given folder are followed.
        pattern: what DICOM scans are called, see `name_by_header`; by default after their folders below the
            given one, and after the series where one of several was chosen, whatever other scans there are.
        say: is told what was passed over that may be a scan.

    Yields:
        At least one scan. A DICOM folder with several series and no choice is among them where there are other scans:
        `read_volume` refuses it.

    Raises:
        UsageError: no path, a wrong pattern, or two scans for which no two names are found.
        InputError: the only input is a folder or zip without scans, a DICOM folder with several series and no choice,
            or a choice that it does not have, or a zip that is damaged, encrypted, too large or unsafe to unpack. Among
            others such an input is a scan with a problem.
    """
    if not paths:
        raise UsageError("No input was given.\nExpected -i with a scan file, a folder or a .zip.")
    if pattern:
        from femur3d.io.dicom.name_pattern import keywords

        keywords(pattern)
    with contextlib.ExitStack() as stack:
        places = [_opened(Path(path), Search(leave_out, results_in, follow_links), stack) for path in paths]
        dicom = _series_folders(places)
        for place in places:
            if place.links and place.folders and not place.problem:
                say(_links_said(place))
        found = [scan for place in places for scan in _scans(place, dicom, series, len(paths) == 1)]
        if len(found) == 1:
            _check_choice(found[0])
        yield _named(_without_further_channels(found, say), pattern)


@dataclasses.dataclass(frozen=True)
class _Place:
    """One input, looked through.

    Attributes:
        given: as the user calls it.
        top: itself, or the temporary folder with what a zip held.
        folders: the files of each folder; empty for a scan file.
        links: those out of it that were passed over.
        problem: why a zip cannot be looked through.
    """

    given: Path
    top: Path
    folders: dict[Path, Files] = dataclasses.field(default_factory=dict)
    links: Sequence[Path] = ()
    problem: InputError | None = None


def _opened(path: Path, search: Search, stack: contextlib.ExitStack) -> _Place:
    """One input. `stack` keeps the folder of a zip until it is closed."""
    is_zip = path.suffix.lower() == ".zip" and os.path.isfile(path)
    if not is_zip and not os.path.isdir(path):
        return _Place(path, path)
    try:
        top = stack.enter_context(unpacked(path)) if is_zip else path
        return _Place(path, top, search.folders(top), search.passed_over)
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
    if not any(trees):
        return {}
    from femur3d.io.dicom.series import series_of

    found = [one for tree in trees for one in series_of(tree) if not _is_doubtful(one)]
    return {folder: one for one in found for folder in one.folders}


def _is_doubtful(found: SeriesFolder) -> bool:
    """Whether nothing tells of DICOM but files of one word that cannot be read: README, LICENSE, an empty file."""
    alone = len(found.damaged) == 1
    words = [path for path in found.damaged if not path.suffix and not re.search(r"\d", path.name)]
    told = [path for path in words if path.name.isupper() or (alone and not path.is_symlink())]
    return not found.has_images and len(told) == len(found.damaged)


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
        problem = _nothing_in(place)
    if problem and alone:
        raise problem
    return [Scan(place.given.stem, place.given, None, printable(str(place.given)), str(problem))] if problem else found


def _scan_file(path: Path, series: int | None) -> Scan:
    """A file that was given itself; a DICOM one may hold several series."""
    dicom = None
    if not scan_extension(path) and os.path.isfile(path):
        from femur3d.io.dicom.series import series_folder

        with contextlib.suppress(InputError):  # read_volume says what is wrong with it
            dicom = series_folder(path)
    name = _with_series(case_name(path), dicom, series)
    return Scan(name, path, series if dicom else None, printable(str(path)), dicom=dicom)


def _scan_inside(place: _Place, inside: Path, series: int | None, dicom: SeriesFolder | None = None) -> Scan:
    """A file or folder found in an input as a scan."""
    is_whole_zip = inside == place.top != place.given
    source = place.given / inside.relative_to(place.top) if inside.is_relative_to(place.top) else inside
    name = _with_series(place.given.stem if is_whole_zip else case_name(inside), dicom, series)
    folders = max(len(source.parts) - len(place.given.parts) - 1, 0) if dicom else 0
    return Scan(name, inside, series, printable(str(source)), dicom=dicom, folders_in_name=folders)


def _with_series(name: str, dicom: SeriesFolder | None, series: int | None) -> str:
    """The name of a folder or file, and the number of the series where one of several was chosen."""
    return f"{name}_series{series}" if dicom and series is not None and len(dicom.series) > 1 else name


def _without_further_channels(scans: list[Scan], say: Callable[[str], None]) -> list[Scan]:
    """The scans but for _0001, … of a case whose _0000 is among them, which is said."""
    further = further_channels(scan.path for scan in scans if not scan.dicom)
    if further:
        one = next(scan for scan in scans if scan.path in further)
        said = f"of {len(set(further.values()))} cases the channel _0000 is segmented; further ones are left out"
        say(f"{said} ({one.source}{', …' if len(further) > 1 else ''})")
    return [scan for scan in scans if scan.path not in further]


def _named(scans: Sequence[Scan], pattern: str) -> list[Scan]:
    """The scans with names that differ. Raises UsageError where there are none, or for a wrong pattern."""
    wishes, problems = [], []
    for scan in scans:
        wish, problem = Wish(scan.source, scan.name, scan.folders_in_name), scan.problem
        if pattern and scan.dicom and not problem:
            from femur3d.io.dicom.name_pattern import name_by_header

            with contextlib.suppress(InputError):  # what cannot be chosen is refused when its turn comes
                file = scan.dicom.choose(scan.series).files[0]
                name, problem = name_by_header(pattern, file)
                wish = Wish(scan.source, name, fixed=not problem) if not problem else wish
        wishes.append(wish)
        problems.append(problem)
    found = zip(scans, distinct(wishes), problems, strict=True)
    return [dataclasses.replace(scan, name=name, problem=problem) for scan, name, problem in found]


def _check_choice(scan: Scan) -> None:
    """InputError with the list of series where a DICOM folder has several, or not the one that was chosen."""
    if scan.dicom is None and (scan_extension(scan.path) or not os.path.exists(scan.path)):
        return
    from femur3d.io.dicom.series import series_folder

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


def _links_said(place: _Place) -> str:
    """That links were passed over, which ones, and what follows them."""
    names = listed([printable(str(link.relative_to(place.top))) for link in place.links])
    count = "a link leads" if len(place.links) == 1 else f"{len(place.links)} links lead"
    return f"{place.given}: {count} out of this folder, passed over without --follow_links ({names})"


def _nothing_in(place: _Place) -> InputError:
    """The error for a folder or zip without scans: what it holds instead."""
    if place.links:
        return InputError(f"{_links_said(place)}; no scans in it.\nFollow links with --follow_links.")
    holds = listed(list(itertools.islice(_visible_files(place.top), 4))) or "no files"
    accepted = f"{', '.join(SCAN_EXTENSIONS)} (lower case) and folders of DICOM slices, {FOLDER_DEPTH} folders deep"
    return InputError(
        f"{place.given}: no scans in this {'folder' if place.top == place.given else 'zip'} (it holds {holds}).\n"
        f"Accepted: {accepted}; hidden files and zips inside it are passed over."
    )


def _visible_files(top: Path) -> Iterator[str]:
    """Relative paths of all files in and below a folder, hidden ones left out."""
    for folder, folders, files in os.walk(top):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(name for name in files if not name.startswith(".")):
            yield printable(os.path.relpath(os.path.join(folder, name), top))
