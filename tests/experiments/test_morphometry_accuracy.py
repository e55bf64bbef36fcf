"""The study of error bars: phantoms whose truth is known by hand, and bars that hold what they are calibrated to."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from experiments.studies.morphometry_accuracy import (
    MEASURES,
    SPACINGS_MM,
    calibrated,
    column,
    read_rows,
    table,
    true_femur,
)
from femur3d.morphometry import error_bars
from femur3d.morphometry.definitions import DEFINITIONS, values
from femur3d.morphometry.gate import MEASURABLE, NOT, PARTS
from femur3d.phantom.anatomy import femur_distance
from femur3d.phantom.patient import FemurShape


def test_truth_of_a_phantom_is_what_it_was_made_of() -> None:
    found = dict(zip(DEFINITIONS, values(true_femur(FemurShape())), strict=True))
    assert found["head_radius_mm"] == 23
    assert found["neck_diameter_mm"] == pytest.approx(2 * 0.68 * 23 * np.sqrt(0.84), abs=0.2)  # about an ellipse's
    assert found["neck_shaft_angle_deg"] == pytest.approx(126, abs=0.8)  # the shaft is bowed
    assert found["femoral_offset_mm"] == pytest.approx(43, abs=0.8)
    assert found["cam_height_mm"] == 0


def test_true_neck_is_as_wide_as_counting_its_section_says() -> None:
    shape = FemurShape()
    femur = true_femur(shape)
    frame, edge = femur.frame, 0.1
    across = np.arange(-25, 25, edge)
    up, front = np.meshgrid(across, across, indexing="ij")
    place = femur.neck.along_mm[femur.neck.narrowest] * frame.axis
    points = place + up[..., None] * frame.superior + front[..., None] * frame.anterior
    lateral, posterior, superior = np.moveaxis(points.astype(np.float32), -1, 0)
    pieces, _ = ndimage.label(femur_distance((lateral, posterior, superior), shape) < 0)
    area = np.count_nonzero(pieces == pieces[len(across) // 2, len(across) // 2]) * edge**2
    measured = dict(zip(DEFINITIONS, values(femur), strict=True))["neck_diameter_mm"]
    assert measured == pytest.approx(2 * np.sqrt(area / np.pi), abs=0.02)


def rows(errors: np.ndarray, level: str) -> list[dict]:
    """Phantoms whose every measure is off by so much, and whose resampling reaches 1 to each side."""
    one = {"truth": [0.0] * len(MEASURES), "tails": [(-1.0, 1.0)] * len(MEASURES), "parts": dict.fromkeys(PARTS, level)}
    return [
        {"seed": seed, **{str(grid): {**one, "value": [error] * len(MEASURES)} for grid in SPACINGS_MM}}
        for seed, error in enumerate(errors.tolist())
    ]


def test_bars_hold_nine_of_ten_and_what_is_refused_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    found = rows(np.arange(1, 101) / 100, MEASURABLE)
    bars = calibrated(found)
    # Nine of ten errors are at most 0.91 (the next one up); half of it is resampling's reach, half is the same for all.
    assert set(bars) == set(error_bars.BARS)
    assert bars["head_radius_mm"] == [(0.455, 0.455)] * 3
    monkeypatch.setattr(error_bars, "BARS", bars)
    assert column(found, "head_radius_mm", 5.2).held.mean() == pytest.approx(0.91)
    assert "91.0%  100        0" in table(found, "command").splitlines()[5]
    assert table(found, "command").startswith("command\n100 phantoms, seeds 0 to 99")
    assert f"{0:5}{100:9}" in table(rows(np.ones(100), NOT), "command").splitlines()[5]


def test_a_row_that_was_cut_off_is_measured_again(tmp_path: Path) -> None:
    file = tmp_path / "raw.jsonl"
    assert read_rows(file) == []
    file.write_text('\n{"seed": 1}\n{"seed": 2}\n{"see')
    with file.open("a") as raw:
        raw.write('\n{"seed": 3}')
    assert [row["seed"] for row in read_rows(file)] == [1, 2, 3]
