import dataclasses
import itertools

import numpy as np
import pytest

from femur3d.config import Preprocessing
from femur3d.data.preprocessing import (
    cut,
    near_distance_mm,
    normalise,
    orient,
    prepare_case,
    prepare_scan,
    resample_image,
    resample_mask,
    restore,
)  # fmt: skip
from femur3d.errors import InputError
from femur3d.volume import Volume
from tests.support.ellipsoids import ellipsoid_case

AXES = np.eye(3)
OBLIQUE = tuple(np.linalg.qr(np.array([[1, 0.1, 0.2], [0.1, 1, -0.1], [-0.2, 0.1, 1]]))[0].ravel())


def dice(a, b):
    return 2 * (a & b).sum() / (a.sum() + b.sum())


def stored_as(volume, permutation, flips):
    """The same anatomy with array axes permuted and flipped, and the geometry that says so."""
    index = [0, 0, 0]
    for axis in range(3):
        if flips[axis]:
            index[axis] = volume.array.shape[axis] - 1
    array = volume.array[tuple(slice(None, None, -1 if f else 1) for f in flips)].transpose(permutation)
    matrix = np.reshape(volume.direction, (3, 3))[:, ::-1] * [-1 if f else 1 for f in flips]  # columns in (z, y, x)
    columns = matrix[:, list(permutation)][:, ::-1]
    spacing = np.asarray(volume.spacing_mm[::-1])[list(permutation)][::-1]
    return Volume(np.ascontiguousarray(array), tuple(spacing), tuple(volume.world_mm(index)), tuple(columns.ravel()))


@pytest.mark.parametrize("permutation", list(itertools.permutations(range(3))))
@pytest.mark.parametrize("flips", list(itertools.product((False, True), repeat=3)))
def test_orient_undoes_every_storage_order(permutation, flips):
    volume = Volume(np.arange(2 * 3 * 4).reshape(2, 3, 4).astype(np.float32), (1.0, 2.0, 3.0), (5.0, 6.0, 7.0))
    oriented = orient(stored_as(volume, permutation, flips), "LPS")
    assert oriented.geometry_difference(volume) is None
    np.testing.assert_array_equal(oriented.array, volume.array)


def test_resampling_keeps_the_first_voxel_and_a_linear_ramp():
    volume = Volume(np.tile(np.arange(10, dtype=np.float32), (4, 6, 1)), origin_mm=(0.5, 0.5, 0.5))
    half = resample_image(volume, (0.5, 1.0, 2.0))
    assert half.array.shape == (2, 6, 19)
    assert (half.origin_mm, half.spacing_mm) == ((0.5, 0.5, 0.5), (0.5, 1.0, 2.0))
    np.testing.assert_allclose(half.array[0, 0], np.arange(19) * 0.5, atol=1e-6)


def test_slices_of_the_scan_keep_their_label():
    """Halving a 5.2 mm slice distance: every second slice of the new mask is a slice of the old one, bit for bit."""
    mask = np.random.default_rng(0).random((7, 5, 6)) < 0.5
    fine = resample_mask(Volume(mask, (1.0, 5.2, 1.0)), (1.0, 2.6, 1.0)).array
    assert fine.shape == (7, 9, 6)
    np.testing.assert_array_equal(fine[:, ::2], mask)


def test_resampling_refuses_a_grid_beyond_memory():
    with pytest.raises(InputError, match="at most"):
        resample_image(Volume(np.zeros((4, 4, 4)), (500.0, 500.0, 500.0)), (0.1, 0.1, 0.1))


def test_the_distance_is_zero_half_way_between_voxels():
    mask = np.zeros((3, 3, 8), bool)
    mask[:, :, 2:5] = True
    distance = near_distance_mm(Volume(mask, (2.0, 100.0, 100.0)))
    np.testing.assert_allclose(distance[1, 1], [-4, -2, 2, 4, 2, -2, -4, -6])


@pytest.mark.parametrize("inside", [True, False])
def test_the_distance_ends_at_20_mm(inside):
    assert (near_distance_mm(Volume(np.full((3, 3, 3), inside))) == (20 if inside else -20)).all()


def test_thick_slices_become_a_smooth_surface():
    """A ball sampled every 6 mm: its resampled mask is nearer to the true ball than the nearest slices are."""
    z, y, x = np.ogrid[-30:31, -30:31, -30:31]
    ball = z**2 + y**2 + x**2 < 22.5**2
    thick = Volume(ball[:, ::6], (1.0, 6.0, 1.0))
    smooth = resample_mask(thick, (1.0, 1.0, 1.0)).array
    stairs = np.repeat(thick.array, 6, axis=1)[:, 3 : 3 + 61]
    assert smooth.shape == ball.shape
    assert dice(smooth, ball) > 0.975 > 0.965 > dice(stairs, ball)


@pytest.mark.parametrize("direction", [tuple(np.eye(3).ravel()), OBLIQUE])
def test_prediction_comes_back_to_the_scans_grid(direction):
    scan, label = (dataclasses.replace(v, direction=direction) for v in ellipsoid_case())
    preprocessing = Preprocessing(spacing_mm=(1.5, 2.5, 1.7), margin_mm=6.0)
    for hip in prepare_case(scan, label, preprocessing):
        back = restore(hip.label.with_array(hip.label.array.astype(np.float32)), scan)
        assert back.geometry_difference(scan) is None
        assert dice(back.array > 0.5, label.array == hip.label_value) > 0.97


def test_restored_map_reaches_the_border_but_not_beyond_a_cut():
    scan, _ = ellipsoid_case()
    prepared = prepare_scan(scan, Preprocessing(spacing_mm=(3.0, 5.0, 7.0)))
    ones = prepared.with_array(np.ones_like(prepared.array))
    np.testing.assert_allclose(restore(ones, scan).array, 1, atol=1e-6)
    part = cut(ones, (slice(0, 4), slice(0, 9), slice(0, 9)))
    back = restore(part, scan).array
    assert back[0, 0, 0] == 1
    assert back[-1, -1, -1] == 0


def test_each_hip_is_cut_with_its_margin_and_without_the_other():
    scan, label = ellipsoid_case()
    left, right = prepare_case(scan, label, Preprocessing(spacing_mm=(2.0, 2.0, 2.0), margin_mm=6.0))
    assert (left.label_value, right.label_value) == (1, 2)
    found = np.argwhere(label.array == 1)
    expected = found.max(0) - found.min(0) + 1 + 2 * 3
    np.testing.assert_array_equal(left.label.array.shape, expected)
    assert left.label.array.sum() == (label.array == 1).sum()
    wide = prepare_case(scan, label, Preprocessing(spacing_mm=(2.0, 2.0, 2.0), margin_mm=500.0))
    assert [h.label.array.sum() for h in wide] == [(label.array == v).sum() for v in (1, 2)]
    assert wide[0].image.array.shape[:2] == scan.array.shape[:2]


def test_world_position_survives_preprocessing():
    """A bright voxel stays where it was in the world."""
    scan, label = ellipsoid_case()
    scan.array[:] = 0
    scan.array[18, 15, 29] = 1000
    hip = prepare_case(scan, label, Preprocessing(spacing_mm=(2.0, 2.0, 2.0), margin_mm=6.0))[0]
    brightest = np.unravel_index(hip.image.array.argmax(), hip.image.array.shape)
    np.testing.assert_allclose(hip.image.world_mm(brightest), scan.world_mm((18, 15, 29)), atol=1e-6)


def test_intensities_scaled_and_shifted_are_prepared_alike():
    scan, _ = ellipsoid_case()
    other = scan.with_array(3.5 * scan.array + 1000)
    first, second = (prepare_scan(s, Preprocessing(spacing_mm=(2.0, 2.0, 2.0))).array for s in (scan, other))
    np.testing.assert_allclose(first, second, atol=1e-3)


def test_normalise():
    values = normalise(Volume(np.array([[[1, 3]]], np.int16))).array
    np.testing.assert_array_equal(values, [[[-1, 1]]])
    for kind in ("patch", "body"):
        assert not normalise(Volume(np.full((2, 2, 2), 7.0)), kind).array.any()


def test_normalise_by_the_body_sees_no_air_and_no_scale():
    rng = np.random.default_rng(0)
    body = rng.normal(100, 20, (8, 16, 24)).clip(40)
    some, much = (np.pad(body, ((0, 0), (8, 8), (x, x))) for x in (0, 40))
    near, far = normalise(Volume(some), "body").array, normalise(Volume(3 * much + 50), "body").array
    np.testing.assert_allclose(far[:, 8:-8, 40:-40], near[:, 8:-8], atol=1e-5)
    assert abs(near[:, 8:-8].mean()) < 1e-5
    assert near[:, 8:-8].std() == pytest.approx(1, abs=1e-5)
    assert far[:, :8].max() < near[:, 8:-8].min()


@pytest.mark.parametrize("kind", ["patch", "body"])
def test_padding_changes_nothing_elsewhere(kind):
    """A border of the lowest intensity or of -32768 gives the network the same image."""
    scan, _ = ellipsoid_case()
    lowest = scan.array[:, 4:].min()
    plain, padded = scan.array.copy(), scan.array.copy()
    plain[:, :4], padded[:, :4] = lowest, -32768
    preprocessing = Preprocessing(normalisation=kind)
    expected, received = (prepare_scan(scan.with_array(array), preprocessing).array for array in (plain, padded))
    np.testing.assert_array_equal(received, expected)
