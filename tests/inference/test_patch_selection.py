"""Tests of which patches the fast mode predicts."""

from collections.abc import Callable

import numpy as np
import pytest

from femur3d.inference.patch_selection import look_past_air, refine_region
from femur3d.inference.sliding_window import SlidingWindow, predict_volume


def identity(array: np.ndarray) -> np.ndarray:
    return array


def refined(array: np.ndarray, predict: Callable, patch: tuple, stride: tuple, femur_share: float) -> np.ndarray:
    window = SlidingWindow(array, predict, patch, stride, normalise=identity)
    refine_region(window, window.look, femur_share)
    return window.mean().probability


def test_patches_of_air_are_background_and_are_not_predicted() -> None:
    """Half of what overlaps is air: its patch counts as zero."""
    array, seen, done = np.zeros((8, 8, 12), np.float32), [], []
    array[:, :, 8:] = 5

    def predict(batch: np.ndarray) -> np.ndarray:
        seen.append(len(batch))
        return np.ones_like(batch)

    window = SlidingWindow(array, predict, (8, 8, 8), (8, 8, 4), progress=lambda *counts: done.append(counts))
    look_past_air(window, 1.0, window.origins)
    np.testing.assert_array_equal(window.mean().probability[0, 0], [0] * 4 + [0.5] * 4 + [1] * 4)
    assert seen == [1]
    assert done == [(1, 2), (2, 2)]


def test_a_patch_as_bright_as_the_level_is_not_air() -> None:
    for value, expected in ((9.9, 0), (10.0, 1)):
        window = SlidingWindow(np.full((2, 2, 2), value), np.ones_like, (2, 2, 2), (2, 2, 2))
        look_past_air(window, 10.0, window.origins)
        assert (window.mean().probability == expected).all()


@pytest.mark.parametrize("batch_size", [1, 3])
def test_what_overlaps_is_predicted_only_where_something_was_found(batch_size: int) -> None:
    """Patches of 4 at x = 0, 2, 4, 6, 8, 9. The first look, at 0, 4, 8 and 9, finds voxel 5: so 2 is worth one, 6 not.

    A quarter of patch 2 is found, more than 0.2.

    Left of voxel 6 a patch predicts its own origin / 100, so that the mean tells which patches have counted.
    """
    array, origins, done = np.zeros((1, 1, 13), np.float32), [], []
    array[0, 0] = np.arange(13)

    def predict(batch: np.ndarray) -> np.ndarray:
        origins.extend(int(x) for x in batch[:, 0, 0, 0])
        return np.where(batch == 5, 1, batch[:, :, :, :1] / 100).astype(np.float32) * (batch < 6)

    window = SlidingWindow(
        array, predict, (1, 1, 4), (1, 1, 2), batch_size, identity, lambda *counts: done.append(counts)
    )
    refine_region(window, window.look, 0.2)
    found = window.mean().probability
    looked = [o for o in origins if o]  # zeros fill up a batch
    assert sorted(looked) == [2, 4, 8, 9]
    assert done[-1] == (6, 6)
    expected = [0, 0, 0.01, 0.01, 0.03, 1, 0, 0, 0, 0, 0, 0, 0]  # voxel 2: patches 0 and 2; voxel 4: 2 and 4
    np.testing.assert_allclose(found[0, 0], expected, atol=1e-7)


def test_a_corner_of_what_was_found_is_not_enough() -> None:
    """As before, but a quarter of patch 2 is not more than 0.25, and voxels with P = 0.4 are not foreground."""
    array, origins = np.arange(13, dtype=np.float32)[np.newaxis, np.newaxis], []

    def predict(batch: np.ndarray) -> np.ndarray:
        origins.extend(int(x) for x in batch[:, 0, 0, 0])
        return np.where(batch == 5, 1, 0.4 * (batch < 6)).astype(np.float32)

    found = refined(array, predict, (1, 1, 4), (1, 1, 2), 0.25)
    assert sorted(origins) == [0, 4, 8, 9]
    np.testing.assert_array_equal(found[0, 0] > 0.5, np.arange(13) == 5)


def test_all_patches_give_the_plain_mean() -> None:
    array = np.random.default_rng(3).random((7, 9, 11), np.float32)

    def ramp(batch: np.ndarray) -> np.ndarray:
        return batch + np.arange(64, dtype=np.float32).reshape(4, 4, 4)

    plain = predict_volume(array, ramp, (4, 4, 4), (2, 2, 2), normalise=identity).probability
    np.testing.assert_allclose(refined(array, ramp, (4, 4, 4), (2, 2, 2), -1), plain, rtol=1e-6)


@pytest.mark.parametrize(
    ("shape", "patch", "stride"), [((7, 9, 11), (4, 4, 4), (2, 2, 2)), ((5, 6, 13), (3, 5, 4), (2, 1, 3))]
)
def test_no_voxel_is_without_a_prediction(shape: tuple, patch: tuple, stride: tuple) -> None:
    found = refined(np.zeros(shape), lambda b: np.full_like(b, 0.25), patch, stride, 0.5)
    np.testing.assert_array_equal(found, np.full(shape, 0.25))
