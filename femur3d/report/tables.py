"""femurs.csv and metrics.csv: a folder of results as tables that pandas and R read without help. No patients' names."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from femur3d.errors import UsageError
from femur3d.evaluation.metrics import METRICS, FemurMetrics
from femur3d.export.femur_measures import columns_of
from femur3d.inference.quality_limits import RED, YELLOW
from femur3d.io.formats.csv_table import write_csv
from femur3d.io.integrity import part
from femur3d.report.results import Result, femur_masks
from femur3d.volume import Volume

FEMURS, TIDY = "femurs.csv", "metrics.csv"
FEMUR_COLUMNS = (
    "case", "side", "volume_ml", "centroid_x_mm", "centroid_y_mm", "centroid_z_mm", "extent_x_mm", "extent_y_mm",
    "extent_z_mm", "level", "flags", "model", "weights_sha256", "seconds",
)  # fmt: skip
TIDY_COLUMNS = ("case", "side", "metric", "value", "level")


def write_tables(results: Sequence[Result], rows: Iterable[FemurMetrics], folder: Path) -> list[Path]:
    """Writes both tables into a folder and returns their paths.

    Args:
        results: the cases.
        rows: metrics of those that have a reference.
        folder: where to.

    Raises:
        UsageError: the metrics.csv there is another one, such as that of `femur3d.evaluate`.
    """
    paths = [folder / FEMURS, folder / TIDY]
    for path, columns in zip(paths, (FEMUR_COLUMNS[:2], TIDY_COLUMNS), strict=True):  # `infer` writes femurs.csv too
        check_is_ours(path, columns)
    femurs = [row for result in results for row in femur_rows(result)]
    more = dict.fromkeys(name for row in femurs for name in row)  # the shape of the femurs, where it was measured
    write_csv(paths[0], [*FEMUR_COLUMNS, *(name for name in more if name not in FEMUR_COLUMNS)], femurs)
    write_csv(paths[1], TIDY_COLUMNS, tidy_rows(results, rows))
    return paths


def femur_rows(result: Result) -> list[dict[str, Any]]:
    """A row for each femur of a case; a single one without side where none was found.

    Volume, centroid (LPS world coordinates) and extent (along the world's axes, voxels' edges included) are those of
    the label map. Without it the volumes are those of CASE.json. What was measured by --morphometry follows in the
    columns of `export.femur_measures.columns_of`.
    """
    model = part(result.summary, "model")
    case = {
        "level": result.level,
        "flags": ";".join(flag["name"] for flag in result.flags if flag["level"] in (YELLOW, RED)),
        "model": part(model, "provenance").get("experiment", ""),
        "weights_sha256": model.get("weights_sha256", ""),
        "seconds": part(result.summary, "seconds").get("total", ""),
    }
    label_map = result.read_labels()
    if label_map is None:
        found = {side: {"volume_ml": round(ml, 3)} for side, ml in result.volumes_ml.items()}
    else:
        masks = femur_masks(label_map, result.labels)
        found = {side: place_and_size(label_map.with_array(mask)) for side, mask in masks.items()}
    shapes = columns_of(result.summary)
    return [
        {"case": result.name, "side": side, **measured, **case, **shapes.get(side, {})}
        for side, measured in (found or {"": {}}).items()
    ]


def place_and_size(mask: Volume) -> dict[str, float]:
    """Volume, centroid and extent of a bool mask (z, y, x) that is not empty, as columns of femurs.csv."""
    indices = np.argwhere(mask.array)
    points = mask.world_mm(indices)
    voxel_mm = np.abs(mask.affine[:3, :3]).sum(axis=1)  # of a voxel, along the world's axes
    values = [*points.mean(axis=0), *(np.ptp(points, axis=0) + voxel_mm)]
    return {"volume_ml": round(len(indices) * mask.voxel_ml, 3)} | {
        name: round(float(value), 2) for name, value in zip(FEMUR_COLUMNS[3:9], values, strict=True)
    }


def tidy_rows(results: Iterable[Result], rows: Iterable[FemurMetrics]) -> list[dict[str, Any]]:
    """One value a row: volumes, quality measures with their levels, and comparisons with references.

    Infinite distances are `inf`, what does not apply is empty; both pandas and R read them so.
    """
    tidy = []
    for result in results:
        case = {"case": result.name, "side": "", "level": ""}
        tidy += [{**case, "side": side, "metric": "volume_ml", "value": ml} for side, ml in result.volumes_ml.items()]
        tidy += [
            {**case, "metric": flag["name"], "value": flag["value"], "level": flag["level"]} for flag in result.flags
        ]
    for row in rows:
        one = {"case": row.case, "side": side_of(row.label), "level": ""}
        values = {metric: getattr(row, metric) for metric in METRICS}
        tidy += [{**one, "metric": name, "value": "" if value != value else value} for name, value in values.items()]
    return tidy


def side_of(label: str) -> str:
    """'left' or 'right' where the name of a label says so, such as femur_left; else the name."""
    return next((side for side in ("left", "right") if side in label.lower()), label)


def check_is_ours(path: Path, columns: Sequence[str]) -> None:
    """Raises UsageError where a file lies at the path and has other columns: it is not to be replaced."""
    if not path.exists():
        return
    with path.open(encoding="utf-8", errors="replace") as file:
        header = file.readline().rstrip("\n").split(",")
    if header[: len(columns)] != list(columns):
        raise UsageError(f"{path}: another table, with the columns {','.join(header)[:60]}….\nGive another folder.")
