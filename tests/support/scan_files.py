"""Scan files of a few voxels, sound ones and NIfTI files with a changed header."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from femur3d.io.images import write_volume
from femur3d.volume import Volume

SPACING = (0.9114583134651, 1.3, 5.2)

ORIGIN = (-215.13988588074, -133.36719770831, 230.48982655515)

DIRECTIONS = {
    "axial": np.eye(3),
    "coronal": np.array([[1, 0, 0], [0, 0, 1], [0, -1, 0]], float),
    "sagittal": np.array([[0, 0, -1], [1, 0, 0], [0, -1, 0]], float),
    "left-handed": np.diag([1.0, 1.0, -1.0]),
    "oblique": Rotation.from_euler("xyz", [12, -25, 40], degrees=True).as_matrix(),
}

QFORM, SFORM, PIXDIM, ROWS = 252, 254, 80, 280  # byte offsets in a NIfTI-1 header


def make_volume(direction: np.ndarray = DIRECTIONS["oblique"], dtype: str = "int16") -> Volume:
    """5 × 6 × 7 voxels (z, y, x), each with a value of its own."""
    array = np.arange(210).reshape(5, 6, 7).astype(dtype)
    return Volume(array, SPACING, ORIGIN, tuple(direction.ravel().tolist()))


def nifti_with(tmp_path: Path, *changes: tuple) -> Path:
    """A NIfTI-1 file with bytes of its header changed: (offset, struct format, values…)."""
    path = tmp_path / "scan.nii"
    write_volume(make_volume(), path)
    data = bytearray(path.read_bytes())
    for offset, form, *values in changes:
        struct.pack_into("<" + form, data, offset, *values)
    path.write_bytes(data)
    return path


def sheared(tmp_path: Path, shear: float, *more: tuple) -> Path:
    """A NIfTI file with an sform only, whose j axis leans by `shear` mm a voxel along the world's x."""
    path = nifti_with(tmp_path)
    rows = list(struct.unpack_from("<12f", path.read_bytes(), ROWS))
    rows[1] += shear
    return nifti_with(tmp_path, (ROWS, "12f", *rows), (QFORM, "h", 0), *more)
