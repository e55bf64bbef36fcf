"""The paper's ablation (Table 2): every arm with every seed trained, segmented, evaluated, and compared.

    python -m experiments.studies.run_ablation --dataset DIR -o runs/ablation --weights data/c3d_encoder.h5 [--seeds 3]
        [--experiment experiments/scratch.py] [--arm scratch ...] [--set training.steps=500 ...] [--test data/one_hip]

Three arms that differ in one thing each and see the same patches in the same order:

    transfer              the encoder starts from --weights (C3D's, or a surrogate's: the tables say which)
    scratch               everything starts from N(0, 0.01)
    no_deep_supervision   scratch without deep supervision (α = 0, 0, 1): the 3D U-Net that the method extends

The same command resumes an ablation that was stopped; with further arms it adds them. At the end, the folder's report/
holds the paper's Tables 1 and 2 with our rows below the published ones, paired differences, the metrics of every femur
and the curves of convergence. (Section 3.3 of the paper describes both models of Table 2, section 2.1 deep
supervision.) With --test the validation scans of another dataset are segmented in the place of --dataset's, such as the
same scans cut to one hip each (`tools.one_hip`); its results lie beside the others, in report_one_hip/ for instance.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from absl import flags

from experiments.studies.ablation_report import write_reports
from experiments.studies.evaluated_run import Run, load_run
from experiments.studies.paper_tables import PUBLISHED, read_published
from experiments.studies.table_output import command_line
from experiments.studies.training_runs import call, is_trained
from femur3d import cli
from femur3d.cli import load_experiment
from femur3d.config import Experiment, Preprocessing
from femur3d.data.nnunet_dataset import find_cases, fingerprint, read_split
from femur3d.data.packed_dataset import PackedDataset
from femur3d.data.packing import pack_dataset
from femur3d.errors import InputError, UsageError
from femur3d.io.settings import from_dict, with_settings

with cli.quiet_imports():
    from femur3d.network.encoder_weights import check_encoder_weights

FLAGS = flags.FLAGS
ARMS = ("transfer", "scratch", "no_deep_supervision")
ONLY_UPPER_CLS = "(0.0, 0.0, 1.0)"  # head weights α
OLD_NAMES = {"no_deep_supervision": "plain"}  # of run folders before 2027


@dataclasses.dataclass(frozen=True)
class Job:
    """One training of the ablation.

    Attributes:
        arm: of ARMS.
        seed: of initialisation and patches.
        settings: what distinguishes it from the experiment file, as `--set` takes it.
        experiment: with the settings applied.
        folder: the run directory.
    """

    arm: str
    seed: int
    settings: tuple[str, ...]
    experiment: Experiment
    folder: Path


def jobs(
    experiment: Experiment,
    settings: Sequence[str],
    weights: str,
    seeds: int,
    output: Path,
    arms: Sequence[str] = ARMS,
) -> list[Job]:
    """All trainings, seed by seed, so that an ablation stopped early has whole comparisons."""
    differences = {
        "transfer": [f"encoder_weights={weights}"],
        "scratch": ["encoder_weights="],
        "no_deep_supervision": ["encoder_weights=", f"loss.head_weights={ONLY_UPPER_CLS}"],
    }
    made = []
    for seed in range(seeds):
        for arm in (arm for arm in ARMS if arm in arms):  # each once, in whatever order they were given
            own = (*settings, *differences[arm], f"training.seed={seed}")
            made.append(Job(arm, seed, own, with_settings(experiment, own), run_folder(output, arm, seed)))
    return made


def run_folder(output: Path, arm: str, seed: int) -> Path:
    """Where a training is; an ablation that was begun with the arm's old name keeps it."""
    old = output / f"{OLD_NAMES.get(arm, arm)}_seed{seed}"
    return old if old.is_dir() else output / f"{arm}_seed{seed}"


def packed_file(
    dataset: Path, output: Path, experiment: Experiment, fold: int = 0, femur_labels: Sequence[str] = ()
) -> Path:
    """The packed dataset of the ablation: made once, and again where a file of the dataset has another time.

    Raises:
        InputError: the ablation was begun with another preprocessing or with other voxels.
    """
    path, begun_with = output / "packed.h5", None
    if path.exists():
        with PackedDataset(path) as packed:
            begun_with = packed.content, packed.entries
            if from_dict(Preprocessing, packed.preprocessing, str(path)) != experiment.preprocessing:
                raise _begun_with_another(path)
            same_labels = not femur_labels or set(femur_labels) == set(packed.femur_labels)
            if packed.source == fingerprint(dataset) and packed.fold == fold and same_labels:
                return path
    print(f"Packing {dataset} into {path}", flush=True)
    made = path.with_name("packed_again.h5") if begun_with else path
    pack_dataset(dataset, made, experiment, lambda case: print(f"  {case}", flush=True), fold, femur_labels)
    if begun_with:
        with PackedDataset(made) as packed:
            same = (packed.content, packed.entries) == begun_with
        if not same:
            made.unlink()
            raise _begun_with_another(path)
        made.replace(path)
    return path


def _begun_with_another(path: Path) -> InputError:
    return InputError(
        f"{path}: packed from another dataset or with another preprocessing.\n"
        "Expected those that this ablation was begun with; choose another -o."
    )


def described(dataset: Path) -> str:
    """Name and description of a dataset as its dataset.json gives them: there it says whether it is synthetic."""
    stored = json.loads((dataset / "dataset.json").read_text(encoding="utf-8-sig"))
    words = [str(stored[name]) for name in ("name", "description") if stored.get(name)]
    return ": ".join(words) or dataset.name


def is_evaluated(job: Job, of: str = "") -> bool:
    """Whether the run's evaluation is there, is of its model, not of one before it, and weights distances by area."""
    metrics, model = job.folder / f"evaluation{of}" / "metrics.csv", job.folder / "model" / "config.json"
    if not metrics.exists() or metrics.stat().st_mtime_ns < model.stat().st_mtime_ns:
        return False
    with metrics.open(encoding="utf-8") as file:
        return "vertex_mean_mm" in file.readline()


def commands(
    job: Job, experiment_file: str, packed: Path, tested: Path, fold: int = 0, of: str = ""
) -> list[list[str]]:
    """What is left to do for a job, as command lines: train, segment the validation scans, evaluate them.

    Args:
        job: one training.
        experiment_file: what all arms share.
        packed: the file to train on.
        tested: the dataset whose validation scans are segmented.
        fold: entry of its split.
        of: end of the names of the folders with their results.
    """
    folder, left = job.folder, list[list[object]]()
    if not is_trained(job.folder, job.experiment):
        settings = [word for setting in job.settings for word in ("--set", setting)]
        left.append(["femur3d.train", "--experiment", experiment_file, "--dataset", packed, "--run", folder, *settings])
    if left or not is_evaluated(job, of):
        wanted = set(read_split(tested, fold).val)
        scans = [case.image for case in find_cases(tested) if case.name in wanted]
        segmented = folder / f"segmented{of}"
        left.append(["femur3d.infer", "-o", segmented, "--model", folder / "model", "--continue", "-i", *scans])
        references = ["--references", tested / "labelsTr", "--split", "val", "--fold", fold]
        left.append(["femur3d.evaluate", "--predictions", segmented, *references, "-o", folder / f"evaluation{of}"])
    return [[sys.executable, "-m", *map(str, command)] for command in left]


def _check_unseen(trained: Sequence[str], tested: Sequence[str]) -> None:
    """Raises UsageError where a case that is tested, or one hip of it (CASE_LABEL), is trained on."""
    if seen := [t for t in tested if any(t == case or t.startswith(f"{case}_") for case in trained)]:
        raise UsageError(f"--test: {', '.join(seen)} would be trained on.\nExpected a dataset with the same folds.")


def _define_flags() -> None:
    """Not at import: tests use the functions above."""
    flags.DEFINE_string("dataset", None, "folder in nnU-Net's layout with a validation split", required=True)
    flags.DEFINE_string(
        "output", None, "folder of the ablation; an existing one goes on", short_name="o", required=True
    )
    flags.DEFINE_string("weights", "data/c3d_encoder.h5", "ported encoder weights of the transfer arm")
    flags.DEFINE_string("experiment", "experiments/scratch.py", "what all arms share")
    flags.DEFINE_multi_enum("arm", list(ARMS), ARMS, "train this arm; repeatable, all three by default")
    flags.DEFINE_integer("seeds", 3, "trainings of each arm", lower_bound=1)
    flags.DEFINE_integer("fold", 0, "entry of the dataset's splits_final.json, from 0", lower_bound=0)
    flags.DEFINE_list("femur_labels", [], "labels of dataset.json that are femurs; all others count as background")
    flags.DEFINE_multi_string("set", [], "section.field=value: change one field in all arms; repeatable")
    flags.DEFINE_string("published", PUBLISHED, "JSON file with the paper's rows; an empty word leaves them out")
    flags.DEFINE_string("test", None, "dataset whose validation scans are segmented in the place of --dataset's")
    flags.DEFINE_string("report", None, "folder of the report; by default report/ in the output")


def main(argv: Sequence[str]) -> int:
    """Checks the flags and files first, then runs the jobs, then reports."""
    cli.no_arguments(argv)
    output, dataset, tested = Path(FLAGS.output), Path(FLAGS.dataset), Path(FLAGS.test or FLAGS.dataset)
    of = f"_{tested.name}" if FLAGS.test else ""
    own = [s for s in FLAGS.set if s.split("=")[0].strip() in ("training.seed", "encoder_weights", "loss.head_weights")]
    if own:
        raise UsageError(f"--set: received {own[0]!r}.\nExpected no setting that tells the arms or seeds apart.")
    if "transfer" in FLAGS.arm:
        check_encoder_weights(FLAGS.weights)
    read_published(FLAGS.published)
    if not read_split(tested, FLAGS.fold).val:
        raise InputError(f"{tested}: its split has no validation cases.\nExpected some to compare the arms on.")
    _check_unseen(read_split(dataset, FLAGS.fold).train, read_split(tested, FLAGS.fold).val)
    todo = jobs(load_experiment(FLAGS.experiment), FLAGS.set, FLAGS.weights, FLAGS.seeds, output, FLAGS.arm)
    packed = packed_file(dataset, output, todo[0].experiment, FLAGS.fold, FLAGS.femur_labels)
    runs: list[Run] = []
    for number, job in enumerate(todo, start=1):
        print(f"[{number}/{len(todo)}] {job.arm}, seed {job.seed}", flush=True)
        for command in commands(job, FLAGS.experiment, packed, tested, FLAGS.fold, of):
            call(command)
        runs.append(load_run(job.arm, job.seed, job.folder, f"evaluation{of}"))
    head = [command_line(__file__), described(tested)]
    written = write_reports(runs, Path(FLAGS.report or output / f"report{of}"), head, FLAGS.published)
    print(*written, sep="\n")
    return 0


if __name__ == "__main__":
    _define_flags()
    cli.run(main)
