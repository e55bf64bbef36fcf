"""Segments the femurs of hip MR scans with a trained model.

python -m femur3d.infer -i PATH [PATH ...] -o DIR --model DIR [--labels femur|sides] [--overlap 0.5] [--continue]

PATH is a scan file (.nii, .nii.gz, .nrrd, .mha, .mhd), a folder with a DICOM series, or a folder of scan files.
Writes DIR/CASE.nii.gz, a uint8 label map on the scan's own grid, and DIR/CASE.json.
"""

from __future__ import annotations

import json
import platform
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import flags

from femur3d import cli

with cli.hushed():
    import tensorflow as tf

import keras
import numpy as np
from tqdm import tqdm

import femur3d
from femur3d.atomic import replacing
from femur3d.errors import EXIT_INPUT, EXIT_SOME_FAILED, InputError, UsageError
from femur3d.figures import contour_figure
from femur3d.model_folder import TrainedModel, load_model
from femur3d.segmentation import Segmentation, Segmenter
from femur3d.volume import Volume
from femur3d.volume_io import case_name, read_volume, scan_extension, write_volume

FLAGS = flags.FLAGS
flags.DEFINE_multi_string("input", None, "scan file, DICOM folder or folder of scans; more may follow", short_name="i")
flags.DEFINE_string("output", None, "folder for the results", short_name="o", required=True)
flags.DEFINE_string("model", None, "folder of a trained model, e.g. runs/quick/model", required=True)
flags.DEFINE_enum("labels", "femur", ["femur", "sides"], "1 for every femur, or 1 left and 2 right")
flags.DEFINE_float("overlap", 0.5, "share of a patch that its neighbour covers too", 0.0, 0.9)
flags.DEFINE_bool("continue", False, "skip the scans that this model has segmented with these flags already")
flags.DEFINE_integer("series", None, "number of the series, where a DICOM folder has several")
flags.DEFINE_bool("probability", False, "write CASE_prob.nii.gz, float32, too")
flags.DEFINE_bool("preview", False, "write CASE_preview.png, slices with the contours, too")


def main(argv: Sequence[str]) -> int:
    """Parses, loads the model once, segments scan after scan."""
    scans = _scans([*(FLAGS.input or []), *argv[1:]])
    folder = Path(FLAGS.output)
    tf.config.threading.set_inter_op_parallelism_threads(1)  # the same bits every time, at no cost
    model = load_model(Path(FLAGS.model))
    segmenter = Segmenter(model, FLAGS.overlap)
    failed = 0
    for number, path in enumerate(scans, start=1):
        print(f"[{number}/{len(scans)}] {path}", flush=True)
        try:
            _segment_file(path, folder, segmenter, model)
        except InputError as error:
            print(str(error), file=sys.stderr, flush=True)
            failed += 1
        except (OSError, RuntimeError, MemoryError, tf.errors.OpError) as error:
            print(f"{path}: {type(error).__name__}: {' '.join(str(error).split())[:500]}", file=sys.stderr, flush=True)
            failed += 1
    if failed == len(scans):
        return EXIT_INPUT
    return EXIT_SOME_FAILED if failed else 0


def _scans(paths: Sequence[str]) -> list[Path]:
    """The scans that the inputs stand for, each with a case name of its own. Raises UsageError."""
    if not paths:
        raise UsageError("No input was given.\nExpected -i with a scan file or a folder.")
    scans: list[Path] = []
    for path in map(Path, paths):
        inside = sorted(p for p in path.iterdir() if _is_scan(p)) if path.is_dir() else []
        scans += inside or [path]
    names = [case_name(p) for p in scans]
    twice = next((n for n in names if names.count(n) > 1), None)
    if twice:
        raise UsageError(f"Two inputs are called {twice!r} and would write the same result.\nSegment them one by one.")
    for path, name in zip(scans, names, strict=True):
        if (Path(FLAGS.output) / f"{name}.nii.gz").resolve() == path.resolve():
            raise UsageError(f"{path}: the result would replace the scan.\nExpected another folder for -o.")
    return scans


def _is_scan(path: Path) -> bool:
    return bool(scan_extension(path)) and not path.name.startswith(".")


def _is_done(folder: Path, name: str, model: TrainedModel) -> bool:
    """Whether all files that are asked for are there, made by this model with these flags."""
    wanted = {".nii.gz": True, "_prob.nii.gz": FLAGS.probability, "_preview.png": FLAGS.preview}
    if not all((folder / f"{name}{end}").exists() for end, is_wanted in wanted.items() if is_wanted):
        return False
    try:
        summary = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
        made_with = (summary["model"]["weights_sha256"], summary["labels"], summary["overlap"])
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return made_with == (model.weights_sha256, FLAGS.labels, FLAGS.overlap)


def _segment_file(path: Path, folder: Path, segmenter: Segmenter, model: TrainedModel) -> None:
    name = case_name(path)
    target = folder / f"{name}.nii.gz"
    if FLAGS["continue"].value and _is_done(folder, name, model):
        print(f"  {target} is there: skipped")
        return
    start = time.perf_counter()
    scan = read_volume(path, series=FLAGS.series)
    _check_scan(scan, path)
    with tqdm(unit="patch", leave=False, disable=not sys.stderr.isatty()) as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        result = segmenter(scan, FLAGS.labels, progress)
    _write(result, scan, folder, name)
    seconds = {**result.seconds, "total": round(time.perf_counter() - start, 3)}
    summary = _summary(result, path, model, seconds)
    with replacing(folder / f"{name}.json") as temporary:
        temporary.write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    volumes = ", ".join(f"label {k}: {v:.1f} ml" for k, v in summary["volumes_ml"].items()) or "no femur found"
    print(f"  {target}: {volumes} ({seconds['total']:.1f} s)", flush=True)


def _check_scan(scan: Volume, path: Path) -> None:
    low, high = scan.array.min(), scan.array.max()
    if low == high:
        raise InputError(f"{path}: every voxel is {low}.\nExpected an MR scan.")


def _write(result: Segmentation, scan: Volume, folder: Path, name: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    write_volume(result.labels, folder / f"{name}.nii.gz")
    if FLAGS.probability:
        write_volume(result.probability, folder / f"{name}_prob.nii.gz")
    if FLAGS.preview:
        contour_figure(scan, None, result.labels, folder / f"{name}_preview.png")


def _summary(result: Segmentation, path: Path, model: TrainedModel, seconds: dict[str, float]) -> dict[str, Any]:
    """What CASE.json says: volumes, model, versions, timings."""
    voxel_ml = float(np.prod(result.labels.spacing_mm)) / 1000
    values, counts = np.unique(result.labels.array, return_counts=True)
    volumes = {str(v): round(float(n) * voxel_ml, 3) for v, n in zip(values, counts, strict=True) if v}
    return {
        "input": path.name,
        "labels": FLAGS.labels,
        "volumes_ml": volumes,
        "model": {"weights_sha256": model.weights_sha256, "provenance": model.provenance},
        "versions": {
            "femur3d": femur3d.__version__,
            "keras": keras.__version__,
            "tensorflow": tf.__version__,
            "python": platform.python_version(),
        },
        "overlap": FLAGS.overlap,
        "seconds": seconds,
    }


if __name__ == "__main__":
    cli.run(main)
