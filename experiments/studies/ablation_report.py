"""The report of an ablation: the paper's tables with our rows, paired differences with their uncertainty, and curves.

The unit of every comparison is the case (a patient's scan): both femurs of a patient, and the seeds of an arm, are
averaged before anything is tested, since they are not independent.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from scipy import stats

import femur3d
from experiments.studies.evaluated_run import Femurs, Run, distance_weighting
from experiments.studies.paper_tables import read_published, table_1, table_2
from femur3d.errors import InputError
from femur3d.io.atomic import replacing

COMPARISONS = (("transfer", "scratch"), ("scratch", "no_deep_supervision"))
COMPARED = ("dice", "mean_mm")
RESAMPLES = 9_999
CURVE_ROWS = 140
COLOURS = {
    "transfer": "#0072b2",
    "scratch": "#d55e00",
    "no_deep_supervision": "#009e73",
}  # colour-blind eyes can distinguish them
CURVES = {"ce_upper": "cross-entropy of UpperCls, training patches", "validation_dice": "Dice, validation volumes"}


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Arm a minus arm b over the cases, in one metric.

    Attributes:
        differences: by case.
        mean: of them.
        low, high: 95% bootstrap interval of the mean (percentiles, cases resampled).
        p: two-sided Wilcoxon signed-rank test, exact for few cases; 1 where no case differs.
    """

    differences: dict[str, float]
    mean: float
    low: float
    high: float
    p: float


def write_reports(runs: Sequence[Run], folder: Path, head: Sequence[str], published: str | None = None) -> list[Path]:
    """Writes the tables, the metrics of every femur and the curves, prints Table 2, and returns the paths.

    Args:
        runs: all arms with all seeds.
        folder: to write to.
        head: first lines of the tables: the command, and what the data are; the last one is the figure's title too.
        published: JSON file with the paper's rows; None leaves them out, and the table says so.

    Raises:
        InputError: the runs do not belong together, or `published` cannot be read.
    """
    check_runs(runs)
    patients, arms = read_published(published)
    origin = [*head, *_origin(runs), ""]
    contents = {
        "table.txt": "\n".join([*origin, *table_2(runs, arms), "", *comparison_lines(runs)]) + "\n",
        "table_1.txt": "\n".join([*origin, *table_1(runs, patients)]) + "\n",
        "femurs.csv": femurs_csv(runs),
        "curves.csv": curves_csv(runs),
    }
    print(contents["table.txt"], end="")
    for name, content in contents.items():
        with replacing(folder / name) as temporary:
            temporary.write_text(content, encoding="utf-8")
    draw_curves(runs, folder / "curves.png", head[-1])
    return [folder / name for name in (*contents, "curves.png")]


def check_runs(runs: Sequence[Run]) -> None:
    """Raises InputError unless all runs have one setting and the same femurs, and all transferred one file."""
    for what, values in (
        ("settings", {run.setting for run in runs}),
        ("weighting of surface distances", {distance_weighting(run.femurs) for run in runs}),
        ("validation femurs", {tuple(sorted(run.femurs)) for run in runs}),
        ("encoder weights", {json.dumps(run.source, sort_keys=True) for run in runs if run.source}),
    ):
        if len(values) > 1:
            first, second, *_ = sorted(map(str, values))
            raise InputError(f"The runs differ in their {what}: {first[:500]} and {second[:500]}.\nChoose another -o.")


def _origin(runs: Sequence[Run]) -> list[str]:
    sources = {run.label: run.source for run in runs if run.source}
    origin = [f"{label}: {s['source_file']}, SHA-256 {s['source_sha256']}" for label, s in sources.items()]
    return [f"femur3d {femur3d.__version__}; {runs[0].setting}", *origin]


def by_case(runs: Sequence[Run], arm: str, metric: str) -> dict[str, float]:
    """Mean of a metric over the femurs and seeds of each case, in one arm."""
    return mean_by_case([run.femurs for run in runs if run.arm == arm], metric)


def mean_by_case(seeds: Sequence[Femurs], metric: str) -> dict[str, float]:
    """Mean of a metric over the femurs of each case, in all seeds."""
    values: dict[str, list[float]] = {}
    for femurs in seeds:
        for (case, _), femur in femurs.items():
            values.setdefault(case, []).append(femur[metric])
    return {case: float(np.mean(v)) for case, v in sorted(values.items())}


def compare(a: Mapping[str, float], b: Mapping[str, float]) -> Comparison | None:
    """Paired comparison of two arms by case; None where a distance is infinite: then there is nothing to average."""
    differences = {case: a[case] - b[case] for case in a}
    d = np.array(list(differences.values()))
    if not np.isfinite(d).all():
        return None
    low = high = float(d.mean())
    if len(d) > 1:
        interval = stats.bootstrap((d,), np.mean, n_resamples=RESAMPLES, method="percentile", rng=0).confidence_interval
        low, high = float(interval.low), float(interval.high)
    p = float(stats.wilcoxon(d).pvalue) if d.any() else 1.0
    return Comparison(differences, float(d.mean()), low, high, p)


def comparison(name: str, a: Mapping[str, float], b: Mapping[str, float]) -> list[str]:
    """`compare` in numbers, and a second line with every case."""
    found = compare(a, b)
    if found is None:
        return [name + "not finite, a femur was missed"]
    each = ", ".join(f"{case} {d:+.4f}" for case, d in found.differences.items())
    p = f"p = {found.p:.3f}" if found.p >= 0.0005 else "p < 0.001"
    return [f"{name}{found.mean:+.4f} [{found.low:+.4f}, {found.high:+.4f}], {p}", f"{'':11}{each}"]


def comparison_lines(runs: Sequence[Run]) -> list[str]:
    """Every comparison of COMPARISONS in every metric of COMPARED, in words and numbers; nothing of a single arm."""
    labels, arms = {run.arm: run.label for run in runs}, {run.arm for run in runs}
    heading = "Paired differences by case (femurs and seeds averaged first), 95% bootstrap interval, Wilcoxon two-sided"
    lines, count = list[str](), 0
    for a, b in COMPARISONS:
        for metric in COMPARED if {a, b} <= arms else ():
            first, second = by_case(runs, a, metric), by_case(runs, b, metric)
            count = len(first)
            lines += comparison(f"  {metric:8} {labels[a]} - {labels[b]}: ", first, second)
    if not lines:
        return []
    smallest = f"  The smallest p that this test can give, with cases: {count}, is {2 / 2**count:.3g}."
    return [heading, *lines, smallest]


def femurs_csv(runs: Sequence[Run]) -> str:
    """Every metric of every femur of every run, as CSV."""
    out = io.StringIO()
    metrics = list(next(iter(runs[0].femurs.values())))
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["arm", "seed", "case", "label", *metrics])
    for run in runs:
        for (case, label), femur in run.femurs.items():
            writer.writerow([run.label, run.seed, case, label, *(f"{femur[m]:.6g}" for m in metrics)])
    return out.getvalue()


def curves_csv(runs: Sequence[Run], rows: int = CURVE_ROWS) -> str:
    """The metrics.csv of all runs in one, thinned: the means over at most about `rows` stretches of equal length.

    A row stands at the last step of its stretch; columns that are empty there (validation, mostly) are empty.
    """
    columns = list(dict.fromkeys(column for run in runs for row in run.curve.values() for column in row))
    out = io.StringIO()
    writer = csv.DictWriter(out, ["arm", "seed", "step", *columns], lineterminator="\n")
    writer.writeheader()
    for run in runs:
        stretch = max(1, math.ceil(max(run.curve) / rows))
        for end in range(stretch, max(run.curve) + stretch, stretch):
            own = [row for step, row in run.curve.items() if end - stretch < step <= end]
            values = {column: [row[column] for row in own if column in row] for column in columns}
            means = {column: f"{np.mean(found):.6g}" for column, found in values.items() if found}
            if means:
                writer.writerow({"arm": run.label, "seed": run.seed, "step": min(end, max(run.curve)), **means})
    return out.getvalue()


def draw_curves(runs: Sequence[Run], path: Path, data: str = "") -> None:
    """The arms' curves against updates: a thin line a seed, a thick one for their mean; `data` says on what."""
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    for axes, (column, title) in zip(figure.subplots(1, 2), CURVES.items(), strict=True):
        for arm in dict.fromkeys(run.arm for run in runs):
            own = [run for run in runs if run.arm == arm]
            curves = [{s: row[column] for s, row in run.curve.items() if column in row} for run in own]
            steps = sorted(set.intersection(*(set(curve) for curve in curves)))
            for curve in curves:
                axes.plot(list(curve), list(curve.values()), color=COLOURS[arm], linewidth=0.7, alpha=0.5)
            mean = [np.mean([curve[s] for curve in curves]) for s in steps]
            axes.plot(steps, mean, color=COLOURS[arm], linewidth=2, label=f"{own[0].label}, mean of {len(own)}")
        axes.set_xlabel("updates")
        axes.set_title(title, fontsize=10)
        axes.grid(alpha=0.3)
    figure.axes[0].set_yscale("log")
    figure.axes[1].legend(loc="lower right", fontsize=9)
    figure.suptitle(f"{data}\n{runs[0].setting.split(';')[0]}".strip(), fontsize=9, parse_math=False)
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=110)
