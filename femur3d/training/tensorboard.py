"""What TensorBoard shows: scalars of the training, and validation slices with both contours. Needs no TensorFlow."""

from __future__ import annotations

import io
import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image
from scipy import ndimage
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.image.metadata import create_summary_metadata as image_metadata
from tensorboard.plugins.scalar.summary_v2 import scalar_pb
from tensorboard.summary.writer.record_writer import RecordWriter
from tensorboard.util.tensor_util import make_tensor_proto

from femur3d.export.contour_figure import anatomical
from femur3d.training.validation import Validated

GREEN, RED = (0, 208, 0), (255, 32, 32)  # reference, prediction; as in figures.py
ZOOM = 2  # screen pixels a voxel


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
        """Writes the coronal slice with most of the reference, with both contours, as an image."""
        picture, png = contour_picture(result), io.BytesIO()
        Image.fromarray(picture).save(png, "png")
        height, width, _ = picture.shape
        value = Summary.Value(
            tag=f"validation/{result.name}",
            metadata=image_metadata(display_name=None, description=None),
            tensor=make_tensor_proto(np.array([b"%d" % width, b"%d" % height, png.getvalue()], dtype=object)),
        )
        self._write(Event(step=step, summary=Summary(value=[value])))

    def _write(self, event: Event) -> None:
        event.wall_time = time.time()
        self._writer.write(event.SerializeToString())


def contour_picture(result: Validated) -> np.ndarray:
    """The coronal slice with most of the reference: uint8 (rows, columns, 3), head up, patient's right on the left.

    The reference's contour is green, the prediction's red and drawn over it.
    """
    grey, spacing_mm = anatomical(result.image)
    masks = [anatomical(result.image.with_array(m))[0] for m in (result.reference, result.prediction)]
    y = int(masks[0].sum(axis=(0, 2)).argmax())
    zooms = (ZOOM * spacing_mm[0] / spacing_mm[2], ZOOM)
    slices = [ndimage.zoom(a[::-1, y].astype(np.float32), zooms, order=1) for a in (grey, *masks)]
    low, high = np.percentile(slices[0], (1, 99))
    picture = np.repeat(np.clip((slices[0] - low) / max(high - low, 1e-6) * 255, 0, 255)[..., np.newaxis], 3, axis=-1)
    for mask, colour in zip(slices[1:], (GREEN, RED), strict=True):
        inside = mask > 0.5
        picture[inside & ~ndimage.binary_erosion(inside)] = colour
    return picture.astype(np.uint8)
