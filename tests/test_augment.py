import itertools

import numpy as np
import pytest

from femur3d.augment import MIRROR, VARIANTS, variant

ARRAY = np.arange(2 * 3 * 3).reshape(2, 3, 3)


def test_eight_different_variants():
    seen = {variant(ARRAY, v).tobytes() for v in VARIANTS}
    assert len(VARIANTS) == len(seen) == 8


def test_variants_by_hand():
    plane = np.array([[[1, 2], [3, 4]]])  # y down, x to the right
    expected = {
        0: [[1, 2], [3, 4]], 1: [[2, 4], [1, 3]], 2: [[4, 3], [2, 1]], 3: [[3, 1], [4, 2]],
        4: [[3, 4], [1, 2]], 5: [[1, 3], [2, 4]], 6: [[2, 1], [4, 3]], 7: [[4, 2], [3, 1]],
    }  # fmt: skip
    for number, rows in expected.items():
        np.testing.assert_array_equal(variant(plane, number)[0], rows)


def test_z_stays_and_mirror_flips_x():
    np.testing.assert_array_equal(variant(ARRAY, MIRROR), ARRAY[:, :, ::-1])
    for v in VARIANTS:
        for plane in range(2):
            assert set(variant(ARRAY, v)[plane].ravel()) == set(ARRAY[plane].ravel())


def test_variants_form_a_group():
    known = {variant(ARRAY, v).tobytes() for v in VARIANTS}
    for a, b in itertools.product(VARIANTS, repeat=2):
        assert variant(variant(ARRAY, a), b).tobytes() in known


def test_quarter_turns_swap_the_axes_of_an_oblong_array():
    assert variant(np.zeros((2, 3, 5)), 1).shape == (2, 5, 3)


def test_unknown_variant():
    with pytest.raises(ValueError, match="Received: 8"):
        variant(ARRAY, 8)
