"""Compares segmentations of the same scans by several methods: a row each, and paired differences from the first one.

    python -m experiments.studies.compare_methods NAME=EVALUATION NAME=EVALUATION [...] [-o FILE]

EVALUATION is a folder that `femur3d.evaluate` has written. The femurs that all of them hold are compared; the first
lines say how many these are. Evaluations of femur3d 0.1, whose distances are averaged over vertices, are compared with
one another only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from absl import flags

from experiments.studies.ablation_report import COMPARED, comparison, mean_by_case
from experiments.studies.evaluated_run import Femurs, distance_weighting, read_femurs
from experiments.studies.table_output import command_line, output_table
from femur3d import cli
from femur3d.errors import InputError, UsageError
from femur3d.evaluation.tables import COLUMNS

FLAGS = flags.FLAGS


def parse(words: Sequence[str]) -> dict[str, Path]:
    """Name → folder of `NAME=FOLDER`. Raises UsageError for fewer than two of them, or a name twice."""
    pairs = [word.partition("=") for word in words]
    found = {name: Path(folder) for name, _, folder in pairs if name and folder}
    if len(found) < max(len(pairs), 2):
        raise UsageError(f"Expected two or more of NAME=EVALUATION, each name once.\nReceived: {' '.join(words)!r}")
    return found


def load(folder: Path) -> Femurs:
    """What `femur3d.evaluate` has written to a folder. Raises InputError where it is missing or another file."""
    try:
        femurs = read_femurs(folder / "metrics.csv")
        if any(metric not in femur for femur in femurs.values() for metric in COLUMNS):
            raise ValueError(f"expected the columns {', '.join(COLUMNS)}")
        return femurs
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{folder}: cannot be read ({error!r}).\nExpected what femur3d.evaluate writes.") from error


def shared(methods: Mapping[str, Femurs]) -> dict[str, Femurs]:
    """The methods with those femurs only that all of them hold.

    Raises:
        InputError: there is none, or distances are averaged over the area in some and over vertices in others.
    """
    weightings = {name: distance_weighting(femurs) for name, femurs in methods.items()}
    if len(set(weightings.values())) > 1:
        found = ", ".join(f"{name} over {weighting}" for name, weighting in weightings.items())
        raise InputError(f"Surface distances are averaged differently: {found}.\nEvaluate all of them again.")
    keys = sorted(set.intersection(*(set(femurs) for femurs in methods.values())))
    if not keys:
        raise InputError(f"No femur is in all of {', '.join(methods)}.\nExpected evaluations of the same scans.")
    return {name: {key: femurs[key] for key in keys} for name, femurs in methods.items()}


def format_table(methods: Mapping[str, Femurs]) -> list[str]:
    """Averages over the femurs, the lowest Dice and how many were missed, a row a method; then paired differences.

    Args:
        methods: metrics of the same femurs by method; the first one is what the others are compared with.
    """
    width = max(map(len, methods)) + 2
    head = "".join(f"{heading:>11}" for heading, _ in COLUMNS.values())
    lines = [f"{'':{width}}{head}{'Worst DICE':>12}{'Missed':>8}"]
    for name, femurs in methods.items():
        means = {m: np.mean([femur[m] for femur in femurs.values()]) for m in COLUMNS}
        row = "".join(f"{means[m]:11.{decimals}f}" for m, (_, decimals) in COLUMNS.items())
        worst = min(femur["dice"] for femur in femurs.values())
        missed = sum(np.isinf(femur["mean_mm"]) for femur in femurs.values())
        lines.append(f"{name:{width}}{row}{worst:12.4f}{missed:8}")
    first, *others = methods
    lines += ["", "Paired differences by case (femurs averaged first), 95% bootstrap interval, Wilcoxon two-sided"]
    for other in others:
        for metric in COMPARED:
            pair = (mean_by_case([methods[name]], metric) for name in (first, other))
            lines += comparison(f"  {metric:8} {first} - {other}: ", *pair)
    return lines


def _define_flags() -> None:
    """Not at import: tests use the functions above."""
    flags.DEFINE_string("output", None, "write the table to this file too", short_name="o")


def main(argv: Sequence[str]) -> int:
    """Reads the evaluations and prints the table."""
    folders = parse(argv[1:])
    methods = shared({name: load(folder) for name, folder in folders.items()})
    femurs = next(iter(methods.values()))
    counts = f"{len(femurs)} femurs of {len({case for case, _ in femurs})} cases"
    counts += f"; surface distances averaged over {distance_weighting(femurs)}"
    text = "\n".join([command_line(__file__), counts, "", *format_table(methods)]) + "\n"
    output_table(text, FLAGS.output)
    return 0


if __name__ == "__main__":
    _define_flags()
    cli.run(main)
