"""The report of an ablation: the paper's Table 2 with our rows, paired differences with their uncertainty, and curves.

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
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from scipy import stats

import femur3d
from experiments.studies.training_runs import read_run
from femur3d.config import Experiment
from femur3d.errors import InputError
from femur3d.evaluation.tables import COLUMNS
from femur3d.io.atomic import replacing

TABLE_METRICS = {name: heading for name, heading in COLUMNS.items() if name != "hd95_mm"}  # the paper has no HD95
COMPARISONS = (("transfer", "scratch"), ("scratch", "no_deep_supervision"))
COMPARED = ("dice", "mean_mm")
PUBLISHED = "experiments/published.json"  # the paper's Tables 1 and 2
Femurs = dict[
    tuple[str, str], dict[str, float]
]  # (case, label) → metric → value; distances are inf where one is missed
RESAMPLES = 9_999
COLOURS = {
    "transfer": "#0072b2",
    "scratch": "#d55e00",
    "no_deep_supervision": "#009e73",
}  # colour-blind eyes can distinguish them
CURVES = {"ce_upper": "cross-entropy of UpperCls, training patches", "validation_dice": "Dice, validation volumes"}


@dataclasses.dataclass(frozen=True)
class Run:
    """One finished training and its evaluation.

    Attributes:
        arm, seed: which.
        label: the arm's name in tables and plots; says where transferred weights come from.
        femurs: metrics of every femur.
        curve: step → column of the run's metrics.csv → value; empty cells are left out.
        setting: dataset, steps and network in words.
        source: provenance of the encoder's weights; {} from scratch.
    """

    arm: str
    seed: int
    label: str
    femurs: Femurs
    curve: dict[int, dict[str, float]]
    setting: str
    source: dict[str, str]


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


def load_run(arm: str, seed: int, folder: Path) -> Run:
    """Reads a run directory that has been evaluated. Raises InputError where a file is missing or damaged."""
    try:
        experiment, notes = read_run(folder)
        model = json.loads((folder / "model" / "config.json").read_text(encoding="utf-8"))
        femurs = read_femurs(folder / "evaluation/metrics.csv")
        curve = {int(row.pop("step")): _numbers(row) for row in _rows(folder / "metrics.csv")}
        source = dict(notes["encoder_source"])
        label = f"{arm} ({source['source_kind']})" if source else arm.replace("_", " ")
        setting = _setting(experiment, model["provenance"])
    except (InputError, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{folder}: cannot be read as a finished run ({error!r}).\nRemove it and run again."
        ) from error
    return Run(arm, seed, label, femurs, curve, setting, source)


def _setting(experiment: Experiment, provenance: Mapping[str, Any]) -> str:
    """Dataset, steps and network in words."""
    preprocessing, training, network = experiment.preprocessing, experiment.training, experiment.network
    return (
        f"{provenance['dataset']}: {len(provenance['training_cases'])} cases to train on, {training.steps:,} updates "
        f"of {training.batch_size} patches of {preprocessing.patch_size} voxels of {preprocessing.spacing_mm} mm; "
        f"filters {network.encoder_filters} and {network.decoder_filters}; experiment {experiment.name!r}"
    )


def read_femurs(path: Path) -> Femurs:
    """The metrics.csv that `femur3d.evaluate` writes, without femurs that are neither in reference nor prediction.

    Raises:
        OSError, ValueError, KeyError, TypeError: it cannot be read, or is another file.
    """
    femurs = {(row.pop("case"), row.pop("label")): _numbers(row) for row in _rows(path)}
    return {key: femur for key, femur in femurs.items() if "dice" in femur}


def distance_weighting(femurs: Femurs) -> str:
    """What surface distances are averaged over: 'area', or 'vertices' in what femur3d 0.1 measured."""
    return "area" if all("vertex_mean_mm" in femur for femur in femurs.values()) else "vertices"


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _numbers(row: Mapping[str, str]) -> dict[str, float]:
    return {name: float(text) for name, text in row.items() if text}


def write_reports(runs: Sequence[Run], folder: Path, head: Sequence[str], published: str | None = None) -> list[Path]:
    """Writes table.txt, femurs.csv and curves.png, prints the table, and returns the paths.

    Args:
        runs: all arms with all seeds.
        folder: to write to.
        head: first lines of the table: the command, and what the data are; the last one is the figure's title too.
        published: JSON file with the paper's rows; None leaves them out, and the table says so.

    Raises:
        InputError: the runs do not belong together, or `published` cannot be read.
    """
    check_runs(runs)
    text = "\n".join([*head, *_origin(runs), "", *table(runs, read_published(published)), "", *comparison_lines(runs)])
    print(text)
    paths = [folder / name for name in ("table.txt", "femurs.csv", "curves.png")]
    for path, content in zip(paths, (text + "\n", femurs_csv(runs)), strict=False):
        with replacing(path) as temporary:
            temporary.write_text(content, encoding="utf-8")
    draw_curves(runs, paths[2], head[-1])
    return paths


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


def read_published(path: str | None) -> dict[str, dict[str, float]]:
    """The paper's rows by arm: metric → value, with names as in COLUMNS.

    Args:
        path: a JSON file with the rows, or with the rows as its "table_2", as PUBLISHED has them; empty: none.

    Raises:
        InputError: the file cannot be read, or a row has no metric of COLUMNS.
    """
    if not path:
        return {}
    try:
        stored = json.loads(Path(path).read_text(encoding="utf-8"))
        rows = stored.get("table_2", stored)
        found = {str(arm): {m: float(row[m]) for m in TABLE_METRICS if m in row} for arm, row in rows.items()}
        if not all(found.values()):
            raise ValueError(f"a row without any of {', '.join(TABLE_METRICS)}")
        return found
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise InputError(
            f'{path}: cannot be read ({error}).\nExpected {{"transfer": {{"mean_mm": …, "dice": …}}, "scratch": …}}.'
        ) from error


def _origin(runs: Sequence[Run]) -> list[str]:
    sources = {run.label: run.source for run in runs if run.source}
    origin = [f"{label}: {s['source_file']}, SHA-256 {s['source_sha256']}" for label, s in sources.items()]
    return [f"femur3d {femur3d.__version__}; {runs[0].setting}", *origin]


def table(runs: Sequence[Run], published: Mapping[str, Mapping[str, float]]) -> list[str]:
    """Table 2: the published rows, then each of ours (the average over all femurs) and the mean of each arm."""
    width = max([len(run.label) + 8 for run in runs] + [len(arm) + 11 for arm in published]) + 2
    lines = [f"{'':{width}}" + "".join(f"{heading:>11}" for heading, _ in TABLE_METRICS.values()) + "  failures"]
    for arm, row in published.items():
        lines.append(_table_line(f"{arm}, published", row, width, None))
    if not published:
        lines.append("published rows (Zeng et al., Table 2): left out; --published FILE adds them")
    lines.append("-" * len(lines[0]))
    for arm in dict.fromkeys(run.arm for run in runs):
        own = [run for run in runs if run.arm == arm]
        means = [{m: float(np.mean([f[m] for f in run.femurs.values()])) for m in TABLE_METRICS} for run in own]
        failures = [sum(math.isinf(f["mean_mm"]) for f in run.femurs.values()) for run in own]
        for run, mean, failed in zip(own, means, failures, strict=True):
            lines.append(_table_line(f"{run.label}, seed {run.seed}", mean, width, failed))
        overall = {m: float(np.mean([mean[m] for mean in means])) for m in TABLE_METRICS}
        lines += [_table_line(f"{own[0].label}, mean", overall, width, sum(failures)), "-" * len(lines[0])]
    return lines


def _table_line(name: str, row: Mapping[str, float], width: int, failures: int | None) -> str:
    cells = (f"{row[m]:11.{decimals}f}" if m in row else f"{'':>11}" for m, (_, decimals) in TABLE_METRICS.items())
    return f"{name:{width}}{''.join(cells)}{'' if failures is None else f'{failures:10}'}"


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
    """Every comparison of COMPARISONS in every metric of COMPARED, in words and numbers."""
    labels, arms = {run.arm: run.label for run in runs}, {run.arm for run in runs}
    lines = ["Paired differences by case (femurs and seeds averaged first), 95% bootstrap interval, Wilcoxon two-sided"]
    count = 0
    for a, b in COMPARISONS:
        for metric in COMPARED if {a, b} <= arms else ():
            first, second = by_case(runs, a, metric), by_case(runs, b, metric)
            count = len(first)
            lines += comparison(f"  {metric:8} {labels[a]} - {labels[b]}: ", first, second)
    if count:
        lines.append(f"  The smallest p that this test can give, with cases: {count}, is {2 / 2**count:.3g}.")
    return lines


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


def draw_curves(runs: Sequence[Run], path: Path, data: str = "") -> None:
    """The arms' curves against updates: a thin line a seed, a thick one for their mean; `data` says on what."""
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
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
