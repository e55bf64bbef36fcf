"""Which patches a training step sees: a pure function of (seed, step). Needs no TensorFlow.

Section 3.2: an epoch visits every training volume once, in random order, and takes n batches of random
patches from each.
"""

from __future__ import annotations

import dataclasses
import functools

import numpy as np

from femur3d.config import Training, Transforms
from femur3d.data.augmentation import distort, random_distortion
from femur3d.data.packed_dataset import PackedDataset
from femur3d.data.patches import centred_origin, make_normalise, random_origin
from femur3d.data.random_transforms import Voxels, change_contrast, narrow_view, reference_of

# First element of the counter of each kind of draw, so that no two draws share their bits.
_SHUFFLE, _ORIGIN, _FOCUS, _DISTORT, _CONTRAST = range(5)


def share(batch_size: int, parts: int, part: int) -> range:
    """The places in a batch whose patches are those of part `part` (from 0): neighbours, as many for each of `parts`.

    Of 4 patches, 2 parts have 0 and 1, and 2 and 3.
    """
    size = batch_size // parts
    return range(part * size, (part + 1) * size)


@dataclasses.dataclass(frozen=True)
class PatchSampler:
    """Draws and reads the batch of any step.

    Attributes:
        packed: the open dataset.
        training: seed, batch size, batches per volume, foreground probability, variants.
        patch_size: (z, y, x).
        transforms: random changes of contrast and what else, and how often.
        elements: which patches of the batch are read, by their place in it; None: all.
    """

    packed: PackedDataset
    training: Training
    patch_size: tuple[int, ...]
    transforms: Transforms = dataclasses.field(default_factory=Transforms)
    elements: range | None = None

    @functools.cached_property
    def volumes(self) -> list[int]:
        """Numbers in `packed` of the volumes that are trained on."""
        return self.packed.select("train", self.training.variants)

    @functools.cached_property
    def cases(self) -> list[str]:
        """The cases that these volumes come from, sorted."""
        return sorted({self.packed.entries[number].case for number in self.volumes})

    @property
    def steps_per_epoch(self) -> int:
        """Volumes × batches per volume: 80 × 5 = 400 in the paper."""
        return len(self.volumes) * self.training.batches_per_volume

    def volume_of(self, step: int, element: int = 0) -> int:
        """Number in `packed` of the volume that patch `element` of step `step` (both from 0) is taken from.

        In multi-volume batches every place in the batch visits the volumes in an order of its own.
        """
        epoch, batch = divmod(step, self.steps_per_epoch)
        key = (_SHUFFLE, epoch, element) if self.training.multi_volume_batches else (_SHUFFLE, epoch)
        sequence = np.random.SeedSequence(self.training.seed, spawn_key=key)
        order = np.argsort(np.random.Philox(sequence).random_raw(len(self.volumes)), kind="stable")
        return self.volumes[order[batch // self.training.batches_per_volume]]

    def sources(self, step: int) -> str:
        """For people: which volumes the patches of step `step` are taken from."""
        numbers = dict.fromkeys(self.volume_of(step, element) for element in range(self.training.batch_size))
        entries = [self.packed.entries[number] for number in numbers]
        return "; ".join(f"{e.case}, label {e.label_value}, variant {e.variant}" for e in entries)

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """Shape of the labels that `batch` gives."""
        return (len(self._elements), *self.patch_size)

    @property
    def _elements(self) -> range:
        return range(self.training.batch_size) if self.elements is None else self.elements

    def _origin(self, number: int, step: int, element: int) -> tuple[int, int, int]:
        shape, seed = self.packed.shape(number), self.training.seed
        sequence = np.random.SeedSequence(seed, spawn_key=(_FOCUS, step, element))
        chance, choice = np.random.Philox(sequence).random_raw(2).tolist()
        if chance >= self.training.foreground_probability * 2**64:
            return random_origin(shape, self.patch_size, seed, (_ORIGIN, step, element))
        voxels = self.packed.femur_voxels(number)
        return centred_origin(voxels[(choice * len(voxels)) >> 64], shape, self.patch_size)

    def batch(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """The patches of step `step`, or those `elements` of them, read from the file.

        Returns:
            images: float32 (batch, z, y, x, 1), normalised.
            labels: uint8 (batch, z, y, x).
        """
        numbers = {i: self.volume_of(step, i) for i in self._elements}
        patches = [self._patch(number, self._origin(number, step, i), step, i) for i, number in numbers.items()]
        normalise = make_normalise(self.packed.preprocessing["normalisation"])
        images = np.stack([normalise(image)[..., np.newaxis] for image, _ in patches])
        return images, np.stack([label for _, label in patches])

    def _patch(self, number: int, origin: tuple[int, ...], step: int, element: int) -> tuple[np.ndarray, np.ndarray]:
        """One patch in another contrast where the draw says so."""
        image, label = self._read(number, origin, step, element)
        rng = np.random.Generator(
            np.random.Philox(np.random.SeedSequence(self.training.seed, spawn_key=(_CONTRAST, step, element)))
        )
        if not rng.random() < self.transforms.patches:
            return image, label
        spacing = np.asarray(self.packed.preprocessing["spacing_mm"][::-1])
        centre = np.asarray(origin) + (np.asarray(self.patch_size) - np.asarray(self.packed.shape(number))) / 2
        image = change_contrast(image, label, centre * spacing, spacing, self._reference(number), self.transforms, rng)
        return narrow_view(image, label, rng) if rng.random() < self.transforms.narrow_view else (image, label)

    def _reference(self, number: int) -> Voxels:
        if number not in self._references:
            image, label = self.packed.read_volume(number)
            self._references[number] = reference_of(image.array, label.array, np.asarray(image.spacing_mm[::-1]))
        return self._references[number]

    @functools.cached_property
    def _references(self) -> dict[int, Voxels]:
        return {}

    def _read(self, number: int, origin: tuple[int, ...], step: int, element: int) -> tuple[np.ndarray, np.ndarray]:
        """One patch, distorted where the draw says so."""
        generator = np.random.Generator(
            np.random.Philox(np.random.SeedSequence(self.training.seed, spawn_key=(_DISTORT, step, element)))
        )
        if generator.random() >= self.training.augmentation_probability:
            return self.packed.read_patch(number, origin, self.patch_size)
        distortion = random_distortion(generator, self.packed.preprocessing["spacing_mm"])
        size, shape = np.asarray(self.patch_size), np.asarray(self.packed.shape(number))
        centre = np.asarray(origin) + (size - 1) / 2
        start = np.maximum(np.floor(centre).astype(int) - distortion.reach(self.patch_size), 0)
        stop = np.minimum(np.ceil(centre).astype(int) + distortion.reach(self.patch_size) + 1, shape)
        image, label = self.packed.read_patch(number, tuple(start), tuple(stop - start))
        return distort(image, label, centre - start, self.patch_size, distortion)
