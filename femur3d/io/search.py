"""Folders of scans, looked through: what is called like a scan, what may be a slice, which links are followed."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

from femur3d.io.images import scan_extension
from femur3d.io.integrity import may_be_file

FOLDER_DEPTH = 8  # archives export patient/study/series, some with two or three folders around: 8 leaves room
LABEL_FOLDERS = ("labelsTr", "labelsTs")  # nnU-Net's: label maps are no scans

ResultsIn = Callable[[Path], Collection[str]]
Files = tuple[list[Path], list[Path]]  # of a folder: those that are called like scans, and others, which may be slices


@dataclasses.dataclass(frozen=True)
class Search:
    """How folders are looked through: the arguments of `open_sources`, and the links that were passed over."""

    leave_out: Path | None
    results_in: ResultsIn
    follow_links: bool
    passed_over: list[Path] = dataclasses.field(default_factory=list)

    def folders(self, top: Path) -> dict[Path, Files]:
        """A folder and those below it."""
        return dict(self._walk(top, top, set()))

    def _walk(self, folder: Path, top: Path, seen: set[str], depth: int = 0) -> Iterator[tuple[Path, Files]]:
        """A folder and those below it, each once; one that cannot be opened is a scan."""
        if (real := os.path.realpath(folder)) in seen:
            return  # links may lead round
        seen.add(real)
        try:
            entries = sorted(entry for entry in folder.iterdir() if self._counts(entry, top))
        except OSError:
            yield folder, ([folder], [])  # read_volume says why; to pass over it would hide a patient
            return
        results = self.results_in(folder)
        files = [entry for entry in entries if not os.path.isdir(entry) and entry.name not in results]
        scans = [file for file in files if scan_extension(file.name.lower())]  # B.NII: read_volume says why not
        yield folder, (scans, [file for file in files if may_be_file(file) and file not in scans])
        for entry in entries if depth < FOLDER_DEPTH else ():
            if os.path.isdir(entry) and not self._holds_results(entry):
                yield from self._walk(entry, top, seen, depth + 1)

    def _holds_results(self, folder: Path) -> bool:
        return self.leave_out is not None and folder.resolve() == self.leave_out.resolve()

    def _counts(self, entry: Path, top: Path) -> bool:
        """Not hidden, no label maps of a dataset, and no link out of `top` to a scan file or folder, unless wanted.

        A link inside `top` is one to a file: the folders there are seen without it. Slices are taken wherever they lie,
        or a series would miss some; so are links that lead nowhere, to be told.
        """
        if entry.name.startswith(".") or entry.name in LABEL_FOLDERS:
            return False
        if not entry.is_symlink() or not os.path.exists(entry):
            return True
        if not os.path.isdir(entry) and not scan_extension(entry.name.lower()):
            return True
        if entry.resolve().is_relative_to(top.resolve()):
            return os.path.isfile(entry)
        if not self.follow_links:
            self.passed_over.append(entry)
        return self.follow_links
