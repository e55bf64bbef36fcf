"""Right angles: how far a matrix is from them, and what putting it right moves."""

from __future__ import annotations

import numpy as np
import pytest

from femur3d.io.geometry import farthest_mm, nearest_rotation, orthogonal_affine, shear


def test_shear_is_the_largest_entry_off_the_identity() -> None:
    assert shear(np.eye(3)) == 0
    assert shear(np.array([[1, 0.01, 0], [0, 1, 0], [0, 0, 1]])) == pytest.approx(0.01)
    assert shear(np.diag([1, 1, 1.01])) == pytest.approx(0.0201)
    assert shear(np.array([[1.0, 0.0], [0.0, 0.6], [0.0, 0.8]])) == pytest.approx(0)  # two directions


def test_nearest_rotation_shares_a_shear_among_both_axes() -> None:
    """The polar factor of [[1, s], [0, 1]] turns by atan(s / 2)."""
    turned = nearest_rotation(np.array([[1, 0.2, 0], [0, 1, 0], [0, 0, -1]]))
    angle = np.arctan(0.1)
    expected = [[np.cos(angle), np.sin(angle), 0], [-np.sin(angle), np.cos(angle), 0], [0, 0, -1]]
    np.testing.assert_allclose(turned, expected, rtol=0, atol=1e-12)


def test_orthogonal_affine_keeps_sizes_and_the_first_voxel() -> None:
    leaning = np.array([[2.0, 0.3, 0, 10], [0, 3.0, 0, 20], [0, 0, 4.0, 30], [0, 0, 0, 1]])
    straight = orthogonal_affine(leaning)
    np.testing.assert_allclose(
        np.linalg.norm(straight[:3, :3], axis=0), np.linalg.norm(leaning[:3, :3], axis=0), atol=1e-12
    )
    assert straight[:3, 3].tolist() == [10, 20, 30]
    assert abs(straight[:3, 0] @ straight[:3, 1]) < 1e-12


def test_farthest_voxel_is_a_corner() -> None:
    other = np.eye(4)
    other[0, 1] = 0.1  # x grows by 0.1 mm a row: 0.9 mm in the tenth
    assert farthest_mm((3, 10, 4), np.eye(4), other) == pytest.approx(0.9)
    other[0, 3] = -0.9  # now the first row is off
    assert farthest_mm((3, 10, 4), np.eye(4), other) == pytest.approx(0.9)
    assert farthest_mm((3, 10, 4), other, other) == 0
