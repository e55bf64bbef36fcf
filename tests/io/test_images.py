"""Scan files: what comes back is what was written, and what cannot be read is refused in two lines."""

from __future__ import annotations

import gzip
import hashlib
import os
import re
import struct
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from femur3d.errors import InputError
from femur3d.io.formats import voxels
from femur3d.io.formats.nifti import lps_qform, lps_sform, nifti_head, read_header, stored_size
from femur3d.io.images import (
    SCAN_EXTENSIONS,
    case_name,
    read_scan,
    read_volume,
    sitk_from_volume,
    volume_from_sitk,
    write_volume,
)
from femur3d.io.integrity import MAX_VOXELS
from femur3d.volume import Volume
from tests.support.scan_files import (
    DIRECTIONS,
    ORIGIN,
    PIXDIM,
    QFORM,
    ROWS,
    SFORM,
    SPACING,
    make_volume,
    nifti_with,
    sheared,
)

WRITTEN = (".nii", ".nii.gz", ".nrrd", ".mha")
DTYPES = ("uint8", "int8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float32", "float64")


def refused(path: Path, *words: str) -> str:
    """Reads a scan that must be refused: one or two lines that begin with its path and hold the words."""
    with pytest.raises(InputError) as caught:
        read_volume(path)
    message = str(caught.value)
    assert message.startswith(str(path))
    assert len(message.splitlines()) == 2
    assert all(line.strip() for line in message.splitlines())
    for word in words:
        assert word in message
    return message


@pytest.mark.parametrize("extension", WRITTEN)
@pytest.mark.parametrize("name", DIRECTIONS)
def test_round_trip_keeps_voxels_and_geometry(tmp_path: Path, name: str, extension: str) -> None:
    volume = make_volume(DIRECTIONS[name])
    path = tmp_path / f"scan{extension}"
    write_volume(volume, path)
    back = read_volume(path)
    tolerance = 1e-5 if extension.startswith(".nii") else 1e-13  # NIfTI keeps float32
    assert back.array.dtype == np.int16
    np.testing.assert_array_equal(back.array, volume.array)
    np.testing.assert_allclose(back.spacing_mm, SPACING, rtol=0, atol=tolerance)
    np.testing.assert_allclose(back.origin_mm, ORIGIN, rtol=0, atol=tolerance)
    np.testing.assert_allclose(back.direction, volume.direction, rtol=0, atol=tolerance)
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]  # nothing temporary left


@pytest.mark.parametrize("extension", WRITTEN)
def test_marker_keeps_its_place_in_the_world(tmp_path: Path, extension: str) -> None:
    volume = make_volume(DIRECTIONS["coronal"])
    volume.array[3, 1, 5] = 999
    write_volume(volume, tmp_path / f"scan{extension}")
    back = read_volume(tmp_path / f"scan{extension}")
    (marker,) = np.argwhere(back.array == 999)
    # coronal: i → +x, j → −z, k → +y
    expected = (ORIGIN[0] + 5 * SPACING[0], ORIGIN[1] + 3 * SPACING[2], ORIGIN[2] - 1 * SPACING[1])
    np.testing.assert_allclose(back.world_mm(marker), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("extension", WRITTEN)
@pytest.mark.parametrize("dtype", DTYPES)
def test_dtype_is_kept(tmp_path: Path, dtype: str, extension: str) -> None:
    volume = make_volume(dtype=dtype)
    write_volume(volume, tmp_path / f"scan{extension}")
    back = read_volume(tmp_path / f"scan{extension}")
    assert back.array.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(back.array, volume.array)


def test_bool_is_written_as_uint8_and_half_as_float32(tmp_path: Path) -> None:
    mask = make_volume().array % 3 == 0
    write_volume(make_volume().with_array(mask), tmp_path / "mask.nii.gz")
    back = read_volume(tmp_path / "mask.nii.gz").array
    assert back.dtype == np.uint8
    np.testing.assert_array_equal(back, mask)
    write_volume(make_volume(dtype="float16"), tmp_path / "half.nrrd")
    assert read_volume(tmp_path / "half.nrrd").array.dtype == np.float32


def test_foreign_byte_order_and_strides_are_written_right(tmp_path: Path) -> None:
    volume = make_volume()
    swapped = Volume(volume.array.astype(">i2")[:, ::-1], SPACING, ORIGIN, volume.direction)
    write_volume(swapped, tmp_path / "scan.mha")
    np.testing.assert_array_equal(read_volume(tmp_path / "scan.mha").array, volume.array[:, ::-1])


def test_sitk_conversion_is_exact_both_ways() -> None:
    volume = make_volume()
    image = sitk_from_volume(volume)
    assert image.GetSize() == (7, 6, 5)
    assert image.GetPixel(6, 2, 1) == volume.array[1, 2, 6]
    assert image.TransformIndexToPhysicalPoint((6, 2, 1)) == pytest.approx(volume.world_mm((1, 2, 6)), abs=1e-12)
    back = volume_from_sitk(image)
    assert (back.spacing_mm, back.origin_mm, back.direction) == (SPACING, ORIGIN, volume.direction)


def test_rescale_slope_is_applied(tmp_path: Path) -> None:
    path = nifti_with(tmp_path, (112, "2f", 0.5, 10.0))
    np.testing.assert_allclose(read_volume(path).array, make_volume().array * 0.5 + 10)


def test_header_and_data_in_two_files_are_read(tmp_path: Path) -> None:
    for extension in (".mhd", ".nhdr"):
        sitk.WriteImage(sitk_from_volume(make_volume()), str(tmp_path / f"scan{extension}"))
        np.testing.assert_array_equal(read_volume(tmp_path / f"scan{extension}").array, make_volume().array)


def test_half_read_header_with_missing_data_file(tmp_path: Path) -> None:
    sitk.WriteImage(sitk_from_volume(make_volume()), str(tmp_path / "scan.mhd"))
    (tmp_path / "scan.raw").unlink()
    refused(tmp_path / "scan.mhd", "scan.raw is missing")
    sitk.WriteImage(sitk_from_volume(make_volume()), str(tmp_path / "scan.nhdr"))
    (tmp_path / "scan.raw").unlink()
    refused(tmp_path / "scan.nhdr", "scan.raw is missing")


@pytest.mark.parametrize("name", ["scan.mhd", "scan.nhdr", "scan.png", "scan", "scan.NII.GZ"])
def test_unwritable_names_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match=r"\.nii\.gz, \.nrrd, \.mha, \.nii") as caught:
        write_volume(make_volume(), tmp_path / name)
    assert str(tmp_path / name) in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_writing_creates_the_folder_and_reports_what_is_in_the_way(tmp_path: Path) -> None:
    write_volume(make_volume(), tmp_path / "new" / "scan.nii")
    assert (tmp_path / "new" / "scan.nii").exists()
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(InputError, match="cannot be written"):
        write_volume(make_volume(), tmp_path / "file" / "scan.nii")


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("imagesTr/hip_07_0000.nii.gz", "hip_07"),
        ("hip_07.nii.gz", "hip_07"),
        ("/a.b/hip.v2.nrrd", "hip.v2"),
        ("x_0000.mhd", "x"),
        ("x_0001.nii", "x_0001"),
        ("not_there", "not_there"),
    ],
)
def test_case_name(path: str, name: str) -> None:
    assert case_name(path) == name


def test_case_name_of_a_folder_is_its_own(tmp_path: Path) -> None:
    folder = tmp_path / "hip_05_0000"
    folder.mkdir()
    assert case_name(folder) == "hip_05_0000"
    assert case_name(str(folder) + "/") == "hip_05_0000"


def test_extensions_are_longest_first() -> None:
    assert [len(extension) for extension in SCAN_EXTENSIONS] == sorted(map(len, SCAN_EXTENSIONS), reverse=True)


# What is refused


def test_missing_file_and_unknown_extension(tmp_path: Path) -> None:
    refused(tmp_path / "none.nii.gz", "no such file")
    (tmp_path / "scan.png").write_bytes(b"x" * 100)
    refused(tmp_path / "scan.png", ".nii.gz, .nhdr, .nrrd, .mha, .mhd, .nii")
    (tmp_path / "slice.dcm").write_bytes(bytes(128) + b"DICM" + bytes(100))
    refused(tmp_path / "slice.dcm", "it ends before its pixels")


@pytest.mark.parametrize("extension", SCAN_EXTENSIONS)
def test_empty_file_and_text_file(tmp_path: Path, extension: str) -> None:
    path = tmp_path / f"scan{extension}"
    path.write_bytes(b"")
    refused(path, "empty", "0 bytes")
    path.write_bytes(b"this is no scan\n" * 100)
    refused(path, "damaged")


@pytest.mark.parametrize("compressed", [True, False])
@pytest.mark.parametrize("extension", WRITTEN)
@pytest.mark.parametrize("keep", [0.05, 0.5, 0.97])
def test_truncated_file(tmp_path: Path, extension: str, compressed: bool, keep: float) -> None:
    noise = np.random.default_rng(0).integers(-500, 500, (20, 30, 40)).astype(np.int16)
    path = tmp_path / f"scan{extension}"
    sitk.WriteImage(sitk.GetImageFromArray(noise), str(path), useCompression=compressed)
    data = path.read_bytes()
    path.write_bytes(data[: int(keep * len(data))])
    refused(path, "damaged or incomplete")


@pytest.mark.parametrize("extension", [".nii.gz", ".nrrd", ".mha"])
def test_flipped_bits_in_compressed_voxels(tmp_path: Path, extension: str) -> None:
    noise = np.random.default_rng(0).integers(-500, 500, (20, 30, 40)).astype(np.int16)
    path = tmp_path / f"scan{extension}"
    write_volume(Volume(noise), path)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x55
    path.write_bytes(data)
    refused(path, "damaged or incomplete")


def test_damage_is_reported_without_noise_on_stderr(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for extension in WRITTEN:
        path = tmp_path / f"scan{extension}"
        write_volume(make_volume(), path)
        path.write_bytes(path.read_bytes()[:-60])
        refused(path)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("shape", "is_vector", "words"),
    [
        ((3, 5, 6, 7), False, "4-D image of 7×6×5×3 voxels"),
        ((6, 7), False, "2-D image of 7×6 voxels"),
        ((1, 6, 7), False, "7×6×1 voxels"),
        ((5, 6, 7, 3), True, "3 values a voxel"),
    ],
)
@pytest.mark.parametrize("extension", [".nii", ".nrrd", ".mha"])
def test_wrong_number_of_axes_or_channels(
    tmp_path: Path, shape: tuple[int, ...], is_vector: bool, words: str, extension: str
) -> None:
    image = sitk.GetImageFromArray(np.zeros(shape, np.uint8), isVector=is_vector)
    path = tmp_path / f"scan{extension}"
    sitk.WriteImage(image, str(path))
    refused(path, words)


def test_complex_image(tmp_path: Path) -> None:
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros((5, 6, 7), np.complex64)), str(tmp_path / "scan.nii"))
    refused(tmp_path / "scan.nii", "complex")


@pytest.mark.parametrize("extension", WRITTEN)
def test_nan_and_infinite_voxels_are_counted(tmp_path: Path, extension: str) -> None:
    volume = make_volume(dtype="float32")
    volume.array[0, 0, :2] = np.nan
    volume.array[4, 5, 6] = -np.inf
    write_volume(volume, tmp_path / f"scan{extension}")
    refused(tmp_path / f"scan{extension}", "3 of 210 voxels are NaN or infinite")


@pytest.mark.parametrize("value", [0.0, -1.3, float("nan"), float("inf")])
def test_bad_voxel_sizes_in_nifti(tmp_path: Path, value: float) -> None:
    refused(nifti_with(tmp_path, (PIXDIM + 4, "f", value)), "voxel sizes", f"{np.float32(value)}"[:4])


@pytest.mark.parametrize("value", ["0 1 1", "-1 1 1", "nan 1 1"])
def test_bad_voxel_sizes_in_metaimage(tmp_path: Path, value: str) -> None:
    path = tmp_path / "scan.mha"
    write_volume(make_volume(), path)
    path.write_bytes(re.sub(rb"ElementSpacing = [^\n]*", b"ElementSpacing = " + value.encode(), path.read_bytes()))
    refused(path, "voxel sizes")


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (b"NDims = 3", b"NBims = 3", "NDims"),
        (b"DimSize = 7 6 5", b"DimSize = 7 x 5", "3 axes of '7 x 5' voxels"),
        (b"DimSize = 7 6 5", b"DimSize = 7 65 ", "3 axes of '7 65' voxels"),
        (b"MET_SHORT", b"MET_SHIRT", "voxels of type 'MET_SHIRT'"),
        (b"CompressedDataSize =", b"CompressedDataSise =", "CompressedDataSize in its header is not said"),
        (b"CompressedDataSize = ", b"CompressedDataSize = 9", "CompressedDataSize in its header is 9"),
        (b"CompressedDataSize = ", b"CompressedDataSize = -", "CompressedDataSize in its header is -"),
        (b"BinaryData = True", b"BinaryData = Drue", "True or False"),
        (b"ElementSpacing =", b"ElementSpacing +", "'Name = value'"),
    ],
)
def test_damaged_metaimage_headers(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], old: bytes, new: bytes, words: str
) -> None:
    """MetaIO would say more on stderr."""
    path = tmp_path / "scan.mha"
    write_volume(make_volume(), path)
    assert old in path.read_bytes()
    path.write_bytes(path.read_bytes().replace(old, new))
    refused(path, "damaged", words)
    assert capfd.readouterr() == ("", "")


def test_too_many_voxels_are_refused_before_memory_is_taken(tmp_path: Path) -> None:
    refused(nifti_with(tmp_path, (40, "4h", 3, 32000, 32000, 32000)), "32000×32000×32000 voxels", f"{MAX_VOXELS:,}")
    path = tmp_path / "scan.nrrd"
    write_volume(make_volume(), path)
    path.write_bytes(path.read_bytes().replace(b"sizes: 7 6 5", b"sizes: 9999 9999 9999"))
    refused(path, "9999×9999×9999 voxels", f"{MAX_VOXELS:,}")


def test_impossible_nifti_headers(tmp_path: Path) -> None:
    refused(nifti_with(tmp_path, (70, "h", 3)), "damaged", "voxels of type 3")
    refused(nifti_with(tmp_path, (108, "f", 1e30)), "damaged", "first voxel at byte 1e+30")
    refused(nifti_with(tmp_path, (108, "f", float("nan"))), "damaged", "first voxel at byte nan")
    refused(nifti_with(tmp_path, (42, "h", -7)), "damaged")
    refused(nifti_with(tmp_path, (40, "h", 99)), "damaged")


def test_slightly_sheared_nifti_is_read_where_its_matrix_says(tmp_path: Path) -> None:
    """ITK refuses this file, and in its permissive mode takes the transpose of the direction."""
    path = sheared(tmp_path, 0.01)
    with pytest.raises(RuntimeError, match="orthonormal"):
        sitk.ReadImage(str(path))
    back, volume = read_volume(path), make_volume()
    np.testing.assert_array_equal(back.array, volume.array)
    direction = np.reshape(back.direction, (3, 3))
    np.testing.assert_allclose(direction.T @ direction, np.eye(3), rtol=0, atol=1e-12)
    np.testing.assert_allclose(back.direction, volume.direction, rtol=0, atol=0.01)
    corner = (4, 5, 6)
    leaning = volume.world_mm(corner) + np.array([-0.01 * 5, 0, 0])  # x of NIfTI points the other way
    assert np.linalg.norm(back.world_mm(corner) - leaning) < 0.05


def test_sform_alone_is_exact(tmp_path: Path) -> None:
    assert read_volume(sheared(tmp_path, 0.0)).geometry_difference(make_volume(), 1e-5) is None


def test_sform_alone_wins_over_voxel_sizes_that_contradict_it(tmp_path: Path) -> None:
    path = sheared(tmp_path, 0.0, (PIXDIM, "3f", 1.0, 1.0, 1.0))
    assert read_volume(path).geometry_difference(make_volume(), 1e-5) is None


def test_constant_voxels_are_a_label_map_but_no_scan(tmp_path: Path) -> None:
    path = tmp_path / "empty.nii.gz"
    write_volume(make_volume().with_array(np.zeros((5, 6, 7), np.uint8)), path)
    assert not read_volume(path).array.any()
    with pytest.raises(InputError, match=r"empty\.nii\.gz: every voxel is 0\.\nAn MR scan is needed"):
        read_scan(path)


@pytest.mark.parametrize(
    ("extension", "old", "new"),
    [
        (".nrrd", rb"(0,1.3,0)", rb"(0.013,1.3,0)"),
        (".mha", rb"TransformMatrix = 1 0 0 0 1 0", rb"TransformMatrix = 1 0 0 0.01 1 0"),
    ],
)
def test_notes_of_other_formats(tmp_path: Path, extension: str, old: bytes, new: bytes) -> None:
    """The second axis leans by 1%: 0.57°. Shared by two axes it moves the far corner by half of it each."""
    path = tmp_path / f"scan{extension}"
    write_volume(make_volume(DIRECTIONS["axial"]), path)
    assert read_scan(path).notes == ()
    assert old in path.read_bytes()
    path.write_bytes(path.read_bytes().replace(old, new))
    (note,) = read_scan(path).notes
    assert note.startswith(
        "its axes are 0.57° off right angles and were put right, which moves no voxel by more than 0.0"
    )


def test_strongly_sheared_scans_are_refused(tmp_path: Path) -> None:
    refused(sheared(tmp_path, 0.8), "right angles", "mm")
    path = tmp_path / "scan.nrrd"
    write_volume(make_volume(DIRECTIONS["axial"]), path)
    path.write_bytes(
        re.sub(rb"space directions: [^\n]*", b"space directions: (1,0.4,0) (0,1,0) (0,0,1)", path.read_bytes())
    )
    refused(path, "right angles")


@pytest.mark.parametrize("value", [0.0, float("nan")])
def test_unusable_sform(tmp_path: Path, value: float) -> None:
    refused(nifti_with(tmp_path, (ROWS, "12f", *[value] * 12), (QFORM, "h", 0)), "sform")


def test_origin_that_is_no_number(tmp_path: Path) -> None:
    refused(nifti_with(tmp_path, (268, "f", float("nan")), (SFORM, "h", 0)), "qform", "nan")
    refused(nifti_with(tmp_path, (ROWS, "f", float("nan"))), "sform", "nan")
    with pytest.raises(InputError, match="not given in numbers"):
        write_volume(Volume(make_volume().array, SPACING, (0.0, float("inf"), 0.0)), tmp_path / "out.mha")


def test_volumes_with_leaning_axes_are_not_written(tmp_path: Path) -> None:
    leaning = Volume(make_volume().array, SPACING, ORIGIN, (1.0, 0.5, 0.0, 0.0, 0.8, 0.0, 0.0, 0.0, 1.0))
    with pytest.raises(InputError, match="right angles"):
        write_volume(leaning, tmp_path / "scan.nii")
    assert list(tmp_path.iterdir()) == []


def test_nifti_header_fields(tmp_path: Path) -> None:
    path = tmp_path / "scan.nii.gz"
    write_volume(make_volume(), path)
    header = read_header(path, nifti_head(path, path.read_bytes()))
    assert stored_size(header) == (7, 6, 5)
    assert (int(header["vox_offset"]), header.get_data_dtype()) == (352, np.int16)
    assert len(gzip.decompress(path.read_bytes())) == 352 + 420
    for matrix in (lps_qform(header), lps_sform(header)):
        assert matrix is not None
        np.testing.assert_allclose(matrix, make_volume().affine, rtol=0, atol=1e-5)


def test_big_endian_nifti_is_checked_too(tmp_path: Path) -> None:
    """Header and voxels in the other byte order."""
    head = bytearray(352)
    struct.pack_into(">i", head, 0, 348)
    struct.pack_into(">8h", head, 40, 3, 7, 6, 5, 1, 1, 1, 1)
    struct.pack_into(">2h", head, 70, 16, 32)
    struct.pack_into(">4f", head, PIXDIM - 4, 1, *SPACING)
    struct.pack_into(">f", head, 108, 352)
    head[344:348] = b"n+1\0"
    voxels = np.arange(210, dtype=">f4")
    path = tmp_path / "scan.nii"
    path.write_bytes(bytes(head) + voxels.tobytes())
    np.testing.assert_array_equal(read_volume(path).array.ravel(), np.arange(210))
    voxels[7] = np.nan
    path.write_bytes(bytes(head) + voxels.tobytes())
    refused(path, "1 of 210 voxels")


def test_real_scans_survive_a_round_trip(hips_dir: Path, tmp_path: Path) -> None:
    path = sorted((hips_dir / "imagesTr").iterdir())[0]
    scan = read_volume(path)
    assert scan.array.dtype == np.int16
    for extension in WRITTEN:
        write_volume(scan, tmp_path / f"scan{extension}")
        back = read_volume(tmp_path / f"scan{extension}")
        np.testing.assert_array_equal(back.array, scan.array)
        assert back.geometry_difference(scan, 1e-5) is None


# A file is what it holds, not what it is called


def test_packed_or_not_and_another_format_are_seen_from_the_bytes(tmp_path: Path) -> None:
    volume = make_volume()
    write_volume(volume, tmp_path / "a.nii")
    write_volume(volume, tmp_path / "a.nrrd")
    plain, nrrd = (tmp_path / "a.nii").read_bytes(), (tmp_path / "a.nrrd").read_bytes()
    for name, data in (("plain.nii.gz", plain), ("packed.nii", gzip.compress(plain)), ("other.nii.gz", nrrd)):
        (tmp_path / name).write_bytes(data)
        scan = read_scan(tmp_path / name)
        np.testing.assert_array_equal(scan.volume.array, volume.array)
        assert scan.volume.geometry_difference(volume, 1e-5) is None
    assert scan.notes == ("its name is that of a NIfTI file, but it holds NRRD: it was read as that",)


@pytest.mark.parametrize("extension", SCAN_EXTENSIONS)
@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n", "a Git-LFS pointer"),
        (b"/annex/objects/SHA256E-s20--ab.nii.gz\n", "a git-annex pointer"),
        (b"../../.git/annex/objects/xX/SHA256E-s20--ab.nii.gz", "a git-annex pointer"),
        (b"\n<!DOCTYPE html>\n<html><title>Log in</title></html>", "a web page"),
        (b"<HTML><body>404</body></HTML>", "a web page"),
        (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "an XML text"),
        (b'{"message": "not found"}', "a JSON text"),
        (b"PK\x03\x04" + bytes(40), "a zip"),
        (bytes(128) + b"DICM" + bytes(40), "a single DICOM file"),
    ],
)
def test_what_goes_by_the_name_of_a_scan_is_named(tmp_path: Path, extension: str, content: bytes, words: str) -> None:
    path = tmp_path / f"scan{extension}"
    path.write_bytes(content)
    refused(path, f"no scan but {words}")


def test_pipes_and_links_to_nothing_do_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.nii.gz")
    refused(tmp_path / "pipe.nii.gz", "a pipe or device")
    (tmp_path / "link.nii").symlink_to("../annex/key")
    refused(tmp_path / "link.nii", "a link that leads nowhere (to ../annex/key)")
    (tmp_path / "data.mhd").write_bytes(
        b"NDims = 3\nDimSize = 2 2 2\nElementSpacing = 1 1 1\nElementType = MET_CHAR\nElementDataFile = pipe\n"
    )
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="missing"):
        read_volume(tmp_path / "data.mhd")


def test_digest_is_that_of_the_bytes_that_were_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the file is replaced between reading and the rest of the work."""
    path = tmp_path / "scan.nii.gz"
    write_volume(make_volume(), path)
    before = hashlib.sha256(path.read_bytes()).hexdigest()
    read = voxels.read_bytes

    def replaced(file: Path) -> bytes:
        content = read(file)
        write_volume(make_volume(DIRECTIONS["axial"]), file)
        return content

    monkeypatch.setattr(voxels, "read_bytes", replaced)
    scan = read_scan(path)
    assert scan.sha256 == before != voxels.sha256_of([path])
    assert scan.volume.geometry_difference(make_volume(), 1e-5) is None


def test_bytes_behind_the_voxels_of_nifti_are_no_voxels(tmp_path: Path) -> None:
    """The header says where voxels begin, and some programs fill their files up."""
    write_volume(make_volume(), tmp_path / "a.nii")
    (tmp_path / "a.nii").write_bytes((tmp_path / "a.nii").read_bytes() + bytes(352))
    np.testing.assert_array_equal(read_volume(tmp_path / "a.nii").array, make_volume().array)


def test_a_small_file_that_unpacks_to_far_too_much(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(voxels, "_SURPLUS_LIMIT", 1 << 22)
    write_volume(make_volume(), tmp_path / "a.nii")
    data = (tmp_path / "a.nii").read_bytes() + bytes(1 << 23)
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(data))
    refused(tmp_path / "a.nii.gz", "unpacks to far more")
