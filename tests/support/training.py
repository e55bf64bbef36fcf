"""Short trainings in this process, and what they write."""

import csv
from typing import ClassVar

import numpy as np
from tqdm import tqdm

from femur3d.data.packed_dataset import PackedDataset
from femur3d.engines.backend import ENGINE
from femur3d.training.run_directory import open_run_directory
from femur3d.training.trainer import Trainer


class StandIn:
    """An engine that trains in no time, for tests of the loop: an update depends on patches, weights and optimiser.

    So a run that goes on has the bits of an unbroken one only where all of these are as they were.
    """

    errors = ()
    versions: ClassVar[dict[str, str]] = {"stand-in": "1"}

    def patch_stream(self, sampler, first_step, steps):
        return map(sampler.batch, range(first_step, steps))

    def make_train_step(self, network, optimizer, loss):
        weights = network.trainable_variables

        def step(images, labels):
            inside = float(images[..., 0][labels > 0].sum()) / labels.size
            terms = {"loss": 1 + inside, "ce_lower": inside, "ce_mid": 2.0, "ce_upper": images.std(), "l2_penalty": 0.5}
            scalars = {**terms, "learning_rate": float(optimizer.learning_rate), "gradient_norm": abs(inside)}
            optimizer.iterations.assign_add(1)
            velocity, weight = optimizer.variables[-1], weights[-1]
            velocity.assign(0.9 * velocity + inside)
            weight.assign(weight - float(optimizer.learning_rate) * velocity)
            return scalars

        return step

    def make_predict(self, network):
        return lambda patches: (patches > np.mean(network.get_layer("conv1a").bias)).astype(np.float32)


def train(experiment, packed_file, path, stop_after=None, engine=ENGINE):
    """Trains in a fresh run folder object, as a new process would; returns the trainer and whether it finished."""
    run = open_run_directory(path)
    with PackedDataset(packed_file) as packed, tqdm(disable=True) as bar:
        trainer = Trainer(experiment, packed, run, engine)
        if stop_after is not None:
            inner = trainer.train_step

            def step_and_stop(images, labels):
                if trainer.step + 1 >= stop_after:
                    trainer.stop()
                return inner(images, labels)

            trainer.train_step = step_and_stop
        finished = trainer.train(bar)
    run.close()
    return trainer, finished


def rows(path):
    with (path / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))
