"""The training loop of one of several processes: all make every update together, and the chief alone writes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, cast

from tqdm import tqdm

from femur3d.training.run_directory import RunDirectory
from femur3d.training.trainer import Trainer

if TYPE_CHECKING:
    from femur3d.engines.distribution.tensorflow_replicas import TensorFlowReplicas


class ReadOnlyRun(RunDirectory):
    """The run directory of a worker that is not the chief: it reads what the chief writes."""

    def say(self, line: str) -> None:
        """Prints a line."""
        print(line, flush=True)

    def write_config(self, experiment: object, source: object, data: str, model: Mapping | None = None) -> None:
        """Writes nothing; raises InputError as the chief's does."""
        self.check_data(data)

    def discard(self) -> None:
        """Nothing here is of this process."""


class Chief(Trainer):
    """The trainer of the worker that writes; it stops where any worker was asked to."""

    def _is_stopped(self) -> bool:
        return _is_any_stopped(self, self._stopping)

    def _finish(self) -> bool:
        finished = super()._finish()
        _is_any_stopped(self, False)  # the others wait here: this process is their cluster's head
        return finished


class Follower(Chief):
    """The trainer of a worker that takes its share of every update and writes nothing."""

    def train(self, bar: tqdm) -> bool:
        """See `Trainer.train`."""
        steps = self.experiment.training.steps
        batches = iter(self.engine.patch_stream(self.sampler, self.step, steps))
        while self.step < steps and not self._is_stopped():
            self._update(batches)
            self._pending.clear()  # the chief looks at them
            bar.update()
        _is_any_stopped(self, False)
        return self.step >= steps


def _is_any_stopped(trainer: Trainer, stopped: bool) -> bool:
    return cast("TensorFlowReplicas", trainer.engine).is_any(stopped)
