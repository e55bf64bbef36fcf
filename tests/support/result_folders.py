"""A folder of results as `femur3d.infer` leaves it, of two femurs that are ellipsoids, without segmenting anything."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from femur3d.io.images import write_volume
from femur3d.morphometry.definitions import DEFINITIONS
from femur3d.volume import Volume

SHAPE, SPACING = (24, 14, 60), (2.0, 4.0, 3.0)  # (z, y, x), and mm along (x, y, z)
CENTRES = {1: (12, 7, 45), 2: (12, 7, 15)}  # +x is the patient's left
_NO = {"value": None, "low": None, "high": None, "level": "not measurable", "reason": "Thick slices."}
MEASURED = {
    "head_centre_mm": {"value": [1.0, 2.0, 3.0], "error": 0.5, "level": "with care", "reason": "Thick slices."},
    **dict.fromkeys((*DEFINITIONS, "version_deg"), _NO),
    "head_radius_mm": {"value": 23.25, "low": 22.5, "high": 24.0, "level": "with care", "reason": "Thick slices."},
}


def ellipsoids(*labels: int, grow: float = 0.0) -> Volume:
    """A label map with an ellipsoid of 8, 4 and 9 voxels' half axes (z, y, x), and `grow` mm more, for each label."""
    grid = np.indices(SHAPE).transpose(1, 2, 3, 0)
    array = np.zeros(SHAPE, np.uint8)
    half = np.array([8, 4, 9]) + grow / np.array(SPACING[::-1])
    for label in labels:
        array[(((grid - CENTRES[label]) / half) ** 2).sum(axis=-1) <= 1] = label
    return Volume(array, SPACING, (-60.0, -28.0, -36.0))


def flag(level: str, value: float = 1.0, sentence: str = "A sentence.") -> dict[str, Any]:
    return {"value": value, "level": level, "sentence": sentence}


def write_result(
    folder: Path, name: str, labels: Volume | None = None, *, scan: bool = True, **changes: Any
) -> dict[str, Any]:
    """Writes NAME.nii.gz, NAME.json and, beside the folder, its scan; returns what the JSON says."""
    labels = ellipsoids(1, 2) if labels is None else labels
    folder.mkdir(parents=True, exist_ok=True)
    write_volume(labels, folder / f"{name}.nii.gz")
    path = folder.parent / "images" / f"{name}_0000.nii.gz"
    if scan:
        noise = np.random.default_rng(0).normal(20, 3, SHAPE)
        write_volume(labels.with_array((noise + 60 * (labels.array > 0)).astype(np.int16)), path)
    ml = float(np.prod(SPACING)) / 1000
    counts = {side: int((labels.array == value).sum()) for value, side in ((1, "left"), (2, "right"))}
    summary = {
        "input": str(path),
        "series": None,
        "options": {"labels": "sides"},
        "model": {"weights_sha256": "ab" * 32, "provenance": {"experiment": "threshold"}},
        "notes": [],
        "volumes_ml": {side: round(count * ml, 3) for side, count in counts.items() if count},
        "quality": {"fragments": flag("green", 0.0, "0 larger pieces beside the femurs were removed.")},
        "device": "a test",
        "seconds": {"total": 1.25},
        "files": [f"{name}.nii.gz"],
        **changes,
    }
    (folder / f"{name}.json").write_text(json.dumps(summary), encoding="utf-8")
    return summary
