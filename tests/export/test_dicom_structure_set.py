"""RT structure sets, read back and rasterised in the world, slice for slice."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest
from matplotlib.path import Path as Polygon

from femur3d.errors import InputError
from femur3d.export.dicom.structure_set import outlines, write_rtstruct
from femur3d.io.dicom.series import series_folder
from femur3d.io.images import read_volume
from femur3d.volume import Volume
from tests.support.dicom_series import CORONAL, OBLIQUE, make_scan, write_scan
from tests.support.enhanced_mr import ENHANCED_MR, enhanced, frames_of, save


def some_labels(scan: Volume) -> Volume:
    """Random values; the first and the last slice are empty. Voxels at the rim and next to holes are among them."""
    array = np.random.default_rng(1).choice(np.array([0, 1, 2], np.uint8), scan.array.shape)
    array[[0, -1]] = 0
    return scan.with_array(array)


def rasterised(path: Path, like: Volume, uids: list[str]) -> dict[str, np.ndarray]:
    """The mask of each region by its name: voxels whose centre lies within an odd number of contours of their slice."""
    dataset = pydicom.dcmread(path)
    names = {int(roi.ROINumber): roi.ROIName for roi in dataset.StructureSetROISequence}
    centres = np.argwhere(np.ones(like.array.shape[1:]))[:, ::-1]
    found = {}
    for roi in dataset.ROIContourSequence:
        mask = found[names[int(roi.ReferencedROINumber)]] = np.zeros(like.array.shape, bool)
        for contour in roi.ContourSequence:
            (image,) = contour.ContourImageSequence
            z = uids.index(f"{image.ReferencedSOPInstanceUID}{image.get('ReferencedFrameNumber', '')}")
            points = np.reshape(np.array(contour.ContourData, float), (-1, 3))
            assert (contour.ContourGeometricType, len(points)) == ("CLOSED_PLANAR", contour.NumberOfContourPoints)
            ijk = np.linalg.solve(like.affine[:3, :3], (points - like.origin_mm).T).T
            np.testing.assert_allclose(ijk[:, 2], z, atol=1e-3)
            mask[z] ^= Polygon(ijk[:, :2]).contains_points(centres).reshape(mask[z].shape)
    return found


def assert_same(found: dict[str, np.ndarray], labels: Volume) -> None:
    assert set(found) == {"Left femur", "Right femur"}
    for value, name in enumerate(found, start=1):
        np.testing.assert_array_equal(found[name], labels.array == value)


@pytest.mark.parametrize("direction", [np.eye(3), CORONAL, OBLIQUE], ids=["axial", "coronal", "oblique"])
def test_every_voxel_centre_is_within_the_contours_of_its_label(tmp_path: Path, direction: np.ndarray) -> None:
    files = write_scan(tmp_path / "scan", make_scan(direction), seed=1)
    labels = some_labels(read_volume(tmp_path / "scan"))
    write_rtstruct(labels, files, tmp_path / "out" / "hip.dcm", "sides")
    assert_same(rasterised(tmp_path / "out" / "hip.dcm", labels, [f"1.2.3.4.{z + 1}" for z in range(6)]), labels)


def test_frames_of_one_file_are_referred_to_by_their_number(tmp_path: Path) -> None:
    scan = make_scan(OBLIQUE)
    save(enhanced(frames_of(scan)), tmp_path / "hip.dcm")
    (series,) = series_folder(tmp_path).series
    labels = some_labels(scan)
    write_rtstruct(labels, series.slices, tmp_path / "contours.dcm", "sides")
    dataset = pydicom.dcmread(tmp_path / "contours.dcm")
    study = dataset.ReferencedFrameOfReferenceSequence[0].RTReferencedStudySequence[0]
    (image,) = study.RTReferencedSeriesSequence[0].ContourImageSequence
    assert (image.ReferencedSOPClassUID, "ReferencedFrameNumber" in image) == (ENHANCED_MR, False)
    uids = [f"{one.header['SOPInstanceUID']}{one.frame + 1}" for one in series.slices]
    assert_same(rasterised(tmp_path / "contours.dcm", labels, uids), labels)


def test_hole_is_joined_to_the_contour_around_it():
    """5×5 voxels with a hole of one: one contour that goes around 24 voxels and their corners are cut."""
    mask = np.ones((5, 5), bool)
    mask[2, 2] = False
    (points,) = outlines(mask)
    x, y = points.T
    area = abs(np.sum(x * np.roll(y, -1) - y * np.roll(x, -1))) / 2
    assert area == pytest.approx(25 - 4 * 0.125 - 0.5)
    assert points.min() == -0.5
    assert points.max() == 4.5


def test_what_the_object_says_about_itself(tmp_path: Path) -> None:
    files = write_scan(tmp_path / "scan", make_scan(), t0010_0020="P-7", t0010_0010="M^Ä", t0008_0005="ISO_IR 192")
    labels = some_labels(read_volume(tmp_path / "scan"))
    write_rtstruct(labels, files, tmp_path / "hip.dcm", "sides")
    dataset = pydicom.dcmread(tmp_path / "hip.dcm")
    assert (dataset.SOPClassUID, dataset.Modality) == ("1.2.840.10008.5.1.4.1.1.481.3", "RTSTRUCT")
    assert (dataset.PatientID, dataset.PatientName, dataset.SeriesNumber) == ("P-7", "M^Ä", 1005)
    assert (dataset.StudyInstanceUID, dataset.FrameOfReferenceUID) == ("1.2.3", "1.2.3.7")
    assert dataset.SeriesInstanceUID != "1.2.3.4"
    frame = dataset.ReferencedFrameOfReferenceSequence[0]
    series = frame.RTReferencedStudySequence[0].RTReferencedSeriesSequence[0]
    assert series.SeriesInstanceUID == "1.2.3.4"
    uids = [image.ReferencedSOPInstanceUID for image in series.ContourImageSequence]
    assert uids == [f"1.2.3.4.{z + 1}" for z in range(6)]
    sides = [
        one.RTROIIdentificationCodeSequence[0].SegmentedPropertyTypeModifierCodeSequence[0].CodeMeaning
        for one in dataset.RTROIObservationsSequence
    ]
    assert sides == ["Left", "Right"]


def test_it_is_no_second_series(tmp_path: Path) -> None:
    files = write_scan(tmp_path, make_scan())
    write_rtstruct(some_labels(make_scan()), files, tmp_path / "femurs.dcm", "sides")
    (only,) = series_folder(tmp_path).series
    assert len(only.files) == len(files)


def test_another_series_is_refused(tmp_path: Path) -> None:
    files = write_scan(tmp_path / "scan", make_scan())
    with pytest.raises(InputError, match="Give exactly the files of the series"):
        write_rtstruct(some_labels(make_scan()), files[1:], tmp_path / "hip.dcm", "sides")


def test_real_series_with_its_manual_labels(hips_dir: Path, tmp_path: Path) -> None:
    labels = read_volume(hips_dir / "labelsTr" / "hip_05.nii.gz")
    files = sorted((hips_dir / "dicom" / "hip_05").iterdir(), reverse=True)
    write_rtstruct(labels, files, tmp_path / "hip.dcm", "sides")
    slices = series_folder(hips_dir / "dicom" / "hip_05").series[0].slices
    slices = sorted(slices, key=lambda one: one.position_mm @ labels.affine[:3, 2])
    found = rasterised(tmp_path / "hip.dcm", labels, [one.header["SOPInstanceUID"] for one in slices])
    assert_same(found, labels)
