"""The packed dataset: one HDF5 file that holds every prepared volume and its variants, ready for random crops.

    /                      attrs: schema, preprocessing (JSON), dataset (name), fold (of its splits), source (of its
                           files), femur_labels (JSON, the names that are learnt), content (SHA-256)
    /volumes/00000         attrs: case, label_value, variant, split, source, spacing_mm, origin_mm, direction
        image              float16 (z, y, x), zero mean and unit variance over the volume
        label              uint8 (z, y, x), 0 background, 1 femur, 255 ignored
        femur_voxels       int32 (n, 3), n ≤ 4096: random femur voxels (z, y, x), to centre patches on

The SHA-256 of the whole stands behind its end and is compared before HDF5 opens it.
Contiguous and uncompressed: the layout that reads random 64³ crops fastest (`benchmarks/pipeline.py`).
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from femur3d.config import IGNORED
from femur3d.errors import InputError
from femur3d.io.atomic import check_seal, seal
from femur3d.io.formats.hdf5 import check_space, open_hdf5, open_in_child, plain_datasets, reading_hdf5, writing_hdf5
from femur3d.io.settings import current_name
from femur3d.volume import Volume

SCHEMA = "femur3d-packed-1"
MAX_FEMUR_VOXELS = 4096
ROOM = 1 << 20  # bytes for what else a volume needs: femur voxels, attributes, HDF5's own


@dataclasses.dataclass(frozen=True)
class Entry:
    """What is known about one packed volume: everything but its voxels.

    Attributes:
        case: name of the patient's scan.
        label_value: the femur's value in the source label map.
        variant: 0 … 7, see `augmentation.variant`; geometry is that of variant 0.
        split: 'train' or 'val'.
        source: file name of the scan.
    """

    case: str
    label_value: int
    variant: int
    split: str
    source: str


class PackedWriter:
    """Appends volumes to an open new file; made by `create_packed_file`."""

    def __init__(self, file: h5py.File, path: str | os.PathLike[str]) -> None:
        self._file, self._path = file, path
        self._content = hashlib.sha256()
        self._volumes = file.create_group("volumes")

    def __enter__(self) -> PackedWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            with contextlib.suppress(OSError, RuntimeError):  # the disk may be full: the first error is reported
                self._file.close()
            return
        with writing_hdf5(self._path):
            self._file.attrs["content"] = self._content.hexdigest()
            self._file.close()
        seal(self._path)

    def add(self, entry: Entry, image: np.ndarray, label: np.ndarray, grid: Volume) -> None:
        """Appends one volume.

        Args:
            entry: its attributes.
            image: (z, y, x), stored as float16.
            label: (z, y, x), 0, 1 or IGNORED.
            grid: the geometry of variant 0.

        Raises:
            InputError: voxels that are not finite in float16, or other labels; names the case. Or a full disk.
        """
        with np.errstate(over="ignore"):
            image, label = image.astype(np.float16), label.astype(np.uint8)
        _check_finite(image, entry)
        if not np.isin(label, (0, 1, IGNORED)).all():
            raise InputError(f"case {entry.case}: labels other than 0, 1 and {IGNORED}.\nExpected 1 for a femur.")
        with writing_hdf5(self._path):
            check_space(self._path, image.nbytes + label.nbytes + ROOM)
            group = self._volumes.create_group(f"{len(self._volumes):05d}")
            geometry = {name: getattr(grid, name) for name in ("spacing_mm", "origin_mm", "direction")}
            group.attrs.update(**dataclasses.asdict(entry), **geometry)
            for name, array in (("image", image), ("label", label)):
                group.create_dataset(name, data=array)
                self._content.update(array.tobytes())
            voxels = np.argwhere(label == 1)
            if len(voxels) > MAX_FEMUR_VOXELS:
                voxels = np.random.Generator(np.random.PCG64(0)).choice(voxels, MAX_FEMUR_VOXELS, replace=False)
            group.create_dataset("femur_voxels", data=voxels.astype(np.int32))


def create_packed_file(
    path: str | os.PathLike[str],
    dataset: str,
    preprocessing: dict[str, Any],
    source: str = "",
    fold: int = 0,
    femur_labels: Sequence[str] = (),
) -> PackedWriter:
    """A new packed file to append volumes to, in a `with` statement; the caller renames it into place afterwards."""
    with writing_hdf5(path):
        file = h5py.File(path, "w")
        file.attrs.update(
            schema=SCHEMA, dataset=dataset, preprocessing=json.dumps(preprocessing), source=source, fold=fold,
            femur_labels=json.dumps(list(femur_labels)),
        )  # fmt: skip
        return PackedWriter(file, path)


class PackedDataset:
    """A packed file opened for reading; close it or use it in a `with` statement.

    Attributes:
        path: of the file.
        dataset: name of the source dataset.
        source: fingerprint of the dataset folder's files, '' where it was not given.
        content: SHA-256 of all images and labels.
        data: this and, after a hyphen, a checksum of which volumes train: what a training that goes on must find again.
        fold: of the dataset's splits_final.json.
        femur_labels: names of the labels that are learnt; () in files of earlier versions.
        preprocessing: the configuration it was prepared with, as a dict.
        entries: all volumes, in file order.

    Raises:
        InputError: not an HDF5 file of this schema, damaged, or with storage outside the file.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        sealed = os.path.isfile(path) and check_seal(path)
        if not sealed:
            open_in_child(path)
        self._file = open_hdf5(path)
        try:
            with reading_hdf5(path):
                self._read(path)
                if not sealed:
                    self._check_content(path)
        except BaseException:
            self.close()
            raise

    def _read(self, path: str | os.PathLike[str]) -> None:
        plain_datasets(self._file, path)
        attrs = dict(current_name(*item) for item in self._file.attrs.items())
        if attrs.get("schema") != SCHEMA or "volumes" not in self._file:
            raise InputError(
                f"{path}: not a packed dataset (schema {attrs.get('schema')!r}).\n"
                "Expected a file of python -m femur3d.pack."
            )
        self.dataset: str = str(attrs["dataset"])
        self.source: str = str(attrs["source"])
        self.content: str = str(attrs["content"])
        self.fold = int(attrs.get("fold", 0))  # of earlier versions: always 0
        self.femur_labels: tuple[str, ...] = tuple(map(str, json.loads(attrs.get("femur_labels", "[]"))))
        self.preprocessing: dict[str, Any] = dict(
            current_name(*item) for item in json.loads(attrs["preprocessing"]).items()
        )
        self._volumes = list(self._file["volumes"].values())
        self.entries = [_entry(v) for v in self._volumes]
        splits = ",".join(entry.split for entry in self.entries)
        self.data = f"{self.content}-{hashlib.sha256(splits.encode()).hexdigest()[:16]}"
        self._femur_voxels = [v["femur_voxels"][...] for v in self._volumes]
        self._images = [v["image"] for v in self._volumes]
        self._labels = [v["label"] for v in self._volumes]

    def _check_content(self, path: str | os.PathLike[str]) -> None:
        """Raises InputError where voxels are not those that were written, or femur voxels do not lie on a femur."""
        content = hashlib.sha256()
        for image, label, voxels in zip(self._images, self._labels, self._femur_voxels, strict=True):
            labels = label[...]
            content.update(image[...].tobytes())
            content.update(labels.tobytes())
            inside = (voxels >= 0).all() and (voxels < labels.shape).all()
            if not inside or not (labels[tuple(voxels.T)] == 1).all():
                raise ValueError(f"{label.name}: femur voxels that are no femur")
        if content.hexdigest() != self.content:
            raise InputError(f"{path}: voxels are not those that were written (SHA-256).\nRun femur3d.pack again.")

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
        """Image (float16) and label (uint8) of a patch of volume `number`; origin and size in (z, y, x).

        Raises:
            InputError: voxels that are not finite; names the case.
        """
        box = tuple(slice(o, o + s) for o, s in zip(origin, size, strict=True))
        image, label = self._images[number][box], self._labels[number][box]
        _check_finite(image, self.entries[number])
        return image, label

    def read_volume(self, number: int) -> tuple[Volume, Volume]:
        """Image (float32) and label (uint8) of the whole volume `number`."""
        attrs = self._volumes[number].attrs
        geometry = {name: tuple(attrs[name].tolist()) for name in ("spacing_mm", "origin_mm", "direction")}
        image = Volume(self._images[number][...].astype(np.float32), **geometry)
        return image, image.with_array(self._labels[number][...])


def _check_finite(image: np.ndarray, entry: Entry) -> None:
    """Raises InputError, which names the case, for voxels that are not finite."""
    if not np.isfinite(image).all():
        raise InputError(
            f"case {entry.case}: intensities are not finite (label {entry.label_value}, variant {entry.variant}).\n"
            "Correct the scan, or take the case out, and run femur3d.pack again."
        )


def _entry(group: h5py.Group) -> Entry:
    """The attributes of one volume, once its three arrays are seen to fit together and to be as small as the file."""
    image, label, voxels = group["image"], group["label"], group["femur_voxels"]
    kinds = (image.dtype, label.dtype, voxels.dtype) == (np.float16, np.uint8, np.int32)
    fit = image.ndim == 3 and image.shape == label.shape and voxels.shape[1:] == (3,)
    stored = all(array.id.get_storage_size() == array.nbytes for array in (image, label, voxels))  # not packed, no fill
    if not (kinds and fit and stored and len(voxels) <= MAX_FEMUR_VOXELS):
        raise ValueError(f"{group.name}: {image}, {label}, {voxels}")
    attrs = group.attrs
    numbers = {name: int(attrs[name]) for name in ("label_value", "variant")}
    return Entry(str(attrs["case"]), split=str(attrs["split"]), source=str(attrs["source"]), **numbers)
