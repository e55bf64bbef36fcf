"""Every quality measure on a few voxels, by hand, and in the direction that it should go."""

import numpy as np
import pytest

from femur3d.inference import postprocessing, quality
from femur3d.volume import Volume

SPACING = (10.0, 5.0, 2.0)  # x, y, z: a voxel is 0.1 ml


def volume(array, direction=(1.0, 0, 0, 0, 1.0, 0, 0, 0, 1.0)):
    return Volume(np.asarray(array), SPACING, (-50.0, 20.0, 300.0), direction)


def boxes(*slices, shape=(6, 5, 30)):
    """A label map with a femur, 1, in each box."""
    array = np.zeros(shape, np.uint8)
    for box in slices:
        array[box] = 1
    return array


LEFT = np.s_[1:5, 1:3, 24:27]  # 4·2·3 = 24 voxels, 2.4 ml
RIGHT = np.s_[2:5, 1:3, 3:5]  # 3·2·2 = 12 voxels, 1.2 ml
TWO = boxes(LEFT, RIGHT)


def test_shape_of_two_femurs():
    labels = volume(TWO)
    found = quality.shape(labels, quality.femurs_of(labels))
    assert found == pytest.approx(
        {
            "smallest_volume_ml": 1.2,
            "largest_volume_ml": 2.4,
            "side_ratio": 0.5,
            "head_medial_mm": 0.0,
        }
    )


def test_heads_are_medial_of_shafts():
    """The upper of the top quarter's two slices lies 10 mm further in on the left, 20 mm on the right."""
    left, right = boxes(np.s_[0:4, 1:3, 25], np.s_[4, 1:3, 24]), boxes(np.s_[0:4, 1:3, 4], np.s_[4, 1:3, 6])
    for turn, expected in ((1, 5), (-1, -10)):  # upside down both lie further out
        femurs = [volume(left).world_mm(np.argwhere(array[::turn])) for array in (left, right)]
        assert quality.head_medial_mm(femurs) == pytest.approx(expected)
        assert quality.head_medial_mm(femurs[::-1]) == pytest.approx(expected)


def test_one_femur_has_no_ratio_and_none_no_shape():
    assert "side_ratio" not in quality.shape(volume(TWO), quality.femurs_of(volume(boxes(LEFT))))
    assert quality.shape(volume(TWO), []) == {}


@pytest.mark.parametrize("values", [(1, 1), (1, 2), (2, 1)])
def test_femurs_whatever_their_labels(values):
    array = TWO.copy()
    array[LEFT] *= values[0]
    array[RIGHT] *= values[1]
    right, left = sorted(quality.femurs_of(volume(array)), key=lambda femur: femur.voxels)
    assert [(femur.voxels, len(femur.positions_mm)) for femur in (right, left)] == [(12, 12), (24, 24)]
    assert left.positions_mm[:, 0].mean() == pytest.approx(-50 + 25 * 10)
    assert right.positions_mm[:, 2].min() == pytest.approx(300 + 2 * 2)


def test_of_a_huge_femur_a_part_of_the_positions_is_kept(monkeypatch):
    """Where a network calls everything femur, the positions of all voxels took gigabytes."""
    monkeypatch.setattr(postprocessing, "MOST_POSITIONS", 10_000)
    array = np.zeros((40, 40, 40), np.uint8)
    array[4:36, 4:36, 4:36] = 1
    labels = volume(array)
    (femur,) = quality.femurs_of(labels)
    assert (len(femur.positions_mm), femur.voxels) == (32**3 // 4, 32**3)
    centre = labels.world_mm((19.5, 19.5, 19.5))
    np.testing.assert_allclose(femur.positions_mm.mean(axis=0), centre, atol=max(labels.spacing_mm) * 2)
    assert quality.shape(labels, [femur])["largest_volume_ml"] == pytest.approx(32**3 * 0.1)


def test_tiles_lie_in_the_upper_and_lower_half_of_each_femur():
    centres = quality.tile_centres_mm(quality.femurs_of(volume(boxes(LEFT))))
    # z of slices 1…4: 302, 304, 306, 308
    np.testing.assert_allclose(centres, [[200, 27.5, 307], [200, 27.5, 303]])
    assert quality.tile_centres_mm([]).shape == (0, 3)
    flat = quality.femurs_of(volume(boxes(np.s_[2, 1, 1])))
    assert len(quality.tile_centres_mm(flat)) == 1


@pytest.mark.parametrize(
    ("probability", "expected"),
    [([0, 1, 1], 0.0), ([0.05, 0.5, 0.95], 0.5), ([0.2, 0.5, 0.85, 0.95], 0.75), ([0, 0.05], 0.0)],
)
def test_uncertain_share(probability, expected):
    assert quality.uncertain_share(np.array(probability, np.float32)) == pytest.approx(expected)


def test_what_cleaning_removed():
    probability = TWO.astype(np.float32)
    assert quality.removed(volume(TWO), volume(probability)) == (0.0, 0)
    probability[0, 4, 10:15] = 0.8  # 5 voxels, 0.5 ml: a fragment
    probability[0, 4, 18:22] = 0.8  # 4 voxels: a speck
    probability[0, 0, 0] = 0.4  # not found
    assert quality.removed(volume(TWO), volume(probability)) == (9 / 45, 1)
    assert quality.removed(volume(0 * TWO), volume(0 * probability)) == (0.0, 0)


def test_a_filled_hole_is_not_removed():
    probability = TWO.astype(np.float32)
    probability[3, 2, 25] = 0
    assert quality.removed(volume(TWO), volume(probability)) == (0.0, 0)


def test_contact_with_the_field_of_view_but_not_below():
    assert quality.border_contact_cm2(volume(TWO)) == 0
    below = boxes(np.s_[0:4, 1:3, 3:5])
    assert quality.border_contact_cm2(volume(below)) == 0
    above = boxes(np.s_[3:6, 1:3, 3:5])  # 2·2 voxels of 10 mm × 5 mm
    assert quality.border_contact_cm2(volume(above)) == pytest.approx(2.0)
    lateral = boxes(np.s_[1:4, 1:3, 28:30])  # 3·2 voxels of 5 mm × 2 mm
    assert quality.border_contact_cm2(volume(lateral)) == pytest.approx(0.6)
    both = boxes(np.s_[3:6, 0:2, 3:5])  # 2.0 above and, in front, 3·2 voxels of 10 mm × 2 mm
    assert quality.border_contact_cm2(volume(both)) == pytest.approx(2.0 + 1.2)


def test_below_is_where_the_patient_says():
    """A scan stored head first, and a coronal one whose rows run downwards."""
    end = boxes(np.s_[3:6, 1:3, 3:5])
    head_first = (1.0, 0, 0, 0, 1.0, 0, 0, 0, -1.0)
    assert quality.border_contact_cm2(volume(end, head_first)) == 0
    assert quality.border_contact_cm2(volume(boxes(np.s_[0:3, 1:3, 3:5]), head_first)) == pytest.approx(2.0)
    coronal = (1.0, 0, 0, 0, 0, 1.0, 0, -1.0, 0)  # index axis j points down
    assert quality.border_contact_cm2(volume(boxes(np.s_[1:3, 3:5, 3:5]), coronal)) == 0
    assert quality.border_contact_cm2(volume(boxes(np.s_[1:3, 0:2, 3:5]), coronal)) == pytest.approx(0.8)


@pytest.mark.parametrize(
    ("width", "found", "missing"), [(30, 2, 0), (30, 1, 1), (30, 0, 2), (20, 2, 0), (20, 1, 0), (20, 0, 1)]
)
def test_missing_femurs(width, found, missing):
    """30 voxels of 10 mm show both hips, 20 show one."""
    assert quality.missing_femurs(volume(np.zeros((3, 3, width))), found) == missing
    turned = Volume(np.zeros((width, 3, 3)), (2.0, 5.0, 10.0), direction=(0, 0, 1.0, 0, 1.0, 0, 1.0, 0, 0))
    assert quality.missing_femurs(turned, found) == missing


def test_disagreement_of_the_heads():
    upper = np.array([[0.9, 0.9, 0.1, 0.1]], np.float32)
    half = np.array([[0.9, 0.1, 0.1, 0.1]], np.float32)  # Dice 2·1 / (2 + 1)
    assert quality.head_disagreement({"upper": upper, "mid": upper, "lower": upper}) == 0
    assert quality.head_disagreement({"upper": upper, "mid": half, "lower": upper}) == pytest.approx(1 / 3)
    assert quality.head_disagreement({"upper": upper, "mid": half, "lower": 1 - upper}) == 1


def test_all_measures_of_a_scan():
    heads = {name: np.ones((4, 2, 2, 2), np.float32) for name in ("lower", "mid", "upper")}
    found = quality.measure(volume(TWO), volume(TWO.astype(np.float32)), 0.25, heads)
    assert set(found) == set(quality.NAMES)
    assert all(type(value) is float for value in found.values())
    assert found["patch_disagreement"] == 0.25
    assert found["missing_femurs"] == 0
    empty = quality.measure(volume(0 * TWO), volume(np.zeros(TWO.shape, np.float32)), 0.0)
    assert empty == {
        "patch_disagreement": 0.0,
        "uncertain_share": 0.0,
        "removed_share": 0.0,
        "fragments": 0.0,
        "border_contact_cm2": 0.0,
        "missing_femurs": 2.0,
    }
