"""Light surfaces and their signed distance to a reference."""

from __future__ import annotations

import base64
import zlib

import numpy as np
import pytest

from femur3d.report.results import femur_masks
from femur3d.report.surfaces import packed_surfaces, surfaces_of
from femur3d.volume import Volume


def ball(radius_mm: float) -> Volume:
    grid = np.indices((60, 60, 60)).transpose(1, 2, 3, 0) - 29.5
    return Volume((np.linalg.norm(grid, axis=-1) <= radius_mm).astype(np.uint8), origin_mm=(100.0, -50.0, 20.0))


def test_balls_are_as_far_apart_as_their_radii_with_the_sign_of_the_larger():
    small, large = ball(18.0), ball(21.0)
    for prediction, reference, expected in ((large, small, 3.0), (small, large, -3.0), (small, small, 0.0)):
        masks = femur_masks(prediction, "femur")
        (surface,) = surfaces_of(prediction, masks, femur_masks(reference, "femur"), triangles=2000)
        assert len(surface.triangles) <= 2000
        np.testing.assert_allclose(surface.distances_mm, expected, atol=0.25)
        np.testing.assert_allclose(surface.vertices.mean(axis=0), (129.5, -20.5, 49.5), atol=0.3)


def test_triangles_look_outward():
    (surface,) = surfaces_of(ball(18.0), femur_masks(ball(18.0), "femur"))
    a, b, c = (surface.vertices[surface.triangles[:, corner]] - (129.5, -20.5, 49.5) for corner in range(3))
    volume = np.einsum("ij,ij->i", a, np.cross(b, c)).sum() / 6
    assert volume == pytest.approx(4 / 3 * np.pi * 18**3, rel=0.02)
    assert surface.distances_mm is None


def test_a_femur_that_was_missed_is_shown_from_the_reference():
    reference = ball(18.0)
    empty = reference.with_array(reference.array * 0)
    (surface,) = surfaces_of(empty, {}, femur_masks(reference, "femur"))
    assert (surface.side, surface.distances_mm) == ("missed", None)


def test_packed_surfaces_come_back_to_a_hundredth_of_a_millimetre():
    found = surfaces_of(ball(18.0), femur_masks(ball(18.0), "femur"), femur_masks(ball(19.0), "femur"), 500)
    (packed,) = packed_surfaces(found)
    data, count = zlib.decompress(base64.b64decode(packed["data"])), packed["vertices"]
    positions = np.frombuffer(data, "<i2", 3 * count).reshape(-1, 3) / 100
    distances = np.frombuffer(data, "<i2", count, 6 * count) / 100
    corners = np.frombuffer(data, "<u2", offset=8 * count).reshape(-1, 3)
    vertices = found[0].vertices
    middle = (vertices.min(axis=0) + vertices.max(axis=0)) / 2
    np.testing.assert_allclose(positions, vertices - middle, atol=0.0051)
    np.testing.assert_allclose(distances, found[0].distances_mm, atol=0.0051)
    np.testing.assert_array_equal(corners, found[0].triangles)


def test_specks_have_no_surface():
    speck = ball(0.0)
    speck.array[30, 30, 30] = 1
    assert surfaces_of(speck, femur_masks(speck, "femur")) == []
    assert packed_surfaces([]) == []
