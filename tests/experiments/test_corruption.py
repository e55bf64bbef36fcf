"""Corruptions of arrays that can be checked by hand."""

import numpy as np
import pytest

from experiments.studies import corruption
from femur3d.volume import Volume

INTENSITY = ("noise", "motion", "bias", "blur")


def scan(direction=(1.0, 0, 0, 0, 1.0, 0, 0, 0, 1.0)):
    array = np.zeros((12, 10, 16), np.int16)
    array[3:9, 3:7, 4:12] = 100
    return Volume(array, (2.0, 4.0, 5.0), (7.0, -3.0, 100.0), direction)


@pytest.mark.parametrize("kind", INTENSITY)
def test_intensities_change_more_the_stronger_on_the_same_grid_and_the_same_every_time(kind):
    original = scan()
    weak, strong = (corruption.corrupt(original, kind, strength, seed=3) for strength in (0.5, 2.0))
    change = [np.abs(worse.array - original.array).mean() for worse in (weak, strong)]
    assert 0 < change[0] < change[1]
    for worse in (weak, strong):
        assert worse.array.dtype == np.float32
        assert worse.geometry_difference(original) is None
        assert np.isfinite(worse.array).all()
    np.testing.assert_array_equal(corruption.corrupt(original, kind, 2.0, seed=3).array, strong.array)
    assert original.array.dtype == np.int16


@pytest.mark.parametrize("kind", INTENSITY)
def test_no_strength_is_no_change(kind):
    np.testing.assert_allclose(corruption.corrupt(scan(), kind, 0.0).array, scan().array, atol=1e-4)


@pytest.mark.parametrize("kind", ["noise", "motion", "bias"])
def test_the_seed_decides(kind):
    first, second = (corruption.corrupt(scan(), kind, 1.0, seed).array for seed in (0, 1))
    assert np.abs(first - second).max() > 1


def test_noise_is_rician():
    """Without signal its mean is σ·√(π/2); σ is a part of the 99th percentile, here 100."""
    array = np.zeros((40, 40, 40), np.float32)
    array[0] = 100
    noisy = corruption.corrupt(Volume(array), "noise", 0.1).array
    assert noisy[1:].mean() == pytest.approx(10 * np.sqrt(np.pi / 2), rel=0.01)
    assert noisy[0].mean() == pytest.approx(np.hypot(100, 10), rel=0.01)


def test_motion_keeps_the_mean_of_each_line_and_shifts_nothing_across_lines():
    moved = corruption.corrupt(scan(), "motion", 1.0).array
    np.testing.assert_allclose(moved[0, 0], 0, atol=1e-4)  # a line of air stays one
    assert moved[5, 5].mean() == pytest.approx(50, rel=0.2)  # k = 0 has no phase; the magnitude adds a little


def test_bias_lies_between_the_exponentials_of_the_strength():
    field = corruption.corrupt(Volume(np.ones((8, 9, 10))), "bias", 1.5).array
    assert (field.min(), field.max()) == pytest.approx((np.exp(-1.5), np.exp(1.5)), rel=1e-4)
    assert np.abs(np.diff(field, axis=0)).max() < field.max() - field.min()


def test_blur_is_in_millimetres():
    array = np.zeros((41, 41, 41), np.float32)
    array[20, 20, 20] = 1
    blurred = corruption.corrupt(Volume(array, (1.0, 2.0, 4.0)), "blur", 8.0).array
    for axis, mm in enumerate((4.0, 2.0, 1.0)):
        line = blurred.sum(axis=tuple(other for other in range(3) if other != axis))
        deviation = mm * np.sqrt((line * (np.arange(41) - 20) ** 2).sum() / line.sum())
        assert deviation == pytest.approx(8.0, rel=0.1)


@pytest.mark.parametrize("up", [1.0, -1.0])
def test_top_is_where_the_head_is(up):
    """12 slices of 5 mm; the bright ones are 3…8."""
    original = scan((1.0, 0, 0, 0, 1.0, 0, 0, 0, up))
    top, rest = (corruption.corrupt(original, kind, 20.0) for kind in ("wrong body part", "cropped head"))
    assert (top.array.shape, rest.array.shape) == ((4, 10, 16), (8, 10, 16))
    assert top.array.dtype == np.int16
    z = {name: v.world_mm([[0, 0, 0], [v.array.shape[0] - 1, 0, 0]])[:, 2] for name, v in (("t", top), ("r", rest))}
    assert z["t"].min() == pytest.approx(z["r"].max() + 5)
    slices = np.s_[8:] if up > 0 else np.s_[:4]
    np.testing.assert_array_equal(top.array, original.array[slices])


def test_top_of_a_coronal_scan():
    coronal = scan((1.0, 0, 0, 0, 0, 1.0, 0, -1.0, 0))  # rows of 4 mm that run downwards
    np.testing.assert_array_equal(corruption.corrupt(coronal, "cropped head", 8.0).array, coronal.array[:, 2:])


def test_upside_down_is_a_turn_and_no_mirror():
    array = np.arange(24).reshape(2, 3, 4)
    turned = corruption.corrupt(Volume(array), "upside down", 0.0)
    np.testing.assert_array_equal(turned.array, np.rot90(array, 2, axes=(0, 2)))
    coronal = Volume(array, direction=(1.0, 0, 0, 0, 0, 1.0, 0, -1.0, 0))
    np.testing.assert_array_equal(corruption.corrupt(coronal, "upside down", 0).array, np.rot90(array, 2, axes=(1, 2)))


def test_refuses_unknown_kinds_and_empty_volumes():
    with pytest.raises(ValueError, match="Received: 'rain'"):
        corruption.corrupt(scan(), "rain", 1.0)
    for strength in (0.0, 60.0, -5.0):
        with pytest.raises(ValueError, match="between 1 and 11 slices"):
            corruption.corrupt(scan(), "wrong body part", strength)
