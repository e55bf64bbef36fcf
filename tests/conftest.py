"""Fixtures that several test modules share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def hips_dir() -> Path:
    """Folder of real scans (imagesTr, labelsTr, dicom, …) named by FEMUR3D_HIPS; the test is skipped without it."""
    folder = os.environ.get("FEMUR3D_HIPS", "")
    if not (Path(folder) / "imagesTr").is_dir() or not folder:
        pytest.skip(f"real scans: set FEMUR3D_HIPS to their folder (received {folder!r}, which has no imagesTr)")
    return Path(folder)
