"""Cross-validation grouped by patient, and the model of all patients: how good is a recipe on scans it has not seen?

    python -m experiments.studies.cross_validate --dataset DIR --experiment experiments/hip_t1.py -o runs/cv
        [--folds 3] [--fold 0] [--femur_labels NAME,NAME] [--set ...]

Every patient is segmented once, by a network that was trained on the patients of the other folds; the results of all
are evaluated together (`evaluation/`: the paper's Table 1, a row a femur). Fold 0 holds out the validation cases of the
dataset's own split, where it has one. Then the same recipe is trained on all patients: `all/model` is what can be
shipped, and the evaluation its estimate, from networks that saw fewer patients.

Stop it whenever you like: the same command goes on where it was.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from absl import flags

from experiments.studies.training_runs import call, is_trained
from femur3d import cli
from femur3d.cli import load_experiment
from femur3d.data.nnunet_dataset import Split, find_cases, read_split
from femur3d.errors import UsageError
from femur3d.io.atomic import replacing
from femur3d.io.settings import with_settings

FLAGS = flags.FLAGS


def make_folds(cases: Sequence[str], first: Sequence[str], count: int) -> list[Split]:
    """Splits in each of which other cases are held out, every case once.

    Args:
        cases: names of all, one a patient.
        first: held out in fold 0; empty: fold 0 is like the others.
        count: of folds; the cases that are not in `first` are dealt out to the others in turn.

    Raises:
        UsageError: more folds than cases.
    """
    rest = [case for case in cases if case not in first]
    others = count - 1 if first else count
    if not 1 <= others <= len(rest):
        raise UsageError(f"--folds: expected 2 to {len(rest) + bool(first)} for {len(cases)} cases. Received: {count}")
    held_out = ([list(first)] if first else []) + [rest[i::others] for i in range(others)]
    return [Split([case for case in cases if case not in out], out) for out in held_out]


def link_dataset(dataset: Path, folder: Path, split: Split) -> Path:
    """A dataset folder with the files of `dataset` and a split of its own. Returns it."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("imagesTr", "labelsTr", "dataset.json"):
        if not (folder / name).is_symlink():
            os.symlink((dataset / name).resolve(), folder / name)
    text = json.dumps([{"train": split.train, "val": split.val}])
    path = folder / "splits_final.json"
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        with replacing(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return folder


def check_cases(run: Path, split: Split) -> None:
    """Raises UsageError where a finished run was trained on other cases than the split's: it may know who is tested."""
    seen = json.loads((run / "model" / "config.json").read_text(encoding="utf-8"))["provenance"]["training_cases"]
    if sorted(seen) != sorted(split.train):
        raise UsageError(
            f"{run}: trained on {', '.join(sorted(seen))}, now on {', '.join(sorted(split.train))}.\n"
            "Expected the cases, --folds and --fold that this cross-validation was begun with; choose another -o."
        )


def _define_flags() -> None:
    """Not at import: tests use the functions above."""
    flags.DEFINE_string("dataset", None, "folder in nnU-Net's layout, one case a patient", required=True)
    flags.DEFINE_string("output", None, "folder of the results; an existing one goes on", short_name="o", required=True)
    flags.DEFINE_string("experiment", None, "experiment file", required=True)
    flags.DEFINE_integer("folds", 3, "trainings that hold patients out", lower_bound=2)
    flags.DEFINE_integer("fold", 0, "entry of splits_final.json that fold 0 holds out", lower_bound=0)
    flags.DEFINE_list("femur_labels", [], "labels of dataset.json that are femurs; all others count as background")
    flags.DEFINE_multi_string("set", [], "section.field=value: change one field in all trainings; repeatable")
    flags.DEFINE_bool("all", True, "train on all patients too, at the end")


def main(argv: Sequence[str]) -> int:
    """Trains and segments fold after fold, evaluates, and trains on all cases."""
    cli.no_arguments(argv)
    output, dataset = Path(FLAGS.output), Path(FLAGS.dataset)
    cases = {case.name: case for case in find_cases(dataset)}
    experiment = with_settings(load_experiment(FLAGS.experiment), FLAGS.set)

    def train(name: str, split: Split) -> Path:
        """The model of a split."""
        run = output / name
        if is_trained(run, experiment):
            check_cases(run, split)
        else:
            linked = link_dataset(dataset, output / "datasets" / f"{dataset.name}_{name}", split)
            settings = [word for setting in FLAGS.set for word in ("--set", setting)]
            settings += ["--femur_labels", ",".join(FLAGS.femur_labels)] if FLAGS.femur_labels else []
            _call("femur3d.train", "--experiment", FLAGS.experiment, "--dataset", linked, "--run", run, *settings)
        return run / "model"

    for number, split in enumerate(make_folds(list(cases), read_split(dataset, FLAGS.fold).val, FLAGS.folds)):
        model, scans = train(f"fold{number}", split), [cases[name].image for name in split.val]
        _call(
            "femur3d.infer",
            "-o",
            output / "segmented",
            "--model",
            model,
            "--labels",
            "sides",
            "--continue",
            "-i",
            *scans,
        )
    references = dataset / "labelsTr"
    _call(
        "femur3d.evaluate",
        "--predictions",
        output / "segmented",
        "--references",
        references,
        "-o",
        output / "evaluation",
    )
    if FLAGS.all:
        print(f"Model of all {len(cases)} cases: {train('all', Split(list(cases), []))}")
    return 0


def _call(module: str, *words: object) -> None:
    call([sys.executable, "-m", module, *map(str, words)])


if __name__ == "__main__":
    _define_flags()
    cli.run(main)
