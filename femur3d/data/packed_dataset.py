"""The packed dataset: one HDF5 file that holds every prepared volume and its variants, ready for random crops.

    /                      attrs: schema, preprocessing (JSON), dataset (name), source (of its files), content (SHA-256)
    /volumes/00000         attrs: case, label_value, variant, split, source, spacing_mm, origin_mm, direction
        image              float16 (z, y, x), zero mean and unit variance over the volume
        label              uint8 (z, y, x), 0 background, 1 femur
        femur_voxels       int32 (n, 3), n ≤ 4096: random femur voxels (z, y, x), to centre patches on

Contiguous and uncompressed: the layout that reads random 64³ crops fastest (`benchmarks/pipeline.py`).
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Iterable
from typing import Any

import h5py
import numpy as np

from femur3d.config import current_name
from femur3d.errors import InputError
from femur3d.io.hdf5 import open_hdf5, plain_datasets
from femur3d.volume import Volume

SCHEMA = "femur3d-packed-1"
MAX_FEMUR_VOXELS = 4096


@dataclasses.dataclass(frozen=True)
class Entry:
    """What is known about one packed volume: everything but its voxels.

    Attributes:
        case: name of the patient's scan.
        label_value: the femur's value in the source label map.
        variant: 0 … 7, see `augment`; geometry is that of variant 0.
        split: 'train' or 'val'.
        source: file name of the scan.
    """

    case: str
    label_value: int
    variant: int
    split: str
    source: str


class PackedWriter:
    """Writes volumes one after the other into a new file at `path`, which the caller renames into place."""

    def __init__(
        self, path: str | os.PathLike[str], dataset: str, preprocessing: dict[str, Any], source: str = ""
    ) -> None:
        self._file = h5py.File(path, "w")
        self._file.attrs.update(schema=SCHEMA, dataset=dataset, preprocessing=json.dumps(preprocessing), source=source)
        self._content = hashlib.sha256()
        self._volumes = self._file.create_group("volumes")

    def __enter__(self) -> PackedWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.attrs["content"] = self._content.hexdigest()
        self._file.close()

    def add(self, entry: Entry, image: np.ndarray, label: np.ndarray, grid: Volume) -> None:
        """Appends one volume.

        Args:
            entry: its attributes.
            image: (z, y, x), stored as float16.
            label: (z, y, x), 0 or 1.
            grid: the geometry of variant 0.
        """
        group = self._volumes.create_group(f"{len(self._volumes):05d}")
        geometry = {name: getattr(grid, name) for name in ("spacing_mm", "origin_mm", "direction")}
        group.attrs.update(**dataclasses.asdict(entry), **geometry)
        for name, array in (("image", image.astype(np.float16)), ("label", label.astype(np.uint8))):
            group.create_dataset(name, data=array)
            self._content.update(array.tobytes())
        voxels = np.argwhere(label)
        if len(voxels) > MAX_FEMUR_VOXELS:
            voxels = np.random.Generator(np.random.PCG64(0)).choice(voxels, MAX_FEMUR_VOXELS, replace=False)
        group.create_dataset("femur_voxels", data=voxels.astype(np.int32))


class PackedDataset:
    """A packed file opened for reading; close it or use it in a `with` statement.

    Attributes:
        dataset: name of the source dataset.
        source: fingerprint of the dataset folder's files, '' where it was not given.
        content: SHA-256 of all images and labels: what a training that goes on must find again.
        preprocessing: the configuration it was prepared with, as a dict.
        entries: all volumes, in file order.

    Raises:
        InputError: not an HDF5 file of this schema, damaged, or with storage outside the file.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._file = open_hdf5(path)
        try:
            plain_datasets(self._file, path)
            if self._file.attrs.get("schema") != SCHEMA:
                raise KeyError(f"schema {self._file.attrs.get('schema')!r}")
            self.dataset: str = str(self._file.attrs["dataset"])
            self.source: str = str(self._file.attrs["source"])
            self.content: str = str(self._file.attrs["content"])
            attrs = dict(current_name(*item) for item in self._file.attrs.items())
            self.preprocessing: dict[str, Any] = json.loads(attrs["preprocessing"])
            self._volumes = list(self._file["volumes"].values())
            self.entries = [_entry(v) for v in self._volumes]
        except (KeyError, TypeError, ValueError) as error:
            self._file.close()
            raise InputError(
                f"{path}: not a packed dataset ({error}).\nExpected a file of python -m femur3d.pack."
            ) from error
        self._femur_voxels = [v["femur_voxels"][...] for v in self._volumes]
        self._images = [v["image"] for v in self._volumes]
        self._labels = [v["label"] for v in self._volumes]

    def __enter__(self) -> PackedDataset:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._file.close()

    def select(self, split: str, variants: Iterable[int] = range(8)) -> list[int]:
        """Numbers of the volumes of a split and of some variants, in file order."""
        wanted = set(variants)
        return [i for i, e in enumerate(self.entries) if e.split == split and e.variant in wanted]

    def shape(self, number: int) -> tuple[int, int, int]:
        """(z, y, x) of volume `number`."""
        return self._images[number].shape

    def femur_voxels(self, number: int) -> np.ndarray:
        """Random femur voxels (n, 3) in (z, y, x) of volume `number`."""
        return self._femur_voxels[number]

    def read_patch(self, number: int, origin: tuple[int, ...], size: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
        """Image (float16) and label (uint8) of a patch of volume `number`; origin and size in (z, y, x)."""
        box = tuple(slice(o, o + s) for o, s in zip(origin, size, strict=True))
        return self._images[number][box], self._labels[number][box]

    def read_volume(self, number: int) -> tuple[Volume, Volume]:
        """Image (float32) and label (uint8) of the whole volume `number`."""
        attrs = self._volumes[number].attrs
        geometry = {name: tuple(attrs[name].tolist()) for name in ("spacing_mm", "origin_mm", "direction")}
        image = Volume(self._images[number][...].astype(np.float32), **geometry)
        return image, image.with_array(self._labels[number][...])


def _entry(group: h5py.Group) -> Entry:
    """The attributes of one volume, once its three arrays are seen to fit together."""
    image, label, voxels = group["image"], group["label"], group["femur_voxels"]
    if image.ndim != 3 or image.shape != label.shape or voxels.shape[1:] != (3,):
        raise ValueError(f"{group.name}: shapes {image.shape}, {label.shape}, {voxels.shape}")
    attrs = group.attrs
    numbers = {name: int(attrs[name]) for name in ("label_value", "variant")}
    return Entry(str(attrs["case"]), split=str(attrs["split"]), source=str(attrs["source"]), **numbers)
