"""Tests of tiling and averaging, with predict functions whose answers are known."""

import itertools
from collections.abc import Callable

import numpy as np
import pytest

from femur3d.data.patches import normalise_patch
from femur3d.inference.sliding_window import SlidingWindow, predict_volume


def identity(array: np.ndarray) -> np.ndarray:
    return array


def ramp(batch: np.ndarray) -> np.ndarray:
    """Another number at each place of the patch, and dependent on the voxel too."""
    return batch + np.arange(batch[0].size, dtype=np.float32).reshape(batch.shape[1:])


def naive(array: np.ndarray, predict: Callable, patch: tuple[int, ...], stride: tuple[int, ...]) -> np.ndarray:
    """The same in float64 by three plain loops, patch by patch."""
    total, count = np.zeros(array.shape), np.zeros(array.shape)
    axes = [
        sorted({min(start, size - p) for start in range(0, size, step)})
        for size, p, step in zip(array.shape, patch, stride, strict=True)
    ]
    for z, y, x in itertools.product(*axes):
        place = (slice(z, z + patch[0]), slice(y, y + patch[1]), slice(x, x + patch[2]))
        total[place] += predict(array[place][None])[0]
        count[place] += 1
    return total / count


def test_overlap_is_averaged_on_numbers_worked_out_by_hand() -> None:
    # Patches of 2 at x = 0, 1, 2; each predicts 0 for its first voxel and 1 for its second.
    def predict(batch: np.ndarray) -> np.ndarray:
        return np.broadcast_to(np.array([0, 1], np.float32), batch.shape)

    result, _ = predict_volume(np.zeros((1, 1, 4)), predict, (1, 1, 2), (1, 1, 1))
    assert result.dtype == np.float32
    np.testing.assert_array_equal(result, [[[0, 0.5, 0.5, 1]]])


@pytest.mark.parametrize("batch_size", [1, 2, 7, 1000])
@pytest.mark.parametrize(
    ("shape", "patch", "stride"),
    [((7, 9, 11), (4, 4, 4), (2, 2, 2)), ((5, 6, 13), (3, 5, 4), (2, 1, 3)), ((4, 8, 9), (4, 4, 3), (4, 4, 3))],
)
def test_agrees_with_three_plain_loops(shape: tuple, patch: tuple, stride: tuple, batch_size: int) -> None:
    array = np.random.default_rng(0).random(shape, np.float32)
    result, _ = predict_volume(array, ramp, patch, stride, batch_size, normalise=identity)
    np.testing.assert_allclose(result, naive(array, ramp, patch, stride), rtol=1e-6)


@pytest.mark.parametrize("shape", [(7, 9, 11), (3, 9, 11), (2, 1, 3), (1, 20, 2)])
def test_identity_gives_the_input_back_at_any_size(shape: tuple[int, int, int]) -> None:
    array = np.random.default_rng(1).random(shape, np.float32)
    result, _ = predict_volume(array, identity, (4, 5, 6), (2, 2, 5), 3, normalise=identity)
    np.testing.assert_allclose(result, array, rtol=1e-6)
    assert result.flags.c_contiguous


def test_an_axis_shorter_than_the_patch_is_reflected_at_both_ends() -> None:
    seen = []

    def predict(batch: np.ndarray) -> np.ndarray:
        seen.append(batch.copy())
        return batch

    predict_volume(np.array([[[1, 2]]], np.int16), predict, (1, 1, 5), (1, 1, 5), normalise=identity)
    np.testing.assert_array_equal(seen, [[[[[1, 1, 2, 2, 1]]]]])  # one voxel before, two behind


def test_every_batch_has_one_shape_and_progress_counts_real_patches() -> None:
    shapes: list[tuple] = []
    done: list[tuple[int, int]] = []

    def predict(batch: np.ndarray) -> np.ndarray:
        shapes.append((batch.shape, batch.dtype))
        return batch

    predict_volume(
        np.ones((2, 2, 6)), predict, (2, 2, 2), (2, 2, 2), batch_size=2, progress=lambda *counts: done.append(counts)
    )
    assert shapes == [((2, 2, 2, 2), np.float32)] * 2
    assert done == [(2, 3), (3, 3)]
    shapes.clear()
    predict_volume(np.ones((2, 2, 6)), predict, (2, 2, 2), (2, 2, 2), batch_size=8)
    assert shapes == [((3, 2, 2, 2), np.float32)]


def test_patches_are_normalised_one_by_one() -> None:
    array = np.array([[[0, 2, 100, 400, 7, 7]]], np.int16)
    result, _ = predict_volume(array, identity, (1, 1, 2), (1, 1, 2))
    np.testing.assert_array_equal(result, [[[-1, 1, -1, 1, 0, 0]]])
    np.testing.assert_array_equal(normalise_patch(array[..., :2]), [[[-1, 1]]])


def test_certain_predictions_stay_exactly_one() -> None:
    result, _ = predict_volume(np.zeros((5, 7, 9)), np.ones_like, (3, 3, 3), (1, 1, 1))
    np.testing.assert_array_equal(result, np.zeros((5, 7, 9)) + 1)


@pytest.mark.parametrize(("shape", "expected"), [((4, 4, 4), 1), ((2, 4, 5), 2), ((10, 11, 3), 20)])
def test_the_number_of_patches_is_known_beforehand(shape: tuple[int, int, int], expected: int) -> None:
    done: list[tuple[int, int]] = []
    predict_volume(np.zeros(shape), identity, (4, 4, 4), (2, 2, 2), 3, progress=lambda *counts: done.append(counts))
    assert done[0][1] == expected
    assert done[-1] == (expected, expected)


def test_patches_that_are_counted_and_not_looked_at_are_background() -> None:
    window = SlidingWindow(np.zeros((8, 8, 12), np.float32), np.ones_like, (8, 8, 8), (8, 8, 4))
    window.count(window.origins[:1])
    window.look(window.origins[1:])
    np.testing.assert_array_equal(window.mean().probability[0, 0], [0] * 4 + [0.5] * 4 + [1] * 4)


def test_refuses_predictions_of_another_shape() -> None:
    with pytest.raises(ValueError, match=r"\(1, 2, 2, 2\) from predict\. Received: \(1, 2, 2, 2, 1\)"):
        predict_volume(np.zeros((2, 2, 2)), lambda batch: batch[..., None], (2, 2, 2), (2, 2, 2))


@pytest.mark.parametrize(
    ("shape", "batch_size", "stride", "message"),
    [
        ((2, 2), 1, (1, 1, 1), r"shape \(2, 2\)"),
        ((2, 0, 2), 1, (1, 1, 1), r"shape \(2, 0, 2\)"),
        ((2, 2, 2), 0, (1, 1, 1), "batch size of 1 or more"),
        ((2, 2, 2), 1, (1, 3, 1), "stride from 1 to the patch size 2"),
    ],
)
def test_refuses(shape: tuple, batch_size: int, stride: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        predict_volume(np.zeros(shape), identity, (2, 2, 2), stride, batch_size)


def test_variance_of_patches_by_hand() -> None:
    """Patches of 2 at x = 0, 1, 2, each 0 and 1: the voxels are covered by (0), (1, 0), (1, 0), (1)."""

    def predict(batch: np.ndarray) -> np.ndarray:
        return np.broadcast_to(np.array([0, 1], np.float32), batch.shape)

    found = predict_volume(np.zeros((1, 1, 4)), predict, (1, 1, 2), (1, 1, 1))
    assert found.variance == pytest.approx((3 - (2 * 0.25 * 2 + 1)) / 3)  # Σ p² = Σ p = 3


@pytest.mark.parametrize("batch_size", [1, 3])
def test_variance_is_the_one_within_voxels(batch_size: int) -> None:
    array = np.random.default_rng(0).random((7, 6, 9), np.float32)
    patch, stride = (4, 5, 4), (2, 3, 3)
    values: dict[tuple, list[float]] = {}

    def predict(batch: np.ndarray) -> np.ndarray:
        return np.abs(np.sin(7 * ramp(batch)))

    found = predict_volume(array, predict, patch, stride, batch_size, normalise=identity)
    for origin in itertools.product((0, 2, 3), (0, 1), (0, 3, 5)):
        place = tuple(slice(start, start + size) for start, size in zip(origin, patch, strict=True))
        for index, p in np.ndenumerate(predict(array[place][None])[0]):
            values.setdefault(tuple(np.add(origin, index)), []).append(float(p))
    within = sum(len(v) * np.var(v) for v in values.values())
    assert found.variance == pytest.approx(within / sum(map(sum, values.values())), rel=1e-4)


@pytest.mark.parametrize("probability", [0.0, 0.3, 1.0])
def test_patches_that_agree_have_no_variance(probability: float) -> None:
    found = predict_volume(np.zeros((5, 6, 7)), lambda b: b + np.float32(probability), (4, 4, 4), (2, 2, 2))
    assert found.variance == pytest.approx(0, abs=1e-6)


def test_more_disagreement_is_more_variance() -> None:
    found = []
    for noise in (0.1, 0.2, 0.4):
        rng = np.random.default_rng(0)

        def predict(batch: np.ndarray, noise: float = noise, rng: np.random.Generator = rng) -> np.ndarray:
            return (0.5 + noise * rng.choice([-1, 1], batch.shape)).astype(np.float32)

        found.append(predict_volume(np.zeros((8, 8, 8)), predict, (4, 4, 4), (2, 2, 2)).variance)
    assert found == sorted(found)
    assert found[0] < found[-1] / 10
