"""Tests of patch geometry, on sizes small enough to check by hand."""

import collections

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from femur3d.data.patches import (
    centred_origin,
    crop,
    grid_origins,
    grid_starts,
    make_normalise,
    normalise_patch,
    patches_around,
    random_origin,
)

SHAPE, PATCH = (4, 5, 6), (2, 3, 3)  # 3 × 3 × 4 = 36 origins, the last one (2, 2, 3)


def test_random_origin_is_pinned() -> None:
    # A resumed training must see the patches of the unbroken one, under any NumPy: these numbers may never change.
    origins = [random_origin((100, 300, 200), (64, 64, 64), seed=7, counter=(step, 0)) for step in range(3)]
    assert origins == [(11, 145, 41), (13, 81, 69), (12, 170, 28)]


def test_random_origin_depends_on_nothing_but_its_arguments() -> None:
    counters = [(step, element) for step in range(20) for element in range(3)]
    forwards = {counter: random_origin(SHAPE, PATCH, 1, counter) for counter in counters}
    np.random.default_rng(0).random(10)
    backwards = {counter: random_origin(SHAPE, PATCH, 1, counter) for counter in reversed(counters)}
    assert forwards == backwards


def test_random_origin_differs_with_seed_and_with_every_part_of_the_counter() -> None:
    draws = [(0, (1, 2)), (1, (1, 2)), (0, (2, 1)), (0, (1, 3)), (0, (1,)), (0, (1, 2, 0))]
    origins = {random_origin((10**6,) * 3, (1, 1, 1), seed, counter) for seed, counter in draws}
    assert len(origins) == len(draws)


def test_random_origin_is_uniform_over_all_origins() -> None:
    draws = 3600
    seen = collections.Counter(random_origin(SHAPE, PATCH, 3, (step,)) for step in range(draws))
    assert set(seen) == {(z, y, x) for z in range(3) for y in range(3) for x in range(4)}
    chi_square = sum((count - draws / 36) ** 2 / (draws / 36) for count in seen.values())
    assert 14.7 < chi_square < 66.6  # 0.1% and 99.9% quantiles at 35 degrees of freedom


def test_random_origin_of_a_volume_as_large_as_the_patch() -> None:
    assert random_origin((4, 4, 4, 2), (4, 4, 4), 0, (0,)) == (0, 0, 0)


@pytest.mark.parametrize(("seed", "counter"), [(-1, (0,)), (0, (0, -1))])
def test_random_origin_refuses_negative_numbers(seed: int, counter: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"≥ 0\. Received"):
        random_origin(SHAPE, PATCH, seed, counter)


def test_random_origin_refuses_a_patch_that_does_not_fit() -> None:
    with pytest.raises(ValueError, match=r"Received: shape \(4, 5, 6\), patch_size \(2, 6, 3\)"):
        random_origin(SHAPE, (2, 6, 3), 0, (0,))


@pytest.mark.parametrize(
    ("centre", "expected"),
    [((5, 5, 5), (3, 4, 3)), ((0, 0, 0), (0, 0, 0)), ((9, 9, 9), (6, 7, 5)), ((2, 1, 7), (0, 0, 5))],
)
def test_centred_origin(centre: tuple[int, int, int], expected: tuple[int, int, int]) -> None:
    assert centred_origin(np.array(centre), (10, 10, 10), (4, 3, 5)) == expected


def test_centred_origin_refuses_a_patch_that_does_not_fit() -> None:
    with pytest.raises(ValueError, match="pad the volume"):
        centred_origin((1, 1, 1), (3, 3, 3), (4, 3, 3))


@pytest.mark.parametrize(
    ("size", "patch", "stride", "expected"),
    [(11, 4, 3, [0, 3, 6, 7]), (10, 4, 3, [0, 3, 6]), (4, 4, 2, [0]), (5, 4, 4, [0, 1]), (8, 4, 4, [0, 4])],
)
def test_grid_starts(size: int, patch: int, stride: int, expected: list[int]) -> None:
    assert grid_starts(size, patch, stride) == expected


@given(patch=st.integers(1, 20), data=st.data())
def test_grid_starts_cover_the_axis_without_gap_or_repetition(patch: int, data: st.DataObject) -> None:
    size, stride = data.draw(st.integers(patch, 80)), data.draw(st.integers(1, patch))
    starts = np.array(grid_starts(size, patch, stride))
    assert starts[0] == 0
    assert starts[-1] + patch == size
    assert np.all((np.diff(starts) >= 1) & (np.diff(starts) <= stride))


@pytest.mark.parametrize(
    ("size", "patch", "stride", "message"),
    [(3, 4, 2, "size 3, patch 4"), (9, 4, 5, "Received: 5"), (9, 4, 0, "Received: 0")],
)
def test_grid_starts_refuses(size: int, patch: int, stride: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        grid_starts(size, patch, stride)


def test_grid_origins_are_ordered_with_x_fastest() -> None:
    origins = grid_origins((2, 4, 5), (2, 3, 3), (1, 3, 2))
    np.testing.assert_array_equal(origins, [[0, 0, 0], [0, 0, 2], [0, 1, 0], [0, 1, 2]])


@given(st.data())
def test_grid_origins_cover_every_voxel(data: st.DataObject) -> None:
    patch = data.draw(st.tuples(st.integers(1, 5), st.integers(1, 5), st.integers(1, 5)))
    shape = [data.draw(st.integers(size, 12)) for size in patch]
    stride = [data.draw(st.integers(1, size)) for size in patch]
    covered = np.zeros(shape, int)
    origins = grid_origins(shape, patch, stride)
    for origin in origins:
        crop(covered, origin, patch)[...] += 1
    assert covered.min() >= 1
    assert covered.sum() == len(origins) * np.prod(patch)


def test_crop_is_a_view_of_the_right_voxels() -> None:
    array = np.arange(4 * 5 * 6 * 2).reshape(4, 5, 6, 2)
    patch = crop(array, (2, 1, 3), (2, 3, 3))
    assert patch.shape == (2, 3, 3, 2)
    assert np.shares_memory(patch, array)
    assert patch[0, 0, 0, 0] == array[2, 1, 3, 0]
    assert patch[-1, -1, -1, 1] == array[3, 3, 5, 1]


@pytest.mark.parametrize("origin", [(-1, 0, 0), (0, 3, 0), (0, 0, 4)])
def test_crop_refuses_to_leave_the_array(origin: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match=r"to \(2, 2, 3\)\. Received"):
        crop(np.zeros(SHAPE), origin, PATCH)


def test_normalise_patch_on_numbers_worked_out_by_hand() -> None:
    patch = np.array([[1, 1, 5, 5]], np.int16)  # mean 3, deviation 2
    normalised = normalise_patch(patch)
    assert normalised.dtype == np.float32
    np.testing.assert_array_equal(normalised, [[-1, -1, 1, 1]])
    np.testing.assert_array_equal(patch, [[1, 1, 5, 5]])


@pytest.mark.parametrize("dtype", [np.int16, np.uint16, np.float32, np.float64])
def test_normalise_patch_is_accurate_far_from_zero(dtype: type) -> None:
    patch: np.ndarray = np.random.default_rng(0).normal(30_000, 3, (64, 64, 64)).astype(dtype)
    normalised = normalise_patch(patch).astype(np.float64)
    assert abs(normalised.mean()) < 1e-6
    assert abs(normalised.std() - 1) < 1e-6


@pytest.mark.parametrize("value", [0, 0.1, -1e-30, 12345.678, 1e12])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_normalise_patch_makes_a_constant_patch_zeros(value: float, dtype: type) -> None:
    normalised = normalise_patch(np.full((7, 11, 13), value, dtype))
    np.testing.assert_array_equal(normalised, np.zeros((7, 11, 13), np.float32))


def test_patches_of_a_scan_normalised_by_its_body_stay_as_they_are() -> None:
    patch = np.array([[[1, 3], [1, 3]]], np.float16)
    kept = make_normalise("body")(patch)
    assert kept.dtype == np.float32
    np.testing.assert_array_equal(kept, patch)
    np.testing.assert_array_equal(make_normalise("patch")(patch), normalise_patch(patch))


def test_normalise_patch_reads_a_strided_view() -> None:
    array = np.random.default_rng(0).normal(size=(8, 8, 8))
    view = crop(array, (1, 2, 3), (4, 4, 4)).transpose(2, 1, 0)
    expected = (view - view.mean()) / view.std()
    np.testing.assert_allclose(normalise_patch(view), expected, atol=1e-6)


def test_patches_around_voxels() -> None:
    array = np.random.default_rng(0).random((6, 7, 3), np.float32)
    padded = np.concatenate([array, array[:, :, -1:]], axis=2)
    # Origins (0, 0, 0) and (2, 3, 0); a centre too near to the border is moved inside.
    found = patches_around(array, np.array([[2.0, 2.0, 1.0], [5.9, 6.0, 2.0]]), (4, 4, 4))
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, [normalise_patch(a) for a in (padded[:4, :4], padded[2:, 3:])])
    plain = patches_around(array, np.array([[2, 2, 1]]), (4, 4, 2), normalise=np.asarray)
    np.testing.assert_array_equal(plain[0], array[:4, :4, :2])
