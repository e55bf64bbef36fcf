"""What a training says about itself: before it begins, every `log_every` updates, and in the model that it leaves."""

from __future__ import annotations

import platform
import time
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
from tqdm import tqdm

import femur3d
from femur3d.config import Experiment
from femur3d.data.sampler import PatchSampler
from femur3d.inference.sliding_window import Predict
from femur3d.training.run_directory import MetricsLog, RunDirectory
from femur3d.training.tensorboard import open_tensorboard_log

COLUMNS = (
    "step", "loss", "ce_lower", "ce_mid", "ce_upper", "l2_penalty", "dice_upper", "learning_rate", "gradient_norm",
    "steps_per_s", "wait_share", "validation_dice",
)  # fmt: skip
STEP_PER_FORWARD = 4.0  # time of an update over that of a forward pass of its batch; measured, for the forecast only


class Report:
    """metrics.csv, TensorBoard, log.txt and the progress bar of one training, which goes on after `step`.

    Attributes:
        is_validated: whether what was reported of `step` has a validation Dice: a stop may have cut the validation
            short.
    """

    def __init__(self, run: RunDirectory, experiment: Experiment, step: int, bar: tqdm) -> None:
        self._run, self._steps, self._bar = run, experiment.training.steps, bar
        self._metrics = MetricsLog(run.path / "metrics.csv", COLUMNS)
        self.is_validated = bool(self._metrics.start_after(step).get("validation_dice"))
        self.board = open_tensorboard_log(run.path, step)
        self.board.hyperparameters(experiment)

    def __enter__(self) -> Report:
        return self

    def __exit__(self, *_: object) -> None:
        self.board.__exit__()

    def write(self, step: int, row: Mapping[str, float]) -> None:
        """Writes the scalars of a step, those of `Window.means`, `validation_dice` or both; {} writes nothing."""
        if "loss" in row:
            self._bar.set_postfix(loss=f"{row['loss']:.3f}")
            if self._bar.disable:  # no terminal: plain lines instead of a bar
                left = duration((self._steps - step) / row["steps_per_s"])
                self._run.say(f"Step {step}: loss {row['loss']:.4f}, {row['steps_per_s']:.2f} steps/s, {left} left")
        if row:
            self.board.scalars(step, row)
            self._metrics.add({"step": step, **row})

    def complete(self, step: int, row: Mapping[str, float]) -> None:
        """Writes what was missing of a step that was reported before the run was stopped; {} writes nothing."""
        if row:
            self.board.scalars(step, row)
            self._metrics.complete({"step": step, **row})


class Window:
    """The updates between two log lines: means of their scalars, and where the time went."""

    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []
        self._start = time.perf_counter()
        self._waited = 0.0

    def __enter__(self) -> None:  # around what waits for a batch
        self._wait_start = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self._waited += time.perf_counter() - self._wait_start

    def means(self) -> dict[str, float]:
        """The means so far, updates a second, and the share of the time spent waiting for batches."""
        seconds = time.perf_counter() - self._start
        means = {name: float(np.mean([row[name] for row in self.rows])) for name in self.rows[0]}
        return {**means, "steps_per_s": len(self.rows) / seconds, "wait_share": self._waited / seconds}


def announce(
    run: RunDirectory, experiment: Experiment, sampler: PatchSampler, network: keras.Model, predict: Predict, step: int
) -> None:
    """Says what is about to be done after `step` updates, and about how long it will take."""
    training, patch_size, packed = experiment.training, experiment.preprocessing.patch_size, sampler.packed
    going_on = f"goes on after step {step:,} to" if step else "makes"
    patches = np.zeros((training.batch_size, *patch_size), np.float32)
    predict(patches)  # builds the graph
    start = time.perf_counter()
    predict(patches)
    seconds = (time.perf_counter() - start) * STEP_PER_FORWARD * (training.steps - step)
    for line in (
        f"Experiment {experiment.name!r} on {packed.dataset!r}: {len(sampler.cases)} training cases, "
        f"{len(sampler.volumes)} volumes with their variants; {len(packed.select('val'))} volumes validate",
        f"  network: {network.count_params():,} parameters, "
        f"filters {experiment.network.encoder_filters} and {experiment.network.decoder_filters}",
        f"  {going_on} {training.steps:,} updates of {training.batch_size} patches of "
        f"{patch_size} voxels; {sampler.steps_per_epoch:,} updates are an epoch",
        f"  about {duration(seconds)} on this machine, judged by a forward pass; results in {run.path}",
    ):
        run.say(line)


def provenance(
    name: str, sources: Mapping[str, Any], sampler: PatchSampler, step: int, versions: Mapping[str, str]
) -> dict[str, Any]:
    """Where the model of experiment `name` comes from; stored with it."""
    return {
        "experiment": name,
        **sources,
        "step": step,
        "dataset": sampler.packed.dataset,
        "training_cases": sampler.cases,
        "femur3d": femur3d.__version__,
        "keras": keras.__version__,
        **versions,
        "python": platform.python_version(),
    }


def duration(seconds: float) -> str:
    """A time for people: 40 s, 12 min, 3.5 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
