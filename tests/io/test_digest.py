"""The digest of a scan's files changes with each of their bytes, and with nothing else."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import SimpleITK as sitk

from femur3d.errors import InputError
from femur3d.io.dicom.series import series_folder
from femur3d.io.formats.text_headers import data_files
from femur3d.io.formats.voxels import sha256_of
from femur3d.io.images import sitk_from_volume
from tests.support.dicom_series import make_scan, write_series


def digest(path: Path) -> str:
    return sha256_of(series_folder(path).choose(None).files if path.is_dir() else (path, *data_files(path)))


def test_a_single_file_has_the_digest_of_its_bytes(tmp_path: Path) -> None:
    (tmp_path / "a.nii").write_bytes(b"any bytes")
    assert digest(tmp_path / "a.nii") == hashlib.sha256(b"any bytes").hexdigest()


@pytest.mark.parametrize(("header", "data"), [("a.mhd", "a.raw"), ("a.nhdr", "a.raw")])
def test_a_header_and_its_data_file_count_both(tmp_path: Path, header: str, data: str) -> None:
    sitk.WriteImage(sitk_from_volume(make_scan()), str(tmp_path / header), useCompression=False)
    before = digest(tmp_path / header)
    for file in (tmp_path / data, tmp_path / header):
        file.write_bytes(file.read_bytes() + b"\n")
        assert digest(tmp_path / header) != before
        before = digest(tmp_path / header)


def test_a_series_counts_by_its_slices_not_by_their_names(tmp_path: Path) -> None:
    for folder, names in (("a", [f"{z}.dcm" for z in range(6)]), ("b", [f"{9 - z}.dcm" for z in range(6)])):
        write_series(tmp_path / folder, make_scan(), names=names)
    for z in range(6):  # the writer gives every file another UID
        (tmp_path / "b" / f"{9 - z}.dcm").write_bytes((tmp_path / "a" / f"{z}.dcm").read_bytes())
    assert digest(tmp_path / "a") == digest(tmp_path / "b")
    (tmp_path / "b" / "notes.txt").write_text("beside it")
    assert digest(tmp_path / "a") == digest(tmp_path / "b")
    (tmp_path / "b" / "9.dcm").unlink()
    assert digest(tmp_path / "a") != digest(tmp_path / "b")


def test_no_file_and_no_series(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing.nii"):
        with pytest.raises(InputError):
            digest(path)
