"""Scans that cannot be trusted end `femur3d.infer` with two lines and exit code 3; sound ones like them are segmented.

The threads named here tell of ITK and SimpleITK reading such scans with a warning or none, or refusing sound ones.
"""

from __future__ import annotations

import dataclasses
import gzip
import json
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from absl import flags

from femur3d import cli, infer
from femur3d.inference import segmenter as segmentation
from femur3d.io.images import read_scan, read_volume, sitk_from_volume, write_volume
from femur3d.volume import Volume
from tests.support.dicom_series import CORONAL, OBLIQUE, make_scan, put_elements, write_series, write_slice
from tests.support.ellipsoids import scan_and_label
from tests.support.scan_files import PIXDIM, QFORM, ROWS, make_volume, nifti_with, sheared

TE, TR, FLIP, IMAGE_TYPE, SEQUENCE, TIME_POINT = (
    "0018|0081", "0018|0080", "0018|1314", "0008|0008", "0018|0024", "0020|0100",
)  # fmt: skip
PIXEL_SPACING, ORIENTATION, POSITION = (0x28, 0x30), (0x20, 0x37), (0x20, 0x32)


def once(function: Callable[..., Any]) -> Callable[..., Any]:
    """The result of the first call, whatever the arguments of the later ones."""
    kept: list[Any] = []

    def call(*args: Any, **kwargs: Any) -> Any:
        if not kept:
            kept.append(function(*args, **kwargs))
        return kept[0]

    return call


@pytest.fixture(scope="module", autouse=True)
def _loaded_once() -> Iterator[None]:
    """The model is loaded by the first run only: the scans are what is tested here; most have a few voxels."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(segmentation, "SMALLEST_SHARE", 0.0)
        for name in ("load_model", "Segmenter"):
            patch.setattr(infer, name, once(getattr(infer, name)))
        yield


@pytest.fixture
def segment(threshold_model, tmp_path, monkeypatch, capfd):
    """Runs `python -m femur3d.infer -i PATH -o tmp_path/out` in this process: exit code and both streams."""

    def run(path: Path) -> tuple[int, str, str]:
        flags.FLAGS.unparse_flags()
        for flag in flags.FLAGS.flags_by_module_dict()[infer.__name__]:
            flag.value = flag.default
        words = ["infer", "-i", str(path), "-o", str(tmp_path / "out"), "--model", str(threshold_model)]
        monkeypatch.setattr(sys, "argv", words)
        capfd.readouterr()
        with pytest.raises(SystemExit) as caught:
            cli.run(infer.main)
        return int(caught.value.code or 0), *capfd.readouterr()

    return run


@pytest.fixture
def refused(segment, tmp_path):
    """Runs infer on a scan that must be refused: exit code 3, two lines that hold the words, and nothing written."""

    def run(path: Path, *words: str) -> None:
        code, out, err = segment(path)
        lines = err.splitlines()
        assert code == 3, err
        assert len(lines) == 2, err
        assert all(line.strip() for line in lines)
        assert str(path) in lines[0]
        assert "Traceback" not in out + err
        for word in words:
            assert word in err
        assert not list((tmp_path / "out").glob("*.nii.gz"))

    return run


@pytest.fixture
def accepted(segment, tmp_path):
    """Runs infer on a sound scan: exit code 0, nothing on stderr, and the label map comes back."""

    def run(path: Path) -> Volume:
        code, _, err = segment(path)
        assert (code, err) == (0, "")
        (written,) = (tmp_path / "out").glob("*.nii.gz")
        return read_volume(written)

    return run


def series(folder: Path, tags: Callable[[int], dict[str, str]] = lambda z: {}, scan: Volume | None = None) -> Path:
    """A DICOM series 0.dcm … 5.dcm; `tags` gives the attributes of slice z."""
    scan = scan or make_scan()
    folder.mkdir()
    for z in range(len(scan.array)):
        write_slice(folder / f"{z}.dcm", scan, z, tags(z))
    return folder


# ---- slices


def test_missing_slice(refused, tmp_path):
    """ITK#1391, ITK#441: the reader stretches the slices that are left over the gap, and at most warns."""
    folder = series(tmp_path / "scan")
    (folder / "3.dcm").unlink()
    refused(folder, "2.dcm and 4.dcm are 10.40 mm apart, the others 5.20 mm")


def test_duplicated_slice(refused, tmp_path):
    """SimpleITK#2176: a slice that is there twice makes the voxels thinner than they are."""
    folder = series(tmp_path / "scan")
    shutil.copy(folder / "2.dcm", folder / "again.dcm")
    refused(folder, "2.dcm and again.dcm lie at the same position")


def test_uneven_slices(refused, tmp_path):
    """ITK#1391: slices at 0, 5.2, 10.4, 15.6, 20.8 and 27 mm are read as if all were 5.4 mm apart."""
    folder, scan = series(tmp_path / "scan"), make_scan()
    position = scan.world_mm((5, 0, 0)) + CORONAL[:, 2]
    write_slice(folder / "5.dcm", scan, 5, {"0020|0032": "\\".join(map(str, position))})
    refused(folder, "4.dcm and 5.dcm are 6.20 mm apart, the others 5.20 mm")


def test_rounded_positions_are_even(accepted, tmp_path):
    """ITK#1607: the warning came for positions that differ by rounding."""
    scan = make_scan(OBLIQUE)

    def rounded(z: int) -> dict[str, str]:
        return {"0020|0032": "\\".join(f"{x:.2f}" for x in scan.world_mm((z, 0, 0)))}

    assert accepted(series(tmp_path / "scan", rounded, scan)).array.shape == (6, 7, 8)


def test_tilted_stack(refused, tmp_path):
    """ITK#441: only the distance between slices is looked at, not whether they lie above each other."""
    folder, scan = series(tmp_path / "scan"), make_scan()
    for z in range(6):
        position = scan.world_mm((z, 0, 0)) + 0.5 * z * CORONAL[:, 0]
        write_slice(folder / f"{z}.dcm", scan, z, {"0020|0032": "\\".join(map(str, position))})
    refused(folder, "drift by 2.50 mm")


# ---- one series, several scans


def test_mixed_orientations(refused, tmp_path):
    """SimpleITK#1185: a localizer, or stacks of several orientations, under one series UID."""
    folder = series(tmp_path / "scan")
    for z in range(3):
        write_slice(folder / f"axial{z}.dcm", make_scan(np.eye(3)), z)
    refused(folder, "mixed orientations", ".dcm has [1.0, 0.0, 0.0")


@pytest.mark.parametrize("same_position", [True, False])
@pytest.mark.parametrize(
    ("tag", "values", "words"),
    [
        (TE, ("11", "90"), "mixed echo times: 0.dcm has 11 ms, 1.dcm has 90 ms"),
        (TR, ("500", "2800"), "mixed repetition times: 0.dcm has 500 ms, 1.dcm has 2800 ms"),
        (FLIP, ("5", "26"), "mixed flip angles: 0.dcm has 5°, 1.dcm has 26°"),
        (TIME_POINT, ("1", "2"), "mixed temporal positions: 0.dcm has 1, 1.dcm has 2"),
        (SEQUENCE, ("*tse2d1_3", "*tir2d1_9"), "mixed sequence names: 0.dcm has *tse2d1_3, 1.dcm has *tir2d1_9"),
        (IMAGE_TYPE, ("ORIGINAL\\PRIMARY\\W", "ORIGINAL\\PRIMARY\\F"), r"mixed image types: 0.dcm has ORIGINAL\PRI"),
    ],
)
def test_mixed_contrasts(refused, tmp_path, tag, values, words, same_position):
    """SimpleITK#1185: T2 and proton density under one series UID become one scan of alternating slices."""
    folder = series(tmp_path / "scan", lambda z: {tag: values[z % 2]})
    if same_position:  # as an echo train gives them: slices 0, 2 and 4 twice
        for z in (1, 3, 5):
            write_slice(folder / f"{z}.dcm", make_scan(), z - 1, {tag: values[1]})
    refused(folder, words, "folder of their own")


def test_jitter_is_no_other_contrast(accepted, tmp_path):
    """The other side of SimpleITK#1185: rounded echo times, repetition times and padding that differ are one scan."""

    def tags(z: int) -> dict[str, str]:
        image_type = "ORIGINAL\\PRIMARY\\M\\SE" + ("\\" if z == 1 else " " if z == 2 else "")
        first = {TE: ("6.2", "6.15", "6.199999")[z % 3], TR: str(555 + 3 * z), FLIP: ("121", "120.5")[z % 2]}
        return first | {IMAGE_TYPE: image_type, TIME_POINT: "1", SEQUENCE: "*tse2d1_3" if z else ""}

    assert accepted(series(tmp_path / "scan", tags)).array.shape == (6, 7, 8)


# ---- dimensions and voxels


@pytest.mark.parametrize("extension", [".nii.gz", ".nrrd", ".mha"])
def test_four_dimensional_image(refused, tmp_path, extension):
    """SimpleITK#1185, as a file: several volumes in one, of which none may be picked."""
    path = tmp_path / f"scan{extension}"
    sitk.WriteImage(sitk.GetImageFromArray(np.ones((3, 5, 6, 7), np.int16), isVector=False), str(path))
    refused(path, "4-D image of 7×6×5×3 voxels")


@pytest.mark.parametrize("extension", [".nii.gz", ".nrrd", ".mha"])
def test_colour_image(refused, tmp_path, extension):
    path = tmp_path / f"scan{extension}"
    sitk.WriteImage(sitk.GetImageFromArray(np.ones((5, 6, 7, 3), np.uint8), isVector=True), str(path))
    refused(path, "3 values a voxel")


def test_colour_dicom(refused, tmp_path):
    (tmp_path / "scan").mkdir()
    picture = sitk.GetImageFromArray(np.zeros((7, 8, 3), np.uint8), isVector=True)
    sitk.WriteImage(picture, str(tmp_path / "scan" / "0.dcm"))
    refused(tmp_path / "scan", "in colour")


@pytest.mark.parametrize("extension", [".nii.gz", ".nrrd"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_voxels_that_are_no_numbers(refused, tmp_path, extension, value):
    volume = make_volume(dtype="float32")
    volume.array[2, 3, 4] = value
    write_volume(volume, tmp_path / f"scan{extension}")
    refused(tmp_path / f"scan{extension}", "1 of 210 voxels are NaN or infinite")


def test_constant_image(refused, tmp_path):
    write_volume(make_volume().with_array(np.full((5, 6, 7), 7, np.int16)), tmp_path / "scan.nii.gz")
    refused(tmp_path / "scan.nii.gz", "every voxel is 7")


# ---- voxel sizes and directions


@pytest.mark.parametrize("value", [0.0, -1.3, float("nan")])
def test_voxel_sizes_in_nifti(refused, tmp_path, value):
    refused(nifti_with(tmp_path, (PIXDIM + 4, "f", value)), "voxel sizes", "positive")


@pytest.mark.parametrize("value", [b"0 1 1", b"1 -1 1"])
def test_voxel_sizes_in_metaimage(refused, tmp_path, value):
    path = tmp_path / "scan.mha"
    write_volume(make_volume(), path)
    before, _, after = path.read_bytes().partition(b"ElementSpacing = ")
    path.write_bytes(before + b"ElementSpacing = " + value + after[after.index(b"\n") :])
    refused(path, "voxel sizes", "positive")


@pytest.mark.parametrize(
    ("field", "words"),
    [
        (b"spacings: 0 1 1", "axis 0 spacing (0) invalid"),
        (b"spacings: 1 -1 1", "voxel sizes"),
        (b"space: left-posterior-superior\nspace directions: (0,0,0) (0,1,0) (0,0,1)", "voxel sizes"),
    ],
)
def test_voxel_sizes_in_nrrd(refused, tmp_path, field, words):
    path = tmp_path / "scan.nrrd"
    head = b"NRRD0004\ntype: short\ndimension: 3\nsizes: 7 6 5\nendian: little\nencoding: raw\n"
    path.write_bytes(head + field + b"\n\n" + np.arange(210, dtype="<i2").tobytes())
    refused(path, words)


@pytest.mark.parametrize("value", ["0\\0", "-1\\1", "1", "abc\\1", "nan\\1"])
def test_pixel_spacing_in_dicom(refused, tmp_path, value):
    """GDCM takes 1 mm for a pixel spacing of zero, and for one that is no number."""
    folder = series(tmp_path / "scan")
    for path in folder.iterdir():
        put_elements(path, {PIXEL_SPACING: value})
    refused(folder, f"pixels of {value} mm")


@pytest.mark.parametrize("value", ["1\\0\\0\\0\\0.5\\0", "1\\0\\0\\1\\0\\0", "1\\0\\0", "nan\\0\\0\\0\\1\\0"])
def test_unusable_orientation_in_dicom(refused, tmp_path, value):
    """GDCM takes the identity for directions that it cannot use."""
    folder = series(tmp_path / "scan")
    for path in folder.iterdir():
        put_elements(path, {ORIENTATION: value})
    refused(folder, f"ImageOrientationPatient {value}")


@pytest.mark.parametrize("value", ["1\\2", "a\\b\\c", "nan\\0\\0"])
def test_unusable_position_in_dicom(refused, tmp_path, value):
    """GDCM takes 0 for a position that it cannot use."""
    folder = series(tmp_path / "scan")
    put_elements(folder / "5.dcm", {POSITION: value})
    refused(folder, f"ImagePositionPatient {value}", "5.dcm")


def test_leaning_axes(refused, tmp_path):
    """The other side of ITK#3994: a direction too far from orthonormal is no rounding."""
    refused(sheared(tmp_path, 0.8), "axes are not at right angles", "half a voxel")


def test_almost_orthonormal_direction(segment, tmp_path):
    """ITK#3994: ITK refuses a NIfTI file whose only transform is sheared by rounding; here it is segmented."""
    path = sheared(tmp_path, 0.01)
    with pytest.raises(RuntimeError, match="orthonormal"):
        sitk.ReadImage(str(path))
    (note,) = read_scan(path).notes
    code, out, err = segment(path)
    assert (code, err) == (0, "")
    assert "put right" in note
    assert note in out
    assert json.loads((tmp_path / "out" / "scan.json").read_text())["notes"] == [note]
    header = gzip.decompress((tmp_path / "out" / "scan.nii.gz").read_bytes())[:348]
    assert header[252:328] == path.read_bytes()[252:328]  # codes, qform and sform of the label map: as stored


def test_nan_in_a_transform(refused, tmp_path):
    refused(nifti_with(tmp_path, (ROWS, "f", float("nan")), (QFORM, "h", 0)), "sform", "no numbers")


# ---- files


@pytest.mark.parametrize("extension", [".nii", ".nii.gz", ".nrrd", ".mha", ".mhd", ".nhdr"])
def test_empty_file(refused, tmp_path, extension):
    (tmp_path / f"scan{extension}").touch()
    refused(tmp_path / f"scan{extension}", "the file is empty (0 bytes)")


@pytest.mark.parametrize("extension", [".nii", ".nii.gz", ".nrrd", ".mha"])
def test_truncated_file(refused, tmp_path, extension):
    path = tmp_path / f"scan{extension}"
    write_volume(make_volume(), path)
    path.write_bytes(path.read_bytes()[:-40])
    refused(path, "damaged or incomplete")


def test_corrupt_file(refused, tmp_path):
    path = tmp_path / "scan.nii.gz"
    noise = np.random.default_rng(0).integers(0, 1000, (20, 30, 40)).astype(np.int16)
    write_volume(Volume(noise), path)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x55
    path.write_bytes(data)
    refused(path, "damaged or incomplete", "do not unpack")
    path.write_bytes(b"no scan at all " * 100)
    refused(path, "damaged or incomplete")
    path.write_bytes(gzip.compress(b"no scan at all " * 100))
    refused(path, "damaged or incomplete", "header")


@pytest.mark.parametrize("keep", [0, 50, 131, 132, 140, 400, 900])
def test_truncated_dicom_slice(refused, tmp_path, keep):
    """Cut before DICOM's mark, in the file's own header, in the slice's, in its voxels: never just left out.

    It is the last slice of the stack, whose absence would leave no gap.
    """
    folder = series(tmp_path / "scan")
    path = folder / "5.dcm"
    path.write_bytes(path.read_bytes()[:keep])
    refused(folder, "5.dcm", "damaged or incomplete" if keep else "the file is empty")


def test_dicom_slice_of_zeros(refused, tmp_path):
    """What a copy that failed leaves behind, under a name without extension."""
    write_series(tmp_path / "scan", make_scan(), names=[f"IM{z}" for z in range(6)])
    (tmp_path / "scan" / "IM5").write_bytes(bytes(970))
    refused(tmp_path / "scan", "IM5", "zeros only")


def test_folder_without_scans(refused, tmp_path):
    folder = tmp_path / "scans"
    folder.mkdir()
    refused(folder, "no files")
    (folder / "notes.txt").write_text("hello")
    refused(folder, "notes.txt")


def test_missing_file(refused, tmp_path):
    refused(tmp_path / "scan.nii.gz", "no such file or folder")


# ---- intensities


def test_rescale_slopes_of_mr_slices(accepted, tmp_path):
    """SimpleITK#1636: the first slice's type cut the fractions off the others; slopes that differ must not show.

    The same scan three times: as whole numbers; with stored values of two, four, … times the intensity and slopes of a
    half, a quarter, …; and the latter without a slope in slice 0, which then is the one of integers.
    """
    scan, _ = scan_and_label()
    scan = Volume(np.round(scan.array[15:21]).clip(0).astype(np.int16), scan.spacing_mm, scan.origin_mm)
    results = []
    for name, first in (("plain", 6), ("slopes", 0), ("mixed", 1)):
        factors = np.array([1 if z < first else 2 ** (1 + z % 3) for z in range(6)], np.int16)
        folder = series(tmp_path / name, scan=scan.with_array(scan.array * factors[:, None, None]))
        for z in range(first, 6):
            put_elements(folder / f"{z}.dcm", {(0x28, 0x1052): "0", (0x28, 0x1053): f"{1 / factors[z]:g}"})
        np.testing.assert_array_equal(read_volume(folder).array, scan.array)
        results.append(accepted(folder).array)
        shutil.rmtree(tmp_path / "out")
    assert results[0].any()
    for other in results[1:]:
        np.testing.assert_array_equal(other, results[0])


@pytest.mark.parametrize("value", ["nan", "abc", "0"])
def test_rescale_slope_that_is_no_number(refused, tmp_path, value):
    """GDCM takes 1 for it."""
    folder = series(tmp_path / "scan")
    put_elements(folder / "2.dcm", {(0x28, 0x1052): "0", (0x28, 0x1053): value})
    refused(folder, "2.dcm", f"RescaleSlope {value}")


def test_sound_scan_of_every_format_is_segmented(accepted, tmp_path):
    """What all the refusals above are measured against."""
    for name in ("a.nii", "b.nii.gz", "c.nrrd", "d.mha"):
        write_volume(make_volume(), tmp_path / name)
        assert accepted(tmp_path / name).array.shape == (5, 6, 7)
        shutil.rmtree(tmp_path / "out")
    sitk.WriteImage(sitk_from_volume(make_volume()), str(tmp_path / "e.mhd"))
    assert accepted(tmp_path / "e.mhd").array.shape == (5, 6, 7)


def test_fewer_voxels_than_padding_can_make_up_for(refused, accepted, tmp_path, monkeypatch):
    """A patch of 16 voxels of 5 mm: 20 mm are needed along each axis."""
    monkeypatch.setattr(segmentation, "SMALLEST_SHARE", 0.25)
    scan, _ = scan_and_label()
    write_volume(dataclasses.replace(scan, array=scan.array[:8, :3, :8]), tmp_path / "part.nii.gz")
    refused(tmp_path / "part.nii.gz", "[40, 15, 40] mm", "at least [20, 20, 20] mm")
    write_volume(dataclasses.replace(scan, array=scan.array[:8, :4, :8]), tmp_path / "enough.nii.gz")
    assert accepted(tmp_path / "enough.nii.gz").array.shape == (8, 4, 8)
