"""Error bars and the gate: what is said of a good surface, of thick slices, of a head that is cut off, of no shaft."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from scipy import ndimage

from femur3d.errors import InputError
from femur3d.morphometry.definitions import DEFINITIONS
from femur3d.morphometry.error_bars import BARS, GRIDS_MM, Boundary, half_width, interval
from femur3d.morphometry.femur import Femur, find_femur
from femur3d.morphometry.gate import MEASURABLE, NOT, WITH_CARE, judge, of_bar
from femur3d.morphometry.measure import Morphometry, measure_labels, measure_surface, only_femur
from femur3d.morphometry.surface import Surface
from tests.support.femurs import HEAD_MM, NECK_MM, NECK_SHAFT_DEG, both_femurs, left_femur

THICK = Boundary(np.array([0.9, 5.2, 0.9]), np.eye(3))


def test_intervals_of_a_good_surface_hold_the_truth() -> None:
    found = measure_surface(left_femur(), "left")
    truth = {
        "head_radius_mm": HEAD_MM,
        "neck_diameter_mm": 2 * NECK_MM,
        "neck_shaft_angle_deg": NECK_SHAFT_DEG,
        "alpha_anterior_deg": np.degrees(np.arcsin(NECK_MM / HEAD_MM)),
        "head_neck_offset_mm": HEAD_MM - NECK_MM,
    }
    for name, value in truth.items():
        one = found.measures[name]
        assert one.low - 0.05 <= value <= one.high + 0.05, name
        assert one.verdict.level != NOT, name
    assert found.measures["head_radius_mm"].verdict.level == MEASURABLE
    assert found.measures["version_deg"].verdict.level == NOT
    assert found.measures["cam_height_mm"].value == 0
    assert "measurable" in str(found)


def test_thick_slices_refuse_the_alpha_angle_and_every_number_of_it() -> None:
    found = measure_surface(left_femur(), "left", boundary=THICK)
    alpha = found.measures["alpha_max_deg"]
    assert alpha.verdict.level == NOT
    assert "5.2 mm" in alpha.verdict.reason
    assert np.isnan([alpha.value, alpha.low, alpha.high]).all()
    assert str(alpha) == f"not measurable. {alpha.verdict.reason}"
    said = json.loads(json.dumps(found.as_dict(), allow_nan=False))
    assert said["alpha_max_deg"]["value"] is None
    assert set(said["alpha_by_clock"]["degrees"]) == {None}
    assert said["head_radius_mm"]["level"] == WITH_CARE


@pytest.fixture(scope="module")
def femur() -> Femur:
    return find_femur(left_femur(), "left")


def test_gate_knows_what_is_not_there(femur: Femur) -> None:
    good = judge(femur, 1.0, True)
    assert {verdict.level for verdict in good.values()} == {MEASURABLE}
    cut = dataclasses.replace(femur, head=dataclasses.replace(femur.head, coverage=0.2))
    assert judge(cut, 1.0, True)["head"].level == NOT
    no_shaft = judge(dataclasses.replace(femur, shaft=None), 1.0, True)
    assert (no_shaft["shaft"].level, no_shaft["clock"].level) == (NOT, WITH_CARE)
    short = dataclasses.replace(femur, shaft=None, below_head_mm=1.5 * HEAD_MM)
    assert judge(short, 1.0, True)["neck"].level == NOT
    flagged = judge(femur, 1.0, True, ["Something is wrong."])
    assert {verdict.level for verdict in flagged.values()} == {WITH_CARE}
    assert "Something is wrong." in flagged["head"].reason


@pytest.mark.parametrize(("mm", "level"), [(1.0, MEASURABLE), (2.0, WITH_CARE), (3.5, NOT)])
def test_slices_decide_about_the_junction_and_the_neck(femur: Femur, mm: float, level: str) -> None:
    found = judge(femur, mm, True)
    assert (found["junction"].level, found["neck"].level) == (level, MEASURABLE if mm < 2 else WITH_CARE)


def test_gate_knows_what_is_no_femur(femur: Femur) -> None:
    small = dataclasses.replace(femur.head, radius_mm=14.0)
    thin = dataclasses.replace(femur.head, radius_mm=NECK_MM / 0.96)
    for head in (small, thin):
        assert judge(dataclasses.replace(femur, head=head), 1.0, True)["head"].level == NOT
    assert femur.shaft is not None
    across = femur.frame.superior  # the shaft at a right angle to the neck, but for 15°
    for turn, level in ((-15, NOT), (15, MEASURABLE)):
        direction = np.cos(np.radians(turn)) * across - np.sin(np.radians(turn)) * femur.frame.axis
        angle = judge(
            dataclasses.replace(femur, shaft=dataclasses.replace(femur.shaft, direction=direction)), 1.0, True
        )
        assert (angle["head"].level, "at 75°" in angle["head"].reason) == (level, level == NOT)
    not_round = dataclasses.replace(femur, alpha_deg=np.full_like(femur.alpha_deg, 100.0))
    assert judge(not_round, 1.0, True)["junction"].level == NOT


def test_gate_knows_a_femur_that_is_called_the_other_one(femur: Femur) -> None:
    other = dataclasses.replace(femur, side="right")
    assert judge(other, 1.0, True, in_world=True)["clock"].level == NOT
    assert "points to the patient's left" in judge(other, 1.0, True, in_world=True)["clock"].reason
    turned = dataclasses.replace(femur, sidedness=-0.5)
    assert judge(turned, 1.0, True, in_world=True)["clock"].level == WITH_CARE


def test_every_measure_has_a_calibrated_bar_that_grows_with_the_slices() -> None:
    assert set(BARS) == {*DEFINITIONS, "head_centre_mm"}
    assert all(slope > 0 and least >= 0 for pairs in BARS.values() for slope, least in pairs)
    (slope, least), (next_slope, next_least), (thick_slope, thick_least) = BARS["head_radius_mm"]
    assert half_width("head_radius_mm", 0.5, GRIDS_MM[0]) == pytest.approx(slope * 0.5 + least)
    assert half_width("head_radius_mm", 0.5, GRIDS_MM[2]) == pytest.approx(thick_slope * 0.5 + thick_least)
    middle = (slope + next_slope) / 2 * 0.5 + (least + next_least) / 2
    assert half_width("head_radius_mm", 0.5, (GRIDS_MM[0] + GRIDS_MM[1]) / 2) == pytest.approx(middle)
    assert half_width("head_radius_mm", 0.0, 2 * GRIDS_MM[2]) == pytest.approx(2 * thick_least)
    low, high = interval("cam_height_mm", 0.1, (-1.0, 1.0), 1.0)
    assert low == 0
    assert high == pytest.approx(0.1 + half_width("cam_height_mm", 1.0, 1.0))


@pytest.mark.parametrize(("high", "level"), [(54.0, MEASURABLE), (60.0, WITH_CARE), (71.0, NOT), (np.nan, NOT)])
def test_a_bar_that_says_nothing_is_refused(high: float, level: str) -> None:
    assert of_bar(50.0, 48.0, high, "deg").level == level


def test_where_the_head_is_refused_one_sentence_says_so_without_a_number_of_it() -> None:
    surface = left_femur()
    small = measure_surface(type(surface)(surface.vertices * 0.6, surface.triangles), "left")
    assert str(small) == f"left femur: not measurable. {small.centre_verdict.reason}"
    assert small.as_dict()["head_centre_mm"]["error"] is None
    assert all(one.verdict.level == NOT for one in small.measures.values())


def test_marrow_that_is_not_labelled_leaves_the_neck_as_wide_as_it_is() -> None:
    """A label map of the cortex alone, open below: without its inner wall it is the whole femur."""
    solid = both_femurs(2.5)
    wall = solid.with_array(np.where(ndimage.binary_erosion(solid.array == 1, iterations=2), 0, solid.array == 1))
    wall.array[: np.flatnonzero(wall.array.any(axis=(1, 2)))[0] + 3] = 0
    found, whole = (measure_labels(labels, {1: "left"})["left"] for labels in (wall, solid))
    assert isinstance(found, Morphometry)
    assert isinstance(whole, Morphometry)
    assert found.measures["neck_diameter_mm"].value == pytest.approx(whole.measures["neck_diameter_mm"].value, abs=0.2)


def test_a_second_femur_of_a_side_is_told_and_the_larger_one_measured() -> None:
    """A left femur without the end of its shaft in front of a whole one, 96 mm apart, all of one label."""
    labels = both_femurs(3.0)
    left = (labels.array == 1).astype(np.uint8)
    short = left.copy()
    short[: np.flatnonzero(left.any(axis=(1, 2)))[0] + 4] = 0
    gap = np.zeros((len(left), 3, left.shape[2]), np.uint8)
    for parts, y_mm in (((short, gap, left), 3.0 * (left.shape[1] + 3)), ((left, gap, short), 0.0)):
        found = measure_labels(dataclasses.replace(labels, array=np.concatenate(parts, axis=1)), {1: "femur"})
        assert set(found) == {"left", "femur"}
        assert isinstance(found["left"], Morphometry)
        assert found["left"].centre_mm[1] == pytest.approx(y_mm, abs=1.0)
        assert "More than one left femur" in str(found["femur"])


@pytest.mark.parametrize("outwards", [False, True])
def test_the_wall_of_a_cavity_and_specks_are_no_part_of_the_femur(outwards: bool) -> None:
    surface = left_femur(3.0)
    inner = surface.moved(np.full(len(surface.vertices), -4.0))
    speck = Surface(0.1 * surface.vertices + [60, 60, 0], surface.triangles)
    triangles = [surface.triangles, surface.triangles[:, :: 1 if outwards else -1], surface.triangles]
    count = len(surface.vertices)
    together = Surface(
        np.concatenate([inner.vertices, surface.vertices, speck.vertices]),
        np.concatenate([triangles[1], triangles[0] + count, triangles[2] + 2 * count]),
    )
    found = only_femur(together)
    assert np.array_equal(found.vertices, surface.vertices)
    assert np.array_equal(found.triangles, surface.triangles)
    beside = Surface(
        np.concatenate([surface.vertices, inner.vertices + 90]), together.triangles[: 2 * len(triangles[0])]
    )
    with pytest.raises(InputError, match="several bodies"):
        only_femur(beside)
