"""Damaged DICOM files, found by hypothesis: they are read or refused by an InputError, nothing else happens."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEGLSLossless, RLELossless

from femur3d.errors import InputError
from femur3d.io.images import read_volume
from tests.support.damage import CHANGES, change
from tests.support.dicom_series import make_scan, write_series
from tests.support.enhanced_mr import enhanced, frames_of, save

pytestmark = pytest.mark.slow

SYNTAXES = {
    "explicit": ExplicitVRLittleEndian,
    "implicit": ImplicitVRLittleEndian,
    "rle": RLELossless,
    "jpeg-ls": JPEGLSLossless,
}


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of each kind, alone in a folder; 'series' has the slices of one."""
    top = tmp_path_factory.mktemp("sound")
    write_series(top / "series", make_scan(), names=[f"{z}.dcm" for z in range(6)])
    for name, syntax in SYNTAXES.items():
        save(enhanced(frames_of(make_scan(), RescaleSlope=2.0, StackID="1")), top / name / "0.dcm", syntax)
    return top


@pytest.mark.parametrize("kind", ["series", *SYNTAXES])
def test_damaged_files_give_an_input_error(sound: Path, tmp_path: Path, kind: str) -> None:
    @settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
    @given(CHANGES)
    def damaged(changes: list[tuple[str, float, bytes]]) -> None:
        folder = tmp_path / kind
        shutil.copytree(sound / kind, folder, dirs_exist_ok=True)
        (folder / "0.dcm").write_bytes(change((sound / kind / "0.dcm").read_bytes(), changes))
        for path in (folder, folder / "0.dcm"):
            with contextlib.suppress(InputError):
                assert read_volume(path).array.ndim == 3

    damaged()
