"""Head, neck, shaft and alpha angle of shapes in closed form, however they lie."""

from __future__ import annotations

import numpy as np
import pytest

from femur3d.errors import InputError
from femur3d.morphometry.alpha import alpha_degrees, cam, polar_degrees
from femur3d.morphometry.axes import find_shaft
from femur3d.morphometry.femur import find_femur
from femur3d.morphometry.implicit_surface import femur_mesh
from femur3d.morphometry.surface import Surface
from femur3d.volume import Volume
from tests.support.femurs import HEAD_MM, NECK_MM, NECK_SHAFT_DEG, both_femurs, left_femur, neck_axis
from tests.support.shapes import rotation


@pytest.fixture(scope="module")
def plain() -> Surface:
    return left_femur()


def degrees(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.degrees(np.arccos(np.clip(a @ b, -1, 1))))


def test_ball_on_cylinders(plain: Surface) -> None:
    femur = find_femur(plain)
    assert femur.side == "left"
    assert femur.head.radius_mm == pytest.approx(HEAD_MM, abs=0.05)
    assert np.abs(femur.head.centre_mm).max() < 0.05
    assert degrees(femur.frame.axis, neck_axis()) < 0.3
    assert femur.neck.is_bounded
    assert np.sqrt(np.nanmin(femur.neck.areas_mm2) / np.pi) == pytest.approx(NECK_MM, abs=0.015)
    assert femur.shaft is not None
    assert degrees(femur.shaft.direction, np.array([0, 0, 1.0])) < 0.3
    assert 180 - degrees(femur.frame.axis, femur.shaft.direction) == pytest.approx(180 - NECK_SHAFT_DEG, abs=0.5)
    assert degrees(femur.frame.anterior, np.array([0, -1.0, 0])) < 0.5


def test_alpha_is_the_arcsine_of_neck_and_head_all_around(plain: Surface) -> None:
    assert np.abs(find_femur(plain).alpha_deg - np.degrees(np.arcsin(NECK_MM / HEAD_MM))).max() < 0.6


@pytest.mark.parametrize(("wide_deg", "expected"), [(5, 41.2), (15, 90.0)])
def test_a_ridge_is_no_departure_from_the_sphere_and_a_cam_is(wide_deg: float, expected: float) -> None:
    """A cylinder of 0.65 radii leaves a ball of 20 mm at 40.5°; on the ball a step of 1 mm from 90° on."""
    polar = polar_degrees()
    row = np.maximum(20 * 0.65 / np.sin(np.radians(polar)) - 20, 0)
    row[(polar <= 90) & (polar > 90 - wide_deg)] = 1.0
    assert alpha_degrees(row[None], 20.0)[0] == pytest.approx(expected, abs=0.8)


def test_the_lesser_trochanter_is_no_part_of_the_shaft(plain: Surface) -> None:
    """It reaches from 31 to 59 mm below the head's centre; sections are taken from 38 mm on."""
    shaft = find_shaft(plain, find_femur(plain).head, neck_axis(), start=1.6)
    assert shaft is not None
    assert degrees(shaft.direction, np.array([0, 0, 1.0])) < 0.3
    assert shaft.residual_mm < 0.1


def test_a_head_that_is_cut_off_has_its_neck_all_the_same() -> None:
    labels = both_femurs(2.0)
    inside = labels.array == 1
    inside[..., : round(labels.index_zyx(np.array([[87.0, 0, 0]]))[0, 2])] = False  # a third of it, medially
    femur = find_femur(Surface(*femur_mesh(labels.with_array(inside))), "left")
    assert degrees(femur.frame.axis, neck_axis()) < 2
    assert femur.neck.is_bounded
    assert femur.head.coverage < 0.4


def test_a_bump_is_where_it_was_put() -> None:
    femur = find_femur(left_femur(bump=(2.0, 65.0, 3.0)))
    found = cam(femur.heights_mm, femur.head.radius_mm)
    assert found.height_mm == pytest.approx(3.0, abs=0.15)
    # Of the 8 mm ball about 19 mm from the centre, what is beyond 24.72 mm (3%) and 55°: 8.4 mm around, at most.
    assert 100 < found.area_mm2 < np.pi * 8.4**2
    assert 100 < found.volume_mm3 < 3.0 * found.area_mm2
    assert np.nanargmax(femur.alpha_deg) == 6
    assert femur.alpha_deg[[0, 12, 18, 27]] == pytest.approx(np.degrees(np.arcsin(NECK_MM / HEAD_MM)), abs=0.7)


@pytest.mark.parametrize("mirrored", [False, True])
def test_turned_and_mirrored_femurs_measure_the_same(mirrored: bool) -> None:
    surface = left_femur(bump=(1.0, 60.0, 2.0))
    first = find_femur(surface)
    turn = rotation((1, 2, 3), 130.0) * ([-1, 1, 1] if mirrored else 1)
    triangles = surface.triangles[:, ::-1] if mirrored else surface.triangles
    second = find_femur(Surface(surface.vertices @ turn.T + [300, -80, 5], triangles))
    assert second.side == ("right" if mirrored else "left")
    assert second.head.centre_mm == pytest.approx(turn @ first.head.centre_mm + [300, -80, 5], abs=0.05)
    assert second.head.radius_mm == pytest.approx(first.head.radius_mm, abs=0.02)
    assert second.alpha_deg == pytest.approx(first.alpha_deg, abs=0.5)


def test_without_a_shaft_up_is_up() -> None:
    femur = find_femur(left_femur(shaft_mm=30.0), side="left")
    assert femur.shaft is None
    assert femur.below_head_mm == pytest.approx(58, abs=1)
    assert degrees(femur.frame.anterior, np.array([0, -1.0, 0])) < 0.5


def test_a_cube_has_no_head() -> None:
    corners = np.array([(x, y, z) for x in (0, 50) for y in (0, 50) for z in (0, 50)], float)
    triangles = np.array([(0, 1, 3), (0, 3, 2), (4, 6, 7), (4, 7, 5), (0, 4, 5), (0, 5, 1), (2, 3, 7), (2, 7, 6),
                          (0, 2, 6), (0, 6, 4), (1, 5, 7), (1, 7, 3)])  # fmt: skip
    with pytest.raises(InputError, match="No femoral head"):
        find_femur(Surface(corners, triangles))


def test_a_ball_has_no_neck_and_metres_are_no_millimetres(plain: Surface) -> None:
    ball = np.linalg.norm(np.stack(np.meshgrid(*[np.arange(-30, 31.0, 2)] * 3), axis=-1), axis=-1) < 24
    mask = Volume(ball, (2.0,) * 3, (0.0,) * 3)
    with pytest.raises(InputError, match="No neck"):
        find_femur(Surface(*femur_mesh(mask)))
    for factor in (0.001, 1000):
        with pytest.raises(InputError, match="in millimetres"):
            find_femur(Surface(plain.vertices * factor, plain.triangles))
