"""tools/compare_modes: the fast mode against the exact one."""

import pathlib

import numpy as np
import pytest

from experiments.studies import compare_modes
from femur3d.engines.backend import ENGINE
from femur3d.inference.mode import EXACT, FAST
from femur3d.inference.quality_limits import Flag
from femur3d.inference.saved_model import load_model
from femur3d.inference.segmenter import Segmentation, Segmenter
from tests.support.ellipsoids import scan_and_label


def segmentation(voxels: slice, seconds: float, *levels: str) -> Segmentation:
    """Of a scan whose first voxels are femur."""
    scan, _ = scan_and_label()
    array = np.zeros(scan.array.shape, np.uint8)
    array.reshape(-1)[voxels] = 1
    quality = {str(i): Flag(0.0, level, "") for i, level in enumerate(levels)}
    return Segmentation(scan.with_array(array), scan, {"network": seconds}, quality)


def test_dice_levels_and_seconds_by_hand() -> None:
    exact, fast = segmentation(slice(0, 30), 4.0, "green", "yellow"), segmentation(slice(10, 30), 1.0, "green", "red")
    found = compare_modes.compare(exact, fast)
    assert (found.dice, found.levels, found.seconds) == (pytest.approx(0.8), ("yellow", "red"), (4.0, 1.0))
    nothing = segmentation(slice(0), 1.0)
    assert compare_modes.compare(nothing, nothing).dice == 1
    assert compare_modes.worst_level(nothing) == "green"
    table = compare_modes.format_table({"noise": [found, compare_modes.compare(exact, exact)]}, ["$ command"])
    assert table.splitlines()[-1].split() == ["noise", "2", "0.9000", "0.8000", "1", "4.00", "s", "2.50", "s"]


def test_changes_differ_from_scan_to_scan() -> None:
    scan, _ = scan_and_label()
    first, second = (dict(compare_modes.changes(scan, number)) for number in (0, 1))
    assert list(first) == ["as it is", "upside down", "noise", "motion", "bias", "blur"]
    assert first["as it is"] is scan
    assert not np.array_equal(first["noise"].array, second["noise"].array)


def test_modes_agree_on_a_model_that_knows_intensities_only(threshold_model: pathlib.Path) -> None:
    scan, label = scan_and_label()
    model = load_model(threshold_model)
    found = compare_modes.compare(Segmenter(model, ENGINE, EXACT)(scan), Segmenter(model, ENGINE, FAST)(scan))
    assert label.array.any()
    assert found.dice > 0.95
