"""What other programs make of our DICOM files: dicom3tools' validator and plastimatch, where they are installed."""

from __future__ import annotations

import dataclasses
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pydicom
import pytest

from femur3d.export.dicom.segmentation import write_dicom_seg
from femur3d.export.dicom.structure_set import write_rtstruct
from femur3d.io.images import read_volume
from femur3d.volume import Volume
from tests.support.dicom_series import OBLIQUE, make_scan, write_scan

TAGS = {  # what a real scanner writes and `write_scan` does not; identifiers of the length that DICOM wants
    "t0010_0010": "Doe^J", "t0010_0020": "P-7", "t0010_0030": "19700101", "t0010_0040": "F", "t0020_0010": "1",
    "t0008_0020": "20200101", "t0008_0030": "120000", "t0008_0050": "A1", "t0008_0090": "Roe^R",
    "t0008_0022": "20200101", "t0008_0033": "120001", "t0008_0070": "Maker",
}  # fmt: skip


def _program(name: str) -> str:
    return shutil.which(name) or pytest.skip(f"apt-get install {dict(dciodvfy='dicom3tools').get(name, name)}")


def _labels(folder: Path) -> tuple[list[Path], Volume]:
    """A series in a folder, and a ball of label 1 and one of label 2 with a hole, on its grid."""
    scan = make_scan(OBLIQUE)
    large = dataclasses.replace(scan, array=np.arange(12 * 40 * 40, dtype=np.int16).reshape(12, 40, 40))
    files = write_scan(folder, large, **TAGS)
    z, y, x = np.indices(large.array.shape)
    left, right = ((x - at) ** 2 + (y - 20) ** 2 + 9 * (z - 6) ** 2 for at in (10, 30))
    array = (left < 64).astype(np.uint8)
    array[(right < 81) & (right > 9)] = 2
    return files, read_volume(folder).with_array(array)


@pytest.mark.parametrize("kind", ["seg", "rtstruct"])
def test_validator_finds_no_error(tmp_path: Path, kind: str) -> None:
    program = _program("dciodvfy")
    files, labels = _labels(tmp_path / "scan")
    if kind == "seg":
        pytest.importorskip("highdicom")
        write_dicom_seg(labels, files, tmp_path / "out.dcm", "sides")
    else:
        write_rtstruct(labels, files, tmp_path / "out.dcm", "sides")
    said = subprocess.run([program, tmp_path / "out.dcm"], capture_output=True, text=True, check=False).stderr
    assert said.split()[-1] in ("Segmentation", "RTStructureSet")
    assert [line for line in said.splitlines() if line.startswith("Error")] == []
    assert "not present in standard DICOM IOD" not in said


def test_plastimatch_fills_the_contours_with_the_same_voxels(tmp_path: Path) -> None:
    program = _program("plastimatch")
    files, labels = _labels(tmp_path / "scan")
    write_rtstruct(labels, files, tmp_path / "out.dcm", "sides")
    words = ["--referenced-ct", tmp_path / "scan", "--output-prefix", tmp_path / "masks", "--prefix-format", "nrrd"]
    subprocess.run([program, "convert", "--input", tmp_path / "out.dcm", *words], capture_output=True, check=True)
    for value, name in ((1, "Left femur"), (2, "Right femur")):
        mask = read_volume(tmp_path / "masks" / f"{name}.nrrd")
        index = np.round(np.linalg.solve(labels.affine, mask.affine)).astype(int)  # they may differ in their directions
        found = np.zeros_like(labels.array)
        at = np.argwhere(mask.array)[:, ::-1]
        x, y, z = index[:3, :3] @ at.T + index[:3, 3:]
        found[z, y, x] = 1
        reference = labels.array == value
        assert 2 * (found & reference).sum() / (found.sum() + reference.sum()) >= 0.97


def test_viewers_find_the_series_of_a_segmentation(tmp_path: Path) -> None:
    """OHIF looks the series up in ReferencedSeriesSequence, and each frame's slice in its derivation."""
    pytest.importorskip("highdicom")
    files, labels = _labels(tmp_path / "scan")
    write_dicom_seg(labels, files, tmp_path / "out.dcm", "sides")
    dataset = pydicom.dcmread(tmp_path / "out.dcm")
    assert [one.SeriesInstanceUID for one in dataset.ReferencedSeriesSequence] == ["1.2.3.4"]
    slices = {f"1.2.3.4.{z + 1}": z for z in range(12)}
    frames = np.reshape(dataset.pixel_array, (-1, 40, 40)).astype(bool)
    for frame, group in zip(frames, dataset.PerFrameFunctionalGroupsSequence, strict=True):
        source = group.DerivationImageSequence[0].SourceImageSequence[0]
        value = group.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        np.testing.assert_array_equal(frame, labels.array[slices[source.ReferencedSOPInstanceUID]] == value)
        assert frame.any()
