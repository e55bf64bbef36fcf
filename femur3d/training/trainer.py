"""The training (section 3.3): batches in, updates, validation, checkpoints; goes on where a run stopped."""

from __future__ import annotations

import contextlib
import math
import signal
from collections.abc import Callable, Iterable, Iterator
from typing import Any, ClassVar, Protocol

import keras
import numpy as np
from tqdm import tqdm

from femur3d.config import Experiment, Loss
from femur3d.data.packed_dataset import PackedDataset
from femur3d.data.sampler import PatchSampler
from femur3d.errors import EXIT_INTERNAL, FemurError, InputError, UsageError
from femur3d.inference.saved_model import find_model, load_model, save_model, start_from
from femur3d.inference.sliding_window import Predict
from femur3d.network.encoder_weights import encoder_provenance, load_encoder_weights
from femur3d.network.unet import build_network
from femur3d.training.checkpoint import checkpoints, restore_latest, save_checkpoint
from femur3d.training.optimizer import make_optimizer
from femur3d.training.reporting import Report, Window, announce, provenance
from femur3d.training.run_directory import RunDirectory
from femur3d.training.validation import validate


class Engine(Protocol):
    """What computes the updates: `femur3d.engines.backend.ENGINE`, or one of the reader's own.

    Attributes:
        errors: what an update may raise that is neither a user's mistake nor ours.
        versions: of the engine, for the provenance of the model.
    """

    errors: tuple[type[Exception], ...]
    versions: ClassVar[dict[str, str]]

    def patch_stream(self, sampler: PatchSampler, first_step: int, steps: int) -> Iterable:
        """See `engines.keras_engine.KerasEngine.patch_stream`."""

    def make_train_step(
        self, network: keras.Model, optimizer: keras.optimizers.Optimizer, loss: Loss
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

    Raises:
        InputError: the run was begun with other data, or its checkpoints are damaged.
        UsageError: more updates are made already than the experiment wants.
    """

    def __init__(self, experiment: Experiment, packed: PackedDataset, run: RunDirectory, engine: Engine) -> None:
        self.experiment, self.run, self.engine = experiment, run, engine
        training = experiment.training
        self.sampler = PatchSampler(packed, training, experiment.preprocessing.patch_size, experiment.transforms)
        self.network = build_network(experiment.network, training.seed, training.precision)
        self.optimizer = make_optimizer(training, self.network)
        self._encoder_source = self._fill_encoder()
        self._initial_model = self._start_from_model()
        run.check_data(packed.data)
        self.step = self._restored = restore_latest(run.checkpoints, self.network, self.optimizer, run.say)
        if self.step > training.steps:
            raise UsageError(
                f"{run.path}: {self.step:,} updates are made already; choose another --run for fewer.\n"
                f"Expected training.steps of {self.step:,} or more. Received: {training.steps:,}"
            )
        run.write_config(experiment, self._encoder_source, packed.data, self._initial_model)
        self.train_step = engine.make_train_step(self.network, self.optimizer, experiment.loss)
        self.predict = engine.make_predict(self.network)
        self._window = Window()
        self._pending: list[dict[str, Any]] = []  # scalars of the latest updates, where they were computed
        self._stopping = False

    def _fill_encoder(self) -> dict[str, str]:
        """Transfers weights (section 2.2) where the experiment says so; a run that goes on keeps what it began with."""
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
        announce(self.run, self.experiment, self.sampler, self.network, self.predict, self.step)
        with Report(self.run, self.experiment, self.step, bar) as report:
            batches = iter(self.engine.patch_stream(self.sampler, self.step, training.steps))
            if self.step and self._is_due(training.validate_every) and not report.is_validated:
                report.complete(self.step, self._validate(report))
            self._window = Window()
            while self.step < training.steps and not self._is_stopped():
                self._update(batches)
                bar.update()
                is_logged, row = self._is_due(training.log_every), {}
                if is_logged:
                    self._fetch()
                    row = self._window.means()
                if self._is_due(training.validate_every):
                    row |= self._validate(report)
                report.write(self.step, row)
                if is_logged:
                    self._window = Window()
                if self.step % training.checkpoint_every == 0:
                    self._save_checkpoint()
        return self._finish()

    def _is_stopped(self) -> bool:
        return self._stopping

    def _is_due(self, every: int) -> bool:
        return self.step % every == 0 or self.step == self.experiment.training.steps

    def _update(self, batches: Iterator[tuple[Any, Any]]) -> None:
        with self._naming_failures(self.step):
            with self._window:
                images, labels = next(batches)
            self._pending.append(self.train_step(images, labels))
        self.step += 1

    def _fetch(self) -> None:
        """Moves the scalars of the latest updates into the window, and sees that they are finite.

        Not after every update: an accelerator would wait for us, and we for it.
        """
        for step, scalars in enumerate(self._pending, start=self.step - len(self._pending)):
            with self._naming_failures(step):
                row = {name: float(value) for name, value in scalars.items()}
            for name in ("loss", "gradient_norm"):
                if not math.isfinite(row[name]):
                    raise self._failure(step, f"the {name} is {row[name]}")
            self._window.rows.append(row)
        self._pending.clear()

    def _validate(self, report: Report) -> dict[str, float]:
        """{'validation_dice': …}; {} without validation volumes, or where it was stopped: then it is made up for."""
        self._fetch()
        self._check_weights()
        scores = []
        for result in validate(self.sampler.packed, self.predict, self.experiment.preprocessing.patch_size):
            if self._stopping:
                return {}
            report.board.validated(self.step, result)
            scores.append(result.dice)
        if not scores:
            return {}
        mean = float(np.mean(scores))
        self.run.say(f"Step {self.step}: validation Dice {mean:.4f} (worst {min(scores):.4f}, {len(scores)} femurs)")
        self._save_model()
        return {"validation_dice": mean}

    def _save_checkpoint(self) -> None:
        self._fetch()
        self._check_weights()
        save_checkpoint(self.run.checkpoints, self.step, self.network, self.optimizer)

    def _check_weights(self) -> None:
        if not all(np.isfinite(w).all() for w in self.network.get_weights()):
            raise self._failure(self.step - 1, "the weights are not finite any more")

    def _save_model(self) -> None:
        sources: dict[str, Any] = {"encoder_source": self._encoder_source}
        if self._initial_model:
            sources["initial_model"] = self._initial_model
        origin = provenance(self.experiment.name, sources, self.sampler, self.step, self.engine.versions)
        save_model(self.run.model, self.network, self.experiment.network, self.experiment.preprocessing, origin)

    def _finish(self) -> bool:
        if not self._is_saved():
            self._save_checkpoint()
            self._save_model()
        finished = self.step >= self.experiment.training.steps
        again = "" if finished else " The same command goes on from here."
        self.run.say(f"Stopped after step {self.step}: model in {self.run.model}.{again}")
        return finished

    def _is_saved(self) -> bool:
        """Whether no update was made and its model is there and sound: it may have been given quality limits since."""
        try:
            return self.step == self._restored and load_model(self.run.model).provenance.get("step") == self.step
        except InputError:
            return False

    @contextlib.contextmanager
    def _naming_failures(self, step: int) -> Iterator[None]:
        try:
            yield
        except self.engine.errors as error:  # the packed file cannot be read, or memory runs out
            message = str(getattr(error, "message", error))  # TensorFlow's has the line alone, without the graph
            raise self._failure(step, message.strip().partition("\n")[0]) from error

    def _failure(self, step: int, what: str) -> TrainingError:
        """What happened in update `step` (from 0), to whose patches, and where to go on from."""
        kept = checkpoints(self.run.checkpoints)
        return TrainingError(
            f"Update {step + 1} failed, {what}; its patches come from {self.sampler.sources(step)}.\n"
            f"Last good checkpoint: {kept[-1] if kept else 'none'}. If it did not stay finite, lower training.rate."
        )
