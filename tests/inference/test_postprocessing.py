"""Tests of thresholding, components, holes and sides on bodies of a few voxels."""

import itertools

import numpy as np
import pytest

from femur3d.inference.postprocessing import LEFT, RIGHT, assign_sides, femur_mask, keep_femurs, label_map
from femur3d.volume import Volume

STORAGES = list(itertools.product(itertools.permutations(range(3)), itertools.product((False, True), repeat=3)))


def volume(array: np.ndarray) -> Volume:
    """Axis-aligned voxels, 10 mm along x, 4 mm along y and 5 mm along z, somewhere in the world."""
    return Volume(array, spacing_mm=(10.0, 4.0, 5.0), origin_mm=(-90.0, 30.0, -700.0))


def stored(original: Volume, axes: tuple[int, ...], flips: tuple[bool, ...]) -> Volume:
    """The same body in the same place, its array transposed to `axes`, then flipped, its geometry adjusted."""
    array = original.array.transpose(axes)
    corner = [0, 0, 0]  # original (z, y, x) of the voxel that comes first
    for axis, flip in zip(axes, flips, strict=True):
        corner[axis] = original.array.shape[axis] - 1 if flip else 0
    signs = np.where(flips, -1, 1)
    index_axes = [2 - axes[2 - i] for i in range(3)]  # index axis i is array axis 2 - i
    direction = np.reshape(original.direction, (3, 3))[:, index_axes] * signs[::-1]
    return Volume(
        array[tuple(slice(None, None, -1 if flip else 1) for flip in flips)],
        spacing_mm=tuple(original.spacing_mm[i] for i in index_axes),  # type: ignore[arg-type]
        origin_mm=tuple(original.world_mm(corner)),
        direction=tuple(direction.ravel()),
    )


def two_femurs() -> np.ndarray:
    """Two boxes, centroids 140 mm apart: the patient's right one (27 voxels) at x = 1…3, the left (36) at 15…17."""
    array = np.zeros((7, 6, 20), np.float32)
    array[2:5, 1:4, 1:4] = 1
    array[2:6, 1:4, 15:18] = 1
    return array


def single_femur(head_x: slice) -> np.ndarray:
    """A shaft at x = 4, five voxels high, with a head on top that reaches to one side."""
    array = np.zeros((9, 4, 9), bool)
    array[1:6, 1:3, 4] = True
    array[6:8, 0:3, head_x] = True
    return array


def test_the_helper_that_stores_otherwise_keeps_every_voxel_in_place() -> None:
    original = volume(np.arange(2 * 3 * 4).reshape(2, 3, 4))
    for axes, flips in STORAGES:
        other = stored(original, axes, flips)
        for value in (0, 7, 23):
            np.testing.assert_allclose(
                other.world_mm(np.argwhere(other.array == value)),
                original.world_mm(np.argwhere(original.array == value)),
            )


def test_femur_mask_leaves_a_tie_to_the_background() -> None:
    probability = volume(np.array([[[0.4, 0.5, 0.6]]], np.float32))
    np.testing.assert_array_equal(femur_mask(probability), [[[False, False, True]]])
    np.testing.assert_array_equal(femur_mask(probability, 0.3), [[[True, True, True]]])


@pytest.mark.parametrize("threshold", [-0.1, 1.5, float("nan")])
def test_femur_mask_refuses_a_threshold_that_is_no_probability(threshold: float) -> None:
    with pytest.raises(ValueError, match=r"from 0 to 1\. Received"):
        femur_mask(volume(np.zeros((1, 1, 1))), threshold)


def test_islands_go_and_holes_are_filled() -> None:
    expected = two_femurs()
    array = expected.copy()
    array[3, 2, 2] = array[3:5, 2, 16] = 0  # holes of one and of two voxels
    array[0, 0, 10] = array[6, 5, 19] = array[6, 5, 0] = 0.9  # islands
    result = label_map(volume(array))
    assert result.array.dtype == np.uint8
    assert result.geometry_difference(volume(array)) is None
    np.testing.assert_array_equal(result.array, expected)


def test_sides_are_the_patients() -> None:
    result = label_map(volume(two_femurs()), labels="sides").array
    assert set(np.unique(result[:, :, :10])) == {0, RIGHT}
    assert set(np.unique(result[:, :, 10:])) == {0, LEFT}
    assert (LEFT, RIGHT) == (1, 2)


@pytest.mark.parametrize(("axes", "flips"), STORAGES)
def test_sides_do_not_depend_on_storage(axes: tuple[int, ...], flips: tuple[bool, ...]) -> None:
    plain = label_map(volume(two_femurs()), labels="sides")
    otherwise = label_map(stored(volume(two_femurs()), axes, flips), labels="sides")
    np.testing.assert_array_equal(otherwise.array, stored(plain, axes, flips).array)


@pytest.mark.parametrize(("axes", "flips"), STORAGES)
@pytest.mark.parametrize(("head_x", "side"), [(slice(1, 5), LEFT), (slice(4, 8), RIGHT)])
def test_side_of_a_single_femur(axes: tuple[int, ...], flips: tuple[bool, ...], head_x: slice, side: int) -> None:
    original = volume(single_femur(head_x))
    body = stored(original, axes, flips)
    assert assign_sides([body.array], body) == [side]
    result = label_map(body.with_array(body.array.astype(np.float32)), labels="sides")
    np.testing.assert_array_equal(result.array, body.array * side)


def test_femurs_at_the_border_stay_and_cavities_open_to_its_sides_stay_open() -> None:
    array = np.zeros((5, 5, 16), np.float32)
    array[:, :, :5] = array[:, :, 11:] = 1
    array[2, 2, 0:3] = 0  # open to the border at x = 0
    array[1:3, 2, 13] = 0  # closed
    expected = array.copy()
    expected[1:3, 2, 13] = 1
    np.testing.assert_array_equal(label_map(volume(array)).array, expected)


@pytest.mark.parametrize(("gap", "expected"), [(8, 2), (7, 1)])  # 80 mm and 70 mm
def test_the_other_femur_is_at_least_80_mm_away(gap: int, expected: int) -> None:
    array = np.zeros((3, 3, 20), bool)
    array[:, :, 2] = True
    array[:2, :, 2 + gap] = True
    femurs = keep_femurs(volume(array))
    assert [int(femur.sum()) for femur in femurs] == [9, 6][:expected]


@pytest.mark.parametrize(("voxels", "expected"), [(4, 2), (3, 1)])  # a fifth of 20, and less
def test_the_other_femur_has_at_least_a_fifth_of_the_volume(voxels: int, expected: int) -> None:
    array = np.zeros((5, 4, 20), bool)
    array[:, :, 2] = True
    array[0, :voxels, 15] = True
    assert len(keep_femurs(volume(array))) == expected


@pytest.mark.parametrize(("axes", "flips"), STORAGES)
@pytest.mark.parametrize(("x", "expected"), [(19, 2), (18, 1)])  # at the border, and one voxel off it
def test_a_femur_that_the_field_of_view_cuts_may_be_small(
    axes: tuple[int, ...], flips: tuple[bool, ...], x: int, expected: int
) -> None:
    array = np.zeros((5, 8, 20), bool)
    array[:, :, 2] = True  # 40 voxels
    array[2, 3:5, x] = True  # 2: a twentieth
    array[0, 0, 10] = True  # 1, at the border too, but less
    assert len(keep_femurs(stored(volume(array), axes, flips))) == expected


def test_a_fragment_beside_a_femur_goes_and_the_largest_far_component_is_the_other_femur() -> None:
    array = np.zeros((10, 6, 20), bool)
    array[:, :, 1:3] = True  # the first femur, 120 voxels
    array[:9, :, 5] = True  # 54 voxels, 35 mm away: larger than the second femur, but near
    array[:, :3, 14] = True  # 30 voxels, 125 mm away
    array[:, :5, 17] = True  # 50 voxels, 155 mm away: the second femur
    first, second = keep_femurs(volume(array))
    np.testing.assert_array_equal(first, array & (np.arange(20) < 3))
    np.testing.assert_array_equal(second, array & (np.arange(20) == 17))


@pytest.mark.parametrize(("axes", "flips"), STORAGES)
def test_the_marrow_of_a_shaft_that_the_field_of_view_cuts_is_filled(axes, flips) -> None:
    array = np.zeros((8, 5, 5), bool)
    array[:, 1:4, 1:4] = True
    array[:6, 2, 2] = False  # open below, and through a gap in one slice
    array[3, 2, 1] = False
    shaft, *none = keep_femurs(stored(volume(array), axes, flips))
    filled = array.copy()
    filled[[0, 1, 2, 4, 5], 2, 2] = True  # in the slice of the gap it is no hole
    assert none == []
    np.testing.assert_array_equal(shaft, stored(volume(filled), axes, flips).array)


def test_distance_counts_only_along_the_patients_left_right_axis() -> None:
    # The array's last axis points to the patient's back: 140 mm along it are 0 mm from left to right.
    body = Volume(two_femurs(), (10.0, 4.0, 5.0), direction=(0.0, -1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0))
    (femur,) = keep_femurs(body)
    assert int(femur.sum()) == 36


def test_what_touches_only_at_an_edge_or_a_corner_is_an_island() -> None:
    array = np.zeros((5, 5, 5), bool)
    array[1:4, 1:4, 1:4] = True
    body = array.copy()
    array[0, 0, 2] = array[4, 4, 4] = True
    (femur,) = keep_femurs(volume(array))
    np.testing.assert_array_equal(femur, body)


@pytest.mark.parametrize("labels", ["femur", "sides"])
def test_an_empty_mask_gives_an_empty_label_map(labels: str) -> None:
    empty = volume(np.full((3, 4, 5), 0.5, np.float32))
    result = label_map(empty, labels=labels)  # type: ignore[arg-type]
    assert result.array.dtype == np.uint8
    np.testing.assert_array_equal(result.array, np.zeros((3, 4, 5)))
    assert keep_femurs(volume(np.zeros((3, 4, 5), bool))) == []


def test_the_input_is_left_alone() -> None:
    array = two_femurs()
    array[3, 2, 2] = 0
    before = array.copy()
    label_map(volume(array), labels="sides")
    np.testing.assert_array_equal(array, before)


def test_refuses_unknown_labels_and_a_third_femur() -> None:
    with pytest.raises(ValueError, match="Received: 'left'"):
        label_map(volume(two_femurs()), labels="left")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"at most two femurs\. Received: 3"):
        assign_sides([two_femurs() > 0] * 3, volume(two_femurs()))
