"""What is measured on the femurs of a segmentation, and femurs.csv: a row a femur, made from the summaries in a folder.

Every measure has its error bar and its gate beside it.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from femur3d.errors import InputError
from femur3d.inference.quality_limits import RED
from femur3d.io.atomic import replacing

if TYPE_CHECKING:  # what reads summaries does without
    from femur3d.inference.segmenter import Segmentation
    from femur3d.morphometry.measure import Morphometry

NAME = "femurs.csv"
_CENTRE = ("x", "y", "z")


def measured(result: Segmentation) -> dict[str, Morphometry | InputError]:
    """What is measured on the femurs of a segmentation; its red flags are in the gate."""
    from femur3d.morphometry.measure import measure_labels  # here: only some want it

    red = [flag.sentence for flag in result.quality.values() if flag.level == RED]
    try:
        return measure_labels(result.labels, result.names, result.probability, red)
    except Exception as error:  # the segmentation is done: no measure is worth losing it
        reason = " ".join(str(error).split())[:300]
        return {"femur": InputError(f"It could not be measured ({type(error).__name__}: {reason}).")}


def as_json(found: Mapping[str, Morphometry | InputError]) -> dict[str, Any]:
    """What `measured` found, for CASE.json."""
    from femur3d.morphometry import measure

    return measure.as_json(found)


def write_femurs(folder: Path, summaries: list[Path]) -> Path | None:
    """Writes folder/femurs.csv from the `morphometry` of CASE.json files; None where none has any.

    A cell of a measure that is not measurable is empty; the gate's column says so, and the reason's why. The table of
    `femur3d.report --tables` has these columns too, and more.
    """
    rows = []
    for path in sorted(summaries):
        for name, femur in _morphometry(path).items():
            rows.append({"case": path.stem, "side": name, **columns_of(femur)})
    if not rows:
        return None
    text = io.StringIO()
    columns = list(dict.fromkeys(column for row in rows for column in row))
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    with replacing(folder / NAME) as temporary:
        temporary.write_text(text.getvalue(), encoding="utf-8")
    return folder / NAME


def _morphometry(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8")).get("morphometry", {})
        return found if isinstance(found, dict) else {}
    except (OSError, ValueError, AttributeError):
        return {}


def columns_of(femur: dict[str, Any]) -> dict[str, Any]:
    """One femur of CASE.json's `morphometry` as columns of femurs.csv: measure, error bar, gate and reason."""
    if "error" in femur:
        return {"head_centre_gate": "not measurable", "head_centre_reason": femur["error"]}
    centre = femur["head_centre_mm"]
    row = {f"head_centre_{axis}_mm": value for axis, value in zip(_CENTRE, centre["value"], strict=True)}
    row |= {"head_centre_error_mm": centre["error"]}
    row |= {"head_centre_gate": centre["level"], "head_centre_reason": centre["reason"]}
    from femur3d.morphometry.definitions import DEFINITIONS

    for name in [*DEFINITIONS, "version_deg"]:
        one = femur[name]
        row |= {name: one["value"], f"{name}_low": one["low"], f"{name}_high": one["high"]}
        row |= {f"{name}_gate": one["level"], f"{name}_reason": one["reason"]}
    return row
