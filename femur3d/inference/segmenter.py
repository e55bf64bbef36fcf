"""A scan in, a label map on the scan's own grid out: preprocessing, sliding window, restoration, post-processing."""

from __future__ import annotations

import dataclasses
import functools
import html
import math
import os
import time
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

from femur3d.config import DOWNSAMPLING
from femur3d.data.cleaning import content_box
from femur3d.data.patches import make_normalise, patches_around
from femur3d.data.preprocessing import air_level, cut, prepare_scan, restore, rounded
from femur3d.errors import InputError
from femur3d.inference.mode import EXACT, Engine, Mode
from femur3d.inference.patch_selection import look_past_air, refine_region
from femur3d.inference.postprocessing import LABEL_NAMES, label_map
from femur3d.inference.quality import femurs_of, measure, tile_centres_mm
from femur3d.inference.quality_limits import RED, YELLOW, Flag, flags
from femur3d.inference.saved_model import TrainedModel
from femur3d.inference.sliding_window import PatchMean, Progress, SlidingWindow
from femur3d.io.formats.nifti import Nifti1Header
from femur3d.io.images import write_volume
from femur3d.volume import Volume

SMALLEST_PATCH = 32  # voxels along an axis; smaller ones see too little
SMALLEST_SHARE = 1 / 4  # of a patch, along each axis, that a scan must fill: beyond that its reflections outweigh it
STAGES = ("preprocessing", "network", "postprocessing", "quality")


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Segmentation:
    """What comes out of a scan, all on the scan's grid.

    Attributes:
        labels: uint8 label map; 1 femur, or 1 left and 2 right.
        probability: float32, P(femur).
        seconds: time of each stage.
        quality: every measure of `quality.NAMES` with its level by the model's limits and a sentence.
        engine: name of what computed, and its `versions`.
        names: of the labels, by their values: left and right, or femur.
        nifti: geometry of the NIfTI file that the scan came from, where it came from one.
        model: 'weights_sha256' and 'provenance' of the model.
        choice: 'taken', its name, 'why' and 'tried', where there was more than one; see `inference.choice`.
    """

    labels: Volume
    probability: Volume
    seconds: dict[str, float]
    quality: dict[str, Flag] = dataclasses.field(default_factory=dict)
    names: Mapping[int, str] = dataclasses.field(default_factory=lambda: LABEL_NAMES["sides"])
    nifti: Nifti1Header | None = None
    engine: str = ""
    versions: dict[str, str] = dataclasses.field(default_factory=dict)
    model: dict[str, Any] = dataclasses.field(default_factory=dict)
    choice: dict[str, Any] = dataclasses.field(default_factory=dict)

    def __repr__(self) -> str:
        found = ", ".join(f"{name} {ml:.1f} ml" for name, ml in self.volumes_ml.items()) or "no femur found"
        raised = [f"{name}: {flag.level}" for name, flag in self.quality.items() if flag.level in (YELLOW, RED)]
        return f"Segmentation({', '.join([found, *raised])})"

    def _repr_html_(self) -> str:
        """What a notebook shows: a row a femur, then the quality flags that were raised."""
        rows = "".join(f"<tr><td>{name}</td><td>{ml:.1f} ml</td></tr>" for name, ml in self.volumes_ml.items())
        raised = [flag for flag in self.quality.values() if flag.level in (YELLOW, RED)]
        said = "".join(f"<li>{flag.level}: {html.escape(flag.sentence)}</li>" for flag in raised)
        return f"<table>{rows or '<tr><td>no femur found</td></tr>'}</table><ul>{said}</ul>"

    @property
    def left(self) -> Volume:
        """Mask (bool) of the patient's left femur; empty where there is none, or where the labels know no sides."""
        return self._mask("left")

    @property
    def right(self) -> Volume:
        """Mask (bool) of the patient's right femur, as `left`."""
        return self._mask("right")

    def _mask(self, name: str) -> Volume:
        values = [value for value, known in self.names.items() if known == name]
        return self.labels.with_array(np.isin(self.labels.array, values))

    @property
    def volumes_ml(self) -> dict[str, float]:
        """Millilitres of every label that there is, by its name: 'left' and 'right', or 'femur'."""
        values, counts = np.unique(self.labels.array, return_counts=True)
        found = zip(values.tolist(), (counts * self.labels.voxel_ml).tolist(), strict=True)
        return {self.names[value]: round(ml, 3) for value, ml in found if value}

    @property
    def needs_a_look(self) -> bool:
        """Whether no femur was found or a quality flag is red: `femur3d.infer --strict` ends with exit code 5 then."""
        return not self.labels.array.any() or any(flag.level == RED for flag in self.quality.values())

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the label map as a scan file: .nii.gz, .nii, .nrrd or .mha."""
        write_volume(self.labels, path, like=self.nifti)


class Segmenter:
    """A loaded model, ready for any number of scans.

    Args:
        model: what `load_model` returns.
        engine: what computes.
        mode: overlap of the patches and how the network computes.

    Attributes:
        engine: name of what computes.
    """

    def __init__(self, model: TrainedModel, engine: Engine, mode: Mode = EXACT) -> None:
        self._preprocessing = model.preprocessing
        self._limits = model.quality
        self._model = {"weights_sha256": model.weights_sha256, "provenance": model.provenance}
        self._prepared = engine.prepare(model, mode)
        self.engine = engine.name
        self._mode = mode

    def __call__(
        self, scan: Volume, labels: Literal["femur", "sides"] = "sides", progress: Progress | None = None
    ) -> Segmentation:
        """Segments one scan.

        Args:
            scan: any orientation and spacing.
            labels: 'femur' (1) or 'sides' (1 left, 2 right, from anatomy in world coordinates).
            progress: called with the numbers of patches done and in all.

        Raises:
            InputError: the scan is not finite or constant, or has too many or too few voxels on the network's grid; or
                the network's output is not finite.
            MemoryError: even the smallest patches need too much.
        """
        marks = [time.perf_counter()]
        _check_values(scan.array)
        grid = rounded(scan)
        box = content_box(grid)  # beyond it nobody has looked: it is the field of view
        content = cut(grid, box)
        prepared = prepare_scan(content, self._preprocessing)
        _check_size(prepared, self._preprocessing.patch_size)
        marks.append(time.perf_counter())
        patches, patch_size = self._slide(prepared.array, self._preprocessing.patch_size, progress)
        coarse = prepared.with_array(patches.probability)
        marks.append(time.perf_counter())
        probability = cut(scan, box).with_array(restore(coarse, content).array)
        variance = patches.variance
        del coarse, patches  # what follows takes the most memory
        _check_output(probability.array)
        result = label_map(probability, labels=labels)
        marks.append(time.perf_counter())
        heads = self._heads(prepared, result, patch_size)
        quality = flags(measure(result, probability, variance, heads), self._limits)
        marks.append(time.perf_counter())
        seconds = dict(zip(STAGES, np.diff(marks).round(3).tolist(), strict=True))
        names, versions = LABEL_NAMES[labels], self._prepared.versions
        whole, likely = (scan.with_array(_put_back(one.array, box, scan.array.shape)) for one in (result, probability))
        return Segmentation(
            whole, likely, seconds, quality, names, engine=self.engine, versions=versions, model=self._model
        )

    def _heads(self, prepared: Volume, result: Volume, patch_size: tuple[int, ...]) -> dict[str, np.ndarray] | None:
        """What the three heads say in two patches of each femur; None without a femur or the memory for it."""
        centres_mm = tile_centres_mm(femurs_of(result))
        if not len(centres_mm):
            return None
        not_computed: tuple[type[Exception], ...] = (MemoryError, *self._prepared.errors)
        try:
            normalise = make_normalise(self._preprocessing.normalisation)
            patches = patches_around(prepared.array, prepared.index_zyx(centres_mm), patch_size, normalise)
            return self._prepared.predict_heads(patches)
        except not_computed:
            return None

    def _slide(
        self, array: np.ndarray, patch_size: tuple[int, ...], progress: Progress | None
    ) -> tuple[PatchMean, tuple[int, ...]]:
        """The mean of the patches and their size: where memory runs out, half of what was asked for."""
        stride = tuple(max(round(n * (1 - self._mode.overlap)), 1) for n in patch_size)
        normalise = make_normalise(self._preprocessing.normalisation)
        try:
            window = SlidingWindow(
                array, self._prepared.predict, patch_size, stride, normalise=normalise, progress=progress
            )
            look = functools.partial(look_past_air, window, air_level(array)) if self._mode.skip_air else window.look
            if self._mode.refine_above is None:
                look(window.origins)
            else:
                refine_region(window, look, self._mode.refine_above)
            return window.mean(), patch_size
        except MemoryError:
            smaller = tuple(max(n // 2 // DOWNSAMPLING * DOWNSAMPLING, SMALLEST_PATCH) for n in patch_size)
            if math.prod(smaller) >= math.prod(patch_size):
                raise
        return self._slide(array, smaller, progress)


def _put_back(array: np.ndarray, box: tuple[slice, ...], shape: tuple[int, ...]) -> np.ndarray:
    """A part of an array (z, y, x) in its box of the whole, which is 0 elsewhere."""
    if array.shape == shape:
        return array
    whole = np.zeros(shape, array.dtype)
    whole[box] = array
    return whole


def _check_values(array: np.ndarray) -> None:
    low, high = array.min(), array.max()  # NaN where a voxel is NaN
    if not np.isfinite([low, high]).all() or low == high:
        raise InputError(f"A scan with voxels from {low} to {high}.\nExpected an MR scan: finite voxels that differ.")


def _check_output(probability: np.ndarray) -> None:
    """InputError where the network gave NaN or infinity: finite weights may overflow on some scans."""
    if bad := probability.size - int(np.count_nonzero(np.isfinite(probability))):
        message = f"The network gave no number for {bad} of {probability.size} voxels"
        raise InputError(f"{message}.\nIts weights do not suit this scan: use another model.")


def _check_size(prepared: Volume, patch_size: tuple[int, ...]) -> None:
    """InputError where a scan, on the network's grid, is so small that padding it to a patch would be guessing."""
    if any(n < SMALLEST_SHARE * patch for n, patch in zip(prepared.array.shape, patch_size, strict=True)):
        spacing = np.asarray(prepared.spacing_mm)
        received = np.round(prepared.array.shape[::-1] * spacing).astype(int).tolist()
        least = np.ceil(SMALLEST_SHARE * np.asarray(patch_size[::-1]) * spacing).astype(int).tolist()
        raise InputError(f"A scan of {received} mm (x, y, z).\nExpected at least {least} mm: a hip, not a part of one.")
