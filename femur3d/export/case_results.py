"""CASE.json: what was made of a scan, with what and how. Written here, read here and compared here.

The results of a case are written to a hidden folder beside them, `.CASE.writing`, and moved into place when all are
there, CASE.json last: where it lies, the results are whole and of one run. Meanwhile the case is locked. When a run is
killed, nothing has changed, or else the hidden folder still holds the new CASE.json, and the next run ends the moving.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.metadata
import os
import platform
import re
import shutil
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import femur3d
from femur3d.errors import InputError
from femur3d.export.case_files import Case, Wanted, write_files
from femur3d.export.femur_measures import measured
from femur3d.inference.quality_limits import KINDS, RED, Limit, flags
from femur3d.inference.segmenter import Segmentation
from femur3d.io.atomic import flush, locked, replacing
from femur3d.io.images import ScanFile
from femur3d.io.integrity import part, read_json, write_json

MAX_BYTES = 1 << 20  # a summary has some kilobytes
LIBRARIES = ("numpy", "scipy", "SimpleITK")  # of the versions in a summary
LOCK_SECONDS = 600.0  # how long to wait for another process that writes the same case: it takes seconds

_WRITING = ".writing"  # ending of the hidden folder
_LATER = {"morphometry": False, "rtstruct": False}  # options that earlier versions did not have
_TEMPORARY = re.compile(r"\.writing-[a-z0-9_]{8}-(?P<name>.+)")  # of `io.atomic.replacing`
_ENDINGS = (".", "_prob.", "_preview.", "_left.", "_right.", "_morphometry.", "_sr.", "_rtstruct.")  # of a case's files


@dataclasses.dataclass(frozen=True)
class MadeWith:
    """What decides the results of a scan; an earlier run with the same has done the work.

    Attributes:
        input: the scan's path as the user knows it.
        input_sha256: of the bytes that were read; '' where there are none.
        series: which series of a DICOM folder; None elsewhere.
        options: of the network's run and of the output, by name.
        model: 'weights_sha256' and 'provenance' of the model.
    """

    input: str
    input_sha256: str
    series: int | None
    options: dict[str, Any]
    model: dict[str, Any]


# ---- reading and comparing


def read_summary(path: Path) -> dict[str, Any]:
    """A summary, with 'model' and 'files', a list of names; empty where there is none, or another JSON file."""
    try:
        summary = read_json(path, MAX_BYTES)
    except InputError:
        return {}
    files = summary.get("files") if isinstance(summary, dict) and "model" in summary else None
    return summary if isinstance(files, list) and all(isinstance(name, str) for name in files) else {}


def made_earlier(case: Case) -> dict[str, Any]:
    """The summary of an earlier run, or of one that was killed while it moved its files; empty where there is none."""
    return read_summary(case.json) or read_summary(_writing(case) / case.json.name)


def results_in(folder: Path) -> set[str]:
    """Names of the files in a folder that are results of `femur3d.infer`, also of a run that was killed."""
    names: set[str] = set()
    with contextlib.suppress(OSError):
        for entry in folder.iterdir():
            if entry.suffix == ".json":
                names.update(read_summary(entry).get("files", []))
            elif entry.name.startswith(".") and entry.name.endswith(_WRITING):
                case = entry.name.removesuffix(_WRITING)[1:]
                names.update(read_summary(entry / f"{case}.json").get("files", []))
    return names


def is_done(case: Case, made_with: MadeWith) -> bool:
    """Whether CASE.json is there, says the same of scan, model and options, and all that was wanted is there too.

    A scan is the same by its content, wherever it lies now; one file may hold several series.
    """
    summary, known = read_summary(case.json), dataclasses.asdict(made_with)
    if isinstance(options := summary.get("options"), dict):
        if "focus" in options:  # the name in earlier versions
            options["refine_above"] = options.pop("focus")
        options.pop("allow_openvino", None)  # which earlier versions stored
        known["options"] = _LATER | known["options"]
        summary["options"] = _LATER | options
    same = all(summary.get(name) == known[name] for name in ("input_sha256", "series", "options", "model"))
    whole = same and not summary.get("failed") and bool(summary)
    return whole and all((case.folder / name).is_file() for name in summary["files"])


def is_flagged_by(case: Case, limits: Mapping[str, Limit]) -> bool:
    """Whether the flags in the summary have the levels that these limits give, which may have been learnt later."""
    found = part(read_summary(case.json), "quality")
    known = {name: part(found, name) for name in KINDS}
    values = {name: one["value"] for name, one in known.items() if type(one.get("value")) in (int, float)}
    return all(flag.level == known[name].get("level") for name, flag in flags(values, limits).items())


def is_of_another(earlier: dict[str, Any], source: str, series: int | None, digest: Callable[[], str]) -> bool:
    """Whether an earlier summary is of another scan or series, not of this one by another path or after a change.

    Args:
        earlier: of `made_earlier`.
        source: the scan's path as the user knows it.
        series: which series of it.
        digest: gives the SHA-256 of the scan, '' where it cannot be read; called only where it is needed.
    """
    if not earlier.get("input_sha256") or (earlier.get("input"), earlier.get("series")) == (source, series):
        return False
    if earlier.get("input") == source and None not in (earlier.get("series"), series):
        return True  # a multi-frame file holds both: their bytes are the same
    return digest() not in ("", earlier["input_sha256"])


def is_choice_between(case: Case, weights: Collection[str]) -> bool:
    """Whether all models that were tried for the summary have one of these SHA-256; earlier versions name none."""
    choice = read_summary(case.json).get("choice")
    tried = choice.get("tried", []) if isinstance(choice, dict) else None
    return isinstance(tried, list) and all(one in weights for one in tried)


def found_no_femur(case: Case) -> bool:
    """Whether the summary says that no femur was found."""
    summary = read_summary(case.json)
    return bool(summary) and summary.get("volumes_ml") == {}


def has_red_flag(case: Case) -> bool:
    """Whether the summary, of this run or an earlier one, has a red quality flag or no femur; False without one."""
    try:
        flags = read_summary(case.json)["quality"].values()
        return found_no_femur(case) or any(flag["level"] == RED for flag in flags)
    except (KeyError, TypeError, AttributeError):
        return False


# ---- writing


def locked_case(case: Case, seconds: float | None = None) -> contextlib.AbstractContextManager[None]:
    """The case is this process's alone within the block.

    Raises:
        InputError: another process has it for so long; by default LOCK_SECONDS.
    """
    seconds = LOCK_SECONDS if seconds is None else seconds
    message = f"{case.json}: another femur3d.infer or femur3d.measure has been writing this case for {seconds:.0f} s"
    busy = InputError(f"{message}.\nWait for it to end, or give another folder for -o.")
    return locked(_lock_file(case), busy, seconds)


def summary_of(
    made_with: MadeWith,
    result: Segmentation,
    notes: Iterable[str],
    *,
    device: str = "",
    command: str = "",
    seconds: dict[str, float] | None = None,
) -> dict[str, Any]:
    """What CASE.json says, but for the files.

    Args:
        made_with: of the case.
        result: of the scan.
        notes: of `ScanFile`.
        device: what the engine computed on.
        command: that was given.
        seconds: of each stage.
    """
    return {
        **dataclasses.asdict(made_with),
        "notes": list(notes),
        "volumes_ml": result.volumes_ml,
        **({"choice": result.choice} if result.choice else {}),
        "quality": {name: dataclasses.asdict(flag) for name, flag in result.quality.items()},
        "engine": result.engine,
        "device": device,
        "versions": {
            "femur3d": femur3d.__version__,
            **{name.lower(): importlib.metadata.version(name) for name in LIBRARIES},
            **result.versions,
            "python": platform.python_version(),
        },
        "command": command,
        "seconds": {stage: round(s, 3) for stage, s in (seconds or {}).items()},
    }


def write_case(
    result: Segmentation, scan: ScanFile, case: Case, wanted: Wanted, summary: dict[str, Any]
) -> dict[str, Any]:
    """Writes all results of a case, or leaves those of an earlier run as they are; returns the whole summary.

    What an earlier run wrote for this case and this one does not is removed.

    Args:
        result: of the scan.
        scan: as it was read.
        case: where to.
        wanted: what.
        summary: of `summary_of`; 'files' and, where a file other than the label map could not be written, 'failed'
            with the reasons are added.

    Raises:
        InputError: the label map cannot be written, or another process is writing this case.
    """
    case.folder.mkdir(parents=True, exist_ok=True)
    with locked_case(case):
        folder = _writing(case)
        shutil.rmtree(folder, ignore_errors=True)
        try:
            folder.mkdir()
            start, weights_sha256 = time.perf_counter(), summary["model"]["weights_sha256"]
            found = measured(result) if wanted.morphometry else {}
            files, failed = write_files(result, scan, case, wanted, weights_sha256, folder, found)
            writing = round(time.perf_counter() - start, 3)
            seconds = {**summary["seconds"], "writing": writing}
            seconds["total"] = round(seconds.get("total", 0.0) + writing, 3)
            summary = {**summary, "seconds": seconds, "files": files, **({"failed": failed} if failed else {})}
            if wanted.morphometry:
                from femur3d.morphometry.measure import as_json  # here: only some want it

                summary["morphometry"] = as_json(found)
            write_json(folder / case.json.name, summary, lambda _: None)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        _move_into_place(case)  # what stops it here is ended by the next run: the old results are no longer whole
    return summary


def tidy(cases: Iterable[Case]) -> None:
    """Ends or removes what runs that were killed have left of these cases, but for what another process is writing."""
    cases = list(cases)
    hidden = {case.folder: _hidden(case.folder) for case in cases}
    for case in cases:
        left = hidden[case.folder] & {_writing(case).name, _lock_file(case).name}
        left |= {name for name in hidden[case.folder] if _is_temporary_of(case, name)}
        if not left:
            continue
        with contextlib.suppress(InputError, OSError), locked_case(case, seconds=0):  # what cannot be moved stays
            if read_summary(_writing(case) / case.json.name):
                _move_into_place(case)
            shutil.rmtree(_writing(case), ignore_errors=True)
            for name in left - {_writing(case).name, _lock_file(case).name}:
                (case.folder / name).unlink(missing_ok=True)


def _move_into_place(case: Case) -> None:
    """Moves the files of the hidden folder beside it, CASE.json last; ends what a killed run began."""
    folder = _writing(case)
    earlier, files = _own_files(case.json), _own_files(folder / case.json.name)
    for name in set(earlier) - set(files):  # first: without all its files the old summary is not done
        (case.folder / name).unlink(missing_ok=True)
    case.json.unlink(missing_ok=True)  # it would tell of other files from here on
    for name in files:
        if (folder / name).exists():
            _move(folder / name, case.folder / name)
    _move(folder / case.json.name, case.json)
    with contextlib.suppress(OSError):  # some network file systems cannot flush a folder
        flush(case.folder)
    folder.rmdir()


def _own_files(path: Path) -> list[str]:
    """The files that a summary lists, but for names that lead to another folder: it may come from anywhere."""
    return [name for name in read_summary(path).get("files", []) if name == Path(name).name and name not in ("", "..")]


def _move(source: Path, final: Path) -> None:
    """Puts a file in another's place: with its permissions, and into the file that a link leads to."""
    if final.is_symlink():
        with replacing(final) as temporary:
            shutil.copyfile(source, temporary)
        source.unlink()
        return
    if final.exists():
        source.chmod(final.stat().st_mode & 0o777)
    os.replace(source, final)


def _writing(case: Case) -> Path:
    return case.folder / f".{case.name}{_WRITING}"


def _lock_file(case: Case) -> Path:
    return case.folder / f".{case.name}.lock"


def _hidden(folder: Path) -> set[str]:
    try:
        return {entry.name for entry in folder.iterdir() if entry.name.startswith(".")}
    except OSError:
        return set()


def _is_temporary_of(case: Case, name: str) -> bool:
    found = _TEMPORARY.fullmatch(name)
    return found is not None and any(found["name"].startswith(f"{case.name}{ending}") for ending in _ENDINGS)
