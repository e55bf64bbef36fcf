"""Enhanced MR files: regular stacks are read, several volumes are listed like series, anything else is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from femur3d.errors import InputError
from femur3d.io.dicom.series import series_folder
from femur3d.io.images import read_scan, read_volume
from femur3d.volume import Volume
from tests.support.dicom_series import CORONAL, OBLIQUE, make_scan
from tests.support.enhanced_mr import enhanced, frames_of, save

ALL_SHARED = ("PixelSpacing", "SliceThickness", "ImageOrientationPatient", "RescaleSlope", "RescaleIntercept")


def assert_same(received: Volume, expected: Volume) -> None:
    np.testing.assert_array_equal(received.array, expected.array)
    assert received.geometry_difference(expected, 1e-6) is None


def refused(path: Path, *words: str, series: int | None = None, names: Path | None = None) -> str:
    with pytest.raises(InputError) as caught:
        read_volume(path, series=series)
    message = str(caught.value)
    assert message.startswith(str(names or path))
    assert len(message.splitlines()) == 2
    for word in words:
        assert word in message
    return message


@pytest.mark.parametrize("direction", [np.eye(3), CORONAL, OBLIQUE], ids=["axial", "coronal", "oblique"])
@pytest.mark.parametrize("shared", [(), ALL_SHARED], ids=["per frame", "shared"])
def test_a_regular_stack_comes_back_on_its_grid(tmp_path: Path, direction: np.ndarray, shared: tuple) -> None:
    """By its folder and by itself; the frames lie in the file in any order."""
    scan = make_scan(direction)
    frames = frames_of(scan)
    order = np.random.default_rng(1).permutation(len(frames))
    path = save(enhanced([frames[i] for i in order], shared=shared), tmp_path / "scan" / "IM_0001")
    assert_same(read_volume(path), scan)
    assert_same(read_volume(path.parent), scan)
    assert read_volume(path).array.dtype == np.int16
    (only,) = series_folder(path.parent).series
    assert (only.description, only.size, len(only.files)) == ("e-t1", (8, 7, 6), 1)
    assert read_scan(path).dicom.files == (path,)


@pytest.mark.parametrize(
    "syntax",
    [
        *(ImplicitVRLittleEndian, ExplicitVRLittleEndian, DeflatedExplicitVRLittleEndian),
        *(RLELossless, JPEG2000Lossless, JPEGLSLossless, JPEGLosslessSV1),
    ],
    ids=lambda uid: uid.keyword,
)
@pytest.mark.parametrize("dtype", [np.int16, np.uint16])
def test_every_way_to_store_pixels(tmp_path: Path, syntax: pydicom.uid.UID, dtype: type) -> None:
    scan = make_scan(OBLIQUE)
    lowest = 0 if dtype is np.uint16 else -100
    stored = scan.with_array((scan.array.astype(int) + lowest).astype(dtype))
    path = save(enhanced(frames_of(stored, RescaleSlope=0.5, RescaleIntercept=3.0)), tmp_path / "a.dcm", syntax)
    np.testing.assert_array_equal(read_volume(path).array, stored.array * 0.5 + 3)


def test_a_small_deflated_file_that_inflates_to_far_too_much(tmp_path: Path) -> None:
    dataset = enhanced(frames_of(make_scan()))
    dataset.PixelData += bytes(1 << 21)
    path = save(dataset, tmp_path / "a.dcm", DeflatedExplicitVRLittleEndian)
    with pytest.raises(InputError, match=r"damaged or incomplete: .* inflates to more than 64 times its length\.\n"):
        read_volume(path)


def test_big_endian(tmp_path: Path) -> None:
    scan = make_scan()
    dataset = enhanced(frames_of(scan))
    dataset.PixelData = scan.array.astype(">i2").tobytes()
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
    dataset.save_as(tmp_path / "a.dcm", enforce_file_format=True, implicit_vr=False, little_endian=False)
    assert_same(read_volume(tmp_path / "a.dcm"), scan)


def test_twelve_bits_with_rubbish_in_the_others(tmp_path: Path) -> None:
    """BitsStored is 12: the upper four bits are no part of the value."""
    scan = make_scan()
    stored = scan.with_array((scan.array | np.int16(0x3000)).astype(np.uint16))
    path = save(enhanced(frames_of(stored), BitsStored=12, HighBit=11), tmp_path / "a.dcm")
    np.testing.assert_array_equal(read_volume(path).array, scan.array)


def test_rescale_of_each_frame(tmp_path: Path) -> None:
    scan = make_scan()
    frames = frames_of(scan)
    slopes = [1.0, 0.5, 2.25, 1.0, 3.0, 0.125]
    for (_, own), slope in zip(frames, slopes, strict=True):
        own |= {"RescaleSlope": slope, "RescaleIntercept": -slope}
    expected = np.stack([plane * slope - slope for plane, slope in zip(scan.array, slopes, strict=True)])
    np.testing.assert_array_equal(read_volume(save(enhanced(frames), tmp_path / "a.dcm")).array, expected)


def test_padding_is_no_intensity(tmp_path: Path) -> None:
    """−2000 before the rescale; the lowest real value is that of the first voxel, 1·0.5 + 1."""
    scan = make_scan()
    array = scan.array + np.int16(1)
    array[2:4, :3] = -2000
    frames = frames_of(scan.with_array(array), RescaleSlope=0.5, RescaleIntercept=1.0)
    found = read_scan(save(enhanced(frames, PixelPaddingValue=-2000), tmp_path / "a.dcm"))
    np.testing.assert_array_equal(found.volume.array, np.where(array == -2000, 1.5, array * 0.5 + 1))
    (note,) = found.notes
    assert "(-999)" in note


def two_volumes(first: dict, second: dict, **attributes) -> tuple[list[Volume], pydicom.Dataset]:
    """Two scans at one place, their frames interleaved, with attributes that tell them apart."""
    scans = [make_scan(OBLIQUE), make_scan(OBLIQUE)]
    scans[1] = scans[1].with_array(scans[1].array + np.int16(1000))
    pairs = zip(frames_of(scans[0], **first), frames_of(scans[1], **second), strict=True)
    return scans, enhanced([frame for pair in pairs for frame in pair], **attributes)


@pytest.mark.parametrize(
    ("first", "second", "labels"),
    [
        ({"EffectiveEchoTime": 4.6}, {"EffectiveEchoTime": 9.2}, ("echo time 4.6 ms", "echo time 9.2 ms")),
        ({"TemporalPositionIndex": 1}, {"TemporalPositionIndex": 2}, ("time point 1", "time point 2")),
        ({"DiffusionBValue": 0.0}, {"DiffusionBValue": 800.0}, ("b-value 0", "b-value 800")),
        ({"ComplexImageComponent": "MAGNITUDE"}, {"ComplexImageComponent": "PHASE"}, ("MAGNITUDE", "PHASE")),
    ],
    ids=["echoes", "time points", "b-values", "magnitude and phase"],
)
def test_volumes_at_one_place_are_listed_and_chosen(tmp_path: Path, first: dict, second: dict, labels: tuple) -> None:
    scans, dataset = two_volumes(first, second)
    path = save(dataset, tmp_path / "scan" / "a.dcm")
    series = series_folder(path.parent).series
    assert [one.description for one in series] == [f"e-t1, {label}" for label in labels]
    assert [one.size for one in series] == [(8, 7, 6)] * 2
    refused(path, "2 DICOM series", f"1 = e-t1, {labels[0]}", f"2 = e-t1, {labels[1]}")
    refused(path.parent, "2 DICOM series")
    refused(path.parent, "no series number 3", series=3)
    for number, scan in enumerate(scans, start=1):
        assert_same(read_volume(path, series=number), scan)
        assert_same(read_volume(path.parent, series=number), scan)


def test_a_dimension_that_only_the_makers_index_tells(tmp_path: Path) -> None:
    """DimensionIndexValues: stack, place in it, and a private attribute."""
    pointers = []
    for tag in (0x00209056, 0x00209057, 0x20011001):
        pointers.append(pydicom.Dataset())
        pointers[-1].DimensionIndexPointer = tag
    scans, dataset = two_volumes({}, {}, DimensionIndexSequence=pointers)
    for number, groups in enumerate(dataset.PerFrameFunctionalGroupsSequence):
        groups.FrameContentSequence = [pydicom.Dataset()]
        groups.FrameContentSequence[0].DimensionIndexValues = [1, number // 2 + 1, number % 2 + 1]
    path = save(dataset, tmp_path / "a.dcm")
    for number, scan in enumerate(scans, start=1):
        assert_same(read_volume(path, series=number), scan)


def test_echoes_and_time_points_are_a_series_each(tmp_path: Path) -> None:
    scan = make_scan()
    frames = [
        frame
        for time in (1, 2)
        for echo in (5.0, 10.0)
        for frame in frames_of(
            scan.with_array(scan.array + np.int16(1000 * time + 10 * echo)),
            TemporalPositionIndex=time,
            EffectiveEchoTime=echo,
        )
    ]
    path = save(enhanced(frames), tmp_path / "scan" / "a.dcm")
    labels = [one.description.removeprefix("e-t1, ") for one in series_folder(path.parent).series]
    assert labels == [f"echo time {echo} ms, time point {time}" for echo in (5, 10) for time in (1, 2)]
    np.testing.assert_array_equal(read_volume(path, series=3).array, scan.array + 1100)


def test_what_changes_from_slice_to_slice_makes_no_volumes(tmp_path: Path) -> None:
    """Each slice at its own time, as in a scan with triggers: it is one volume."""
    frames = frames_of(make_scan())
    for number, (_, own) in enumerate(frames):
        own |= {"TemporalPositionIndex": 1, "StackID": str(number + 1), "RepetitionTime": 500 + number}
    assert_same(read_volume(save(enhanced(frames), tmp_path / "a.dcm")), make_scan())


@pytest.mark.parametrize("stack_id", [True, False])
def test_stacks_of_several_orientations(tmp_path: Path, stack_id: bool) -> None:
    """A localizer; with and without a number for each stack."""
    scans = [make_scan(CORONAL), make_scan(np.eye(3))]
    named = [{"StackID": str(number)} if stack_id else {} for number in (1, 2)]
    frames = [frame for scan, own in zip(scans, named, strict=True) for frame in frames_of(scan, **own)]
    path = save(enhanced(frames), tmp_path / "a.dcm")
    for number, scan in enumerate(scans, start=1):
        assert_same(read_volume(path, series=number), scan)


def test_parallel_stacks_by_their_number(tmp_path: Path) -> None:
    """A stack for each hip, in one plane."""
    scan = make_scan()
    other = Volume(scan.array + np.int16(1), scan.spacing_mm, (20.0, -133.25, 230.125), scan.direction)
    path = save(enhanced([*frames_of(scan, StackID="R"), *frames_of(other, StackID="L")]), tmp_path / "a.dcm")
    assert_same(read_volume(path, series=1), other)
    assert_same(read_volume(path, series=2), scan)


@pytest.mark.parametrize("per_file", [1, 2, 3])
def test_a_series_of_several_multi_frame_files(tmp_path: Path, per_file: int) -> None:
    """A concatenation; a file for each slice, as Siemens XA writes some."""
    frames = frames_of(make_scan(OBLIQUE))
    for start in range(0, 6, per_file):
        own = enhanced(frames[start : start + per_file], SOPInstanceUID=f"1.2.9.{start + 1}", InstanceNumber=start + 1)
        save(own, tmp_path / "scan" / f"{9 - start}.dcm")
    assert_same(read_volume(tmp_path / "scan"), make_scan(OBLIQUE))
    assert len(series_folder(tmp_path / "scan").series[0].files) == 6 // per_file


def test_a_file_for_each_volume(tmp_path: Path) -> None:
    """Volumes of one series that nothing tells apart but their files."""
    scan = make_scan()
    for number in (1, 2):
        array = scan.array + np.int16(100 * number)
        dataset = enhanced(frames_of(scan.with_array(array)), SOPInstanceUID=f"1.2.9.{number}", InstanceNumber=number)
        save(dataset, tmp_path / "scan" / f"{9 - number}.dcm")
    assert [one.description for one in series_folder(tmp_path / "scan").series] == [
        "e-t1, instance 1",
        "e-t1, instance 2",
    ]
    np.testing.assert_array_equal(read_volume(tmp_path / "scan", series=2).array, scan.array + 200)


def test_what_is_no_regular_stack_is_refused(tmp_path: Path) -> None:
    frames = frames_of(make_scan())
    path = save(enhanced([*frames[:3], *frames[4:]]), tmp_path / "missing" / "a.dcm")
    refused(path, "frame 3 and a.dcm frame 4 are 10.40 mm apart", "missing")
    path = save(enhanced([*frames, frames[2]]), tmp_path / "repeated" / "a.dcm")
    refused(path, "frame 3 and a.dcm frame 7 lie at the same position")
    path = save(enhanced(frames[:1]), tmp_path / "one" / "a.dcm")
    refused(path, "one slice")


def test_a_file_that_does_not_say_where_its_frames_lie(tmp_path: Path) -> None:
    """The same answer for the file, for its folder, and beside a series; nothing is made up."""
    frames = frames_of(make_scan())
    for _, own in frames:
        del own["ImagePositionPatient"]
    path = save(enhanced(frames), tmp_path / "a" / "a.dcm")
    for given in (path, path.parent):
        refused(given, "does not say where each of its frames lies", names=path)
    dataset = enhanced(frames_of(make_scan()))
    del dataset.SharedFunctionalGroupsSequence, dataset.PerFrameFunctionalGroupsSequence
    path = save(dataset, tmp_path / "b" / "b.dcm")
    refused(path.parent, "does not say where each of its frames lies", names=path)
    save(enhanced(frames_of(make_scan()), SeriesInstanceUID="1.2.3.6"), tmp_path / "b" / "scan.dcm")
    refused(path.parent, "2 DICOM series")
    assert_same(read_volume(path.parent, series=2), make_scan())


def test_frames_that_are_not_there(tmp_path: Path) -> None:
    dataset = enhanced(frames_of(make_scan()))
    dataset.NumberOfFrames = 7
    refused(save(dataset, tmp_path / "a.dcm"), "672 bytes of pixels where its header announces 784")
    dataset = enhanced(frames_of(make_scan()))
    del dataset.PerFrameFunctionalGroupsSequence[5]
    refused(save(dataset, tmp_path / "b.dcm"), "does not say where each of its frames lies")
    path = save(enhanced(frames_of(make_scan())), tmp_path / "c.dcm")
    path.write_bytes(path.read_bytes()[:-100])
    refused(path, "572 bytes of pixels where its header announces 672")


def test_a_single_frame_is_no_scan(tmp_path: Path) -> None:
    """A number of frames that is not stated is one."""
    dataset = enhanced(frames_of(make_scan())[:1])
    del dataset.NumberOfFrames
    refused(save(dataset, tmp_path / "a.dcm"), "one slice")


def test_a_table_of_offsets_longer_than_the_file(tmp_path: Path) -> None:
    """pydicom raises struct.error there."""
    save(enhanced(frames_of(make_scan())), tmp_path / "a.dcm", RLELossless)
    content = bytearray((tmp_path / "a.dcm").read_bytes())
    table = content.index(b"\xfe\xff\x00\xe0", content.index(b"\xe0\x7f\x10\x00"))  # first item of the pixel data
    content[table + 7] = 1  # the highest byte of its length
    (tmp_path / "a.dcm").write_bytes(content)
    with pytest.raises(InputError, match=r"a\.dcm: the file is damaged or incomplete.*\n."):
        read_volume(tmp_path / "a.dcm")
