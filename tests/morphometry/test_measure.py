"""Error bars and the gate: what is said of a good surface, of thick slices, of a head that is cut off, of no shaft."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from femur3d.morphometry.error_bars import Boundary
from femur3d.morphometry.femur import find_femur
from femur3d.morphometry.gate import MEASURABLE, NOT, WITH_CARE, judge
from femur3d.morphometry.measure import measure_surface
from tests.support.femurs import HEAD_MM, NECK_MM, NECK_SHAFT_DEG, left_femur

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


def test_gate_knows_what_is_not_there() -> None:
    femur = find_femur(left_femur())
    good = judge(femur, 1.0, True)
    assert {verdict.level for verdict in good.values()} == {MEASURABLE}
    cut = dataclasses.replace(femur, head=dataclasses.replace(femur.head, coverage=0.2))
    assert judge(cut, 1.0, True)["head"].level == NOT
    no_shaft = judge(dataclasses.replace(femur, shaft=None), 1.0, True)
    assert (no_shaft["shaft"].level, no_shaft["clock"].level) == (NOT, WITH_CARE)
    flagged = judge(femur, 1.0, True, ["Something is wrong."])
    assert {verdict.level for verdict in flagged.values()} == {WITH_CARE}
    assert "Something is wrong." in flagged["head"].reason


@pytest.mark.parametrize(("mm", "level"), [(1.0, MEASURABLE), (2.0, WITH_CARE), (3.5, NOT)])
def test_slices_decide_about_the_junction(mm: float, level: str) -> None:
    assert judge(find_femur(left_femur(2.0)), mm, True)["junction"].level == level
