"""DICOM series as scanners write them, and ones that no scanner should."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from scipy.spatial.transform import Rotation

from femur3d.volume import Volume

CORONAL = np.array([[1, 0, 0], [0, 0, 1], [0, -1, 0]], float)

OBLIQUE = CORONAL @ Rotation.from_euler("xyz", [3, -5, 2], degrees=True).as_matrix()


def make_scan(direction: np.ndarray = CORONAL) -> Volume:
    """6 slices of 7 rows and 8 columns, each voxel with a value of its own."""
    array = np.arange(6 * 7 * 8, dtype=np.int16).reshape(6, 7, 8)
    return Volume(array, (0.9, 1.1, 5.2), (-200.5, -133.25, 230.125), tuple(direction.ravel().tolist()))


def write_series(
    folder: Path, scan: Volume, *, uid: str = "1.2.3.4", number: int = 3, names: Sequence[str] = ()
) -> None:
    """Writes one file a slice with the tags of an MR scanner; `names`: file names in slice order."""
    folder.mkdir(exist_ok=True)
    for z in range(len(scan.array)):
        name = names[z] if names else f"{uid}-{z}.dcm"
        write_slice(
            folder / name, scan, z, {"0020|000e": uid, "0020|0011": str(number), "0008|103e": f"t1 tse {number}"}
        )


def write_slice(path: Path, scan: Volume, z: int, tags: dict[str, str] | None = None) -> None:
    """Writes slice z of a scan as an MR image; `tags` are added or replace the usual ones ('' leaves one out)."""
    image = sitk.GetImageFromArray(scan.array[z])
    image.SetSpacing(scan.spacing_mm[:2])
    direction = np.reshape(scan.direction, (3, 3))
    usual = {
        "0008|0016": "1.2.840.10008.5.1.4.1.1.4",
        "0008|0060": "MR",
        "0020|000d": "1.2.3",
        "0020|000e": "1.2.3.4",
        "0020|0013": str(z + 1),
        "0020|0032": "\\".join(f"{x:.10g}" for x in scan.world_mm((z, 0, 0))),
        "0020|0037": "\\".join(f"{x:.12g}" for x in direction[:, :2].T.ravel()),
        "0018|0088": str(scan.spacing_mm[2]),
    }
    for key, value in (usual | (tags or {})).items():
        if value:
            image.SetMetaData(key, value)
    writer = sitk.ImageFileWriter()
    writer.SetImageIO("GDCMImageIO")
    writer.KeepOriginalImageUIDOn()
    writer.SetFileName(str(path))
    writer.Execute(image)


def element(group: int, number: int, value: str) -> bytes:
    """One DICOM element as SimpleITK writes it: implicit little endian, even length."""
    data = value.encode() + b" " * (len(value) % 2)
    return struct.pack("<HHI", group, number, len(data)) + data


def put_elements(path: Path, values: dict[tuple[int, int], str]) -> None:
    """Replaces or adds elements of a file that SimpleITK wrote, whose own writer would mend or refuse the values."""
    put_bytes(path, {key: value.encode() for key, value in values.items()})


def put_bytes(path: Path, values: dict[tuple[int, int], bytes]) -> None:
    """As `put_elements`, with values as they are stored."""
    data = path.read_bytes()
    at = start = 144 + int.from_bytes(data[140:144], "little")  # after the file's meta header
    elements = {}
    while at < len(data):
        group, number, length = struct.unpack_from("<HHI", data, at)
        elements[group, number] = data[at : at + 8 + length]
        at += 8 + length
    for key, value in values.items():
        padded = value + b" " * (len(value) % 2)
        elements[key] = struct.pack("<HHI", *key, len(padded)) + padded
    path.write_bytes(data[:start] + b"".join(elements[key] for key in sorted(elements)))


NEEDED = {"0020|0052": "1.2.3.7", "0020|0011": "3", "0008|1030": "hips"}  # FrameOfReferenceUID and what scanners add


def write_scan(folder: Path, scan: Volume, seed: int = 0, **tags: str) -> list[Path]:
    """One file a slice, with shuffled names; the list is shuffled another way. Tags are named like `t0020_0052`."""
    rng = np.random.default_rng(seed)
    folder.mkdir(exist_ok=True)
    own = NEEDED | {f"{key[1:5]}|{key[6:]}": value for key, value in tags.items()}
    paths = [folder / f"IM{place:03d}" for place in rng.permutation(len(scan.array))]
    for z, path in enumerate(paths):
        write_slice(path, scan, z, {**own, "0008|0018": f"1.2.3.4.{z + 1}"})
    return [paths[i] for i in rng.permutation(len(paths))]
