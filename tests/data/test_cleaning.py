"""What is taken out of a scan before it is normalised, and that a clean scan passes unchanged."""

import numpy as np
import pytest

from femur3d.data.cleaning import content_box, without_outliers, without_padding
from femur3d.volume import Volume

NOISE = np.random.default_rng(0).integers(0, 1000, (8, 20, 20)).astype(np.int16)


@pytest.mark.parametrize("padding", [-2000, -32768, -900])
@pytest.mark.parametrize("dtype", [np.int16, np.float32])
def test_an_isolated_lowest_value_is_padding(padding, dtype):
    array = np.random.default_rng(0).integers(0, 1500, (8, 20, 20)).astype(dtype)
    expected, padded = array.copy(), array.copy()
    padded[:, :3], expected[:, :3] = padding, array[:, 3:].min()
    np.testing.assert_array_equal(without_padding(padded), expected)
    assert without_padding(padded).dtype == dtype


def test_air_and_images_of_few_values_have_no_padding():
    """Intensities begin close above air; a phantom of three values is as it is."""
    air = np.random.default_rng(0).integers(1, 1500, (8, 20, 20)).astype(np.int16)
    air[:, :10] = 0
    few = np.array([0, 400, 410, 420], np.int16)[np.random.default_rng(1).integers(0, 4, (8, 20, 20))]
    for array in (air, few, np.full((4, 4, 4), 7.0)):
        assert without_padding(array) is array


@pytest.mark.parametrize(("value", "becomes"), [(32767, 999), (-32768, 0), (6000, 999)])
def test_few_voxels_far_from_all_others_get_the_nearest_sound_value(value, becomes):
    array, expected = NOISE.copy(), NOISE.copy()
    array[2, 3, 4], array[5, 5, 5] = value, value
    expected[2, 3, 4], expected[5, 5, 5] = becomes, becomes
    assert (NOISE.min(), NOISE.max()) == (0, 999)
    np.testing.assert_array_equal(without_outliers(array), expected)
    assert without_outliers(array).dtype == array.dtype


def test_scan_without_outliers_is_the_same_array():
    bright = NOISE.copy()
    bright[4, 4, 4] = 3000  # a vessel may be three times as bright as the rest
    for array in (NOISE, bright, np.zeros((4, 4, 4), np.float32)):
        assert without_outliers(array) is array


def padded(widths, spacing_mm, value=0):
    return Volume(np.pad(NOISE, widths, constant_values=value), spacing_mm)


def test_empty_borders_are_cut_but_for_one_line_of_a_thin_axis():
    volume = padded(((6, 3), (4, 0), (1, 2)), (0.9, 0.9, 5.2))
    assert content_box(volume) == (slice(6, 14), slice(3, 24), slice(0, 22))
    assert content_box(padded(((6, 3), (4, 0), (1, 2)), (5.2, 5.2, 5.2), -7)) == (
        slice(6, 14), slice(4, 24), slice(1, 21),
    )  # fmt: skip


def test_full_and_constant_volumes_are_not_cut():
    assert content_box(padded(((0, 0),) * 3, (1.0, 1.0, 1.0))) == (slice(0, 8), slice(0, 20), slice(0, 20))
    constant = Volume(np.full((4, 4, 4), 5.0), (1.0, 1.0, 1.0))
    assert content_box(constant) == (slice(None),) * 3
