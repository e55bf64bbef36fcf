"""Scans of bright ellipsoids in place of femurs, and datasets of them."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np

from femur3d.io.images import write_volume
from femur3d.volume import Volume


def ellipsoid_case(seed: int = 0, values: tuple[int, ...] = (1, 2)) -> tuple[Volume, Volume]:
    """A scan of 40×30×36 voxels of 2 mm with a bright ellipsoid on either side of the midline, and its label map."""
    rng = np.random.default_rng(seed)
    z, y, x = np.ogrid[:36, :30, :40]
    label = np.zeros((36, 30, 40), np.uint8)
    for value, centre in zip(values, (29, 10), strict=False):
        inside = ((z - 18) / 12) ** 2 + ((y - 15) / 7) ** 2 + ((x - centre) / 6) ** 2 < 1
        label[inside] = value
    image = 100 + 300 * (label > 0) + rng.normal(0, 20, label.shape)
    scan = Volume(image.astype(np.float32), (2.0, 2.0, 2.0), (-40.0, -30.0, -20.0))
    return scan, scan.with_array(label)


def scan_and_label():
    """The ellipsoids as large as life: voxels of 5 mm, centres 95 mm apart."""
    return tuple(dataclasses.replace(v, spacing_mm=(5.0, 5.0, 5.0)) for v in ellipsoid_case())


def write_dataset(folder: Path, cases: int = 3, validation: int = 1) -> Path:
    """An nnU-Net-layout dataset of ellipsoid cases; the last ones are for validation."""
    names = [f"case_{i}" for i in range(cases)]
    for seed, name in enumerate(names):
        scan, label = ellipsoid_case(seed)
        (folder / "imagesTr").mkdir(parents=True, exist_ok=True)
        (folder / "labelsTr").mkdir(exist_ok=True)
        write_volume(scan, folder / "imagesTr" / f"{name}_0000.nii.gz")
        write_volume(label, folder / "labelsTr" / f"{name}.nii.gz")
    labels = {"background": 0, "femur_left": 1, "femur_right": 2}
    (folder / "dataset.json").write_text(json.dumps({"name": "ellipsoids", "labels": labels}))
    split = {"train": names[: cases - validation], "val": names[cases - validation :]}
    (folder / "splits_final.json").write_text(json.dumps([split]))
    return folder
