"""Does the fast mode find the femurs of the exact mode, and raise the same flags? On scans as they are and corrupted.

    python -m experiments.studies.compare_modes -i SCAN [SCAN ...] [--model DIR] [-o table.txt]

Every scan is segmented in both modes, as it is and with every corruption of `corruption.py` that needs no reference;
the strengths change from scan to scan, as in `learn_quality.py`. Needs no labels: it measures whether the modes agree,
not whether they are right.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from absl import flags
from tqdm import tqdm

from experiments.studies.corruption import corrupt
from experiments.studies.learn_quality import AS_IT_IS, plan
from experiments.studies.table_output import command_line, define_scan_flags, output_table
from femur3d import cli
from femur3d.evaluation.overlap import count_overlap, dice
from femur3d.io.images import read_volume
from femur3d.volume import Volume

with cli.quiet_imports():
    from femur3d.engines.selection import inference_engine
    from femur3d.inference.mode import EXACT, FAST
    from femur3d.inference.saved_model import load_model
    from femur3d.inference.segmenter import Segmentation, Segmenter

FLAGS = flags.FLAGS
NEED_A_REFERENCE = ("cropped head", "wrong body part")


@dataclasses.dataclass(frozen=True)
class Agreement:
    """Both modes on one scan.

    Attributes:
        dice: of the two label maps' femurs, both sides together; 1 where neither found any.
        levels: the worst flag's level, exact and fast.
        seconds: of the network, exact and fast.
    """

    dice: float
    levels: tuple[str, str]
    seconds: tuple[float, float]


def changes(scan: Volume, number: int) -> Iterator[tuple[str, Volume]]:
    """The scan as it is and corrupted, by the kind of corruption; `number` chooses the strengths."""
    for kind, strength in plan(number, rounds=1):
        if kind not in NEED_A_REFERENCE:
            yield kind, scan if kind == AS_IT_IS else corrupt(scan, kind, strength)


def compare(exact: Segmentation, fast: Segmentation) -> Agreement:
    """How far two segmentations of one scan agree."""
    first, second = (result.labels.array > 0 for result in (exact, fast))
    score = dice(count_overlap(first, second)) if first.any() or second.any() else 1.0
    seconds = exact.seconds["network"], fast.seconds["network"]
    return Agreement(score, (worst_level(exact), worst_level(fast)), seconds)


def worst_level(result: Segmentation) -> str:
    """'red', 'yellow' or 'green'."""
    found = {flag.level for flag in result.quality.values()}
    return next((level for level in ("red", "yellow") if level in found), "green")


def format_table(found: dict[str, list[Agreement]], head: Sequence[str]) -> str:
    """A line a change: Dice of the modes, how many scans get the same level from both, the network's mean seconds."""
    columns = f"{'Scans':>7}{'Mean Dice':>12}{'Smallest':>12}{'Same level':>12}{'Exact':>10}{'Fast':>10}"
    lines = [*head, "", f"{'Change':<20}{columns}"]
    for kind, agreements in found.items():
        scores = [a.dice for a in agreements]
        same = sum(a.levels[0] == a.levels[1] for a in agreements)
        exact, fast = np.mean([a.seconds for a in agreements], axis=0)
        counts = f"{len(scores):>7}{np.mean(scores):>12.4f}{min(scores):>12.4f}{same:>12}"
        lines.append(f"{kind:<20}{counts}{exact:>8.2f} s{fast:>8.2f} s")
    return "\n".join(lines) + "\n"


def main(argv: Sequence[str]) -> int:
    """Compares scan after scan, and prints the table."""
    model = load_model(Path(FLAGS.model))
    exact, fast = (Segmenter(model, inference_engine(fast=mode is FAST), mode) for mode in (EXACT, FAST))
    found = dict[str, list[Agreement]]()
    with tqdm(unit="segmentation", disable=None) as bar:
        for number, path in enumerate([*FLAGS.input, *argv[1:]]):
            for kind, scan in changes(read_volume(Path(path)), number):
                found.setdefault(kind, []).append(compare(exact(scan), fast(scan)))
                bar.update(2)
    table = format_table(found, [command_line(__file__)])
    output_table(table, FLAGS.output)
    return 0


if __name__ == "__main__":
    define_scan_flags()
    cli.run(main)
