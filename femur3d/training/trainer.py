"""The training loop: batches in, updates, scalars, validation, checkpoints; goes on where a run stopped."""

from __future__ import annotations

import math
import platform
import signal
import time
from collections.abc import Callable, Iterable
from typing import Any, ClassVar, Protocol

import keras
import numpy as np
from tqdm import tqdm

import femur3d
from femur3d.config import HEADS, Experiment
from femur3d.data.packed_dataset import PackedDataset
from femur3d.data.sampler import PatchSampler
from femur3d.errors import EXIT_INTERNAL, FemurError
from femur3d.inference.saved_model import find_model, save_model, start_from
from femur3d.inference.sliding_window import Predict
from femur3d.network.encoder_weights import encoder_provenance, load_encoder_weights
from femur3d.network.unet import build_network
from femur3d.training.checkpoint import checkpoints, restore_latest, save_checkpoint
from femur3d.training.optimizer import make_optimizer
from femur3d.training.run_directory import MetricsLog, RunDirectory
from femur3d.training.tensorboard import TensorBoardLog, open_tensorboard_log
from femur3d.training.validation import validate

COLUMNS = (
    "step", "loss", "ce_lower", "ce_mid", "ce_upper", "l2_penalty", "dice_upper", "learning_rate", "gradient_norm",
    "steps_per_s", "wait_share", "validation_dice",
)  # fmt: skip
STEP_PER_FORWARD = 4.0  # time of an update over that of a forward pass of its batch; measured, for the forecast only


class Engine(Protocol):
    """What computes the updates: `femur3d.engines.backend.ENGINE`, or one of the reader's own.

    Attributes:
        errors: what an update may raise that is neither a user's mistake nor ours.
        versions: of the engine, for the provenance of the model.
    """

    errors: tuple[type[Exception], ...]
    versions: ClassVar[dict[str, str]]

    def patch_stream(self, sampler: PatchSampler, first_step: int, steps: int) -> Iterable:
        """See `tf_dataset.patch_stream`."""

    def make_train_step(
        self,
        network: keras.Model,
        optimizer: keras.optimizers.Optimizer,
        head_weights: dict[str, float],
        l2: float,
        dice_weight: float,
    ) -> Callable[[Any, Any], dict[str, Any]]:
        """See `train_step.make_train_step`."""

    def make_predict(self, network: keras.Model) -> Predict:
        """See `inference.sliding_window.Predict`; sees the weights of each call."""


class TrainingError(FemurError):
    """An update failed, or something is not finite any more."""

    exit_code = EXIT_INTERNAL


class Trainer:
    """One experiment on one packed dataset in one run folder, restored from its newest checkpoint.

    Attributes:
        step: updates made so far.
    """

    def __init__(self, experiment: Experiment, packed: PackedDataset, run: RunDirectory, engine: Engine) -> None:
        self.experiment, self.packed, self.run, self.engine = experiment, packed, run, engine
        training = experiment.training
        self.sampler = PatchSampler(packed, training, experiment.preprocessing.patch_size)
        self.network = build_network(experiment.network, training.seed, training.precision)
        self.optimizer = make_optimizer(training, self.network)
        self._source = self._encoder_source()
        self._initial_model = self._start_from_model()
        run.write_config(experiment, self._source, packed.content, self._initial_model)
        self.step = restore_latest(run.checkpoints, self.network, self.optimizer)
        loss = experiment.loss
        weights = dict(zip(HEADS, loss.head_weights, strict=True))
        self.train_step = self.engine.make_train_step(self.network, self.optimizer, weights, loss.l2, loss.dice_weight)
        self.predict = self.engine.make_predict(self.network)
        self._stopping = False

    def _encoder_source(self) -> dict[str, str]:
        """Fills the encoder where the experiment says so; a run that goes on keeps what it began with."""
        path = self.experiment.encoder_weights
        if not path:
            return {}
        if checkpoints(self.run.checkpoints):
            return self.run.stored().get("encoder_source", {})
        names = load_encoder_weights(path, self.network)
        source = encoder_provenance(path)
        self.run.say(f"Transferred from {path} (source: {source['source_kind']}): {', '.join(names)}")
        self.run.say("Not transferred, initialised at random: batch normalisation, decoder and heads")
        return source

    def _start_from_model(self) -> dict[str, Any]:
        """Takes over a trained model where the experiment says so; a run that goes on keeps what it began with."""
        name = self.experiment.initial_weights
        if not name:
            return {}
        if checkpoints(self.run.checkpoints):
            return self.run.stored().get("initial_model", {})
        source = start_from(find_model(name), self.network, self.experiment.network)
        self.run.say(f"Starts from the weights of model {source['name']} (SHA-256 {source['weights_sha256'][:16]}…)")
        return source

    def stop(self, signum: int = 0, *_: object) -> None:
        """Asks the loop to save and end after the current update; a signal handler. A second signal ends at once."""
        self._stopping = True
        if signum:
            signal.signal(signum, signal.SIG_DFL)

    def train(self, bar: tqdm) -> bool:
        """Trains to the last step. Returns False where it was asked to stop before.

        Raises:
            TrainingError: an update failed, or loss, gradient or weights are not finite; the checkpoints are sound.
        """
        training = self.experiment.training
        self._announce()
        metrics = MetricsLog(self.run.path / "metrics.csv", COLUMNS)
        metrics.start_after(self.step)
        window = _Window()
        with open_tensorboard_log(self.run.path, self.step) as board:
            board.hyperparameters(self.experiment)
            batches = iter(self.engine.patch_stream(self.sampler, self.step, training.steps))
            while self.step < training.steps and not self._stopping:
                window.add(self._update(batches, window))
                bar.update()
                row: dict[str, float] = {}
                if self._is_due(training.log_every):
                    row = window.close()
                    self._say_progress(row, bar)
                if self._is_due(training.validate_every):
                    row |= self._validate(board)
                if row:
                    board.scalars(self.step, row)
                    metrics.add({"step": self.step, **row})
                    window = _Window() if self._is_due(training.log_every) else window
                if self.step % training.checkpoint_every == 0:
                    self._save_checkpoint()
        return self._finish()

    def _is_due(self, every: int) -> bool:
        return self.step % every == 0 or self.step == self.experiment.training.steps

    def _update(self, batches: Any, window: _Window) -> dict[str, float]:
        try:
            with window.waiting():
                images, labels = next(batches)
            scalars = {name: float(value) for name, value in self.train_step(images, labels).items()}
        except self.engine.errors as error:  # the packed file cannot be read, or memory runs out
            message = str(getattr(error, "message", error))  # TensorFlow's has the line alone, without the graph
            raise TrainingError(self._failure_message(message.strip().partition("\n")[0])) from error
        for name in ("loss", "gradient_norm"):
            if not math.isfinite(scalars[name]):
                raise TrainingError(self._failure_message(f"the {name} is {scalars[name]}"))
        self.step += 1
        return scalars

    def _save_checkpoint(self) -> None:
        if not all(np.isfinite(w).all() for w in self.network.get_weights()):
            raise TrainingError(self._failure_message("the weights are not finite any more"))
        save_checkpoint(self.run.checkpoints, self.step, self.network, self.optimizer)

    def _say_progress(self, row: dict[str, float], bar: tqdm) -> None:
        bar.set_postfix(loss=f"{row['loss']:.3f}")
        if bar.disable:  # no terminal: plain lines instead of a bar
            left = _duration((self.experiment.training.steps - self.step) / row["steps_per_s"])
            self.run.say(f"Step {self.step}: loss {row['loss']:.4f}, {row['steps_per_s']:.2f} steps/s, {left} left")

    def _validate(self, board: TensorBoardLog) -> dict[str, float]:
        scores = []
        for result in validate(self.packed, self.predict, self.experiment.preprocessing.patch_size):
            if self._stopping:
                return {}
            board.validated(self.step, result)
            scores.append(result.dice)
        if not scores:
            return {}
        mean = float(np.mean(scores))
        self.run.say(f"Step {self.step}: validation Dice {mean:.4f} (worst {min(scores):.4f}, {len(scores)} femurs)")
        self._save_model()
        return {"validation_dice": mean}

    def _finish(self) -> bool:
        self._save_checkpoint()
        self._save_model()
        finished = self.step >= self.experiment.training.steps
        again = "" if finished else " The same command goes on from here."
        self.run.say(f"Stopped after step {self.step}: model in {self.run.model}.{again}")
        return finished

    def _save_model(self) -> None:
        provenance = {
            "experiment": self.experiment.name,
            "encoder_source": self._source,
            **({"initial_model": self._initial_model} if self._initial_model else {}),
            "step": self.step,
            "dataset": self.packed.dataset,
            "training_cases": sorted({self.packed.entries[i].case for i in self.sampler.volumes}),
            "femur3d": femur3d.__version__,
            "keras": keras.__version__,
            **self.engine.versions,
            "python": platform.python_version(),
        }
        save_model(self.run.model, self.network, self.experiment.network, self.experiment.preprocessing, provenance)

    def _announce(self) -> None:
        experiment, training, sampler = self.experiment, self.experiment.training, self.sampler
        cases = {self.packed.entries[i].case for i in sampler.volumes}
        going_on = f"goes on after step {self.step:,} to" if self.step else "makes"
        seconds = self._forward_seconds() * STEP_PER_FORWARD * (training.steps - self.step)
        for line in (
            f"Experiment {experiment.name!r} on {self.packed.dataset!r}: {len(cases)} training cases, "
            f"{len(sampler.volumes)} volumes with their variants; {len(self.packed.select('val'))} volumes validate",
            f"  network: {self.network.count_params():,} parameters, "
            f"filters {experiment.network.encoder_filters} and {experiment.network.decoder_filters}",
            f"  {going_on} {training.steps:,} updates of {training.batch_size} patches of "
            f"{experiment.preprocessing.patch_size} voxels; {sampler.steps_per_epoch:,} updates are an epoch",
            f"  about {_duration(seconds)} on this machine, judged by a forward pass; results in {self.run.path}",
        ):
            self.run.say(line)

    def _forward_seconds(self) -> float:
        """Time of a forward pass of one batch of training's size, after a first one that builds the graph."""
        shape = (self.experiment.training.batch_size, *self.experiment.preprocessing.patch_size)
        patches = np.zeros(shape, np.float32)
        self.predict(patches)
        start = time.perf_counter()
        self.predict(patches)
        return time.perf_counter() - start

    def _failure_message(self, what: str) -> str:
        """What happened in the update after `step`, to whose patches, and where to go on from."""
        numbers = dict.fromkeys(self.sampler.volume_of(self.step, i) for i in range(self.sampler.training.batch_size))
        entries = [self.packed.entries[number] for number in numbers]
        sources = "; ".join(f"{e.case}, label {e.label_value}, variant {e.variant}" for e in entries)
        kept = checkpoints(self.run.checkpoints)
        return (
            f"Update {self.step + 1} failed, {what}; its patches come from {sources}.\n"
            f"Last good checkpoint: {kept[-1] if kept else 'none'}. If it did not stay finite, lower training.rate."
        )


class _Window:
    """Means of the scalars between two log lines, and where the time went."""

    def __init__(self) -> None:
        self._rows: list[dict[str, float]] = []
        self._start = time.perf_counter()
        self._waited = 0.0

    def waiting(self) -> _Window:
        return self

    def __enter__(self) -> None:
        self._wait_start = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self._waited += time.perf_counter() - self._wait_start

    def add(self, row: dict[str, float]) -> None:
        self._rows.append(row)

    def close(self) -> dict[str, float]:
        """The means since the last call, steps/s and the share of the time spent waiting for batches."""
        seconds = time.perf_counter() - self._start
        means = {name: float(np.mean([r[name] for r in self._rows])) for name in self._rows[0]}
        rates = {"steps_per_s": len(self._rows) / seconds, "wait_share": self._waited / seconds}
        return {**means, **rates}


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
