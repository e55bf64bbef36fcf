"""A scan in, a label map on the scan's own grid out: preparation, sliding window, restoration, post-processing."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from typing import Literal

import numpy as np

from femur3d.model_folder import TrainedModel
from femur3d.postprocess import label_map
from femur3d.predictor import make_predict
from femur3d.preprocess import prepare_scan, restore, rounded
from femur3d.sliding_window import patch_count, predict_volume
from femur3d.volume import Volume

Progress = Callable[[int, int], None]


@dataclasses.dataclass(frozen=True, eq=False)
class Segmentation:
    """What comes out of a scan, all on the scan's grid.

    Attributes:
        labels: uint8 label map; 1 femur, or 1 left and 2 right.
        probability: float32, P(femur).
        seconds: time of each stage.
    """

    labels: Volume
    probability: Volume
    seconds: dict[str, float]


class Segmenter:
    """A loaded model, ready for any number of scans.

    Args:
        model: what `load_model` returns.
        overlap: of neighbouring patches, 0 to less than 1; 0.5 is a stride of 32 voxels for 64³ **(ours)**.
        batch_size: patches a forward pass.
    """

    def __init__(self, model: TrainedModel, overlap: float = 0.5, batch_size: int = 1) -> None:
        self._preparation = model.preparation
        self._predict = make_predict(model.network)
        self._stride = tuple(max(round(n * (1 - overlap)), 1) for n in model.preparation.patch_size)
        self._batch_size = batch_size

    def __call__(
        self, scan: Volume, labels: Literal["femur", "sides"] = "femur", progress: Progress | None = None
    ) -> Segmentation:
        """Segments one scan.

        Args:
            scan: any orientation and spacing.
            labels: 'femur' (1) or 'sides' (1 left, 2 right, from anatomy in world coordinates).
            progress: called with the numbers of patches done and in all.
        """
        marks = [time.perf_counter()]
        grid = rounded(scan)
        prepared = prepare_scan(grid, self._preparation)
        marks.append(time.perf_counter())
        on_network_grid = prepared.with_array(self._slide(prepared.array, progress))
        marks.append(time.perf_counter())
        probability = scan.with_array(restore(on_network_grid, grid).array)
        result = label_map(probability, labels=labels)
        marks.append(time.perf_counter())
        seconds = dict(zip(("preparation", "network", "postprocessing"), np.diff(marks).round(3).tolist(), strict=True))
        return Segmentation(result, probability, seconds)

    def _slide(self, array: np.ndarray, progress: Progress | None) -> np.ndarray:
        patch_size = self._preparation.patch_size
        total = patch_count(array.shape, patch_size, self._stride)

        def report(done: int) -> None:
            if progress is not None:
                progress(done, total)

        return predict_volume(
            array, self._predict, patch_size, self._stride, batch_size=self._batch_size, progress=report
        )
