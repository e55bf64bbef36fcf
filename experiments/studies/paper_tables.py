"""The paper's Tables 1 and 2 with our rows below the published ones (section 3.4; `experiments/published.json`)."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from experiments.studies.evaluated_run import Run
from femur3d.errors import InputError
from femur3d.evaluation.tables import COLUMNS

PUBLISHED = "experiments/published.json"
METRICS = {name: heading for name, heading in COLUMNS.items() if name != "hd95_mm"}  # the paper has no HD95
Rows = Mapping[str, Mapping[str, float]]  # patient or arm → metric → value


def read_published(path: str | None) -> tuple[Rows, Rows]:
    """The rows of the paper's Table 1 by patient, and those of its Table 2 by arm, with metrics as in METRICS.

    Args:
        path: a JSON file as PUBLISHED, or with the rows of Table 2 alone; empty: none.

    Raises:
        InputError: the file cannot be read, or a row has no metric of METRICS.
    """
    if not path:
        return {}, {}
    try:
        stored = json.loads(Path(path).read_text(encoding="utf-8"))
        first, second = stored.get("table_1", {}), stored.get("table_2", stored)
        return _rows(first), _rows(second)
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise InputError(
            f'{path}: cannot be read ({error}).\nExpected {{"transfer": {{"mean_mm": …, "dice": …}}, "scratch": …}}.'
        ) from error


def _rows(stored: Mapping[str, Mapping[str, float]]) -> Rows:
    found = {str(name): {m: float(row[m]) for m in METRICS if m in row} for name, row in stored.items()}
    if not all(found.values()):
        raise ValueError(f"a row without any of {', '.join(METRICS)}")
    return found


def table_1(runs: Sequence[Run], published: Rows) -> list[str]:
    """Table 1: the published patients, then every femur of each of our runs, and the average of each."""
    blocks = [(f"{run.label}, seed {run.seed}", run) for run in runs]
    names = [f"{case} {label}" for run in runs for case, label in run.femurs]
    width = max(map(len, [*(f"{name}, published" for name in published), *(b for b, _ in blocks), *names])) + 4
    lines = [heading(width)]
    lines += [table_line(f"{name}, published", row, width) for name, row in published.items()]
    for block, run in blocks:
        lines += [rule(width), block]
        lines += [table_line(f"  {case} {label}", row, width) for (case, label), row in run.femurs.items()]
        lines.append(table_line("  average", average(run), width, failures(run)))
    return lines


def table_2(runs: Sequence[Run], published: Rows) -> list[str]:
    """Table 2: the published rows, then each of ours (the average over all femurs) and the mean of each arm."""
    width = max([len(run.label) + 8 for run in runs] + [len(arm) + 11 for arm in published]) + 2
    lines = [heading(width)]
    lines += [table_line(f"{arm}, published", row, width) for arm, row in published.items()]
    if not published:
        lines.append("published rows (Zeng et al., Table 2): left out; --published FILE adds them")
    lines.append(rule(width))
    for arm in dict.fromkeys(run.arm for run in runs):
        own = [run for run in runs if run.arm == arm]
        for run in own:
            lines.append(table_line(f"{run.label}, seed {run.seed}", average(run), width, failures(run)))
        overall = {m: float(np.mean([average(run)[m] for run in own])) for m in METRICS}
        lines += [table_line(f"{own[0].label}, mean", overall, width, sum(map(failures, own))), rule(width)]
    return lines


def average(run: Run) -> dict[str, float]:
    """Mean of each metric over all femurs of a run."""
    return {m: float(np.mean([femur[m] for femur in run.femurs.values()])) for m in METRICS}


def failures(run: Run) -> int:
    """Femurs without any distance: not found, or found where none is."""
    return sum(math.isinf(femur["mean_mm"]) for femur in run.femurs.values())


def heading(width: int) -> str:
    return f"{'':{width}}" + "".join(f"{name:>11}" for name, _ in METRICS.values()) + "  failures"


def rule(width: int) -> str:
    return "-" * len(heading(width))


def table_line(name: str, row: Mapping[str, float], width: int, failed: int | None = None) -> str:
    cells = (f"{row[m]:11.{decimals}f}" if m in row else f"{'':>11}" for m, (_, decimals) in METRICS.items())
    return f"{name:{width}}{''.join(cells)}{'' if failed is None else f'{failed:10}'}"
