"""What is measured on the femurs of a segmentation, and femurs.csv: a row a femur, made from the summaries in a folder.

Every measure has its error bar and its gate beside it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from femur3d.errors import InputError
from femur3d.inference.quality_limits import RED
from femur3d.io.formats.csv_table import write_csv
from femur3d.io.integrity import part, read_json

if TYPE_CHECKING:  # what reads summaries does without
    from femur3d.inference.segmenter import Segmentation
    from femur3d.morphometry.measure import Morphometry

NAME = "femurs.csv"
_CENTRE = ("x", "y", "z")
_PARTS = {"": "value", "_low": "low", "_high": "high", "_gate": "level", "_reason": "reason"}  # columns of a measure


def measured(result: Segmentation) -> dict[str, Morphometry | InputError]:
    """What is measured on the femurs of a segmentation; its red flags are in the gate."""
    from femur3d.morphometry.measure import measure_labels  # here: only some want it

    red = [flag.sentence for flag in result.quality.values() if flag.level == RED]
    try:
        return measure_labels(result.labels, result.names, result.probability, red)
    except Exception as error:  # the segmentation is done: no measure is worth losing it
        reason = " ".join(str(error).split())[:300]
        return {"femur": InputError(f"It could not be measured ({type(error).__name__}: {reason}).")}


def write_femurs(folder: Path, summaries: list[Path]) -> Path | None:
    """Writes folder/femurs.csv from the `morphometry` of CASE.json files; None where none has any.

    A cell of a measure that is not measurable is empty; the gate's column says so, and the reason's why. The table of
    `femur3d.report --tables` has these columns too, and more.
    """
    rows = []
    for path in sorted(summaries):
        rows += [{"case": path.stem, "side": side, **columns} for side, columns in _femurs(path).items()]
    if not rows:
        return None
    write_csv(folder / NAME, list(dict.fromkeys(column for row in rows for column in row)), rows)
    return folder / NAME


def _femurs(path: Path) -> dict[str, dict[str, Any]]:
    try:
        return columns_of(read_json(path))
    except InputError:
        return {}


def columns_of(summary: Any) -> dict[str, dict[str, Any]]:
    """CASE.json's `morphometry` as columns of femurs.csv: measure, error bar, gate and reason, for each femur by name.

    What another version, or another program, has not measured has no columns.
    """
    femurs = part(summary, "morphometry")
    return {name: columns for name in femurs if (columns := _columns(part(femurs, name)))}


def _columns(femur: dict[str, Any]) -> dict[str, Any]:
    if "error" in femur:
        return {"head_centre_gate": "not measurable", "head_centre_reason": femur["error"]}
    from femur3d.morphometry.definitions import DEFINITIONS

    row: dict[str, Any] = {}
    if centre := part(femur, "head_centre_mm"):
        place = value if isinstance(value := centre.get("value"), list) else ()
        row |= {f"head_centre_{axis}_mm": mm for axis, mm in zip(_CENTRE, place, strict=False)}
        row |= {"head_centre_error_mm": centre.get("error")}
        row |= {"head_centre_gate": centre.get("level"), "head_centre_reason": centre.get("reason")}
    for name in [*DEFINITIONS, "version_deg"]:
        if one := part(femur, name):
            row |= {f"{name}{ending}": one.get(key) for ending, key in _PARTS.items()}
    return row


def in_words(femurs: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """What `columns_of` tells of the femurs for a reader: a row a measure, and what the gate has against them.

    Returns:
        `sides`, `rows` ([measure, text of each side]) and `reasons`, each once, with the measures that it is about.
    """
    from femur3d.morphometry.definitions import DEFINITIONS
    from femur3d.morphometry.gate import NOT, Verdict
    from femur3d.morphometry.measure import Measure

    rows: dict[str, list[str]] = {}
    reasons: dict[str, dict[str, None]] = {}
    for columns in femurs.values():
        for name in ("head_centre", *DEFINITIONS, "version_deg"):
            gate, reason = columns.get(f"{name}_gate", NOT), columns.get(f"{name}_reason", "")
            if name == "head_centre":
                text = gate if gate == NOT else _centre_in_words(columns)
            else:
                value, low, high = (
                    math.nan if (number := columns.get(f"{name}{ending}")) is None else float(number)
                    for ending in ("", "_low", "_high")
                )
                unit = DEFINITIONS[name].unit if name in DEFINITIONS else "deg"
                text = Measure(value, low, high, unit, Verdict(gate)).short
            rows.setdefault(name, []).append(text)
            if reason:
                reasons.setdefault(reason, {})[name] = None
    return {
        "sides": list(femurs),
        "rows": [[name, *texts] for name, texts in rows.items()],
        "reasons": [[reason, list(names)] for reason, names in reasons.items()],
    }


def _centre_in_words(columns: Mapping[str, Any]) -> str:
    place = ", ".join(f"{columns[f'head_centre_{axis}_mm']:.1f}" for axis in _CENTRE)
    return f"({place}) ± {columns['head_centre_error_mm']:.1f} mm, {columns['head_centre_gate']}"
