"""DICOM segmentations, decoded and compared with the label map voxel for voxel in the world."""

from __future__ import annotations

import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest

import femur3d
from femur3d.errors import InputError, UsageError
from femur3d.export.dicom.segmentation import write_dicom_seg
from femur3d.export.dicom.source import require_highdicom
from femur3d.io.dicom.series import series_folder
from femur3d.io.images import read_volume
from femur3d.volume import Volume
from tests.support.dicom_series import CORONAL, OBLIQUE, make_scan, write_scan
from tests.support.enhanced_mr import ENHANCED_MR, enhanced, frames_of, save

SHA256 = "0123456789abcdef" * 4


@pytest.fixture
def highdicom():
    return pytest.importorskip("highdicom", reason="pip install '.[dicomseg]'")


def some_labels(scan: Volume, values: tuple[int, ...] = (0, 1, 2)) -> Volume:
    """Random values; the first and the last slice are empty."""
    array = np.random.default_rng(1).choice(np.array(values, np.uint8), scan.array.shape)
    array[[0, -1]] = 0
    return scan.with_array(array)


def decoded(path: Path) -> dict[str, np.ndarray]:
    """World positions (N, 3), rounded to 0.01 mm and sorted, of the voxels of each segment by its label.

    From the file's own attributes only, by pydicom.
    """
    dataset = pydicom.dcmread(path)
    names = {int(item.SegmentNumber): item.SegmentLabel for item in dataset.SegmentSequence}
    shared = dataset.SharedFunctionalGroupsSequence[0]
    rows_mm, columns_mm = shared.PixelMeasuresSequence[0].PixelSpacing
    row, column = np.reshape(shared.PlaneOrientationSequence[0].ImageOrientationPatient, (2, 3)).astype(float)
    found: dict[str, list[np.ndarray]] = {name: [] for name in names.values()}
    frames = np.reshape(dataset.pixel_array, (-1, dataset.Rows, dataset.Columns))
    for frame, group in zip(frames, dataset.PerFrameFunctionalGroupsSequence, strict=True):
        first = np.array(group.PlanePositionSequence[0].ImagePositionPatient, float)
        at = np.argwhere(frame)
        world = first + at[:, :1] * float(rows_mm) * column + at[:, 1:] * float(columns_mm) * row
        identified = (group if "SegmentIdentificationSequence" in group else shared).SegmentIdentificationSequence[0]
        found[names[identified.ReferencedSegmentNumber]].append(world)
    return {name: in_order(np.concatenate(parts)) for name, parts in found.items()}


def in_order(points: np.ndarray) -> np.ndarray:
    rounded = np.round(points, 2) + 0.0
    return rounded[np.lexsort(rounded.T)]


def assert_same_voxels(path: Path, labels: Volume, names: dict[int, str]) -> None:
    received = decoded(path)
    assert set(received) == set(names.values())
    for value, name in names.items():
        expected = in_order(labels.world_mm(np.argwhere(labels.array == value)))
        np.testing.assert_allclose(received[name], expected, atol=0.011)


@pytest.mark.parametrize("direction", [np.eye(3), CORONAL, OBLIQUE], ids=["axial", "coronal", "oblique"])
@pytest.mark.parametrize("seed", [0, 1])
def test_every_voxel_is_where_it_was(highdicom, tmp_path: Path, direction: np.ndarray, seed: int) -> None:
    files = write_scan(tmp_path / "scan", make_scan(direction), seed)
    labels = some_labels(read_volume(tmp_path / "scan"))
    write_dicom_seg(labels, files, tmp_path / "out" / "hip.dcm", "sides")
    assert_same_voxels(tmp_path / "out" / "hip.dcm", labels, {1: "Left femur", 2: "Right femur"})
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["hip.dcm"]


def test_a_segmentation_beside_its_series_is_no_second_series(highdicom, tmp_path: Path) -> None:
    scan = make_scan()
    files = write_scan(tmp_path, scan)
    write_dicom_seg(some_labels(scan), files, tmp_path / "femurs.dcm", "sides")
    (only,) = series_folder(tmp_path).series
    assert len(only.files) == len(files)
    np.testing.assert_array_equal(read_volume(tmp_path).array, scan.array)


def test_highdicom_reads_the_label_map(highdicom, tmp_path: Path) -> None:
    files = write_scan(tmp_path / "scan", make_scan(OBLIQUE))
    labels = some_labels(read_volume(tmp_path / "scan"))
    write_dicom_seg(labels, files, tmp_path / "hip.dcm", "sides")
    segmentation = highdicom.seg.segread(tmp_path / "hip.dcm")
    uids = [f"1.2.3.4.{z + 1}" for z in range(len(labels.array))]
    pixels = segmentation.get_pixels_by_source_instance(
        uids, combine_segments=True, assert_missing_frames_are_empty=True
    )
    np.testing.assert_array_equal(pixels, labels.array)


def test_what_the_object_says_about_itself(highdicom, tmp_path: Path) -> None:
    files = write_scan(tmp_path / "scan", make_scan(), t0010_0020="P-7")
    labels = some_labels(read_volume(tmp_path / "scan"))
    write_dicom_seg(labels, files, tmp_path / "hip.dcm", "sides", weights_sha256=SHA256)
    dataset = highdicom.seg.segread(tmp_path / "hip.dcm")
    assert (dataset.SOPClassUID, dataset.Modality) == ("1.2.840.10008.5.1.4.1.1.66.4", "SEG")
    assert (dataset.StudyInstanceUID, dataset.FrameOfReferenceUID) == ("1.2.3", "1.2.3.7")
    assert (dataset.PatientID, dataset.SeriesNumber) == ("P-7", 1003)
    assert dataset.SeriesInstanceUID != "1.2.3.4"
    for number, (name, side) in enumerate((("Left femur", "7771000"), ("Right femur", "24028007")), start=1):
        segment = dataset.SegmentSequence[number - 1]
        assert (segment.SegmentNumber, segment.SegmentLabel) == (number, name)
        kind = segment.SegmentedPropertyTypeCodeSequence[0]
        assert (kind.CodeValue, kind.CodingSchemeDesignator) == ("71341001", "SCT")
        assert kind.SegmentedPropertyTypeModifierCodeSequence[0].CodeValue == side
        assert (segment.SegmentAlgorithmType, segment.SegmentAlgorithmName) == ("AUTOMATIC", "femur3d")
        algorithm = segment.SegmentationAlgorithmIdentificationSequence[0]
        assert algorithm.AlgorithmVersion == femur3d.__version__
        assert SHA256 in algorithm.AlgorithmParameters


def test_frames_refer_to_the_slices_they_lie_in(highdicom, tmp_path: Path) -> None:
    scan = make_scan(OBLIQUE)
    files = write_scan(tmp_path / "scan", scan)
    write_dicom_seg(some_labels(scan, (0, 2)), files, tmp_path / "hip.dcm", "sides")
    dataset = highdicom.seg.segread(tmp_path / "hip.dcm")
    places = []
    for frame in dataset.PerFrameFunctionalGroupsSequence:
        source = frame.DerivationImageSequence[0].SourceImageSequence[0]
        z = int(source.ReferencedSOPInstanceUID.split(".")[-1]) - 1
        position = np.array(frame.PlanePositionSequence[0].ImagePositionPatient, float)
        np.testing.assert_allclose(position, scan.world_mm((z, 0, 0)), atol=1e-5)
        places.append(z)
    assert sorted(places) == [1, 2, 3, 4]  # the empty slices 0 and 5 have no frame
    series = dataset.ReferencedSeriesSequence[0]
    assert series.SeriesInstanceUID == "1.2.3.4"
    assert len(dataset.SegmentSequence) == 1
    assert dataset.SegmentSequence[0].SegmentNumber == 1
    assert dataset.SegmentSequence[0].SegmentLabel == "Right femur"


def test_one_label_for_both_femurs_has_no_side(highdicom, tmp_path: Path) -> None:
    scan = make_scan()
    files = write_scan(tmp_path / "scan", scan)
    write_dicom_seg(some_labels(scan, (0, 1)), files, tmp_path / "hip.dcm", "femur")
    assert_same_voxels(tmp_path / "hip.dcm", some_labels(scan, (0, 1)), {1: "Femur"})
    kind = highdicom.seg.segread(tmp_path / "hip.dcm").SegmentSequence[0].SegmentedPropertyTypeCodeSequence[0]
    assert "SegmentedPropertyTypeModifierCodeSequence" not in kind


def test_warnings_about_the_scanners_tags_are_not_passed_on(highdicom, tmp_path: Path) -> None:
    files = write_scan(tmp_path / "scan", make_scan(), t0010_0010="ANONYMOUS", t0008_0090="X")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        write_dicom_seg(some_labels(make_scan()), files, tmp_path / "hip.dcm", "sides")


def refused(scan: Volume, files: list[Path], path: Path, *words: str, names: Path | None = None) -> None:
    """Must be refused in two lines that begin with `names` and hold the words; nothing is written."""
    with pytest.raises(InputError) as caught:
        write_dicom_seg(some_labels(scan), files, path, "sides")
    message = str(caught.value)
    assert len(message.splitlines()) == 2
    assert message.startswith(str(names or ""))
    for word in words:
        assert word in message
    assert not path.exists()


@pytest.mark.parametrize(("tag", "name"), [("t0020_000d", "StudyInstanceUID"), ("t0020_0052", "FrameOfReferenceUID")])
def test_series_without_what_a_segmentation_refers_to(highdicom, tmp_path: Path, tag: str, name: str) -> None:
    files = write_scan(tmp_path / "scan", make_scan())
    wrong = write_scan(tmp_path / "other", make_scan(), **{tag: ""})
    if name == "StudyInstanceUID":  # GDCM makes one up
        wrong = [without(path, b"\x20\x00\x0d\x00") for path in wrong]
    refused(make_scan(), [*files[1:], wrong[0]], tmp_path / "hip.dcm", name, "Export", names=wrong[0])


def without(path: Path, tag: bytes) -> Path:
    """The file with a tag renamed to one that nobody knows."""
    path.write_bytes(path.read_bytes().replace(tag, tag[:2] + b"\x0c\x00"))
    return path


def test_files_of_another_grid_are_refused(highdicom, tmp_path: Path) -> None:
    scan, out = make_scan(OBLIQUE), tmp_path / "hip.dcm"
    files = write_scan(tmp_path / "scan", scan)
    refused(scan, files[1:], out, "5 slices against 6", names=files[1])
    refused(scan, [*files, files[0]], out, "another slice", names=files[0])
    refused(scan, [], out, "no files")
    moved = Volume(scan.array, scan.spacing_mm, (-190.5, -133.25, 230.125), scan.direction)
    refused(moved, files, out, "another grid", names=files[0])
    finer = Volume(scan.array, (0.8, 1.1, 5.2), scan.origin_mm, scan.direction)
    refused(finer, files, out, "another grid", names=files[0])
    turned = Volume(scan.array, scan.spacing_mm, scan.origin_mm, make_scan().direction)
    refused(turned, files, out, "another grid", names=files[0])
    other = write_scan(tmp_path / "other", scan, t0020_0052="1.2.3.8")
    mixed = sorted(files, key=lambda p: p.name)[:5] + sorted(other, key=lambda p: p.name)[5:]
    refused(scan, mixed, out, "another FrameOfReferenceUID")


def test_what_is_no_dicom_file(highdicom, tmp_path: Path) -> None:
    files = write_scan(tmp_path / "scan", make_scan())
    (tmp_path / "notes").write_text("hello")
    refused(make_scan(), [*files[1:], tmp_path / "notes"], tmp_path / "hip.dcm", names=tmp_path / "notes")
    refused(make_scan(), [*files[1:], tmp_path / "gone"], tmp_path / "hip.dcm", "no such file", names=tmp_path / "gone")


def test_empty_label_maps_and_unwritable_files(highdicom, tmp_path: Path) -> None:
    scan = make_scan()
    files = write_scan(tmp_path / "scan", scan)
    with pytest.raises(InputError, match="no femur"):
        write_dicom_seg(scan.with_array(np.zeros_like(scan.array)), files, tmp_path / "hip.dcm", "sides")
    with pytest.raises(ValueError, match=r"Received: \[2\]"):
        write_dicom_seg(some_labels(scan), files, tmp_path / "hip.dcm", "femur")
    refused(scan, files, files[0] / "hip.dcm", "cannot be written", names=files[0] / "hip.dcm")


def test_a_missing_package_is_named_with_the_way_to_install_it(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "highdicom", None)
    for call in (require_highdicom, lambda: write_dicom_seg(make_scan(), [], tmp_path / "hip.dcm", "sides")):
        with pytest.raises(UsageError) as caught:
            call()
        assert len(str(caught.value).splitlines()) == 2
        assert str(caught.value).endswith("pip install highdicom")


def test_importing_the_module_does_not_import_highdicom() -> None:
    code = "import sys, femur3d.export.dicom.segmentation; sys.exit('highdicom' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("name", ["hip_05", "hip_22"])
def test_real_series_with_its_manual_labels(highdicom, hips_dir: Path, tmp_path: Path, name: str) -> None:
    """The label map comes from a NIfTI file, whose geometry is rounded to float32."""
    labels = read_volume(hips_dir / "labelsTr" / f"{name}.nii.gz")
    files = sorted((hips_dir / "dicom" / name).iterdir(), reverse=True)
    write_dicom_seg(labels, files, tmp_path / "hip.dcm", "sides")
    received = decoded(tmp_path / "hip.dcm")
    for value, side in ((1, "Left femur"), (2, "Right femur")):
        expected = labels.world_mm(np.argwhere(labels.array == value))
        index = np.linalg.solve(labels.affine[:3, :3], (received[side] - labels.origin_mm).T).T
        assert np.abs(index - np.round(index)).max() < 0.02
        np.testing.assert_allclose(in_order(labels.world_mm(np.round(index)[:, ::-1])), in_order(expected))


def change_headers(files: list[Path], change: Callable[[pydicom.Dataset], None]) -> None:
    with pydicom.config.disable_value_validation():
        for path in files:
            dataset = pydicom.dcmread(path)
            change(dataset)
            dataset.save_as(path)


def written(tmp_path: Path, change: Callable[[pydicom.Dataset], None]) -> pydicom.Dataset:
    """The segmentation of a series with changed headers."""
    scan = make_scan(OBLIQUE)
    files = write_scan(tmp_path / "scan", scan, t0010_0020="P-7")
    change_headers(files, change)
    write_dicom_seg(some_labels(scan), files, tmp_path / "hip.dcm", "sides")
    assert_same_voxels(tmp_path / "hip.dcm", some_labels(scan), {1: "Left femur", 2: "Right femur"})
    return pydicom.dcmread(tmp_path / "hip.dcm")


@pytest.mark.parametrize(
    ("keyword", "value", "expected"),
    [
        ("PatientBirthDate", "19700231", ""),
        ("PatientBirthDate", "1970", ""),
        ("PatientBirthDate", "00000000", ""),
        ("PatientBirthDate", "19700228", "19700228"),
        ("PatientSex", "X", ""),
        ("PatientSex", "female", ""),
        ("PatientSex", "O", "O"),
        ("StudyDate", "2020-13-01", ""),
        ("StudyTime", "25:61", ""),
        ("StudyTime", "101530.5", "101530.5"),
        ("PatientAge", "sixty", None),
        ("PatientAge", "060Y", "060Y"),
        ("PatientWeight", "heavy", None),
        ("PatientWeight", "61.5", 61.5),
        ("AccessionNumber", "0123456789abcdefXYZ", ""),
        ("StudyID", "12", "12"),
        ("PatientID", "", ""),
        ("SeriesNumber", "-3000", 1000),
        ("SeriesNumber", "three", 1000),
        ("SeriesNumber", "²", 1000),
        ("SeriesNumber", "2147482645", 2**31 - 3),  # that of the contours is two more
        ("SeriesNumber", "2147482646", 1000),
        ("SeriesNumber", "99999999999", 1000),
    ],
)
def test_values_that_dicom_does_not_allow_are_left_out(
    highdicom, tmp_path: Path, keyword: str, value: str, expected: object
) -> None:
    """The segmentation is written all the same, with the sound values."""

    def change(dataset: pydicom.Dataset) -> None:
        dataset[keyword] = pydicom.dataelem.DataElement(keyword, "LO", value)  # any text passes here
        dataset[keyword].VR = "LO"

    dataset = written(tmp_path, change)
    assert dataset.PatientID == ("" if keyword == "PatientID" else "P-7")
    assert dataset.get(keyword) == expected


@pytest.mark.parametrize(
    ("charset", "name"),
    [
        (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎=やまだ^たろう"),
        (["", "ISO 2022 IR 149"], "Hong^Gildong=洪^吉洞=홍^길동"),
        ("ISO_IR 144", "Люкceмбypг"),
        ("GB18030", "Wang^XiaoDong=王^小东"),
        ("ISO_IR 100", "Müller^Jürgen"),
        ("ISO_IR 192", "Ψαρράς^Νίκος"),
    ],
)
def test_names_in_any_character_set(highdicom, tmp_path: Path, charset: str | list[str], name: str) -> None:
    def change(dataset: pydicom.Dataset) -> None:
        dataset.SpecificCharacterSet, dataset.PatientName = charset, name

    dataset = written(tmp_path, change)
    assert dataset.SpecificCharacterSet == "ISO_IR 192"
    assert str(dataset.PatientName) == name


def test_identifiers_are_taken_over_as_they_are(highdicom, tmp_path: Path) -> None:
    """Some systems write parts with a leading 0."""
    dataset = written(tmp_path, lambda header: setattr(header, "StudyInstanceUID", "1.2.003.04"))
    assert dataset.StudyInstanceUID == "1.2.003.04"


def test_what_ohif_looks_for(highdicom, tmp_path: Path) -> None:
    """The series, its instances and the source of every frame; one bit a voxel, not compressed."""
    dataset = written(tmp_path, lambda header: None)
    (series,) = dataset.ReferencedSeriesSequence
    assert series.SeriesInstanceUID == "1.2.3.4"
    referenced = {item.ReferencedSOPInstanceUID for item in series.ReferencedInstanceSequence}
    assert referenced == {f"1.2.3.4.{z + 1}" for z in range(6)}
    sources = {
        group.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID
        for group in dataset.PerFrameFunctionalGroupsSequence
    }
    assert sources == {f"1.2.3.4.{z + 1}" for z in range(1, 5)}
    assert (dataset.SegmentationType, dataset.BitsAllocated) == ("BINARY", 1)
    assert dataset.file_meta.TransferSyntaxUID == "1.2.840.10008.1.2.1"


@pytest.mark.parametrize("files", [1, 2])
def test_a_multi_frame_series_is_referred_to_by_its_frames(highdicom, tmp_path: Path, files: int) -> None:
    """Of two echoes the second, in one or two files; frames in the file are counted from 1."""
    scan = make_scan(OBLIQUE)
    frames = [*frames_of(scan, EffectiveEchoTime=5.0), *frames_of(scan, EffectiveEchoTime=9.0)]
    for number in range(files):
        own = frames[number::files]
        save(enhanced(own, SOPInstanceUID=f"1.2.9.{number}", PatientID="P-8"), tmp_path / "scan" / f"{number}.dcm")
    series = series_folder(tmp_path / "scan").series[1]
    labels = some_labels(scan)
    write_dicom_seg(labels, series.slices, tmp_path / "hip.dcm", "sides")
    assert_same_voxels(tmp_path / "hip.dcm", labels, {1: "Left femur", 2: "Right femur"})
    dataset = pydicom.dcmread(tmp_path / "hip.dcm")
    assert (dataset.PatientID, dataset.StudyInstanceUID) == ("P-8", "1.2.3")
    found = set()
    for group in dataset.PerFrameFunctionalGroupsSequence:
        source = group.DerivationImageSequence[0].SourceImageSequence[0]
        assert source.ReferencedSOPClassUID == ENHANCED_MR
        position = np.array(group.PlanePositionSequence[0].ImagePositionPatient, float)
        found.add(
            (source.ReferencedSOPInstanceUID, source.ReferencedFrameNumber, round(scan.index_zyx([position])[0, 0]))
        )
    assert found == {(f"1.2.9.{(6 + z) % files}", (6 + z) // files + 1, z) for z in range(1, 5)}
    referenced = dataset.ReferencedSeriesSequence[0].ReferencedInstanceSequence
    assert sorted(item.ReferencedSOPInstanceUID for item in referenced) == [
        f"1.2.9.{number}" for number in range(files)
    ]
