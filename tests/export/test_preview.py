"""Previews: the head is found, both femurs are shown the right way round, and surfaces are shaded from the lamp."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from femur3d.export.pictures.landmarks import head_centre
from femur3d.export.pictures.preview import femurs_of, preview_figure
from femur3d.export.pictures.shading import shaded_front
from femur3d.export.segments import segments_of
from femur3d.morphometry.implicit_surface import implicit_surface
from femur3d.phantom.hip import make_phantom, patient_anatomy
from femur3d.volume import Volume, anatomical
from tests.support.shapes import ball, oriented


@pytest.fixture(scope="module")
def phantom() -> tuple[Volume, Volume]:
    """Both hips, 4 mm voxels."""
    return make_phantom(1, (100, 43, 45), "both", texture=0, bias=0)


def test_the_centre_of_the_head(phantom) -> None:
    """Within a voxel and a half of the truth, on a grid stored coronally and from the wrong ends as well."""
    labels = phantom[1]
    body = patient_anatomy(1).body
    for value, side in ((1, 1), (2, -1)):
        mask = labels.with_array(labels.array == value)
        index = head_centre(*anatomical(mask))
        truth = (side * body.head_distance_mm, body.centre_mm[0], body.centre_mm[1])
        np.testing.assert_allclose(labels.world_mm(index), truth, atol=6.0)
    stored = oriented(labels.array == 1, (0, 2, 1), (1, -1, -1))
    assert head_centre(anatomical(stored)[0], (4.0,) * 3) == head_centre(labels.array == 1, (4.0,) * 3)


def test_neither_a_hole_nor_thicker_bone_further_down_moves_the_centre() -> None:
    """A head of radius 12, trochanters of radius 14; beside the hole there is room for half the ball only."""
    z, y, x = np.ogrid[:80, :30, :40]
    head = (z - 64) ** 2 + (y - 15) ** 2 + (x - 15) ** 2 <= 12**2
    trochanters = (z - 30) ** 2 + (y - 15) ** 2 + (x - 24) ** 2 <= 14**2
    femur = head | trochanters | (((y - 15) ** 2 + (x - 20) ** 2 <= 9**2) & (z < 60))
    assert head_centre(femur, (1.0,) * 3) == (64, 15, 15)
    femur[64, 15, 15] = False
    assert head_centre(femur, (1.0,) * 3) == (64, 15, 15)


def test_femurs_come_from_right_to_left_with_their_volumes(phantom) -> None:
    labels = phantom[1]
    sides = femurs_of(labels, "sides")
    voxel_ml = np.prod(labels.spacing_mm) / 1000
    counts = [np.count_nonzero(labels.array == value) for value in (2, 1)]
    assert [femur.caption for femur in sides] == [
        f"Right femur {counts[0] * voxel_ml:.1f} ml",
        f"Left femur {counts[1] * voxel_ml:.1f} ml",
    ]
    assert sides[0].mask.array.sum() == counts[0]
    assert sides[0].colour != sides[1].colour
    common = labels.with_array((labels.array > 0).astype(np.uint8))
    both = femurs_of(common, "femur")
    assert [femur.name for femur in both] == ["Femur on the right", "Femur on the left"]
    np.testing.assert_array_equal(both[0].mask.array, sides[0].mask.array)
    one = femurs_of(labels.with_array((labels.array == 1).astype(np.uint8)), "femur")
    assert [femur.name for femur in one] == ["Femur"]
    assert femurs_of(labels.with_array(np.zeros_like(labels.array)), "femur") == []


def test_right_and_left_are_the_patients() -> None:
    """In a grid stored from left to right, the right femur further back and higher."""
    array = np.zeros((12, 12, 20), np.uint8)
    array[1:5, 1:5, 1:5] = 1
    array[7:11, 7:11, 15:19] = 2
    labels = Volume(array, (8.0, 8.0, 8.0), direction=(-1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0))
    assert [femur.name for femur in femurs_of(labels, "sides")] == ["Right femur", "Left femur"]
    first, second = femurs_of(labels.with_array((array > 0).astype(np.uint8)), "femur")
    assert (first.mask.array == (array == 2)).all()
    assert (second.mask.array == (array == 1)).all()


def test_a_speck_is_no_femur_of_its_own() -> None:
    mask = ball(8, half_mm=12.0).array.astype(np.uint8)
    mask[0, 0, :3] = 1
    (femur,) = femurs_of(Volume(mask), "femur")
    assert femur.mask.array.sum() == mask.sum()


def close_to(picture: np.ndarray, colour: tuple[float, float, float]) -> np.ndarray:
    """Pixels that have a colour's ratios, whatever the shade, and are not grey."""
    shade = picture[..., :3].max(axis=-1, keepdims=True)
    hue = picture[..., :3] / np.maximum(shade, 1e-6)
    return (np.abs(hue - np.array(colour) / max(colour)).max(axis=-1) < 0.08) & (shade[..., 0] > 0.2)


def test_the_picture_shows_both_femurs_in_rows(phantom, tmp_path: Path) -> None:
    scan, labels = phantom
    preview_figure(scan, labels, tmp_path / "case_preview.png", title="case", labels="sides")
    picture = imread(tmp_path / "case_preview.png")
    height, width = picture.shape[:2]
    assert 1000 < width <= 2600
    for segment in segments_of(labels, "sides"):
        rows, columns = np.nonzero(close_to(picture, segment.colour))
        upper = np.median(rows) < height / 2
        assert upper == (segment.name == "Right femur")
        inside = columns[(rows < height / 2) == upper]
        shares = np.histogram(inside, bins=7, range=(0, width))[0]
        assert (shares > 20).all()  # contours in five panels, surfaces in two
        assert shares[5:].min() > 3 * shares[:5].max()


def bumped() -> tuple[Volume, Volume]:
    """A block with an arm at its top, towards the patient's left and front. Axes begin inferior, anterior, right."""
    array = np.zeros((40, 30, 36), np.uint8)
    array[8:32, 10:20, 8:18] = 1
    array[24:32, 6:20, 8:30] = 1
    scan = np.random.default_rng(0).normal(size=array.shape).astype(np.float32)
    return Volume(scan, (2.0,) * 3), Volume(array, (2.0,) * 3)


def test_surfaces_are_seen_from_the_front_and_from_behind(tmp_path: Path) -> None:
    """The patient's left is on the right from the front and on the left from behind; the arm is above."""
    scan, labels = bumped()
    preview_figure(scan, labels, tmp_path / "a.png", title="$x$_1$", labels="femur")
    picture = imread(tmp_path / "a.png")
    picture = picture[picture.shape[0] // 5 :]  # without the heading and the caption, which have the colour too
    shown = close_to(picture, segments_of(labels, "femur")[0].colour)
    quarter = shown.shape[1] // 8
    for first, sign in ((0.6, 1), (0.8, -1)):
        part = shown[:, int(first * shown.shape[1]) : int((first + 0.2) * shown.shape[1])]
        rows, columns = np.nonzero(part)
        assert np.ptp(columns) > quarter / 2
        middle = (rows.min() + rows.max()) / 2
        above, below = (columns[part_of].mean() for part_of in (rows < middle, rows > middle))
        assert sign * (above - below) > 5


def test_a_label_map_without_femur_is_shown_as_well(phantom, tmp_path: Path) -> None:
    scan, labels = phantom
    empty = labels.with_array(np.zeros_like(labels.array))
    preview_figure(scan, empty, tmp_path / "a.png", title="case", labels="sides")
    assert imread(tmp_path / "a.png")[..., :3].max() > 0.9
    constant = scan.with_array(np.full_like(scan.array, 7))
    preview_figure(constant, empty, tmp_path / "b.png", title="case", labels="sides")
    assert (tmp_path / "b.png").exists()


def test_another_grid_is_refused_and_nothing_written(tmp_path: Path) -> None:
    scan, labels = bumped()
    with pytest.raises(ValueError, match="spacing_mm"):
        preview_figure(scan, Volume(labels.array), tmp_path / "a.png", title="case", labels="femur")
    with pytest.raises(ValueError, match=r"Received: \[3\]"):
        preview_figure(scan, labels.with_array(3 * labels.array), tmp_path / "a.png", title="case", labels="sides")
    assert list(tmp_path.iterdir()) == []


def test_a_ball_is_lit_from_above_and_the_left() -> None:
    field, spacing_mm = anatomical(implicit_surface(ball(10, (0.5,) * 3, 13.0)))
    picture = shaded_front(field, spacing_mm, (1.0, 0.5, 0.25))
    covered = picture[..., 3] > 0
    assert set(np.unique(picture[..., 3])) == {0.0, 1.0}
    assert covered.sum() * 0.25 == pytest.approx(np.pi * 10**2, rel=0.03)
    middle = np.array(covered.shape) // 2
    brightness = picture[..., 0]
    assert brightness[middle[0] + 10, middle[1] - 10] > 1.5 * brightness[middle[0] - 10, middle[1] + 10]
    assert brightness.max() > 0.9
    assert (picture[~covered] == 0).all()
    shades = picture[covered][:, :3]
    assert (np.diff(shades, axis=1) <= 1e-6).all()  # red is never below green, nor green below blue


def test_the_nearest_of_two_surfaces_hides_the_other() -> None:
    """The wall behind, at index 8, is darker where it can be seen: further away."""
    field = -np.ones((9, 12, 9), np.float32)
    field[1:-1, 8:10, 1:-1] = 1
    field[3:6, 2:4, 3:6] = 1
    picture = shaded_front(field, (1.0,) * 3, (1.0, 1.0, 1.0))
    assert picture[..., 3].sum() == 7 * 7
    assert picture[4, 4, 0] > picture[2, 7, 0] > 0.2


def test_neither_pyplot_nor_a_rendering_library_is_imported() -> None:
    unwanted = {"matplotlib.pyplot", "vtkmodules"}
    code = f"import sys, femur3d.export.pictures.preview; sys.exit(bool({unwanted} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
