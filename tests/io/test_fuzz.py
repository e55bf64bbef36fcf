"""Damaged scan files and zips, by hypothesis: read, or refused by an InputError; soon, and in little memory."""

from __future__ import annotations

import contextlib
import os
import time
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from femur3d.errors import InputError
from femur3d.io.formats.text_headers import data_files
from femur3d.io.formats.voxels import sha256_of
from femur3d.io.images import read_scan, sitk_from_volume, write_volume
from femur3d.io.inputs import open_sources
from tests.support.damage import CHANGES, change
from tests.support.scan_files import make_volume

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("temporary")]

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "400"))  # of each kind: some seconds; more by this variable
MOST_SECONDS, MOST_BYTES = 10.0, 512 << 20
KINDS = ("plain.nii", "packed.nii.gz", "label.nii", "a.nrrd", "b.mha", "plain.mha", "a.nhdr", "a.mhd", "a.zip")


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of each kind."""
    top = tmp_path_factory.mktemp("sound")
    for name in ("plain.nii", "packed.nii.gz", "a.nrrd", "b.mha"):
        write_volume(make_volume(), top / name)
    write_volume(make_volume().with_array((make_volume().array % 3).astype(np.uint8)), top / "label.nii")
    for name in ("plain.mha", "a.nhdr", "a.mhd"):
        sitk.WriteImage(sitk_from_volume(make_volume()), str(top / name))
    with zipfile.ZipFile(top / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(top / "plain.nii", "P1/plain.nii")
        archive.write(top / "b.mha", "b.mha")
    return top


@pytest.mark.parametrize("kind", KINDS)
def test_damage_gives_an_input_error_or_a_scan(sound: Path, tmp_path: Path, kind: str) -> None:
    whole = (sound / kind).read_bytes()
    for data in sound.glob("a.*raw"):
        (tmp_path / data.name).write_bytes(data.read_bytes())
    # Damage to a header of a few hundred bytes tells more than to the voxels behind it.
    header = st.integers(0, min(len(whole) - 1, 400)).map(lambda at: [("flip", at / len(whole), b"9")])

    @settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
    @given(CHANGES | header)
    def damaged(changes: list[tuple[str, float, bytes]]) -> None:
        path = tmp_path / kind
        path.write_bytes(change(whole, changes))
        start = time.monotonic()
        tracemalloc.reset_peak()
        with contextlib.suppress(InputError), open_sources([path]) as scans:
            for scan in scans:
                with contextlib.suppress(InputError):
                    found = read_scan(scan.path)
                    assert np.isfinite(found.volume.array).all()
                    assert found.sha256 == sha256_of((scan.path, *data_files(scan.path)))
        assert time.monotonic() - start < MOST_SECONDS
        assert tracemalloc.get_traced_memory()[1] < MOST_BYTES

    tracemalloc.start()
    try:
        damaged()
    finally:
        tracemalloc.stop()
