"""Trains the network of an experiment on a dataset; the same command on an existing run goes on where it stopped.

python -m femur3d.train --experiment experiments/scratch.py --dataset DIR --run runs/NAME [--set training.steps=500 ...]
"""

from __future__ import annotations

import signal
from collections.abc import Sequence
from pathlib import Path

from absl import flags

from femur3d import cli

with cli.starting():
    from femur3d.engines.backend import ENGINE

from tqdm import tqdm

from femur3d.cli import load_experiment
from femur3d.config import Experiment, to_dict, with_settings
from femur3d.data.packed_dataset import PackedDataset
from femur3d.errors import InputError
from femur3d.network.encoder_weights import check_encoder_weights
from femur3d.training.run_directory import RunDirectory, open_run_directory
from femur3d.training.trainer import Trainer

FLAGS = flags.FLAGS
flags.DEFINE_string("experiment", None, "experiment file, e.g. experiments/scratch.py", required=True)
flags.DEFINE_string("dataset", None, "folder in nnU-Net's layout, or a file of femur3d.pack", required=True)
flags.DEFINE_string("run", None, "run directory, e.g. runs/scratch; an existing one goes on", required=True)
flags.DEFINE_integer(
    "fold", None, "which entry of the dataset's splits_final.json, from 0 (the default)", lower_bound=0
)
flags.DEFINE_list("femur_labels", [], "labels of dataset.json that are femurs; all others count as background")
flags.DEFINE_multi_string("set", [], "section.field=value: change one field of the experiment; repeatable")


def main(argv: Sequence[str]) -> int:
    """Parses, prepares the data, trains."""
    cli.no_arguments(argv)
    experiment = with_settings(load_experiment(FLAGS.experiment), FLAGS.set)
    ENGINE.make_repeatable()
    begun = RunDirectory(Path(FLAGS.run))  # what is refused leaves no empty run directory
    begun.check_experiment(experiment)
    if experiment.encoder_weights and not begun.stored():
        check_encoder_weights(experiment.encoder_weights)
    if not Path(FLAGS.dataset).exists():
        raise InputError(
            f"{FLAGS.dataset}: no such dataset.\nExpected a folder in nnU-Net's layout or a file of femur3d.pack."
        )
    run = open_run_directory(Path(FLAGS.run))
    with PackedDataset(_packed_file(Path(FLAGS.dataset), run, experiment)) as packed:
        _check_packed(packed, experiment)
        trainer = Trainer(experiment, packed, run, ENGINE)
        signal.signal(signal.SIGINT, trainer.stop)
        signal.signal(signal.SIGTERM, trainer.stop)
        with tqdm(total=experiment.training.steps, initial=trainer.step, unit="step", disable=None) as bar:
            finished = trainer.train(bar)
    return 0 if finished else cli.EXIT_INTERRUPTED


def _packed_file(dataset: Path, run: RunDirectory, experiment: Experiment) -> Path:
    """The packed file of a dataset: itself, or made from a folder, again where one of its files has another time.

    Whether the voxels are still those that the run was begun with is for the trainer to see.
    """
    if dataset.is_file():
        return dataset
    from femur3d.data.nnunet_dataset import fingerprint  # these need SimpleITK; to train on a packed file needs none
    from femur3d.data.packing import describe_packing, pack_dataset

    fold = FLAGS.fold or 0
    run.say(f"{dataset}: {describe_packing(dataset, fold, FLAGS.femur_labels)}")
    if run.packed.exists() and run.stored():
        try:
            with PackedDataset(run.packed) as packed:
                if packed.source == fingerprint(dataset) and packed.fold == fold:
                    return run.packed
        except InputError as error:  # cut off, say: the dataset is at hand to make it again
            run.say(str(error).partition("\n")[0])
    run.say(f"Packing {dataset} into {run.packed}")
    pack_dataset(dataset, run.packed, experiment, lambda case: print(f"  {case}", flush=True), fold, FLAGS.femur_labels)
    return run.packed


def _check_packed(packed: PackedDataset, experiment: Experiment) -> None:
    if FLAGS.fold not in (None, packed.fold):
        raise InputError(
            f"The packed dataset is fold {packed.fold}, not {FLAGS.fold}.\nPack that fold, or leave --fold out."
        )
    if packed.preprocessing != to_dict(experiment.preprocessing):
        wanted = to_dict(experiment.preprocessing)
        name = next((n for n in wanted if packed.preprocessing.get(n) != wanted[n]), "an unknown field")
        raise InputError(
            f"The packed dataset has {name}={packed.preprocessing.get(name)}, the experiment {wanted.get(name)}.\n"
            "Expected a file packed with this experiment: run femur3d.pack again."
        )
    missing = [v for v in experiment.training.variants if not packed.select("train", [v])]
    if missing:
        raise InputError(
            f"The packed dataset has no training volumes of variant {missing[0]}.\n"
            "Expected a file packed with this experiment: run femur3d.pack again."
        )


if __name__ == "__main__":
    cli.run(main)
