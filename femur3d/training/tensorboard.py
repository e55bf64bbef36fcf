"""What TensorBoard shows: scalars of the training, and validation slices with both contours. Needs no TensorFlow."""

from __future__ import annotations

import io
import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.image.metadata import create_summary_metadata as image_metadata
from tensorboard.plugins.scalar.summary_v2 import scalar_pb
from tensorboard.summary.writer.record_writer import RecordWriter
from tensorboard.util.tensor_util import make_tensor_proto

from femur3d.evaluation.contour_figure import draw_contours
from femur3d.training.validation import Validated


class TensorBoardLog:
    """An event file of one run; close it, or use it in a `with` statement.

    Made of records, not by TensorBoard's own EventFileWriter: that imports TensorFlow wherever it is installed.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        name = f"events.out.tfevents.{time.time():.6f}.{socket.gethostname()}.{os.getpid()}"
        self._writer = RecordWriter((folder / name).open("xb"))
        self._write(Event(file_version="brain.Event:2"))

    def __enter__(self) -> TensorBoardLog:
        return self

    def __exit__(self, *_: object) -> None:
        self._writer.close()

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Writes scalars by their name."""
        for name, value in values.items():
            self._write(Event(step=step, summary=scalar_pb(name, value)))
        self._writer.flush()

    def validated(self, step: int, result: Validated) -> None:
        """Writes slices with both contours as an image."""
        png, width, height = contour_picture(result)
        value = Summary.Value(
            tag=f"validation/{result.name}",
            metadata=image_metadata(display_name=None, description=None),
            tensor=make_tensor_proto(np.array([b"%d" % width, b"%d" % height, png], dtype=object)),
        )
        self._write(Event(step=step, summary=Summary(value=[value])))

    def _write(self, event: Event) -> None:
        event.wall_time = time.time()
        self._writer.write(event.SerializeToString())


def contour_picture(result: Validated) -> tuple[bytes, int, int]:
    """Slices through the femurs with the reference's contour in green and the prediction's in red: a PNG, its width
    and height in pixels.
    """
    reference, prediction = (result.image.with_array(mask) for mask in (result.reference, result.prediction))
    figure, png = draw_contours(result.image, reference, prediction, result.name), io.BytesIO()
    figure.savefig(png, format="png", facecolor="black")
    width, height = figure.canvas.get_width_height()
    return png.getvalue(), width, height
