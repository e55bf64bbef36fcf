"""Which measures of a segmentation are out of the ordinary: limits learnt on scans whose quality is known.

The limits belong to a model and lie in its folder as `quality.json`. A model without that file works: its measures are
reported and nothing is flagged.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from femur3d.errors import InputError
from femur3d.io.integrity import read_json, write_json

QUALITY = "quality.json"
FORMAT = "femur3d-quality-1"
MAX_BYTES = 100_000
LARGEST = 1e9  # of a limit; far beyond any value of any measure
GREEN, YELLOW, RED, UNKNOWN = "green", "yellow", "red", "unknown"


@dataclasses.dataclass(frozen=True)
class Kind:
    """What there is to know about a measure of `quality.measure`.

    Attributes:
        sentence: in plain words, true for any value, with `{}` for it.
        shown: format of values and limits in that sentence.
        resolution: smallest difference that means anything, in the measure's unit.
        low_is_bad: whether small values are the suspicious ones.
    """

    sentence: str
    shown: str
    resolution: float
    low_is_bad: bool = False


KINDS = {
    "patch_disagreement": Kind("Overlapping patches disagree by {} on a scale from 0 to 1", "{:.3f}", 0.005),
    "head_disagreement": Kind("The three heads of the network disagree by {} on a scale from 0 to 1", "{:.2f}", 0.02),
    "uncertain_share": Kind("The network is not certain of {} of the femurs' voxels", "{:.0%}", 0.02),
    "removed_share": Kind("{} of what was found was removed as islands", "{:.0%}", 0.02),
    "fragments": Kind("{} larger pieces beside the femurs were removed", "{:.3g}", 1.0),
    "border_contact_cm2": Kind("The field of view cuts the femurs over {}, lower ends aside", "{:.1f} cm²", 4.0),
    "missing_femurs": Kind("{} femurs that a field of view of this width shows were not found", "{:.3g}", 0.5),
    "smallest_volume_ml": Kind("The smaller femur has {}", "{:.0f} ml", 5.0, low_is_bad=True),
    "largest_volume_ml": Kind("The larger femur has {}", "{:.0f} ml", 50.0),
    "side_ratio": Kind("The smaller femur has {} of the larger one's volume", "{:.0%}", 0.05, low_is_bad=True),
    "head_medial_mm": Kind("The top of a femur lies {} medial of its shaft", "{:.0f} mm", 5.0, low_is_bad=True),
}


@dataclasses.dataclass(frozen=True)
class Limit:
    """Of one measure, in its unit.

    Attributes:
        median: of good scans.
        yellow: values beyond are flagged yellow: look at it.
        red: values beyond are flagged red: do not trust it.
    """

    median: float
    yellow: float
    red: float


@dataclasses.dataclass(frozen=True)
class Flag:
    """One measure of a scan and what it says.

    Attributes:
        value: in the measure's unit.
        level: 'green', 'yellow' or 'red'; 'unknown' where the model has no limit for it.
        sentence: for people.
    """

    value: float
    level: str
    sentence: str


def flags(measures: Mapping[str, float], limits: Mapping[str, Limit]) -> dict[str, Flag]:
    """Level and sentence of every measure.

    Args:
        measures: of `quality.measure`.
        limits: of the model; {} flags nothing.
    """
    return {name: _flag(name, value, limits.get(name)) for name, value in measures.items()}


def _flag(name: str, value: float, limit: Limit | None) -> Flag:
    kind = KINDS[name]
    sentence = kind.sentence.format(kind.shown.format(value))
    if limit is None:
        return Flag(value, UNKNOWN, f"{sentence}.")
    beyond = [excess(name, value, border) > 0 for border in (limit.yellow, limit.red)]
    median, red = kind.shown.format(limit.median), kind.shown.format(limit.red)
    side = "below" if kind.low_is_bad else "above"
    return Flag(value, (GREEN, YELLOW, RED)[sum(beyond)], f"{sentence} (median {median}, red {side} {red}).")


def excess(name: str, value: float, border: float) -> float:
    """How far a value lies on the suspicious side of a border, in the measure's unit; negative on the other."""
    return border - value if KINDS[name].low_is_bad else value - border


def suspicion(measures: Mapping[str, float], limits: Mapping[str, Limit]) -> float:
    """How suspicious a scan is by its worst measure: 0 at the median of good scans, above 1 with a red flag.

    Args:
        measures: of `quality.measure`.
        limits: of the model; {} gives 0.
    """
    known = {name: value for name, value in measures.items() if name in limits}
    return max((suspicion_of(name, value, limits[name]) for name, value in known.items()), default=0.0)


def suspicion_of(name: str, value: float, limit: Limit) -> float:
    """The same of one measure: 0 at the median, 1 at the red limit, linear between and beyond."""
    return excess(name, value, limit.median) / excess(name, limit.red, limit.median)


def learn_limits(good: Iterable[Mapping[str, float]]) -> dict[str, Limit]:
    """Limits from the measures of good scans alone, so that they do not depend on how others were corrupted.

    Yellow is beyond the most suspicious good scan; red is half as far again from the median, so no good scan is red.
    A measure counts with steps of its resolution at least.

    Args:
        good: measures of each good scan.
    """
    values: dict[str, list[float]] = {}
    for measures in good:
        for name, value in measures.items():
            values.setdefault(name, []).append(value)
    return {name: _learn(name, np.array(found)) for name, found in values.items()}


def _learn(name: str, values: np.ndarray) -> Limit:
    kind = KINDS[name]
    sign = -1 if kind.low_is_bad else 1
    median, worst = float(np.median(values)), sign * float((sign * values).max())
    yellow = worst + sign * kind.resolution / 2
    red = yellow + sign * max(excess(name, worst, median) / 2, kind.resolution / 2)
    return Limit(*(float(f"{number:.4g}") for number in (median, yellow, red)))


def write_limits(folder: Path, limits: Mapping[str, Limit], learnt_on: str) -> None:
    """Writes `quality.json` to a model's folder.

    Args:
        folder: of the model.
        limits: by the names of measures.
        learnt_on: where they come from, for people.
    """
    values = {name: dataclasses.asdict(limit) for name, limit in limits.items()}
    content = {"format": FORMAT, "learnt_on": learnt_on, "limits": values, "limits_sha256": _digest(values)}
    write_json(folder / QUALITY, content)


def read_limits(folder: Path) -> dict[str, Limit]:
    """The limits in a model's folder; {} where it has no `quality.json`.

    Raises:
        InputError: no file or too large a one, not JSON, another format, an unknown measure, numbers that are none or
            in the wrong order, or not those that were written.
    """
    path = folder / QUALITY
    if not path.exists():
        return {}
    found = read_json(path, MAX_BYTES, _EXPECTED)
    limits = found.get("limits") if isinstance(found, dict) and found.get("format") == FORMAT else None
    if not isinstance(limits, dict):
        raise InputError(f"{path}: no limits in the format {FORMAT!r}.\n{_EXPECTED}")
    checked = {name: _checked(path, name, values) for name, values in limits.items()}
    if found.get("limits_sha256", _digest(limits)) != _digest(limits):  # files of earlier versions lack it
        raise InputError(f"{path}: damaged: not the limits that were written (SHA-256).\n{_EXPECTED}")
    return checked


def _digest(limits: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(limits, sort_keys=True).encode()).hexdigest()


_EXPECTED = "Expected the file that experiments/studies/learn_quality.py wrote; without it a model flags nothing."


def _checked(path: Path, name: str, values: Any) -> Limit:
    if name not in KINDS:
        raise InputError(f"{path}: unknown measure {name[:40]!r}.\nExpected {', '.join(KINDS)}.")
    names = [field.name for field in dataclasses.fields(Limit)]
    numbers: list[Any] = []
    if isinstance(values, dict):  # earlier versions said usual
        numbers = [values.get("usual" if key == "median" and "median" not in values else key) for key in names]
    if len(numbers) != 3 or not all(type(n) in (int, float) and abs(n) <= LARGEST for n in numbers):
        raise InputError(f"{path}: {name} is {str(values)[:80]}.\nExpected three numbers: {', '.join(names)}.")
    limit = Limit(*map(float, numbers))
    if not (excess(name, limit.yellow, limit.median) > 0 and excess(name, limit.red, limit.yellow) >= 0):
        order = "falling" if KINDS[name].low_is_bad else "rising"
        raise InputError(f"{path}: {name} is {numbers}.\nExpected {', '.join(names)} in {order} order.")
    return limit
