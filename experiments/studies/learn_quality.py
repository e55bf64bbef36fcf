"""Learns the limits of the quality flags, and shows whether the flagged segmentations are the bad ones.

    python -m experiments.studies.learn_quality --dataset DIR --cv runs/cv -o table.txt
        [--quality MODEL_DIR] [--rounds 1]

Takes a finished `cross_validate.py`. Every patient is segmented by the network that has not seen him, the scan as
it is and corrupted in the ways of `corruption.py`. A result is bad where a femur's Dice is below 0.85, or where a
femur is found in a scan without one. Limits come from the good results of scans whose field of view and orientation are
right; what the table says of a patient comes from limits learnt on the other folds. --quality writes `quality.json`,
learnt on all, beside a model.

Stop it whenever you like: the same command goes on where it was (CV/quality.jsonl). It takes 8 segmentations a patient
and round; each round has other strengths.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags
from tqdm import tqdm

from experiments.studies.corruption import corrupt, top_box
from experiments.studies.table_output import command_line, output_table
from femur3d import cli
from femur3d.data.nnunet_dataset import CasePaths, find_cases
from femur3d.errors import InputError, UsageError
from femur3d.evaluation.cases import split_femurs
from femur3d.evaluation.overlap import count_overlap, dice
from femur3d.inference.postprocessing import keep_femurs
from femur3d.inference.quality_limits import KINDS, Limit, learn_limits, suspicion, suspicion_of, write_limits
from femur3d.inference.quality_limits import flags as quality_flags
from femur3d.io.images import read_volume
from femur3d.volume import Volume

with cli.quiet_imports():
    from femur3d.engines.backend import ENGINE
    from femur3d.inference.saved_model import load_model, read_config
    from femur3d.inference.segmenter import Segmenter

FLAGS = flags.FLAGS
BAD_DICE = 0.85
AS_IT_IS = "as it is"

# From hardly visible to hopeless; see `corrupt` for the units. A round takes one of each kind for each patient.
STRENGTHS = {
    "noise": (0.05, 0.1, 0.15, 0.25),
    "motion": (2.0, 4.0, 6.0, 10.0),
    "bias": (0.5, 1.0, 1.5, 2.5),
    "blur": (1.0, 1.5, 2.0, 3.0),
    "cropped head": (20.0, 30.0, 45.0, 60.0),  # mm below the top of the higher femur
}
ONCE = ("wrong body part", "upside down")
CORRUPT_LABELS_TOO = ONCE
NOT_LEARNT_FROM = ("cropped head", *ONCE)  # wrong even where the Dice is high
ABOVE_MM = 20.0  # the wrong part of the body ends this far above the femurs


@dataclasses.dataclass(frozen=True)
class Result:
    """One segmentation that has been looked at.

    Attributes:
        weights: SHA-256 of the network's.
        fold: that the patient was held out in.
        case: the patient.
        kind, strength: of the corruption.
        dice: the worse femur's; None where there is no femur to find and none was found.
        measures: of `femur3d.inference.quality`.
    """

    weights: str
    fold: str
    case: str
    kind: str
    strength: float
    dice: float | None
    measures: dict[str, float]

    @property
    def key(self) -> tuple[str, str, str, float]:
        """What makes it another result."""
        return self.weights, self.case, self.kind, self.strength

    @property
    def is_bad(self) -> bool:
        """Whether a flag should be up."""
        return self.dice is not None and self.dice < BAD_DICE


def plan(patient: int, rounds: int) -> Iterator[tuple[str, float]]:
    """Kind and strength of every corruption of a patient's scan; the strengths change from patient to patient."""
    yield AS_IT_IS, 0.0
    yield from ((kind, 0.0) for kind in ONCE)
    for number, (kind, strengths) in enumerate(STRENGTHS.items()):
        chosen = {strengths[(patient + number + turn) % len(strengths)] for turn in range(rounds)}
        yield from ((kind, strength) for strength in sorted(chosen))


def examine(segmenter: Segmenter, scan: Volume, reference: Volume, kind: str, strength: float, seed: int) -> Any:
    """Dice (see `Result`) and measures of a corrupted scan.

    Args:
        segmenter: that has not seen the patient.
        scan: as it is.
        reference: its label map.
        kind, strength: of `plan`.
        seed: of the corruption.

    Raises:
        InputError: the field of view ends so near the femurs that this corruption leaves nothing to segment.
    """
    top_mm = _above_femurs_mm(reference)
    amount = {"cropped head": top_mm + strength, "wrong body part": top_mm - ABOVE_MM}.get(kind, strength)
    try:
        corrupted = scan if kind == AS_IT_IS else corrupt(scan, kind, amount, seed)
    except ValueError as error:
        raise InputError(str(error)) from error
    result = segmenter(corrupted, "sides")
    prediction = result.labels
    if kind in CORRUPT_LABELS_TOO:
        reference = corrupt(reference, kind, amount, seed)
    if kind == "cropped head":  # what is not in the field of view counts as missed
        prediction = reference.with_array(np.zeros_like(result.labels.array, shape=reference.array.shape))
        prediction.array[top_box(scan, amount, keep=False)] = result.labels.array
    return smallest_dice(reference, prediction), {name: flag.value for name, flag in result.quality.items()}


def without_specks(reference: Volume) -> Volume:
    """A label map with its femurs alone: a speck elsewhere would make a femur of another part of the body."""
    femurs = keep_femurs(reference.with_array(reference.array > 0))
    return reference.with_array(reference.array * np.any(femurs, axis=0).astype(reference.array.dtype))


def _above_femurs_mm(reference: Volume) -> float:
    """How much of the field of view lies above the higher femur."""
    corners = reference.world_mm(np.array(np.meshgrid(*([0, n - 1] for n in reference.array.shape))).reshape(3, -1).T)
    return float(corners[:, 2].max() - reference.world_mm(np.argwhere(reference.array))[:, 2].max())


def smallest_dice(reference: Volume, prediction: Volume) -> float | None:
    """Dice of the femur that came out worse, sides aside; without a reference 0 for any finding, else None."""
    labels = [int(value) for value in np.unique(reference.array) if value]
    if not labels:
        return 0.0 if prediction.array.any() else None
    split = split_femurs(reference, prediction)
    return min(dice(count_overlap(reference.array, split.array, label)) for label in labels)


def roc_area(good: Sequence[float], bad: Sequence[float]) -> float:
    """The probability that a bad one's score is above a good one's, ties half; NaN where there are none of a kind."""
    if not good or not bad:
        return float("nan")
    difference = np.subtract.outer(np.asarray(bad, float), np.asarray(good, float))
    return float((difference > 0).mean() + (difference == 0).mean() / 2)


def held_out_limits(results: Sequence[Result]) -> dict[str, dict[str, Limit]]:
    """For each fold the limits learnt on all other folds."""
    folds = sorted({r.fold for r in results})
    return {fold: learn_limits(r.measures for r in calibration_set(results) if r.fold != fold) for fold in folds}


def calibration_set(results: Sequence[Result]) -> list[Result]:
    """The results that limits are learnt on: good ones of scans whose field of view and orientation are right."""
    return [r for r in good_ones(results) if r.kind not in NOT_LEARNT_FROM]


def good_ones(results: Sequence[Result]) -> list[Result]:
    """The results with a femur to find that was found well."""
    return [r for r in results if r.dice is not None and not r.is_bad]


def level(result: Result, limits: dict[str, Limit]) -> str:
    """The worst level of all flags: 'green', 'yellow' or 'red'."""
    levels = [flag.level for flag in quality_flags(result.measures, limits).values()]
    return next((name for name in ("red", "yellow") if name in levels), "green")


def format_table(results: Sequence[Result], head: Sequence[str]) -> str:
    """ROC areas of every measure and of all together, flags against Dice, and every kind of corruption."""
    limits = held_out_limits(results)
    judged = [r for r in results if r.dice is not None]
    bad, good = [r for r in judged if r.is_bad], good_ones(results)
    lines = [
        *head,
        "",
        f"{len(results)} segmentations of {len({r.case for r in results})} patients, each by a network that has not "
        f"seen the patient: {len(good)} good, {len(bad)} bad",
        f"(Dice of a femur < {BAD_DICE}, or a femur found in a scan without one); in {len(results) - len(judged)} "
        "there was none and none was found.",
        f"Limits for each fold were learnt on the other folds, on good results without {', '.join(NOT_LEARNT_FROM)}.",
        "",
        f"{'Measure':<24}{'ROC area':>10}{'Median':>10}{'Yellow':>10}{'Red':>10}   (limits learnt on all)",
        *_measure_lines(good, bad, limits, learn_limits(r.measures for r in calibration_set(results))),
        f"{'all together':<24}{_combined_area(good, bad, limits):>10.3f}",
        "",
        f"{'Worst flag':<24}{'Good':>10}{'Bad':>10}",
    ]
    for name in ("green", "yellow", "red"):
        counts = [sum(level(r, limits[r.fold]) == name for r in group) for group in (good, bad)]
        lines.append(f"{name:<24}{counts[0]:>10}{counts[1]:>10}")
    lines += ["", f"{'Scan':<28}{'Scans':>7}{'Mean Dice':>11}{'Bad':>6}{'Yellow':>8}{'Red':>6}"]
    return "\n".join([*lines, *_kind_lines(results, limits)]) + "\n"


def _measure_lines(
    good: Sequence[Result], bad: Sequence[Result], limits: dict[str, dict[str, Limit]], final: dict[str, Limit]
) -> Iterator[str]:
    for name in KINDS:
        groups = [[r for r in group if name in r.measures and name in limits[r.fold]] for group in (good, bad)]
        scores = [[suspicion_of(name, r.measures[name], limits[r.fold][name]) for r in group] for group in groups]
        if name in final:
            limit = final[name]
            yield f"{name:<24}{roc_area(*scores):>10.3f}{limit.median:>10.4g}{limit.yellow:>10.4g}{limit.red:>10.4g}"


def _combined_area(good: Sequence[Result], bad: Sequence[Result], limits: dict[str, dict[str, Limit]]) -> float:
    scores = [[suspicion(r.measures, limits[r.fold]) for r in group] for group in (good, bad)]
    return roc_area(*scores)


def _kind_lines(results: Sequence[Result], limits: dict[str, dict[str, Limit]]) -> Iterator[str]:
    order = [AS_IT_IS, *STRENGTHS, *ONCE]
    groups: dict[tuple[int, float], list[Result]] = {}
    for result in results:
        groups.setdefault((order.index(result.kind), result.strength), []).append(result)
    for (number, strength), group in sorted(groups.items()):
        found = [r.dice for r in group if r.dice is not None]
        levels = [level(r, limits[r.fold]) for r in group]
        name = order[number] + (f" {strength:g}" if strength else "")
        mean = f"{np.mean(found):.3f}" if found else "-"
        bad = sum(r.is_bad for r in group)
        yield f"{name:<28}{len(group):>7}{mean:>11}{bad:>6}{levels.count('yellow'):>8}{levels.count('red'):>6}"


def read_results(path: Path) -> dict[tuple, Result]:
    """What was done before, by its key; a line that was cut off is passed over, and measures that are no more."""
    results = {}
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            result = Result(**json.loads(line))
            known = {name: value for name, value in result.measures.items() if name in KINDS}
        except (ValueError, TypeError, AttributeError):
            continue
        results[result.key] = dataclasses.replace(result, measures=known)
    return results


def held_out(cases: Sequence[CasePaths], folder: Path) -> list[CasePaths]:
    """The cases of a dataset that a model has not seen. Raises UsageError where it does not say, or has seen all."""
    seen = read_config(folder)["provenance"].get("training_cases", [])
    unseen = [case for case in cases if case.name not in seen]
    if not seen or not unseen:
        raise UsageError(f"{folder}: trained on {len(seen)} known cases, {len(unseen)} of the dataset held out.")
    return unseen


def run_folds(folders: Sequence[Path], cases: Sequence[CasePaths], cache: Path, rounds: int) -> list[Result]:
    """Everything of the plan, from the cache where it is there."""
    done, results = read_results(cache), []
    numbers = {case.name: number for number, case in enumerate(cases)}
    todo = {folder: held_out(cases, folder) for folder in folders}
    total = sum(len(list(plan(numbers[c.name], rounds))) for some in todo.values() for c in some)
    with tqdm(total=total, unit="segmentation", disable=None) as bar, cache.open("a", encoding="utf-8") as lines:
        for folder, some in todo.items():
            model = load_model(folder)
            segmenter = Segmenter(dataclasses.replace(model, quality={}), ENGINE)
            for case in some:
                scan, reference = read_volume(case.image), without_specks(read_volume(case.label))
                for kind, strength in plan(numbers[case.name], rounds):
                    key = (model.weights_sha256, case.name, kind, strength)
                    bar.update()
                    if key not in done:
                        try:
                            found = examine(segmenter, scan, reference, kind, strength, numbers[case.name])
                        except InputError as error:
                            tqdm.write(f"{case.name}, {kind}: left out. {str(error).splitlines()[0]}")
                            continue
                        done[key] = Result(model.weights_sha256, folder.parent.name, *key[1:], *found)
                        lines.write(json.dumps(dataclasses.asdict(done[key])) + "\n")
                        lines.flush()
                    results.append(done[key])
    return results


def _define_flags() -> None:
    """Not at import: tests use the functions above."""
    flags.DEFINE_string("dataset", None, "folder in nnU-Net's layout that was cross-validated", required=True)
    flags.DEFINE_string("cv", None, "folder of the cross-validation: foldK/model", required=True)
    flags.DEFINE_string("output", None, "write the table to this file too", short_name="o")
    flags.DEFINE_string("quality", None, "write quality.json into this folder of a model of the same recipe")
    flags.DEFINE_integer("rounds", 1, "strengths of each corruption a patient", 1, 4)


def main(argv: Sequence[str]) -> int:
    """Segments what is left to do, prints the table, and writes the limits."""
    cli.no_arguments(argv)
    ENGINE.make_repeatable(training=False)
    cv = Path(FLAGS.cv)
    folders = sorted(path.parent for path in cv.glob("fold*/model/config.json"))
    if len(folders) < 2:
        raise UsageError(
            f"{cv}: {len(folders)} fold*/model.\nExpected a finished experiments/studies/cross_validate.py."
        )
    results = run_folds(folders, find_cases(Path(FLAGS.dataset)), cv / "quality.jsonl", FLAGS.rounds)
    good = calibration_set(results)
    learnt_in = {r.fold for r in good}
    if len(learnt_in) < 2:
        raise UsageError(
            f"{cv}: {len(good)} good segmentations in {len({r.fold for r in results})} folds.\n"
            "Expected good ones in two folds at least: train longer."
        )
    table = format_table(results, [command_line(__file__)])
    output_table(table, FLAGS.output)
    if FLAGS.quality:
        learnt_on = f"{len(good)} good segmentations of {len({r.case for r in good})} held-out patients of {cv.name}"
        write_limits(Path(FLAGS.quality), learn_limits(r.measures for r in good), learnt_on)
    return 0


if __name__ == "__main__":
    _define_flags()
    cli.run(main)
