import numpy as np
import pytest

from experiments.studies import contrast_table
from femur3d.data.preprocessing import orient
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
    values, _ = contrast_table.measure(scan, label, threshold_model, "as it is", "as acquired")
    assert min(values) > 0.99
    values, flagged = contrast_table.measure(scan, label, threshold_model, "inverted", "as acquired")
    assert max(values) < 0.2 or flagged


def test_table_has_a_line_for_each_way():
    found = {("as it is", "axial 3 mm"): ([0.9, 0.8], 0), ("inverted", "axial 3 mm"): ([0.0, 0.5], 2)}
    lines = contrast_table.format_table(found, ["$ command"]).splitlines()
    assert lines[-1].split() == ["inverted", "axial", "3", "mm", "2", "0.2500", "0.0000", "2"]
    assert len(lines) == 5


@pytest.mark.parametrize("code", ["LPS", "PIR", "RAI"])
def test_a_scan_without_hips_lies_above_them(code):
    scan, label = (orient(volume, code) for volume in scan_and_label())
    part = contrast_table.without_hips(scan, label)
    height = label.world_mm(np.argwhere(label.array > 0))[:, 2].max()
    lowest = part.world_mm(np.argwhere(part.array == part.array))[:, 2].min()
    assert 10 - 5 <= lowest - height <= 10 + 5  # slices of 5 mm
