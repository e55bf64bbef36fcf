"""Shaft and neck of a femur made by hand; the head's centre is tested with the previews."""

from __future__ import annotations

import numpy as np
import pytest

from femur3d.export.pictures.landmarks import extent_in, neck_plane, sample_plane, shaft_axis

SPACING_MM = (1.0, 4.0, 2.0)


def femur() -> np.ndarray:
    """A shaft upwards at y = 40 mm, x = 30 mm and a head of radius 12 mm at z = 80, y = 10, x = 70 mm."""
    z, y, x = (np.arange(n).reshape(shape) * mm for n, shape, mm in (
        (100, (-1, 1, 1), 1.0), (20, (1, -1, 1), 4.0), (50, (1, 1, -1), 2.0)))  # fmt: skip
    shaft = (np.hypot(y - 40, x - 30) < 9) & (z > 5) & (z < 80)
    return shaft | ((z - 80) ** 2 + (y - 10) ** 2 + (x - 70) ** 2 <= 12**2)


def test_the_shaft_is_found() -> None:
    axis = shaft_axis(femur(), SPACING_MM)
    np.testing.assert_allclose(axis.direction, (1, 0, 0), atol=1e-6)
    np.testing.assert_allclose(axis.point[1:], (40, 30), atol=0.5)
    assert axis.point[0] == pytest.approx(6 + 0.3 * 86 / 2, abs=1)  # half-way up the lowest 0.3 of z = 6 … 91


def test_a_shaft_that_leans_by_one_voxel_in_two() -> None:
    mask = np.zeros((40, 40, 40), bool)
    for z in range(40):
        mask[z, 18:23, z // 2 + 5 : z // 2 + 10] = True
    np.testing.assert_allclose(shaft_axis(mask, (2.0,) * 3).direction, np.array((2, 0, 1)) / 5**0.5, atol=0.05)


def test_one_slice_has_a_vertical_axis() -> None:
    mask = np.zeros((3, 4, 5), bool)
    mask[1, 1:3, 1:4] = True
    axis = shaft_axis(mask, (10.0, 1.0, 1.0))
    assert (axis.point.tolist(), axis.direction.tolist()) == ([10, 1.5, 2], [1, 0, 0])


def test_the_neck_plane_holds_shaft_and_head_and_points_to_the_left() -> None:
    mask = femur()
    plane = neck_plane(mask, SPACING_MM)
    np.testing.assert_allclose(plane.across, (0, -0.6, 0.8), atol=0.03)  # from (40, 30) to (10, 70): 3, 4, 5
    right = neck_plane(mask[:, :, ::-1], SPACING_MM)
    np.testing.assert_allclose(right.across, (0, 0.6, 0.8), atol=0.03)  # the head on the other side: still leftwards
    rows, columns = extent_in(plane, mask, SPACING_MM)
    assert rows[1] - rows[0] == pytest.approx(86, abs=1)
    assert columns == pytest.approx((-9, 50 + 12), abs=2)
    picture = sample_plane(mask, SPACING_MM, plane, rows, columns, 1.0) > 0.5
    at_head = round(80 - plane.origin[0] - rows[0])
    assert picture[at_head, round(50 - columns[0])]
    assert picture[at_head].sum() == pytest.approx(24, abs=4)  # the head's diameter, the shaft has ended


def test_a_head_right_above_its_shaft_has_a_plane_too() -> None:
    mask = np.zeros((30, 9, 9), bool)
    mask[:, 2:7, 2:7] = True
    plane = neck_plane(mask, (1.0,) * 3)
    np.testing.assert_allclose((plane.up, plane.across), ((1, 0, 0), (0, 0, 1)), atol=1e-6)


def test_beyond_the_array_is_black() -> None:
    plane = neck_plane(femur(), SPACING_MM)
    assert not sample_plane(np.ones((4, 4, 4)), (1.0,) * 3, plane, (500.0, 502.0), (0.0, 3.0), 1.0).any()
