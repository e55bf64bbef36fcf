"""Short trainings in this process, and what they write."""

import csv

from tqdm import tqdm

from femur3d.data.packed_dataset import PackedDataset
from femur3d.engines.backend import ENGINE
from femur3d.training.run_directory import open_run_directory
from femur3d.training.trainer import Trainer


def train(experiment, packed_file, path, stop_after=None):
    """Trains in a fresh run folder object, as a new process would; returns the trainer and whether it finished."""
    run = open_run_directory(path)
    with PackedDataset(packed_file) as packed, tqdm(disable=True) as bar:
        trainer = Trainer(experiment, packed, run, ENGINE)
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
