"""Segments the femurs of hip MR scans with a trained model.

    python -m femur3d.infer -i PATH [PATH ...] -o DIR [--model DIR] [--labels femur|sides] [--fast] [--continue] ...

PATH is a scan file (.nii, .nii.gz, .nrrd, .nhdr, .mha, .mhd), a folder with a DICOM series, a folder of these, or a zip
of any of them. Without --model the model that comes with femur3d is used, femur3d/models/hip_t1. Writes
DIR/CASE.nii.gz, a uint8 label map on the scan's own grid, and DIR/CASE.json; more on request. Nothing is sent anywhere.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import itertools
import platform
import shlex
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from absl import flags

from femur3d import cli

with cli.starting():
    from femur3d.engines.backend import ENGINE

import keras
from tqdm import tqdm

import femur3d
from femur3d.errors import EXIT_INPUT, EXIT_RED_FLAG, EXIT_SOME_FAILED, InputError
from femur3d.export.case_results import (
    Case,
    Wanted,
    has_red_flag,
    is_done,
    made_earlier,
    write_results,
    write_summary,
)
from femur3d.export.dicom_seg import require_highdicom
from femur3d.export.output_folder import check_folder, check_results_replace_nothing, digest
from femur3d.inference.quality_limits import RED, YELLOW
from femur3d.inference.saved_model import SHIPPED, TrainedModel, load_model
from femur3d.inference.segmenter import EXACT, FAST, Mode, Segmentation, Segmenter
from femur3d.io.images import ScanFile, read_scan, scan_extension
from femur3d.io.inputs import Scan, open_sources

FLAGS = flags.FLAGS
flags.DEFINE_multi_string("input", None, "scan file, DICOM folder, folder or zip; more may follow", short_name="i")
flags.DEFINE_string("output", None, "folder for the results", short_name="o", required=True)
flags.DEFINE_string("model", str(SHIPPED), "folder of a trained model; by default the one that comes with femur3d")
flags.DEFINE_enum("labels", "femur", ["femur", "sides"], "1 for every femur, or 1 left and 2 right")
flags.DEFINE_bool("fast", False, "faster, not quite the same: bfloat16, and fewer patches where no femur is near")
flags.DEFINE_float("overlap", None, "share of a patch that its neighbour covers too; by default 0.5", 0.0, 0.9)
flags.DEFINE_bool("continue", False, "skip the scans that this model has segmented with these flags already")
flags.DEFINE_integer("series", None, "number of the series, where a DICOM folder has several")
flags.DEFINE_enum("format", "nii.gz", ["nii.gz", "nii", "nrrd", "mha", "input"], "of the label map; input: the scan's")
flags.DEFINE_bool("probability", False, "write CASE_prob.nii.gz, float32, too")
flags.DEFINE_bool("preview", False, "write CASE_preview.png, slices with contours and the surface, too")
flags.DEFINE_enum("surface", None, ["stl", "ply"], "write a smooth mesh of each femur, LPS millimetres, too")
flags.DEFINE_bool("segmentation", False, "write CASE.seg.nrrd for 3D Slicer too")
flags.DEFINE_bool("dicom_seg", False, "write CASE.dcm, a DICOM segmentation, for a scan that comes as DICOM too")
flags.DEFINE_bool("strict", False, "exit code 5 where a segmentation, written all the same, has a red quality flag")
flags.DEFINE_bool("verbose", False, "show TensorFlow's messages and the time of every stage")

LIBRARIES = ("numpy", "scipy", "SimpleITK")  # of a summary's versions
SAME_FORMAT = (".nii.gz", ".nii", ".nrrd", ".mha")  # other formats of scans are answered in the first of these


def main(argv: Sequence[str]) -> int:
    """Parses, loads the model once, segments scan after scan."""
    paths, folder = [Path(p) for p in [*(FLAGS.input or []), *argv[1:]]], Path(FLAGS.output)
    if FLAGS.dicom_seg:
        require_highdicom()
    with open_sources(paths, FLAGS.series, leave_out=folder) as scans:
        cases = [Case(scan.name, scan.path, scan.series, folder) for scan in scans]
        check_results_replace_nothing(scans, cases, [_wanted(case.path) for case in cases])
        check_folder(folder)
        ENGINE.make_repeatable(training=False)
        model = load_model(Path(FLAGS.model))
        mode = _mode()
        todo = [i for i in range(len(scans)) if not (FLAGS["continue"].value and _is_done(scans[i], cases[i], model))]
        if len(todo) < len(scans):
            print(f"{len(scans) - len(todo)} of {len(scans)} scans are done already: skipped", flush=True)
        segmenter, failed = Segmenter(model, ENGINE, mode), 0
        for number, (i, reading) in enumerate(_read_ahead([(i, scans[i]) for i in todo]), start=1):
            print(f"[{number}/{len(todo)}] {scans[i].source}", flush=True)
            failed += not _attempt(scans[i], cases[i], reading, segmenter, model)
        red = sum(map(has_red_flag, cases))
        return _outcome(failed, len(todo), len(scans)) or _strictly(red)


def _mode() -> Mode:
    base = FAST if FLAGS.fast else EXACT
    return base if FLAGS.overlap is None else dataclasses.replace(base, overlap=FLAGS.overlap)


def _wanted(path: Path) -> Wanted:
    extension = f".{FLAGS.format}"
    if FLAGS.format == "input":
        extension = next((e for e in SAME_FORMAT if e == scan_extension(path)), SAME_FORMAT[0])
    return Wanted(
        FLAGS.labels, extension, FLAGS.probability, FLAGS.preview, FLAGS.surface or "", FLAGS.segmentation,
        FLAGS.dicom_seg and path.is_dir(),
    )  # fmt: skip


def _read_ahead(scans: Sequence[tuple[int, Scan]]) -> Iterator[tuple[int, Future[ScanFile]]]:
    """Each scan's number and its reading, which began while the scan before was being segmented."""
    with ThreadPoolExecutor(1) as pool:
        numbers, left = [number for number, _ in scans], iter([scan for _, scan in scans])
        ahead = [pool.submit(_read, s) for s in itertools.islice(left, 2)]
        for number in numbers:
            yield number, ahead.pop(0)
            ahead += [pool.submit(_read, s) for s in itertools.islice(left, 1)]


def _read(scan: Scan) -> ScanFile:
    if scan.problem:
        raise InputError(scan.problem)
    return read_scan(scan.dicom or scan.path, series=scan.series)


def _attempt(scan: Scan, case: Case, reading: Future[ScanFile], segmenter: Segmenter, model: TrainedModel) -> bool:
    """Segments one scan; says on stderr what is wrong with it, or returns True."""
    try:
        _segment(scan, case, reading, segmenter, model)
        return True
    except InputError as error:
        message = str(error) if str(case.path) in str(error) else f"{case.path}: {error}"
    except Exception as error:  # whatever it is, the other scans are not to suffer
        if FLAGS.verbose:
            traceback.print_exc()
        message = f"{case.path}: {type(error).__name__}: {' '.join(str(error).split())[:500]}"
        message += "\nThis scan was left out; --verbose shows where it happened."
    print(scan.told(message), file=sys.stderr, flush=True)
    return False


def _segment(scan: Scan, case: Case, reading: Future[ScanFile], segmenter: Segmenter, model: TrainedModel) -> None:
    start = time.perf_counter()
    read = reading.result()
    marks = {"reading": time.perf_counter() - start}
    for note in read.notes:
        print(f"  Note: {note}", flush=True)
    if FLAGS.dicom_seg and not case.path.is_dir():
        print("  Note: no DICOM segmentation for a scan that does not come as DICOM", flush=True)
    with tqdm(unit="patch", leave=False, disable=not sys.stderr.isatty()) as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        result = segmenter(read.volume, FLAGS.labels, progress)
    case.file(".json").unlink(missing_ok=True)  # it would tell of other files from here on
    files = write_results(result, read, case, _wanted(case.path), model.weights_sha256)
    seconds = {**marks, **result.seconds, "total": time.perf_counter() - start}
    versions = segmenter.versions
    write_summary(case, _summary(scan, case, read, result, model, files, seconds, versions))
    _say(result, case.folder / files[0], seconds)


def _say(result: Segmentation, target: Path, seconds: dict[str, float]) -> None:
    volumes = ", ".join(f"label {k}: {v:.1f} ml" for k, v in result.volumes_ml.items()) or "no femur found"
    print(f"  {target}: {volumes} ({seconds['total']:.1f} s)", flush=True)
    for flag in result.quality.values():
        if flag.level in (YELLOW, RED):
            print(f"  {flag.level.capitalize()} flag: {flag.sentence}", flush=True)
    if FLAGS.verbose:
        print("  " + ", ".join(f"{stage} {s:.2f} s" for stage, s in seconds.items()), flush=True)


def _made_with(scan: Scan, case: Case, model: TrainedModel) -> dict[str, Any]:
    """What decides the results: an earlier summary that says the same makes the work done."""
    return {
        "input": scan.source,
        "input_sha256": digest(scan),
        "series": scan.series,
        "options": {**dataclasses.asdict(_mode()), **dataclasses.asdict(_wanted(case.path))},
        "model": {"weights_sha256": model.weights_sha256, "provenance": model.provenance},
    }


def _is_done(scan: Scan, case: Case, model: TrainedModel) -> bool:
    return bool(made_earlier(case)) and is_done(case, _made_with(scan, case, model))


def _summary(
    scan: Scan,
    case: Case,
    read: ScanFile,
    result: Segmentation,
    model: TrainedModel,
    files: Sequence[str],
    seconds: dict[str, float],
    versions: dict[str, str],
) -> dict[str, Any]:
    """What CASE.json says; `versions` are those of the engine."""
    return {
        **_made_with(scan, case, model),
        "notes": list(read.notes),
        "volumes_ml": {str(label): volume for label, volume in result.volumes_ml.items()},
        "quality": {name: dataclasses.asdict(flag) for name, flag in result.quality.items()},
        "files": list(files),
        "versions": {
            "femur3d": femur3d.__version__,
            "keras": keras.__version__,
            **{name.lower(): importlib.metadata.version(name) for name in LIBRARIES},
            **versions,
            "python": platform.python_version(),
        },
        "command": shlex.join(["python", "-m", "femur3d.infer", *sys.argv[1:]]),
        "seconds": {stage: round(s, 3) for stage, s in seconds.items()},
    }


def _outcome(failed: int, tried: int, given: int) -> int:
    """Says how a batch ended and returns the exit code."""
    if given > 1:
        print(f"{tried - failed} segmented, {given - tried} skipped, {failed} failed", flush=True)
    if failed == given:
        return EXIT_INPUT
    return EXIT_SOME_FAILED if failed else 0


def _strictly(red: int) -> int:
    """The exit code of a batch that did not fail, by the number of its scans with a red flag."""
    if not FLAGS.strict or not red:
        return 0
    print(f"--strict: {red} with a red flag: look at them before you use them", file=sys.stderr, flush=True)
    return EXIT_RED_FLAG


if __name__ == "__main__":
    cli.run(main)
