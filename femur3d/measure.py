"""Measures the shape of segmented femurs: head, neck, shaft, alpha angle and cam, each with an error bar and a gate.

    python -m femur3d.measure -i LABELMAP_or_SURFACE [...] -o DIR [--side left|right] [--voxel_mm 0.9,5.2,0.9]

A label map (.nii.gz, .nii, .nrrd, .mha) holds 1 for the left and 2 for the right femur, or 1 for either with
--labels femur; a surface (.stl, .ply) is closed and of one femur, in millimetres and LPS. Writes 'morphometry' into
DIR/CASE.json, a picture DIR/CASE_morphometry.png, and DIR/femurs.csv. For research only.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags

from femur3d import cli
from femur3d.errors import EXIT_INPUT, EXIT_SOME_FAILED, InputError, UsageError
from femur3d.export.case_files import Case
from femur3d.export.case_results import locked_case, read_summary
from femur3d.export.femur_measures import write_femurs
from femur3d.export.mesh import MESH_EXTENSIONS, read_mesh
from femur3d.export.pictures.morphometry import morphometry_figure
from femur3d.inference.postprocessing import LABEL_NAMES
from femur3d.io.case_names import Wish, distinct
from femur3d.io.images import case_name, read_volume
from femur3d.io.integrity import read_json, write_json
from femur3d.morphometry.error_bars import Boundary
from femur3d.morphometry.measure import Morphometry, as_json, measure_labels, measure_surface, only_femur
from femur3d.morphometry.surface import Surface

FLAGS = flags.FLAGS
flags.DEFINE_multi_string("input", None, "label map or surface; more may follow", short_name="i")
flags.DEFINE_string("output", None, "folder for the results", short_name="o", required=True)
flags.DEFINE_enum("labels", "sides", ["sides", "femur"], "what the values of a label map are")
flags.DEFINE_enum("side", None, ["left", "right"], "of a surface; by default as its shape says")
flags.DEFINE_list("voxel_mm", None, "x,y,z of the voxels that a surface was drawn in; by default 1 mm")


def main(argv: Sequence[str]) -> int:
    """Measures one file after the other; one that cannot be measured does not stop the others."""
    paths, folder = [Path(p) for p in [*(FLAGS.input or []), *argv[1:]]], Path(FLAGS.output)
    if not paths:
        raise UsageError("Nothing to measure.\nGive label maps or surfaces with -i.")
    names = distinct([Wish(str(path), path.stem if _is_surface(path) else case_name(path)) for path in paths])
    folder.mkdir(parents=True, exist_ok=True)
    failed = sum(not _attempt(path, folder, case) for path, case in zip(paths, names, strict=True))
    write_femurs(folder, list(folder.glob("*.json")))
    return 0 if not failed else EXIT_INPUT if failed == len(paths) else EXIT_SOME_FAILED


def _attempt(path: Path, folder: Path, case: str) -> bool:
    try:
        with locked_case(Case(case, path, None, folder)):  # femur3d.infer may be writing to this folder
            return _measure_case(path, folder, case)
    except InputError as error:
        print(error if str(path) in str(error) else f"{path}: {error}", file=sys.stderr, flush=True)
        return False


def _measure_case(path: Path, folder: Path, case: str) -> bool:
    """Writes what is measured into the summary and the picture; returns whether there is any. Raises InputError."""
    earlier = _earlier(folder / f"{case}.json", path)
    found = _measure(path)
    print(path, flush=True)
    for name, one in found.items():
        print(one if isinstance(one, Morphometry) else f"{name}: {one}", flush=True)
    summary = {"input": str(path.absolute()), **earlier, "morphometry": as_json(found)}
    write_json(folder / f"{case}.json", summary, lambda _: None)
    whole = [one for one in found.values() if isinstance(one, Morphometry)]
    if whole:
        morphometry_figure(whole, folder / f"{case}_morphometry.png", case)
    return bool(whole)


def _is_surface(path: Path) -> bool:
    return path.suffix.lower() in MESH_EXTENSIONS


def _measure(path: Path) -> dict[str, Morphometry | InputError]:
    if not _is_surface(path):
        return _measured_labels(path)
    surface = only_femur(Surface(*read_mesh(path)))
    boundary = Boundary(_voxel_mm(), np.eye(3)) if FLAGS.voxel_mm else None
    one = measure_surface(surface, FLAGS.side, boundary=boundary)
    return {one.side: one}


def _measured_labels(path: Path) -> dict[str, Morphometry | InputError]:
    labels, names = read_volume(path), LABEL_NAMES[FLAGS.labels]
    found = measure_labels(labels, names)
    if not found:
        received = ", ".join(f"{value:g}" for value in np.unique(labels.array)[:6])
        wanted = " or ".join(f"{value} ({name})" for value, name in names.items())
        raise InputError(f"{path}: no femur in it; its values are {received}.\nExpected a label map with {wanted}.")
    return found


def _voxel_mm() -> np.ndarray:
    try:
        x, y, z = (float(edge) for edge in FLAGS.voxel_mm)
    except ValueError as error:
        received = ",".join(FLAGS.voxel_mm)
        raise UsageError(f"--voxel_mm {received}: not three lengths.\nExpected e.g. 0.9,5.2,0.9.") from error
    if not all(0 < edge < math.inf for edge in (x, y, z)):
        raise UsageError(f"--voxel_mm {x},{y},{z}: not positive lengths.\nExpected e.g. 0.9,5.2,0.9.")
    return np.array([x, y, z])


def _earlier(path: Path, source: Path) -> dict[str, Any]:
    """What lies at the path of a summary: of the case whose label map is measured, of an earlier run, or {}.

    Raises InputError where it is of another file, or cannot be read.
    """
    if not path.exists():
        return {}
    summary, source = read_json(path), source.resolve()
    is_result = source.parent == path.resolve().parent and source.name in read_summary(path).get("files", [])
    if isinstance(summary, dict) and (is_result or Path(str(summary.get("input"))).resolve() == source):
        return summary
    raise InputError(f"{path}: not of {source}.\nExpected another folder for -o, or no such file in it.")


if __name__ == "__main__":
    cli.run(main)
