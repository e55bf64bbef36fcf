"""Tests of tiling and averaging, with predict functions whose answers are known."""

import itertools
from collections.abc import Callable

import numpy as np
import pytest

from femur3d.data.patches import normalise_patch
from femur3d.inference.sliding_window import Spread, patch_count, patches_at, predict_volume


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

    result = predict_volume(np.zeros((1, 1, 4)), predict, (1, 1, 2), (1, 1, 1))
    assert result.dtype == np.float32
    np.testing.assert_array_equal(result, [[[0, 0.5, 0.5, 1]]])


@pytest.mark.parametrize("batch_size", [1, 2, 7, 1000])
@pytest.mark.parametrize(
    ("shape", "patch", "stride"),
    [((7, 9, 11), (4, 4, 4), (2, 2, 2)), ((5, 6, 13), (3, 5, 4), (2, 1, 3)), ((4, 8, 9), (4, 4, 3), (4, 4, 3))],
)
def test_agrees_with_three_plain_loops(shape: tuple, patch: tuple, stride: tuple, batch_size: int) -> None:
    array = np.random.default_rng(0).random(shape, np.float32)
    result = predict_volume(array, ramp, patch, stride, batch_size, normalise=identity)
    np.testing.assert_allclose(result, naive(array, ramp, patch, stride), rtol=1e-6)


@pytest.mark.parametrize("shape", [(7, 9, 11), (3, 9, 11), (2, 1, 3), (1, 20, 2)])
def test_identity_gives_the_input_back_at_any_size(shape: tuple[int, int, int]) -> None:
    array = np.random.default_rng(1).random(shape, np.float32)
    result = predict_volume(array, identity, (4, 5, 6), (2, 2, 5), 3, normalise=identity)
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
    done: list[int] = []

    def predict(batch: np.ndarray) -> np.ndarray:
        shapes.append((batch.shape, batch.dtype))
        return batch

    predict_volume(np.ones((2, 2, 6)), predict, (2, 2, 2), (2, 2, 2), batch_size=2, progress=done.append)
    assert shapes == [((2, 2, 2, 2), np.float32)] * 2
    assert done == [2, 3]
    shapes.clear()
    predict_volume(np.ones((2, 2, 6)), predict, (2, 2, 2), (2, 2, 2), batch_size=8)
    assert shapes == [((3, 2, 2, 2), np.float32)]


def test_patches_are_normalised_one_by_one() -> None:
    array = np.array([[[0, 2, 100, 400, 7, 7]]], np.int16)
    result = predict_volume(array, identity, (1, 1, 2), (1, 1, 2))
    np.testing.assert_array_equal(result, [[[-1, 1, -1, 1, 0, 0]]])
    np.testing.assert_array_equal(normalise_patch(array[..., :2]), [[[-1, 1]]])


def test_certain_predictions_stay_exactly_one() -> None:
    result = predict_volume(np.zeros((5, 7, 9)), np.ones_like, (3, 3, 3), (1, 1, 1))
    np.testing.assert_array_equal(result, np.zeros((5, 7, 9)) + 1)


@pytest.mark.parametrize(("shape", "expected"), [((4, 4, 4), 1), ((2, 4, 5), 2), ((10, 11, 3), 20)])
def test_patch_count_is_the_number_of_patches_predicted(shape: tuple[int, int, int], expected: int) -> None:
    done: list[int] = []
    predict_volume(np.zeros(shape), identity, (4, 4, 4), (2, 2, 2), 3, progress=done.append)
    assert patch_count(shape, (4, 4, 4), (2, 2, 2)) == done[-1] == expected


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


def test_skipped_patches_are_background_and_are_not_predicted():
    array, seen = np.zeros((8, 8, 16), np.float32), []
    array[:, :, 12:] = 5

    def predict(batch):
        seen.append(batch.shape[0])
        return np.ones_like(batch)

    done = []
    found = predict_volume(
        array, predict, (8, 8, 8), (8, 8, 8), progress=done.append, skip=lambda patch: bool(patch.max() < 1)
    )
    assert seen == [1]
    assert (found[:, :, :8] == 0).all()
    assert (found[:, :, 8:] == 1).all()
    assert done == [1, 2]  # skipped patches count as done


def test_half_skipped_overlap_counts_the_skipped_patch_as_zero():
    array = np.zeros((8, 8, 12), np.float32)
    array[:, :, 8:] = 5
    found = predict_volume(array, np.ones_like, (8, 8, 8), (8, 8, 4), skip=lambda patch: bool(patch.max() < 1))
    np.testing.assert_array_equal(found[0, 0], [0] * 4 + [0.5] * 4 + [1] * 4)


@pytest.mark.parametrize("batch_size", [1, 3])
def test_focus_looks_again_only_where_something_was_found(batch_size: int) -> None:
    """Patches of 4 at x = 0, 2, 4, 6, 8, 9. The first look, at 0, 4, 8 and 9, finds voxel 5: so 2 is worth one, 6 not.

    A quarter of patch 2 is found, more than 0.2.

    Left of voxel 6 a patch predicts its own origin / 100, so that the mean tells which patches have counted.
    """
    array, origins, done = np.zeros((1, 1, 13), np.float32), [], []
    array[0, 0] = np.arange(13)

    def predict(batch: np.ndarray) -> np.ndarray:
        origins.extend(int(x) for x in batch[:, 0, 0, 0])
        return np.where(batch == 5, 1, batch[:, :, :, :1] / 100).astype(np.float32) * (batch < 6)

    found = predict_volume(
        array, predict, (1, 1, 4), (1, 1, 2), batch_size, normalise=identity, focus=0.2, progress=done.append
    )
    looked = [o for o in origins if o]  # zeros fill up a batch
    assert sorted(looked) == [2, 4, 8, 9]
    assert done[-1] == patch_count((1, 1, 13), (1, 1, 4), (1, 1, 2)) == 6
    expected = [0, 0, 0.01, 0.01, 0.03, 1, 0, 0, 0, 0, 0, 0, 0]  # voxel 2: patches 0 and 2; voxel 4: 2 and 4
    np.testing.assert_allclose(found[0, 0], expected, atol=1e-7)


def test_focus_passes_over_a_corner_of_what_was_found() -> None:
    """As before, but a quarter of patch 2 is not more than 0.25, and voxels with P = 0.4 are not foreground."""
    array, origins = np.arange(13, dtype=np.float32)[np.newaxis, np.newaxis], []

    def predict(batch: np.ndarray) -> np.ndarray:
        origins.extend(int(x) for x in batch[:, 0, 0, 0])
        return np.where(batch == 5, 1, 0.4 * (batch < 6)).astype(np.float32)

    found = predict_volume(array, predict, (1, 1, 4), (1, 1, 2), normalise=identity, focus=0.25)
    assert sorted(origins) == [0, 4, 8, 9]
    np.testing.assert_array_equal(found[0, 0] > 0.5, np.arange(13) == 5)


def test_focus_on_everything_is_the_plain_mean() -> None:
    array = np.random.default_rng(3).random((7, 9, 11), np.float32)
    plain, focused = (
        predict_volume(array, ramp, (4, 4, 4), (2, 2, 2), 3, normalise=identity, focus=f) for f in (None, -1)
    )
    np.testing.assert_allclose(focused, plain, rtol=1e-6)


@pytest.mark.parametrize(
    ("shape", "patch", "stride"), [((7, 9, 11), (4, 4, 4), (2, 2, 2)), ((5, 6, 13), (3, 5, 4), (2, 1, 3))]
)
def test_focus_leaves_no_voxel_without_a_look(shape: tuple, patch: tuple, stride: tuple) -> None:
    found = predict_volume(np.zeros(shape), lambda b: np.full_like(b, 0.25), patch, stride, focus=0.5)
    np.testing.assert_array_equal(found, np.full(shape, 0.25))


def test_disagreement_of_patches_by_hand() -> None:
    """Patches of 2 at x = 0, 1, 2, each 0 and 1: the voxels are covered by (0), (1, 0), (1, 0), (1)."""
    spread = Spread()

    def predict(batch: np.ndarray) -> np.ndarray:
        return np.broadcast_to(np.array([0, 1], np.float32), batch.shape)

    predict_volume(np.zeros((1, 1, 4)), predict, (1, 1, 2), (1, 1, 1), spread=spread)
    assert (spread.squares, spread.agreed, spread.total, spread.patch_size) == (3, 2 * 0.25 * 2 + 1, 3, (1, 1, 2))
    assert spread.disagreement == pytest.approx((3 - 2) / 3)


@pytest.mark.parametrize("batch_size", [1, 3])
def test_disagreement_is_the_variance_within_voxels(batch_size: int) -> None:
    array, spread = np.random.default_rng(0).random((7, 6, 9), np.float32), Spread()
    patch, stride = (4, 5, 4), (2, 3, 3)
    values: dict[tuple, list[float]] = {}

    def predict(batch: np.ndarray) -> np.ndarray:
        return np.abs(np.sin(7 * ramp(batch)))

    predict_volume(array, predict, patch, stride, batch_size, normalise=identity, spread=spread)
    for origin in itertools.product((0, 2, 3), (0, 1), (0, 3, 5)):
        place = tuple(slice(start, start + size) for start, size in zip(origin, patch, strict=True))
        for index, p in np.ndenumerate(predict(array[place][None])[0]):
            values.setdefault(tuple(np.add(origin, index)), []).append(float(p))
    within = sum(len(v) * np.var(v) for v in values.values())
    assert spread.disagreement == pytest.approx(within / sum(map(sum, values.values())), rel=1e-4)


@pytest.mark.parametrize("probability", [0.0, 0.3, 1.0])
def test_patches_that_agree_have_no_disagreement(probability: float) -> None:
    spread = Spread(squares=9.0, total=1.0)
    predict_volume(np.zeros((5, 6, 7)), lambda b: b + np.float32(probability), (4, 4, 4), (2, 2, 2), spread=spread)
    assert spread.disagreement == pytest.approx(0, abs=1e-6)


def test_more_disagreement_is_a_larger_number() -> None:
    found = []
    for noise in (0.1, 0.2, 0.4):
        spread, rng = Spread(), np.random.default_rng(0)

        def predict(batch: np.ndarray, noise: float = noise, rng: np.random.Generator = rng) -> np.ndarray:
            return (0.5 + noise * rng.choice([-1, 1], batch.shape)).astype(np.float32)

        predict_volume(np.zeros((8, 8, 8)), predict, (4, 4, 4), (2, 2, 2), spread=spread)
        found.append(spread.disagreement)
    assert found == sorted(found)
    assert found[0] < found[-1] / 10


def test_patches_around_voxels_are_the_ones_of_the_grid() -> None:
    array = np.random.default_rng(0).random((6, 7, 3), np.float32)
    seen = []

    def predict(batch: np.ndarray) -> np.ndarray:
        seen.extend(batch.copy())
        return batch

    predict_volume(array, predict, (4, 4, 4), (2, 3, 4))
    # Origins (0, 0, 0) and (2, 3, 0); a centre too near to the border is moved inside.
    found = patches_at(array, np.array([[2.0, 2.0, 1.0], [5.9, 6.0, 2.0]]), (4, 4, 4))
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, [seen[0], seen[-1]])
    plain = patches_at(array, np.array([[2, 2, 1]]), (4, 4, 2), normalise=identity)
    np.testing.assert_array_equal(plain[0], array[:4, :4, :2])
