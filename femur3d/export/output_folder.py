"""Whether the folder for the results can be written to, and what results may replace in it: only their own."""

from __future__ import annotations

import contextlib
import functools
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from femur3d.errors import InputError, UsageError
from femur3d.export.case_files import Case, Wanted, possible_files
from femur3d.export.case_results import is_of_another, made_earlier, read_summary
from femur3d.io.atomic import TEMPORARY
from femur3d.io.formats.text_headers import data_files
from femur3d.io.formats.voxels import sha256_of
from femur3d.io.inputs import Scan
from femur3d.io.integrity import check_name, check_regular

CASES_IN_ONE_REPORT = 100  # of `femur3d.infer`; the page of more is a folder
_PAGE = b'id="report-data"'
_CASE = b"femur3dCase("  # how the script of a case begins
_TABLES = {"femurs.csv": b"case,side,", "report.html": _PAGE, "report/index.html": _PAGE}  # what they are known by
TEMPORARY_BYTES = len(TEMPORARY) + 9  # and a hyphen: what `io.atomic.replacing` puts before a name


def digest(scan: Scan) -> str:
    """SHA-256 of the scan's files; empty where they cannot be read, which is said when their turn comes."""
    if scan.problem:
        return ""
    try:
        check_regular(scan.path)
        files = scan.dicom.choose(scan.series).files if scan.dicom else (scan.path, *data_files(scan.path))
        return sha256_of(files)
    except InputError:
        return ""


def check_results_replace_nothing(
    scans: Sequence[Scan],
    cases: Sequence[Case],
    wanted: Sequence[Wanted],
    digest_of: Callable[[Scan], str] = digest,
) -> None:
    """Results may replace what an earlier run made of the same scan, and nothing else.

    Args:
        scans: all of a run.
        cases: of each, where its results go.
        wanted: of each, what is to be written.
        digest_of: SHA-256 of a scan's files, '' where it is not known.

    Raises:
        UsageError: a result would replace a scan, a file beside it, or another scan's result.
    """
    inputs = {case.path.resolve() for case in cases}
    beside = {path.parent for path in inputs}
    writers: dict[Path, str] = {}
    for scan, case, files in zip(scans, cases, map(possible_files, cases, wanted), strict=True):
        if scan.problem:
            continue
        earlier = made_earlier(case)
        for file in files:
            target = file.resolve()
            other = writers.setdefault(target, scan.source)
            if other != scan.source:
                raise UsageError(f"{file}: a result of {other} and of {scan.source}.\nSegment these two separately.")
            if target in inputs:
                raise UsageError(f"{file}: the result would replace the scan.\nExpected another folder for -o.")
            ours = file.name in [case.json.name, *earlier.get("files", [])] and earlier
            if target.parent in beside and file.exists() and not ours:
                raise UsageError(f"{file}: lies beside a scan and is no result.\nExpected another folder for -o.")
        if is_of_another(earlier, scan.source, scan.series, functools.partial(digest_of, scan)):
            there = _named(str(earlier.get("input")), earlier.get("series"))
            message = f"{case.json}: results of {there} lie there, not of {_named(scan.source, scan.series)}"
            raise UsageError(f"{message}.\nExpected another folder for -o.")


def check_tables_replace_nothing(cases: Sequence[Case], names: Sequence[str]) -> None:
    """The tables and pages of all results may replace those of an earlier run, and nothing else beside a scan.

    Args:
        cases: of one folder.
        names: of the files that are to be written, of `_TABLES`.

    Raises:
        UsageError: one would replace another file beside a scan.
    """
    folder = cases[0].folder
    if folder.resolve() not in {case.path.resolve().parent for case in cases}:
        return
    tables = {folder / name: _TABLES[name] for name in names if (folder / name).exists()}
    others = [file for file, mark in tables.items() if not (file.is_file() and mark in file.read_bytes())]
    first = folder / "report" / "cases" / "0.js"  # which every report has that has others
    if "report/index.html" in names and not (first.is_file() and first.read_bytes().startswith(_CASE)):
        others += report_case_files(first.parent)
    for file in others:
        raise UsageError(f"{file}: lies beside a scan and is no result.\nExpected another folder for -o.")


def report_case_files(folder: Path) -> list[Path]:
    """What is called like the script or the picture of a case in a report's folder of cases: 0.js, 0.webp, 1.js, …"""
    files = folder.iterdir() if folder.is_dir() else ()
    return sorted(file for file in files if file.suffix in (".js", ".webp") and file.stem.isdecimal())


def report_files(count: int) -> list[str]:
    """Which file the page of up to `count` cases may be: of some of many cases there may be no results."""
    return ["report.html"] + ["report/index.html"] * (count > CASES_IN_ONE_REPORT)


def cases_by_input(folder: Path) -> dict[str, list[str]]:
    """What cases with results in a folder are called, by the real path of each one's scan."""
    names: dict[str, list[str]] = {}
    with contextlib.suppress(OSError):
        for path in sorted(folder.glob("[!.]*.json")):
            if isinstance(source := read_summary(path).get("input"), str):
                names.setdefault(os.path.realpath(source), []).append(path.stem)
    return names


def too_long(case: Case, wanted: Wanted) -> str:
    """Why the file system has no room for the names of a case's files, with what stands before them while they are
    written; '' where it has."""
    folder = next(path for path in (case.folder, *case.folder.absolute().parents) if path.is_dir())
    most = os.pathconf(folder, "PC_NAME_MAX") if hasattr(os, "pathconf") else 255
    longest = max((len(os.fsencode(file.name)) for file in possible_files(case, wanted)), default=0)
    spare = most - TEMPORARY_BYTES - longest
    name_bytes = len(os.fsencode(case.name))
    what = f"{case.path}: a name of {name_bytes} bytes is too long for the results"
    return "" if spare >= 0 else f"{what}.\nRename it: {name_bytes + spare} bytes are free in {case.folder}."


def check_folder(folder: Path) -> None:
    """Makes the folder; UsageError, before any work, where results cannot be written."""
    try:
        check_name(Path(os.path.realpath(folder)))
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UsageError(f"{folder}: {error.strerror}.\nExpected a folder to write to for -o.") from error
    except InputError as error:
        raise UsageError(str(error)) from error


def _named(source: str, series: int | None) -> str:
    return source if series is None else f"{source}, series {series}"
