"""Trains the network of an experiment on a dataset; the same command on an existing run goes on where it stopped.

python -m femur3d.train --experiment experiments/scratch.py --dataset DIR --run runs/NAME [--set training.steps=500 ...]
"""

from __future__ import annotations

import dataclasses
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags
from tqdm import tqdm

from femur3d import cli
from femur3d.cli import load_experiment
from femur3d.config import Experiment, Preprocessing
from femur3d.data.packed_dataset import PackedDataset
from femur3d.engines.distribution import strategy as strategies
from femur3d.engines.hardware import slow_precision
from femur3d.errors import FemurError, InputError
from femur3d.inference.saved_model import check_fits, find_model
from femur3d.io.settings import from_dict, to_dict, with_settings
from femur3d.training.run_directory import RunDirectory

if TYPE_CHECKING:
    from femur3d.engines.distribution.strategy import Strategy

FLAGS = flags.FLAGS
flags.DEFINE_string("experiment", None, "experiment file, e.g. experiments/scratch.py", required=True)
flags.DEFINE_string("dataset", None, "folder in nnU-Net's layout, or a file of femur3d.pack", required=True)
flags.DEFINE_string("run", None, "run directory, e.g. runs/scratch; an existing one goes on", required=True)
flags.DEFINE_integer(
    "fold", None, "which entry of the dataset's splits_final.json, from 0 (the default)", lower_bound=0
)
flags.DEFINE_list("femur_labels", [], "labels of dataset.json that are femurs; all others count as background")
flags.DEFINE_string("initial_weights", "", "trained model to start from: a folder, or a name such as hip_t1")
flags.DEFINE_string("packed_cache", "", "folder of packed volumes that runs share; by default .packed beside the run")
flags.DEFINE_bool("keep_packed", True, "keep the packed volumes once the training has ended; others may use them")
flags.DEFINE_enum(
    "strategy", strategies.ONE, strategies.NAMES,
    "one device; all GPUs of this machine (mirrored); all of the machines in TF_CONFIG (multiworker)",
)  # fmt: skip
flags.DEFINE_bool(
    "synchronized_batch_norm", True, "with --strategy: normalise by all patches of a batch, not by each replica's own"
)
flags.DEFINE_multi_string("set", [], "section.field=value: change one field of the experiment; repeatable")


def main(argv: Sequence[str]) -> int:
    """Parses, prepares the data, trains. What can be seen without Keras is seen before it is loaded."""
    cli.no_arguments(argv)
    experiment = with_settings(load_experiment(FLAGS.experiment), FLAGS.set)
    if FLAGS.initial_weights:
        experiment = dataclasses.replace(experiment, initial_weights=FLAGS.initial_weights)
    begun = RunDirectory(Path(FLAGS.run))
    begun.check_experiment(experiment)
    if experiment.initial_weights and not begun.stored():
        check_fits(find_model(experiment.initial_weights), experiment.network)
    if not Path(FLAGS.dataset).exists():
        raise InputError(
            f"{FLAGS.dataset}: no such dataset.\nExpected a folder in nnU-Net's layout or a file of femur3d.pack."
        )
    strategies.check_environment(FLAGS.strategy, FLAGS.synchronized_batch_norm)
    with cli.starting():
        from femur3d.engines.backend import ENGINE
        from femur3d.network.encoder_weights import check_encoder_weights
    ENGINE.make_repeatable()
    if experiment.encoder_weights and not begun.stored():
        check_encoder_weights(experiment.encoder_weights)
    strategy = strategies.make_strategy(
        FLAGS.strategy, ENGINE, experiment.training.batch_size, FLAGS.synchronized_batch_norm
    )
    with strategy.open_run(Path(FLAGS.run)) as run:
        try:
            finished = _train(experiment, run, strategy)
        except FemurError:
            run.discard()
            raise
    return 0 if finished else cli.EXIT_INTERRUPTED


def _train(experiment: Experiment, run: RunDirectory, strategy: Strategy) -> bool:
    """Trains in an open run directory; returns whether to the end."""
    run.say(f"Training on {strategy.engine.device_name()}")
    if (warning := slow_precision(experiment.training.precision)) and strategy.engine.on_cpu():
        run.say(warning)
    with _open_packed(Path(FLAGS.dataset), run, experiment) as packed:
        _check_packed(packed, experiment)
        trainer = strategy.make_trainer(experiment, packed, run)
        signal.signal(signal.SIGINT, trainer.stop)
        signal.signal(signal.SIGTERM, trainer.stop)
        with tqdm(total=experiment.training.steps, initial=trainer.step, unit="step", disable=None) as bar:
            finished = trainer.train(bar)
    if finished and not FLAGS.keep_packed and packed.path != Path(FLAGS.dataset):
        packed.path.unlink(missing_ok=True)
    return finished


def _open_packed(dataset: Path, run: RunDirectory, experiment: Experiment) -> PackedDataset:
    """The packed file of a dataset: itself, or made from a folder, again where one of its files has another time.

    Whether the voxels are still those that the run was begun with is for the trainer to see.
    """
    if dataset.is_file():
        return PackedDataset(dataset)
    from femur3d.data.nnunet_dataset import fingerprint  # these need SimpleITK; to train on a packed file needs none
    from femur3d.data.packing import describe_packing, pack_once

    fold = FLAGS.fold or 0
    run.say(f"{dataset}: {describe_packing(dataset, fold, FLAGS.femur_labels)}")
    if run.packed.exists() and run.stored():  # of earlier versions
        try:
            packed = PackedDataset(run.packed)
            if packed.source == fingerprint(dataset) and packed.fold == fold:
                return packed
            packed.close()
        except InputError as error:
            run.say(str(error).partition("\n")[0])
            run.packed.unlink()
    cache = Path(FLAGS.packed_cache or run.path.absolute().parent / ".packed")
    return pack_once(dataset, cache, experiment, run.say, fold, FLAGS.femur_labels)


def _check_packed(packed: PackedDataset, experiment: Experiment) -> None:
    if FLAGS.fold not in (None, packed.fold):
        raise InputError(
            f"The packed dataset is fold {packed.fold}, not {FLAGS.fold}.\nPack that fold, or leave --fold out."
        )
    if FLAGS.femur_labels and packed.femur_labels and set(FLAGS.femur_labels) != set(packed.femur_labels):
        raise InputError(
            f"The packed dataset's femurs are {', '.join(packed.femur_labels)}, not {', '.join(FLAGS.femur_labels)}.\n"
            "Pack these labels, or leave --femur_labels out."
        )
    before = to_dict(from_dict(Preprocessing, packed.preprocessing, "The packed dataset's preprocessing"))
    for name, wanted in to_dict(experiment.preprocessing).items():
        if before[name] != wanted:
            raise InputError(
                f"The packed dataset has {name}={before[name]}, the experiment {wanted}.\n"
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
