"""Fig. 2: colours say by how much and to which side."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from femur3d.report.distance_figure import colour_limit_mm, distance_figure
from femur3d.report.surfaces import Surface
from tests.support.result_folders import ellipsoids


def coloured_pixels(path):
    """How many pixels are clearly red, and how many clearly blue."""
    array = np.asarray(Image.open(path).convert("RGB")).astype(int)
    array = array[:, : int(0.8 * array.shape[1])]  # without the colour bar
    difference = array[..., 0] - array[..., 2]
    return int((difference > 60).sum()), int((difference < -60).sum())


@pytest.mark.parametrize(("grow", "larger"), [(3.0, 0), (-3.0, 1)])
def test_too_large_is_red_and_too_small_is_blue(tmp_path, grow, larger):
    distance_figure(None, ellipsoids(1, 2), ellipsoids(1, 2, grow=grow), tmp_path / "f.png", "case")
    counts = coloured_pixels(tmp_path / "f.png")
    assert counts[larger] > 1000
    assert counts[1 - larger] < counts[larger] / 20


def test_slices_stand_beside_the_surfaces(tmp_path):
    labels = ellipsoids(1, 2)
    scan = labels.with_array(labels.array.astype(np.float32))
    distance_figure(scan, labels, labels, tmp_path / "with.png", "$x$")
    distance_figure(None, labels, labels, tmp_path / "without.png", "$x$")
    assert Image.open(tmp_path / "with.png").width > 1.5 * Image.open(tmp_path / "without.png").width


def test_nothing_found_is_a_picture_too(tmp_path):
    distance_figure(None, ellipsoids(1), ellipsoids(), tmp_path / "f.png", "case")
    assert Image.open(tmp_path / "f.png").width > 100


def test_colour_limit_covers_all_but_a_few():
    distances = np.concatenate([np.full(990, -1.7), np.full(10, 40.0)])
    surface = Surface("left", np.zeros((1000, 3)), np.zeros((0, 3), int), distances)
    assert colour_limit_mm([surface]) == 2.0
    assert colour_limit_mm([]) == 1.0
