"""What TensorBoard shows: curves, hyperparameters, and validation slices with both contours. Needs no TensorFlow.

Event files lie in the run directory itself, so that `tensorboard --logdir runs` names a run by its directory.
"""

from __future__ import annotations

import dataclasses
import io
import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path

from tensorboardX import summary
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.proto.summary_pb2 import Summary
from tensorboardX.record_writer import RecordWriter

from femur3d.config import Experiment
from femur3d.evaluation.contour_figure import draw_contours
from femur3d.io.atomic import naming
from femur3d.training.run_directory import flat
from femur3d.training.validation import Validated

TAGS = {  # of the curves by their column in metrics.csv; all others stand under `metrics`
    "loss": "loss/total",
    **{name: f"loss/{name}" for name in ("ce_lower", "ce_mid", "ce_upper", "l2_penalty")},
    **{name: f"optimizer/{name}" for name in ("learning_rate", "gradient_norm")},
    **{name: f"speed/{name}" for name in ("steps_per_s", "wait_share")},
}


@dataclasses.dataclass(frozen=True)
class TensorBoardLog:
    """An open event file; close it, or use it in a `with` statement.

    tensorboardX's SummaryWriter would write from a thread, which a full disk ends: the training would wait for ever.
    """

    writer: RecordWriter
    path: Path

    def __enter__(self) -> TensorBoardLog:
        return self

    def __exit__(self, *_: object) -> None:
        with naming(self.path):
            self.writer.close()

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Writes scalars, each in its group: `loss` as `loss/total`, `validation_dice` as `metrics/validation_dice`."""
        for name, value in values.items():
            self.write(Event(step=step, summary=summary.scalar(TAGS.get(name, f"metrics/{name}"), value)))
        with naming(self.path):
            self.writer.flush()

    def validated(self, step: int, result: Validated) -> None:
        """Writes a validation volume's Dice, and slices with both contours as an image."""
        self.scalars(step, {f"dice/{result.name}": result.dice})
        png, width, height = contour_picture(result)
        image = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=png)
        value = Summary.Value(tag=f"validation/{result.name}", image=image)
        self.write(Event(step=step, summary=Summary(value=[value])))

    def hyperparameters(self, experiment: Experiment) -> None:
        """Writes every field of the experiment, to be compared with other runs by their validation Dice."""
        values = {n: v if isinstance(v, (bool, int, float)) else str(v) for n, v in flat(experiment).items()}
        for part in summary.hparams(values, {"metrics/validation_dice": 0.0}):
            self.write(Event(summary=part))

    def write(self, event: Event) -> None:
        event.wall_time = time.time()
        with naming(self.path):
            self.writer.write(event.SerializeToString())


def open_tensorboard_log(folder: Path, step: int) -> TensorBoardLog:
    """A new event file for a run that goes on after `step`: what earlier files say of later steps no longer counts."""
    folder.mkdir(parents=True, exist_ok=True)
    _take_up_old_files(folder)
    name = f"events.out.tfevents.{time.time():.6f}.{socket.gethostname()}.{os.getpid()}"
    log = TensorBoardLog(RecordWriter(str(folder / name)), folder / name)
    log.write(Event(file_version="brain.Event:2"))
    log.write(Event(step=step + 1, session_log=SessionLog(status=SessionLog.START)))
    return log


def _take_up_old_files(folder: Path) -> None:
    """Moves the event files of earlier versions, which lie in a folder of their own, to the run's new ones."""
    old = folder / "tensorboard"
    if old.is_dir():
        for path in old.glob("events.out.tfevents.*"):
            path.replace(folder / path.name)
        if not any(old.iterdir()):
            old.rmdir()


def contour_picture(result: Validated) -> tuple[bytes, int, int]:
    """Slices through the femurs with the reference's contour in green and the prediction's in red: a PNG, its width
    and height in pixels.
    """
    reference, prediction = (result.image.with_array(mask) for mask in (result.reference, result.prediction))
    figure, png = draw_contours(result.image, reference, prediction, result.name), io.BytesIO()
    figure.savefig(png, format="png", facecolor="black")
    width, height = figure.canvas.get_width_height()
    return png.getvalue(), width, height
