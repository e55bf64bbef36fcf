"""The same anatomy on any grid: read and turned to LPS, every way of storing a scan gives the same voxels."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from scipy.spatial.transform import Rotation

from femur3d.data.preprocessing import orient
from femur3d.io.images import read_volume, sitk_from_volume
from femur3d.volume import Volume
from tests.support.dicom_series import write_series

OBLIQUE = Rotation.from_euler("xyz", [8, -11, 6], degrees=True).as_matrix()
FLIPS = list(itertools.product((1, -1), repeat=3))
ORDERS = list(itertools.permutations(range(3)))


def anatomy() -> Volume:
    """5 × 6 × 7 voxels (z, y, x), each of its own value and with its own size along every axis, near LPS."""
    array = np.random.default_rng(3).permutation(210).reshape(5, 6, 7).astype(np.int16)
    return Volume(array, (0.9, 1.3, 5.2), (-120.25, 33.5, -471.125), tuple(OBLIQUE.ravel().tolist()))


def stored(volume: Volume, order: tuple[int, ...], flips: tuple[int, ...]) -> Volume:
    """The same scan on other index axes: new axis a is old axis order[a] (of i, j, k), reversed where flips[a] < 0."""
    first = [volume.array.shape[2 - axis] - 1 if flip < 0 else 0 for axis, flip in zip(order, flips, strict=True)]
    start = np.zeros(3)
    start[list(order)] = first
    array = volume.array.transpose([2 - axis for axis in order][::-1])[tuple(slice(None, None, f) for f in flips[::-1])]
    direction = np.reshape(volume.direction, (3, 3))[:, order] * flips
    spacing = tuple(volume.spacing_mm[axis] for axis in order)
    origin = tuple(volume.world_mm(start[::-1]).tolist())
    return Volume(np.ascontiguousarray(array), spacing, origin, tuple(direction.ravel().tolist()))


def grids() -> Iterator[tuple[str, Volume]]:
    """All 48 ways to store the anatomy; half of them left-handed."""
    for order, flips in itertools.product(ORDERS, FLIPS):
        yield f"{order}{flips}", stored(anatomy(), order, flips)


def assert_same_anatomy(volume: Volume, tolerance: float) -> None:
    turned, expected = orient(volume, "LPS"), anatomy()
    np.testing.assert_array_equal(turned.array, expected.array)
    assert turned.geometry_difference(expected, tolerance) is None


def test_there_are_48_grids_that_show_one_anatomy() -> None:
    """A check of this file's own arithmetic: each voxel's place in the world is the one it had."""
    seen, expected = set(), anatomy()
    for _, volume in grids():
        seen.add(volume.direction)
        at = np.argwhere(volume.array == expected.array[1, 4, 2])[0]
        np.testing.assert_allclose(volume.world_mm(at), expected.world_mm((1, 4, 2)), rtol=0, atol=1e-9)
    assert len(seen) == 48
    assert sum(np.linalg.det(np.reshape(direction, (3, 3))) < 0 for direction in seen) == 24


@pytest.mark.parametrize("extension", [".nii", ".nrrd", ".mha"])
def test_every_axis_order_and_flip_in_a_file(tmp_path: Path, extension: str) -> None:
    for name, volume in grids():
        path = tmp_path / f"{name}{extension}"
        sitk.WriteImage(sitk_from_volume(volume), str(path))
        assert_same_anatomy(read_volume(path), 1e-4 if extension == ".nii" else 1e-9)


@pytest.mark.parametrize("forms", ["sform", "qform"])
def test_every_axis_order_and_flip_in_a_file_by_nibabel(tmp_path: Path, forms: str) -> None:
    nib = pytest.importorskip("nibabel", reason="nibabel is in the extra 'dev'")
    for name, volume in grids():
        affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ volume.affine
        image = nib.Nifti1Image(volume.array.T, affine)
        image.set_sform(affine, 0 if forms == "qform" else 1)
        image.set_qform(affine, 0 if forms == "sform" else 1)
        path = tmp_path / f"{name}.nii"
        nib.save(image, path)
        assert_same_anatomy(read_volume(path), 1e-3)


def test_every_axis_order_and_flip_in_dicom_files_in_random_order(tmp_path: Path) -> None:
    """Left-handed grids become right-handed: DICOM slices are stacked along their normal."""
    rng = np.random.default_rng(0)
    for name, volume in grids():
        names = [f"IM{number:04d}" for number in rng.permutation(len(volume.array))]
        write_series(tmp_path / name, volume, names=names)
        read = read_volume(tmp_path / name)
        assert np.linalg.det(np.reshape(read.direction, (3, 3))) == pytest.approx(1)
        assert_same_anatomy(read, 1e-6)
