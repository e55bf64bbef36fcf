"""DICOM folders: slices in spatial order whatever their names, and series that cannot be stacked are refused."""

from __future__ import annotations

import shutil
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom.uid import (
    BasicTextSRStorage,
    EncapsulatedPDFStorage,
    GrayscaleSoftcopyPresentationStateStorage,
    ImplicitVRLittleEndian,
    KeyObjectSelectionDocumentStorage,
    MRImageStorage,
    MRSpectroscopyStorage,
    RawDataStorage,
    RTDoseStorage,
    RTPlanStorage,
    RTStructureSetStorage,
)

from femur3d.errors import InputError
from femur3d.io.dicom import slices
from femur3d.io.dicom.headers import read_header
from femur3d.io.dicom.series import series_folder, series_of
from femur3d.io.images import read_scan, read_volume
from femur3d.io.integrity import quiet_itk
from femur3d.volume import Volume
from tests.support.dicom_series import (
    CORONAL,
    OBLIQUE,
    element,
    make_scan,
    put_bytes,
    put_elements,
    write_series,
    write_slice,
)


def refused(folder: Path, *words: str, series: int | None = None, names: Path | None = None) -> str:
    """Reads a folder that must be refused: two lines that begin with its path (or `names`) and hold the words."""
    with pytest.raises(InputError) as caught:
        read_volume(folder, series=series)
    message = str(caught.value)
    assert message.startswith(str(names or folder))
    assert len(message.splitlines()) == 2
    for word in words:
        assert word in message
    return message


@pytest.mark.parametrize("direction", [np.eye(3), CORONAL, OBLIQUE], ids=["axial", "coronal", "oblique"])
def test_series_comes_back_on_its_grid(tmp_path: Path, direction: np.ndarray) -> None:
    scan = make_scan(direction)
    write_series(tmp_path / "scan", scan)
    back = read_volume(tmp_path / "scan")
    assert back.array.dtype == np.int16
    np.testing.assert_array_equal(back.array, scan.array)
    assert back.geometry_difference(scan, 1e-7) is None
    np.testing.assert_allclose(back.world_mm((5, 6, 7)), scan.world_mm((5, 6, 7)), rtol=0, atol=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_file_names_and_instance_numbers_do_not_matter(tmp_path: Path, seed: int) -> None:
    scan = make_scan(OBLIQUE)
    order = np.random.default_rng(seed).permutation(len(scan.array))
    (tmp_path / "scan").mkdir()
    for z, place in enumerate(order):
        write_slice(tmp_path / "scan" / f"IM{place:04d}", scan, z, {"0020|0013": str(100 - place)})
    back = read_volume(tmp_path / "scan")
    np.testing.assert_array_equal(back.array, scan.array)
    assert back.geometry_difference(scan, 1e-7) is None


def test_slices_stored_from_the_other_end_show_the_same_world(tmp_path: Path) -> None:
    """A grid whose third axis is reversed comes back along the normal: flipped in storage, unmoved in the world."""
    scan = make_scan()
    direction = CORONAL @ np.diag([1.0, 1.0, -1.0])
    flipped = Volume(scan.array[::-1], scan.spacing_mm, tuple(scan.world_mm((5, 0, 0))), tuple(direction.ravel()))
    write_series(tmp_path / "scan", flipped)
    back = read_volume(tmp_path / "scan")
    np.testing.assert_array_equal(back.array, scan.array)
    assert back.geometry_difference(scan, 1e-7) is None


def test_two_series_are_listed_and_chosen(tmp_path: Path) -> None:
    one, other = make_scan(), make_scan(np.eye(3))
    other = other.with_array(other.array + 1000)
    write_series(tmp_path / "scan", other, uid="1.2.3.9", number=12)
    write_series(tmp_path / "scan", Volume(one.array[:4], one.spacing_mm, one.origin_mm, one.direction), number=5)
    first, second = series_folder(tmp_path / "scan").series
    assert (first.number, first.description, len(first.files)) == (1, "t1 tse 5", 4)
    assert (first.size, first.spacing_mm) == ((8, 7, 4), pytest.approx((0.9, 1.1, 5.2)))
    assert (second.number, second.description, len(second.files)) == (2, "t1 tse 12", 6)
    listed = "1 = t1 tse 5 (8×7×4 voxels of 0.9×1.1×5.2 mm); 2 = t1 tse 12 (8×7×6 voxels"
    refused(tmp_path / "scan", "2 DICOM series", listed)
    refused(tmp_path / "scan", "no series number 3", listed, series=3)
    refused(tmp_path / "scan", "no series number 0", series=0)
    np.testing.assert_array_equal(read_volume(tmp_path / "scan", series=1).array, one.array[:4])
    np.testing.assert_array_equal(read_volume(tmp_path / "scan", series=2).array, other.array)


def test_missing_slice(tmp_path: Path) -> None:
    write_series(tmp_path / "scan", make_scan(), names=[f"{z}.dcm" for z in range(6)])
    (tmp_path / "scan" / "3.dcm").unlink()
    refused(tmp_path / "scan", "2.dcm and 4.dcm are 10.40 mm apart, the others 5.20 mm", "missing")


@pytest.mark.parametrize("step", [2, 3])
def test_every_second_or_third_slice_only(tmp_path: Path, step: int) -> None:
    """The distances are even: distance and numbers in the headers tell."""
    scan = make_scan()
    for z in range(0, 6, step):
        write_slice(tmp_path / f"{z}.dcm", scan, z)
        put_elements(tmp_path / f"{z}.dcm", {(0x0018, 0x0088): "5.2"})
    apart = f"{step * 5.2:.2f} mm apart, by their headers 5.20 mm"
    refused(tmp_path, "slices are missing", apart, f"in steps of {step}")


@pytest.mark.parametrize(("stated", "step"), [("2.6", 1), ("5.2", 2)])
def test_distance_or_numbers_alone_tell_of_no_missing_slice(tmp_path: Path, stated: str, step: int) -> None:
    """The gap in the distance's place, as some scanners have it; one of two echoes."""
    for z in range(6):
        write_slice(tmp_path / f"{z}.dcm", make_scan(), z, {"0020|0013": str(1 + step * z)})
        put_elements(tmp_path / f"{z}.dcm", {(0x0018, 0x0088): stated})
    assert read_volume(tmp_path).spacing_mm[2] == pytest.approx(5.2)


def test_repeated_slice(tmp_path: Path) -> None:
    write_series(tmp_path / "scan", make_scan(), names=[f"{z}.dcm" for z in range(6)])
    shutil.copy(tmp_path / "scan" / "2.dcm", tmp_path / "scan" / "copy.dcm")
    refused(tmp_path / "scan", "2.dcm and copy.dcm lie at the same position", "repeated")


@pytest.mark.parametrize(("shift_mm", "accepted"), [(0.04, True), (0.08, False)])
def test_tolerance_of_slice_positions_is_one_percent(tmp_path: Path, shift_mm: float, accepted: bool) -> None:
    """1% of 5.2 mm is 0.052 mm."""
    scan = make_scan()
    write_series(tmp_path / "scan", scan, names=[f"{z}.dcm" for z in range(6)])
    position = scan.world_mm((2, 0, 0)) + shift_mm * CORONAL[:, 2]
    write_slice(tmp_path / "scan" / "2.dcm", scan, 2, {"0020|0032": "\\".join(map(str, position))})
    if accepted:
        assert read_volume(tmp_path / "scan").spacing_mm == pytest.approx((0.9, 1.1, 5.2))
    else:
        refused(tmp_path / "scan", "1.dcm and 2.dcm are 5.28 mm apart, the others 5.20 mm")


def test_tilted_stack(tmp_path: Path) -> None:
    scan = make_scan()
    write_series(tmp_path / "scan", scan, names=[f"{z}.dcm" for z in range(6)])
    for z in range(6):
        position = scan.world_mm((z, 0, 0)) + 0.5 * z * CORONAL[:, 0]
        write_slice(tmp_path / "scan" / f"{z}.dcm", scan, z, {"0020|0032": "\\".join(map(str, position))})
    refused(tmp_path / "scan", "drift by 2.50 mm", "Tilted")


def test_mixed_orientations_sizes_and_pixel_spacings(tmp_path: Path) -> None:
    scan = make_scan()
    others = {
        "orientations": make_scan(OBLIQUE),
        "sizes (columns, rows)": Volume(scan.array[:, :-1], scan.spacing_mm, scan.origin_mm, scan.direction),
        "pixel spacings (mm)": Volume(scan.array, (0.8, 1.1, 5.2), scan.origin_mm, scan.direction),
    }
    for index, (what, other) in enumerate(others.items()):
        folder = tmp_path / str(index)
        write_series(folder, scan, names=[f"{z}.dcm" for z in range(6)])
        write_slice(folder / "4.dcm", other, 4)
        refused(folder, f"mixed {what}", "4.dcm")


def test_rescale_slopes_that_differ_from_slice_to_slice(tmp_path: Path) -> None:
    """Slice 0 has no slope and is int16; the others, CT slices with slope 0.5 z, are floats: none may be cut short."""
    scan = make_scan()
    (tmp_path / "scan").mkdir()
    for z in range(6):
        path = tmp_path / "scan" / f"{z}.dcm"
        write_slice(path, scan, z, {"0008|0060": "CT", "0008|0016": "1.2.840.10008.5.1.4.1.1.2"})
        data = path.read_bytes()
        old = data[data.index(b"\x28\x00\x52\x10") : data.index(b"\xe0\x7f\x10\x00")]
        new = element(0x28, 0x1052, "1") + element(0x28, 0x1053, str(0.5 * z)) if z else b""
        path.write_bytes(data.replace(old, new))
    expected = np.stack([scan.array[0], *(scan.array[z] * 0.5 * z + 1 for z in range(1, 6))])
    np.testing.assert_array_equal(read_volume(tmp_path / "scan").array, expected)


def test_rescale_slopes_of_mr_slices(tmp_path: Path) -> None:
    """Floating-point slopes and intercepts, another one in every slice, none in the first."""
    scan = make_scan()
    write_series(tmp_path / "scan", scan, names=[f"{z}.dcm" for z in range(6)])
    slopes = [1.0, 0.0016766788, 1.25, 3.0, -0.5, 2.44140625]
    for z in range(1, 6):
        put_elements(tmp_path / "scan" / f"{z}.dcm", {(0x28, 0x1052): f"{z / 4}", (0x28, 0x1053): f"{slopes[z]}"})
    expected = np.stack([scan.array[z] * slopes[z] + z / 4 for z in range(6)])
    np.testing.assert_allclose(read_volume(tmp_path / "scan").array, expected, rtol=1e-12)


def test_single_slice(tmp_path: Path) -> None:
    (tmp_path / "scan").mkdir()
    write_slice(tmp_path / "scan" / "0.dcm", make_scan(), 0)
    assert series_folder(tmp_path / "scan").series[0].size == (8, 7, 1)
    refused(tmp_path / "scan", "one slice")
    refused(tmp_path / "scan" / "0.dcm", "single DICOM file", "folder")


def test_folders_without_dicom(tmp_path: Path) -> None:
    refused(tmp_path, "no DICOM images", "no files")
    (tmp_path / "notes.txt").write_text("hello")
    (tmp_path / "scan.nii.gz").write_bytes(b"x")
    refused(tmp_path, "notes.txt, scan.nii.gz", "one scan file")


def test_other_files_beside_the_slices_are_passed_over(tmp_path: Path) -> None:
    folder = tmp_path / "scan"
    write_series(folder, make_scan())
    (folder / "README").write_text("notes")
    (folder / ".DS_Store").write_bytes(b"x" * 500)
    (folder / "DICOMDIR").write_bytes(bytes(128) + b"DICM" + b"\x02\x00\x02\x00UI\x14\x001.2.840.10008.1.3.10\0")
    (folder / "screen.png").write_bytes(b"x")
    (folder / "deeper").mkdir()
    assert read_volume(folder).array.shape == (6, 7, 8)


def test_truncated_slice_is_named(tmp_path: Path) -> None:
    write_series(tmp_path / "scan", make_scan(), names=[f"{z}.dcm" for z in range(6)])
    path = tmp_path / "scan" / "5.dcm"
    path.write_bytes(path.read_bytes()[:-40])
    refused(tmp_path / "scan", "damaged", names=path)
    path.write_bytes(b"")
    refused(tmp_path / "scan", "the file is empty", "remove it if it is no slice", names=path)


def test_colour_screenshot_beside_a_series_is_left_out(tmp_path: Path) -> None:
    folder = tmp_path / "scan"
    write_series(folder, make_scan())
    picture = sitk.GetImageFromArray(np.zeros((7, 8, 3), np.uint8), isVector=True)
    picture.SetMetaData("0008|0060", "OT")
    sitk.WriteImage(picture, str(folder / "screen.dcm"))
    assert len(series_folder(folder).series) == 1
    assert read_volume(folder).array.shape == (6, 7, 8)
    only = tmp_path / "only"
    only.mkdir()
    shutil.copy(folder / "screen.dcm", only)
    refused(only, "in colour", names=only / "screen.dcm")


def test_slice_without_position(tmp_path: Path) -> None:
    write_series(tmp_path / "scan", make_scan(), names=[f"{z}.dcm" for z in range(6)])
    path = tmp_path / "scan" / "3.dcm"
    path.write_bytes(path.read_bytes().replace(b"\x20\x00\x32\x00", b"\x20\x00\x33\x00"))  # no such tag any more
    refused(tmp_path / "scan", "without ImagePositionPatient.", names=path)


def test_a_multi_frame_file_is_not_passed_over_for_a_series_beside_it(tmp_path: Path) -> None:
    """It may be the scan, and the slices beside it the localizer."""
    write_series(tmp_path / "scan", make_scan())
    frames = sitk.GetImageFromArray(make_scan().array.astype(np.uint16))
    sitk.WriteImage(frames, str(tmp_path / "scan" / "frames.dcm"))
    refused(tmp_path / "scan", "2 DICOM series")
    number = next(one.number for one in series_folder(tmp_path / "scan").series if not one.description)
    np.testing.assert_array_equal(read_volume(tmp_path / "scan", series=number).array, make_scan().array)


@pytest.mark.parametrize("odd", [b"\xb2", b"9" * 5000, b"--5"], ids=["superscript", "long", "signs"])
def test_numbers_that_are_none_do_not_end_a_batch(tmp_path: Path, odd: bytes) -> None:
    """SeriesNumber and InstanceNumber count as missing; NumberOfFrames may be that of a scan of several."""
    write_series(tmp_path / "scan", make_scan(), names=[f"{z}.dcm" for z in range(6)])
    for path in (tmp_path / "scan").iterdir():
        put_bytes(path, {(0x20, 0x11): odd, (0x20, 0x13): odd})
    np.testing.assert_array_equal(read_volume(tmp_path / "scan").array, make_scan().array)
    put_bytes(tmp_path / "scan" / "3.dcm", {(0x28, 0x08): odd})
    refused(tmp_path / "scan", "does not say where each of its frames lies", names=tmp_path / "scan" / "3.dcm")


@pytest.mark.parametrize(("decimals", "n_notes"), [(6, 0), (3, 1)])
def test_rounded_direction_cosines_are_put_right(tmp_path: Path, decimals: int, n_notes: int) -> None:
    """Six decimals are what scanners write; with three the slices are skew by 0.03°, and the user is informed."""
    scan = make_scan(OBLIQUE)
    write_series(tmp_path / "scan", scan)
    for path in (tmp_path / "scan").iterdir():
        put_elements(path, {(0x20, 0x37): "\\".join(f"{x:.{decimals}f}" for x in OBLIQUE[:, :2].T.ravel())})
    read = read_scan(tmp_path / "scan")
    assert len(read.notes) == n_notes
    assert all("off right angles" in note for note in read.notes)
    assert read.nifti is None
    direction = np.reshape(read.volume.direction, (3, 3))
    np.testing.assert_allclose(direction.T @ direction, np.eye(3), rtol=0, atol=2e-6)
    assert read.volume.geometry_difference(scan, 10**-decimals) is None


def test_control_characters_of_an_attribute_do_not_reach_the_terminal(tmp_path: Path) -> None:
    write_series(tmp_path / "scan", make_scan(), names=[f"{z}.dcm" for z in range(6)])
    put_elements(tmp_path / "scan" / "3.dcm", {(0x20, 0x32): "1\\2\n\x1b[2J\\3"})
    refused(tmp_path / "scan", "ImagePositionPatient 1\\2��[2J\\3.", names=tmp_path / "scan" / "3.dcm")


def test_files_of_a_series_in_slice_order(tmp_path: Path) -> None:
    names = ["d", "a", "f", "b", "e", "c"]
    write_series(tmp_path / "scan", make_scan(), names=names)
    assert [path.name for path in read_scan(tmp_path / "scan").dicom.files] == names


def test_files_called_by_their_uid_are_found_and_missed(tmp_path: Path) -> None:
    """The last part of the name, a number, looks like an extension; here even without DICOM's mark."""
    names = [f"1.3.12.2.{z}" for z in range(6)]
    write_series(tmp_path / "scan", make_scan(), names=names)
    for name in names:
        data = (tmp_path / "scan" / name).read_bytes()
        (tmp_path / "scan" / name).write_bytes(data[144 + int.from_bytes(data[140:144], "little") :])
    assert read_volume(tmp_path / "scan").array.shape == (6, 7, 8)
    (tmp_path / "scan" / names[5]).write_bytes(b"")
    refused(tmp_path / "scan", "empty", names=tmp_path / "scan" / names[5])


def test_warnings_of_itk_stay_off_until_the_last_reader_is_done() -> None:
    """Two threads, the first of which ends first."""
    shown = sitk.ProcessObject.GetGlobalWarningDisplay
    before, first, second = shown(), quiet_itk(), quiet_itk()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert not shown()
    second.__exit__(None, None, None)
    assert shown() == before
    assert before


@pytest.mark.parametrize("name", ["hip_05", "hip_22"])
def test_scanner_series_equals_its_nifti_twin(hips_dir: Path, tmp_path: Path, name: str) -> None:
    twin = read_volume(hips_dir / "imagesTr" / f"{name}_0000.nii.gz")
    series = read_volume(hips_dir / "dicom" / name)
    np.testing.assert_array_equal(series.array, twin.array)
    assert series.geometry_difference(twin, 1e-4) is None
    files = sorted((hips_dir / "dicom" / name).iterdir())
    for place, path in zip(np.random.default_rng(0).permutation(len(files)), files, strict=True):
        shutil.copy(path, tmp_path / f"{place}.dcm")
    shuffled = read_volume(tmp_path)
    np.testing.assert_array_equal(shuffled.array, series.array)
    assert shuffled.geometry_difference(series, 0.0) is None


def test_a_series_over_several_folders_is_one(tmp_path: Path) -> None:
    """An export CD with two files a folder, files of the same names in each."""
    scan = make_scan(OBLIQUE)
    for z in range(6):
        (tmp_path / "cd" / f"{z // 2}").mkdir(parents=True, exist_ok=True)
        write_slice(tmp_path / "cd" / f"{z // 2}" / f"IM{z % 2}", scan, z)
    (found,) = series_of(
        {tmp_path / "cd" / f"{part}": sorted((tmp_path / "cd" / f"{part}").iterdir()) for part in "012"}
    )
    assert (found.path, [folder.name for folder in found.folders]) == (tmp_path / "cd", ["0", "1", "2"])
    np.testing.assert_array_equal(read_scan(found).volume.array, scan.array)
    np.testing.assert_array_equal(read_volume(tmp_path / "cd").array, scan.array)
    shutil.copy(tmp_path / "cd" / "1" / "IM0", tmp_path / "cd" / "2" / "IM9")
    refused(tmp_path / "cd", "1/IM0 and 2/IM9 lie at the same position")


def test_folders_that_share_no_series_stay_apart(tmp_path: Path) -> None:
    """Two series cut into folders where the files end, and another patient's beside them; one slice is damaged."""
    scan = make_scan()
    for number, (uid, z) in enumerate((uid, z) for uid in ("1.2.7", "1.2.8") for z in range(6)):
        folder = tmp_path / f"cd{number // 5}"
        folder.mkdir(exist_ok=True)
        write_slice(folder / f"{number}", scan, z, {"0020|000e": uid})
    write_series(tmp_path / "other", scan, uid="1.2.9")
    tree = {folder: sorted(folder.iterdir()) for folder in sorted(tmp_path.iterdir())}
    joined, other = series_of(tree)
    assert [folder.name for folder in joined.folders] == ["cd0", "cd1", "cd2"]
    assert [one.size for one in joined.series] == [(8, 7, 6), (8, 7, 6)]
    assert (other.path, len(other.series), other.problem) == (tmp_path / "other", 1, "")
    (tmp_path / "cd1" / "7").write_bytes(b"")
    joined, other = series_of(tree)
    assert joined.series == ()
    assert joined.problem.startswith(f"{tmp_path / 'cd1' / '7'}: the file is empty")
    assert not other.problem
    with pytest.raises(InputError, match="cd1/7: the file is empty"):
        read_scan(joined)


def test_headers_are_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_series(tmp_path / "scan", make_scan())
    opened = []
    monkeypatch.setattr(slices, "read_header", lambda path: opened.append(path) or read_header(path))
    found = read_scan(series_folder(tmp_path / "scan"))
    assert found.dicom is not None
    assert sorted(opened) == sorted(found.dicom.files) == sorted((tmp_path / "scan").iterdir())


def write_bare(path: Path, sop_class: str, preamble: bool, **attributes: Any) -> None:
    """A DICOM object without pixels, or with few."""
    dataset = pydicom.Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID, dataset.SeriesInstanceUID = sop_class, "1.2.8.1", "1.2.8"
    for name, value in attributes.items():
        setattr(dataset, name, value)
    dataset.save_as(path, implicit_vr=True, little_endian=True)
    if preamble:
        dataset.file_meta = pydicom.dataset.FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
        dataset.save_as(path, enforce_file_format=True)


@pytest.mark.parametrize("preamble", [False, True])
@pytest.mark.parametrize(
    "sop_class",
    [
        RTStructureSetStorage,
        BasicTextSRStorage,
        GrayscaleSoftcopyPresentationStateStorage,
        EncapsulatedPDFStorage,
        RTPlanStorage,
        RawDataStorage,
        MRSpectroscopyStorage,
        KeyObjectSelectionDocumentStorage,
        "1.3.46.670589.11.0.0.12.2",  # Philips: private
    ],
    ids=lambda uid: pydicom.uid.UID(uid).keyword,
)
@pytest.mark.parametrize("name", ["rs.dcm", "SR0001"])
def test_objects_without_image_beside_a_series(tmp_path: Path, sop_class: str, preamble: bool, name: str) -> None:
    write_series(tmp_path / "scan", make_scan())
    write_bare(tmp_path / "scan" / name, sop_class, preamble, ContentLabel="A")
    assert len(series_folder(tmp_path / "scan").series) == 1
    np.testing.assert_array_equal(read_volume(tmp_path / "scan").array, make_scan().array)


def test_a_dose_beside_a_series_is_no_scan(tmp_path: Path) -> None:
    """It has pixels, frames and a place in the world."""
    write_series(tmp_path / "scan", make_scan())
    pixels = {"Rows": 2, "Columns": 2, "BitsAllocated": 16, "NumberOfFrames": 3, "PixelData": bytes(24)}
    write_bare(tmp_path / "scan" / "rd.dcm", RTDoseStorage, True, **pixels)
    assert len(series_folder(tmp_path / "scan").series) == 1


@pytest.mark.parametrize("preamble", [False, True])
def test_an_image_that_ends_before_its_pixels_is_damaged(tmp_path: Path, preamble: bool) -> None:
    write_series(tmp_path / "scan", make_scan())
    write_bare(tmp_path / "scan" / "x.dcm", MRImageStorage, preamble)
    refused(tmp_path / "scan", "it ends before its pixels", names=tmp_path / "scan" / "x.dcm")


DESCRIPTIONS = {
    "ISO_IR 100": ("Hüfte süd", "latin-1"),
    "ISO_IR 144": ("Тазобедренный сустав", "iso8859-5"),
    "ISO_IR 192": ("股関節 бедро", "utf-8"),
    "GB18030": ("髋关节", "gb18030"),
    "ISO_IR 13": ("ｺｶﾝｾﾂ", "shift-jis"),
    "": ("Hüfte", "latin-1"),
    " ": ("髋关节", "utf-8"),
}


@pytest.mark.parametrize("charset", DESCRIPTIONS)
def test_descriptions_in_the_character_set_of_the_file(tmp_path: Path, charset: str) -> None:
    """Also where none is named."""
    description, encoding = DESCRIPTIONS[charset]
    write_series(tmp_path / "scan", make_scan(), names=[f"{z}.dcm" for z in range(6)])
    for path in (tmp_path / "scan").iterdir():
        put_elements(path, {(0x08, 0x05): charset, (0x08, 0x103E): ""})
        put_bytes(path, {(0x08, 0x103E): description.encode(encoding)})
    assert series_folder(tmp_path / "scan").series[0].description == description


def test_a_description_in_japanese_with_escape_sequences(tmp_path: Path) -> None:
    write_series(tmp_path / "scan", make_scan(), names=[f"{z}.dcm" for z in range(6)])
    for path in (tmp_path / "scan").iterdir():
        put_elements(path, {(0x08, 0x05): "\\ISO 2022 IR 87"})
        put_bytes(path, {(0x08, 0x103E): "T1 股関節".encode("iso2022_jp")})
    assert series_folder(tmp_path / "scan").series[0].description == "T1 股関節"


@pytest.mark.parametrize(
    ("pads", "limit", "declared"),
    [
        ((-2000,), None, -2000),
        ((-32768,), None, -32768),
        ((-2000, -1990), -1500, -2000),
        ((-2000, -1990), -2000, -1500),  # the range the other way round
        ((32767,), None, 32767),
    ],
)
def test_padding_is_no_intensity(tmp_path: Path, pads: tuple, limit: int | None, declared: int) -> None:
    scan = make_scan()
    array = scan.array + np.int16(3)
    for i, pad in enumerate(pads):
        array[:, i, :4] = pad
    write_series(tmp_path / "scan", scan.with_array(array))
    for path in (tmp_path / "scan").iterdir():
        put_bytes(path, {(0x28, 0x120): struct.pack("<h", declared)})
        if limit is not None:
            put_bytes(path, {(0x28, 0x121): struct.pack("<h", limit)})
    found = read_scan(tmp_path / "scan")
    real = ~np.isin(array, pads)
    np.testing.assert_array_equal(found.volume.array, np.where(real, array, array[real].min()))
    assert found.volume.array.dtype == np.int16
    (note,) = found.notes
    assert f"{np.mean(~real):.1%} of the voxels hold padding" in note
    assert note.endswith(f"counts as {array[real].min()}")


@pytest.mark.parametrize("declared", [150, 5000])
def test_a_padding_value_among_the_intensities_is_one_of_them(tmp_path: Path, declared: int) -> None:
    """150 lies between 149 and 151, which are there; 5000 is not there."""
    write_series(tmp_path / "scan", make_scan())
    for path in (tmp_path / "scan").iterdir():
        put_bytes(path, {(0x28, 0x120): struct.pack("<h", declared)})
    found = read_scan(tmp_path / "scan")
    np.testing.assert_array_equal(found.volume.array, make_scan().array)
    assert found.notes == ()


def test_padding_is_told_before_the_rescale(tmp_path: Path) -> None:
    scan = make_scan()
    array = scan.array + np.int16(1)
    array[:, 2] = -2000
    write_series(tmp_path / "scan", scan.with_array(array))
    for path in (tmp_path / "scan").iterdir():
        put_elements(path, {(0x28, 0x1052): "7.5", (0x28, 0x1053): "0.25"})
        put_bytes(path, {(0x28, 0x120): struct.pack("<H", 63536)})  # as an unsigned number
    np.testing.assert_array_equal(read_volume(tmp_path / "scan").array, np.where(array < 0, 7.75, array * 0.25 + 7.5))


@pytest.mark.parametrize("compressor", ["JPEG", "JPEG2000", "JPEGLS"])
def test_compressed_slices(tmp_path: Path, compressor: str) -> None:
    write_series(tmp_path / "plain", make_scan(), names=[f"{z}.dcm" for z in range(6)])
    (tmp_path / "packed").mkdir()
    for path in (tmp_path / "plain").iterdir():
        reader = sitk.ImageFileReader()
        reader.SetFileName(str(path))
        image = reader.Execute()
        for key in ("0020|000e", "0020|0032", "0020|0037", "0008|0016", "0020|000d"):
            image.SetMetaData(key, reader.GetMetaData(key))
        writer = sitk.ImageFileWriter()
        writer.SetFileName(str(tmp_path / "packed" / path.name))
        writer.UseCompressionOn()
        writer.SetCompressor(compressor)
        writer.KeepOriginalImageUIDOn()
        writer.Execute(image)
    packed = series_folder(tmp_path / "packed").series[0].slices[0]
    assert packed.transfer_syntax.is_encapsulated
    np.testing.assert_array_equal(read_volume(tmp_path / "packed").array, make_scan().array)


def test_missing_optional_attributes(tmp_path: Path) -> None:
    """No number, no description, no instance number, no patient."""
    scan = make_scan(OBLIQUE)
    for z in range(6):
        write_slice(tmp_path / f"{z}.dcm", scan, z, {"0020|0013": "", "0018|0088": ""})
    assert str(series_folder(tmp_path).series[0]).startswith("1 = no description (8×7×6 voxels of 0.9×1.1×5.2 mm)")
    assert read_volume(tmp_path).geometry_difference(scan, 1e-6) is None


def test_copies_and_echoes_in_folders_of_their_own_stay_apart(tmp_path: Path) -> None:
    """One SeriesInstanceUID, the same places: each folder is a whole scan, and so are the parts of a copy together."""
    for name in ("copy", "echo"):
        write_series(tmp_path / name, make_scan())
    for z in range(6):
        (tmp_path / "cd" / f"{z // 3}").mkdir(parents=True, exist_ok=True)
        write_slice(tmp_path / "cd" / f"{z // 3}" / f"IM{z}", make_scan(), z)
    folders = sorted(path for path in tmp_path.rglob("*") if path.is_dir())
    found = series_of({folder: [file for file in sorted(folder.iterdir()) if file.is_file()] for folder in folders})
    assert [one.path.name for one in found] == ["cd", "copy", "echo"]
    assert [one.series[0].size for one in found] == [(8, 7, 6)] * 3
