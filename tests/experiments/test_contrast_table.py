import dataclasses
import json

import numpy as np
import pytest

from experiments.studies import contrast_table
from experiments.studies.contrast_table import Result
from femur3d.data.preprocessing import cut, orient
from femur3d.errors import UsageError
from femur3d.inference.quality_limits import Limit
from femur3d.volume import Volume
from tests.support.ellipsoids import scan_and_label


def scan_of(values):
    return Volume(np.repeat(np.float32(values), 1000).reshape(-1, 10, 10))


@pytest.mark.parametrize(
    ("contrast", "expected"),
    [
        ("as it is", [0, 250, 900, 1000]),
        ("gamma 0.45", [0, 536, 954, 1000]),
        ("inverted", [0, 770, 120, 20]),
        ("fat-suppressed", [0, 250, 108, 120]),
    ],
)
def test_contrasts_of_air_muscle_and_fat(contrast, expected):
    changed = contrast_table.recontrasted(scan_of([0, 25, 90, 100]), contrast).array
    assert changed.dtype == np.int16
    np.testing.assert_allclose(changed[5::10, 5, 5], expected, atol=1)


@pytest.mark.parametrize("code", ["LPS", "PIR"])
def test_a_femur_comes_back_from_every_grid(code):
    scan, label = (orient(volume, code) for volume in scan_and_label())
    for grid, spacing in contrast_table.GRIDS.items():
        changed = contrast_table.regridded(label, grid)
        if spacing:
            assert changed.spacing_mm == spacing
        for value in (1, 2):
            mask = changed.with_array((np.abs(changed.array - value) < 0.5).astype(np.uint8))
            back = contrast_table.on_grid_of(mask, scan, 1)
            truth = label.array == value
            assert np.count_nonzero(back ^ truth) < 0.35 * np.count_nonzero(truth), grid


def test_threshold_model_finds_bright_femurs_and_no_dark_ones(threshold_model):
    scan, label = scan_and_label()
    values, measures = contrast_table.measure(scan, label, threshold_model, "as it is", "as acquired")
    assert min(values) > 0.99
    assert measures["missing_femurs"] == 0
    values, _ = contrast_table.measure(scan, label, threshold_model, "inverted", "as acquired")
    assert max(values) < 0.2
    assert contrast_table.measure(scan, label, threshold_model, "as it is", "above hips")[0] == []
    assert contrast_table.measure(scan, label, threshold_model, "as it is", "shafts alone")[0] == []
    heads = [cut(volume, (slice(16, None), slice(0, None), slice(0, None))) for volume in (scan, label)]
    with pytest.raises(UsageError, match="ends 100 mm below"):
        contrast_table.measure(*heads, threshold_model, "as it is", "shafts alone")


LIMITS = {"fragments": Limit(0, 1, 2), "smallest_volume_ml": Limit(100, 80, 60)}


def result_of(dice, volume_ml=100.0, fragments=0.0):
    measures = {"fragments": fragments, "missing_femurs": 2.0 * (not volume_ml)} | (
        {"smallest_volume_ml": volume_ml} if volume_ml else {}
    )
    return Result("", "", "", "", dice, measures)


def test_table_has_a_line_for_each_way_and_the_choice_of_auto():
    found = {
        ("as it is", "axial 3 mm"): [
            [result_of([0.9, 0.8]), result_of([0.7, 0.7])],  # good: the other is not asked
            [result_of([0.1, 0.3], fragments=3), result_of([0.6, 0.5], volume_ml=70)],  # red; yellow
        ],
        ("inverted", "above hips"): [[result_of([], None), result_of([])], [result_of([], 50), result_of([], None)]],
    }
    lines = contrast_table.format_table(found, ["hip_t1", "hip_mr"], [LIMITS] * 2, ["$ command"]).splitlines()
    assert lines[2].split() == ["hip_t1", "hip_mr", "auto"]
    first, second = (line.split() for line in lines[4:])
    assert first[6:16] == ["4", "0.5250", "0.1000", "2", "0.6250", "0.5000", "0", "0.7000", "0.5000", "0"]
    assert lines[4].endswith("hip_mr taken: 1 of 2 scans")
    assert second[3:13] == ["2", "-", "-", "2", "-", "-", "1", "-", "-", "1"]  # a femur where none is, and no flag


def test_the_laxer_limit_is_kept():
    others = {"fragments": Limit(0, 1, 3), "smallest_volume_ml": Limit(90, 80, 70), "side_ratio": Limit(1, 0.9, 0.8)}
    expected = {"fragments": others["fragments"], "smallest_volume_ml": LIMITS["smallest_volume_ml"]}
    assert contrast_table.laxer(LIMITS, others) == expected


def test_cache_passes_over_a_line_that_was_cut_off(tmp_path):
    whole = json.dumps(dataclasses.asdict(result_of([0.9])))
    (tmp_path / "cache.jsonl").write_text(f"{whole}\n{whole[:20]}")
    assert list(contrast_table.read_cache(tmp_path / "cache.jsonl").values()) == [result_of([0.9])]


@pytest.mark.parametrize("code", ["LPS", "PIR", "RAI"])
def test_a_scan_without_hips_lies_above_them(code):
    scan, label = (orient(volume, code) for volume in scan_and_label())
    part = contrast_table.without_hips(scan, label)
    height = label.world_mm(np.argwhere(label.array > 0))[:, 2].max()
    lowest = part.world_mm(np.argwhere(part.array == part.array))[:, 2].min()
    assert 10 - 5 <= lowest - height <= 10 + 5  # slices of 5 mm


@pytest.mark.parametrize("code", ["LPS", "PIR", "RAI"])
def test_shafts_alone_lie_100_mm_below_the_top_whatever_a_speck_says(code):
    label = np.zeros((40, 12, 12), np.uint8)  # slices of 5 mm
    label[:30, 4:8, 4:8] = 1
    label[38, 0, 0] = 1
    scan = orient(Volume(label, spacing_mm=(2.0, 2.0, 5.0)), code)
    part = contrast_table.shafts_alone(scan, scan)
    assert np.ptp(part.world_mm(np.argwhere(part.array < 9))[:, 2]) == (30 - 20) * 5.0 - 5.0
    assert part.array.sum() == 10 * 16
