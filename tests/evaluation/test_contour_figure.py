"""Contour figures: the right way up on every grid, and drawn where the labels are."""

from __future__ import annotations

import itertools
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from femur3d.evaluation.contour_figure import MARGIN_MM, contour_figure, femur_region, slice_indices
from femur3d.volume import Volume, anatomical
from tests.support.shapes import SHAPE_LPS, SPACING_LPS, oriented

GREEN, RED = (0.0, 0.816, 0.0), (1.0, 0.125, 0.125)


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
@pytest.mark.parametrize("signs", [(1, 1, 1), (-1, 1, 1), (1, -1, -1), (-1, -1, -1)])
def test_anatomical_finds_head_front_and_left_on_every_grid(order, signs) -> None:
    expected = np.arange(np.prod(SHAPE_LPS)).reshape(SHAPE_LPS[::-1])
    array, spacing_mm = anatomical(oriented(expected, order, signs))
    assert np.array_equal(array, expected)
    assert spacing_mm == SPACING_LPS[::-1]


def test_anatomical_by_world_coordinates_on_an_oblique_grid() -> None:
    """A coronal acquisition 20° off: the most superior, posterior, left voxel ends in the last corner."""
    c, s = np.cos(np.radians(20)), np.sin(np.radians(20))
    volume = Volume(np.zeros((3, 4, 5)), direction=(c, s, 0.0, 0.0, 0.0, 1.0, s, -c, 0.0))
    index = np.stack(np.indices(volume.array.shape), -1)
    world = np.stack([anatomical(volume.with_array(volume.world_mm(index)[..., axis]))[0] for axis in range(3)], -1)
    for array_axis, world_axis in ((0, 2), (1, 1), (2, 0)):
        assert (np.diff(world[..., world_axis], axis=array_axis) > 0.9).all()


def test_slices_follow_the_labelled_voxels() -> None:
    shown = np.zeros((2, 20, 2), bool)
    shown[:, 8:16] = True
    assert slice_indices(shown, axis=1, count=4) == [8, 10, 12, 14]
    assert slice_indices(np.zeros((2, 20, 2), bool), axis=1, count=4) == [2, 7, 12, 17]
    shown[:] = False
    shown[1, 5, 0] = True
    assert slice_indices(shown, axis=1, count=4) == [5]


def pixels(path: Path, colour: tuple[float, ...]) -> np.ndarray:
    """Positions (row, column), shape (n, 2), of the pixels close to a colour."""
    return np.argwhere(np.abs(imread(path)[..., :3] - colour).max(axis=-1) < 0.1)


def scan_with(*corners: tuple[int, int, int]) -> tuple[Volume, ...]:
    """A noisy image and a label map (4³ voxels from each corner) for each of the corners."""
    noise = np.random.default_rng(0).normal(size=(24, 16, 40)).astype(np.float32)
    labels = []
    for z, y, x in corners:
        array = np.zeros(noise.shape, np.uint8)
        array[z : z + 4, y : y + 4, x : x + 4] = 1
        labels.append(Volume(array, (1.0, 1.0, 2.0)))
    return Volume(noise, (1.0, 1.0, 2.0)), *labels


def test_patients_right_is_on_the_left_and_the_head_is_up(tmp_path: Path) -> None:
    """+x is the patient's left and +z is up (LPS): the reference lies right and low, the prediction left and high."""
    image, reference, prediction = scan_with((2, 6, 3), (18, 6, 33))
    contour_figure(image, reference, prediction, tmp_path / "case.png")
    height, width = imread(tmp_path / "case.png").shape[:2]
    green, red = pixels(tmp_path / "case.png", GREEN), pixels(tmp_path / "case.png", RED)
    inside = [p[(p[:, 1] < width / 6) & (p[:, 0] < 0.8 * height)] for p in (green, red)]  # the first of six panels
    assert all(len(p) > 50 for p in inside)
    assert inside[0][:, 1].max() < inside[1][:, 1].min()
    assert inside[0][:, 0].min() > inside[1][:, 0].max()


def test_the_front_is_up_in_axial_slices(tmp_path: Path) -> None:
    """+y is posterior (LPS): the reference lies in front of the prediction."""
    image, reference, prediction = scan_with((6, 1, 3), (6, 10, 3))
    contour_figure(image, reference, prediction, tmp_path / "case.png")
    height, width = imread(tmp_path / "case.png").shape[:2]
    green, red = pixels(tmp_path / "case.png", GREEN), pixels(tmp_path / "case.png", RED)
    inside = [p[(p[:, 1] > 0.85 * width) & (p[:, 0] < 0.8 * height)] for p in (green, red)]  # the last panel is axial
    assert all(len(p) > 50 for p in inside)
    assert inside[0][:, 0].max() < inside[1][:, 0].min()


def test_voxels_keep_their_aspect(tmp_path: Path) -> None:
    """A box of 4 × 4 voxels of 1 mm by 2 mm is twice as high as wide in a coronal slice."""
    image, reference = scan_with((6, 6, 3))
    contour_figure(image, reference, None, tmp_path / "case.png")
    height, width = imread(tmp_path / "case.png").shape[:2]
    green = pixels(tmp_path / "case.png", GREEN)
    green = green[(green[:, 1] < width / 6) & (green[:, 0] < 0.8 * height)]
    tall, wide = np.ptp(green, axis=0)
    assert tall / wide == pytest.approx(2.0, rel=0.1)


def test_pictures_show_the_femurs_and_a_margin() -> None:
    shown = np.zeros((40, 100, 100), bool)
    shown[30, 40:45, 60] = True
    assert MARGIN_MM == 25
    assert femur_region(shown, (5.0, 1.0, 2.0)) == (slice(25, 36), slice(15, 70), slice(47, 74))
    assert femur_region(shown & False, (5.0, 1.0, 2.0)) == (slice(None),) * 3


def test_only_what_is_given_is_drawn(tmp_path: Path) -> None:
    image, reference = scan_with((2, 6, 3))
    contour_figure(image, None, reference, tmp_path / "a.png")
    contour_figure(image, None, None, tmp_path / "b.png")
    empty = reference.with_array(np.zeros_like(reference.array))
    contour_figure(image, empty, None, tmp_path / "c.png")
    assert [len(pixels(tmp_path / name, GREEN)) > 0 for name in ("a.png", "b.png", "c.png")] == [False, False, True]
    assert [len(pixels(tmp_path / name, RED)) > 0 for name in ("a.png", "b.png", "c.png")] == [True, False, False]


def test_another_grid_is_refused_and_nothing_written(tmp_path: Path) -> None:
    image, reference = scan_with((2, 6, 3))
    with pytest.raises(ValueError, match="spacing_mm"):
        contour_figure(image, Volume(reference.array), None, tmp_path / "a.png")
    assert list(tmp_path.iterdir()) == []


def test_pyplot_is_not_imported() -> None:
    code = "import sys, femur3d.evaluation.contour_figure; sys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
