"""NIfTI geometry, with nibabel as an independent reader and writer of headers."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from scipy.spatial.transform import Rotation

from femur3d.errors import InputError
from femur3d.io.images import ScanFile, read_scan, read_volume, write_volume

nib = pytest.importorskip("nibabel", reason="nibabel is in the extra 'dev'")

SIZES = (0.9114583, 1.3, 5.2)
LPS_FROM_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
GEOMETRY = (
    "qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z",
    "srow_x", "srow_y", "srow_z", "xyzt_units",
)  # fmt: skip


def affine(angles: tuple[float, float, float] = (12, -25, 40), flip: int = 1, origin: float = 7.3) -> np.ndarray:
    """A 4×4 matrix (i, j, k, 1) → RAS mm of voxels of SIZES; flip −1 gives a left-handed grid."""
    matrix = np.eye(4)
    rotation = Rotation.from_euler("xyz", angles, degrees=True).as_matrix()
    matrix[:3, :3] = rotation * np.multiply(SIZES, (1, 1, flip))
    matrix[:3, 3] = np.array([1, -2, 3]) * origin
    return matrix


SFORM, QFORM = affine(), affine((80, 15, -30), flip=-1, origin=-11.1)


def save(path: Path, sform: Any = None, qform: Any = None, codes: tuple[int, int] = (1, 1), **fields: Any) -> Path:
    """Saves 7×6×5 voxels by nibabel. `codes`: of the sform and the qform; `fields`: of the header, raw."""
    header = nib.Nifti1Header(endianness=fields.pop("endianness", "<"))
    header.set_data_dtype(np.int16)
    header.set_data_shape((7, 6, 5))
    header.set_zooms(SIZES)
    header.set_xyzt_units("mm")
    if sform is not None:
        header.set_sform(sform, codes[0])
    if qform is not None:
        header.set_qform(qform, codes[1])
    for name, value in fields.items():
        header[name] = value
    image = nib.Nifti1Image(np.arange(210, dtype=np.int16).reshape(7, 6, 5), None, header)
    nib.save(image, path)
    stored = nib.load(path).header  # the oracle kept what it was given
    assert [int(stored[name]) for name in ("sform_code", "qform_code")] == [int(header[n]) for n in GEOMETRY[1::-1]]
    return path


def written_like(scan: ScanFile, path: Path) -> Path:
    """A label map on the scan's grid."""
    write_volume(scan.volume.with_array((scan.volume.array % 3).astype(np.uint8)), path, like=scan.nifti)
    return path


def assert_same_geometry(one: Path, other: Path) -> None:
    """The same numbers to the bit, and the same matrices for nibabel."""
    first, second = (nib.load(path) for path in (one, other))
    for name in GEOMETRY:
        native = [image.header[name].astype(image.header[name].dtype.newbyteorder("=")) for image in (first, second)]
        assert native[0].tobytes() == native[1].tobytes(), name
    for image in (first, second):
        assert image.header["pixdim"][:4].tolist() == first.header["pixdim"][:4].tolist()
    assert np.array_equal(first.affine, second.affine)
    for form in ("get_sform", "get_qform"):
        (mine, my_code), (theirs, their_code) = (getattr(image, form)(coded=True) for image in (first, second))
        assert my_code == their_code
        assert (mine is None and theirs is None) or np.array_equal(mine, theirs)


@pytest.mark.parametrize("codes", list(itertools.product(range(5), range(5))))
def test_label_map_has_the_scans_transforms_and_codes(tmp_path: Path, codes: tuple[int, int]) -> None:
    source = save(tmp_path / "scan.nii.gz", SFORM, QFORM, codes)
    target = written_like(read_scan(source), tmp_path / "out" / "label.nii.gz")
    assert_same_geometry(source, target)
    voxels = np.asanyarray(nib.load(source).dataobj)
    np.testing.assert_array_equal(np.asanyarray(nib.load(target).dataobj), voxels % 3)
    assert [entry.name for entry in target.parent.iterdir()] == ["label.nii.gz"]  # nothing temporary left
    assert read_volume(target).geometry_difference(read_volume(source), 0.0) is None


def test_the_rest_of_the_header_is_that_of_a_label_map(tmp_path: Path) -> None:
    source = save(tmp_path / "scan.nii", SFORM, SFORM, scl_slope=2.5, scl_inter=7, intent_code=3, cal_max=100)
    target = written_like(read_scan(source), tmp_path / "label.nii.gz")
    raw = np.frombuffer(nib.openers.Opener(str(target)).read(348), nib.Nifti1Header.template_dtype)[0]
    assert (int(raw["datatype"]), int(raw["bitpix"]), raw["dim"].tolist()) == (2, 8, [3, 7, 6, 5, 1, 1, 1, 1])
    assert (float(raw["scl_slope"]), float(raw["scl_inter"])) in ((1, 0), (0, 0))
    assert (int(raw["intent_code"]), float(raw["cal_max"]), bytes(raw["magic"])) == (0, 0, b"n+1")
    assert nib.load(target).get_data_dtype() == np.uint8


@pytest.mark.parametrize("name", ["label.nii", "label.nii.gz"])
def test_big_endian_scan(tmp_path: Path, name: str) -> None:
    source = save(tmp_path / "scan.nii", SFORM, QFORM, (2, 3), endianness=">")
    assert source.read_bytes()[:4] == bytes([0, 0, 1, 92])  # 348
    scan = read_scan(source)
    np.testing.assert_allclose(scan.volume.affine, LPS_FROM_RAS @ QFORM, rtol=0, atol=1e-5)
    assert_same_geometry(source, written_like(scan, tmp_path / name))


def test_bits_that_say_nothing_are_copied_too(tmp_path: Path) -> None:
    """NaN in a transform without a code, qfac 0, and units that nobody gave."""
    source = save(
        tmp_path / "scan.nii", None, QFORM, (0, 1), srow_x=[np.nan] * 4, srow_y=[-0.0, 1e-40, 0, 0], xyzt_units=0
    )
    data = bytearray(source.read_bytes())
    data[76:80] = bytes(4)
    source.write_bytes(data)
    scan = read_scan(source)
    target = written_like(scan, tmp_path / "label.nii")
    for part in (slice(76, 92), slice(123, 124), slice(252, 328)):
        assert target.read_bytes()[part] == bytes(data[part])


def test_the_same_label_map_is_the_same_file(tmp_path: Path) -> None:
    scan = read_scan(save(tmp_path / "scan.nii.gz", SFORM))
    one, other = (written_like(scan, tmp_path / name).read_bytes() for name in ("a.nii.gz", "b.nii.gz"))
    assert one == other


def test_sheared_scan_gets_its_own_transform_back(tmp_path: Path) -> None:
    """The direction is put right for the network and said so; the label map overlays the scan as it is stored."""
    sform = SFORM.copy()
    sform[0, 1] += 0.01
    source = save(tmp_path / "scan.nii.gz", sform)
    scan = read_scan(source)
    (note,) = scan.notes
    assert note.startswith("its axes are 0.")
    assert "put right" in note
    assert "half a voxel" in note
    direction = np.reshape(scan.volume.direction, (3, 3))
    np.testing.assert_allclose(direction.T @ direction, np.eye(3), rtol=0, atol=1e-12)
    moved = scan.volume.world_mm((4, 5, 6)) - (LPS_FROM_RAS @ sform @ [6, 5, 4, 1])[:3]
    assert 0.01 < np.linalg.norm(moved) < 0.05
    target = written_like(scan, tmp_path / "label.nii.gz")
    assert_same_geometry(source, target)
    np.testing.assert_array_equal(nib.load(target).affine, sform.astype(np.float32))


def test_rounding_is_not_worth_a_note(tmp_path: Path) -> None:
    assert read_scan(save(tmp_path / "a.nii", SFORM, SFORM)).notes == ()
    assert read_scan(save(tmp_path / "b.nii", np.round(SFORM, 6))).notes == ()
    (note,) = read_scan(save(tmp_path / "c.nii", np.round(SFORM, 3))).notes
    assert "off right angles" in note


@pytest.mark.parametrize("code", range(1, 5))
@pytest.mark.parametrize("flip", [1, -1])
def test_one_transform_is_where_nibabel_puts_it(tmp_path: Path, code: int, flip: int) -> None:
    matrix = affine(flip=flip)
    for name, transforms in {"sform": (matrix, None), "qform": (None, matrix), "both": (matrix, matrix)}.items():
        source = save(tmp_path / f"{name}.nii", *transforms, codes=(code, code))
        scan = read_scan(source)
        np.testing.assert_allclose(scan.volume.affine, LPS_FROM_RAS @ nib.load(source).affine, rtol=0, atol=1e-5)
        assert scan.volume.spacing_mm == pytest.approx(SIZES, abs=1e-6)
        assert scan.notes == ()


@pytest.mark.parametrize(("codes", "used"), [((1, 1), "s"), ((1, 4), "s"), ((2, 1), "q"), ((4, 1), "q"), ((3, 2), "q")])
def test_of_two_transforms_the_scanners_counts(tmp_path: Path, codes: tuple[int, int], used: str) -> None:
    """As in ITK: an sform with another code is a registration to somewhere else. The note says which it was."""
    scan = read_scan(save(tmp_path / "scan.nii", SFORM, QFORM, codes))
    expected = LPS_FROM_RAS @ (SFORM if used == "s" else QFORM)
    np.testing.assert_allclose(scan.volume.affine, expected, rtol=0, atol=1e-5)
    (note,) = scan.notes
    assert note.startswith(f"its sform (code {codes[0]}) and qform (code {codes[1]}) place voxels up to")
    assert note.endswith(f"the {used}form was used")


@pytest.mark.parametrize(
    "factor", [np.diag([1.5, 1, 1]), np.array([[1, 0.3, 0], [0, 1, 0], [0, 0, 1]]), np.zeros((3, 3))]
)
def test_sform_that_is_no_grid_gives_way_to_the_qform(tmp_path: Path, factor: np.ndarray) -> None:
    """Scaled against pixdim, sheared, empty."""
    sform = SFORM.copy()
    sform[:3, :3] = sform[:3, :3] @ factor
    scan = read_scan(save(tmp_path / "scan.nii", sform, SFORM, (1, 1)))
    np.testing.assert_allclose(scan.volume.affine, LPS_FROM_RAS @ SFORM, rtol=0, atol=1e-5)
    (note,) = scan.notes
    assert note.endswith("the qform was used, as the sform is no right-angled grid")


def test_small_difference_of_two_transforms_is_no_news(tmp_path: Path) -> None:
    """A quaternion of float32 is good to 3e-4 where the rotation is by nearly 180°."""
    qform = SFORM.copy()
    qform[0, 3] += 0.4  # less than half of 0.91 mm
    assert read_scan(save(tmp_path / "a.nii", SFORM, qform)).notes == ()
    qform[0, 3] += 0.1
    assert len(read_scan(save(tmp_path / "b.nii", SFORM, qform)).notes) == 1


def test_no_transform_at_all(tmp_path: Path) -> None:
    """ITK's reading, and a warning in words: nibabel would point i to the left too, the standard to the right."""
    source = save(tmp_path / "scan.nii.gz")
    scan = read_scan(source)
    np.testing.assert_allclose(scan.volume.affine, np.diag([*SIZES, 1]), rtol=0, atol=1e-6)
    (note,) = scan.notes
    assert "neither a qform nor an sform" in note
    assert "left and right may be exchanged" in note
    assert_same_geometry(source, written_like(scan, tmp_path / "label.nii.gz"))


@pytest.mark.parametrize(("units", "factor"), [(0, 1), (1, 1000), (2, 1), (3, 0.001), (10, 1)])
@pytest.mark.parametrize("which", ["sform", "qform", "neither"])
def test_units_of_length(tmp_path: Path, units: int, factor: float, which: str) -> None:
    source = save(tmp_path / "scan.nii", **({} if which == "neither" else {which: SFORM}), xyzt_units=units)
    scan = read_scan(source)
    assert scan.volume.spacing_mm == pytest.approx(np.multiply(SIZES, factor), rel=1e-6)
    if which != "neither":
        assert scan.volume.origin_mm == pytest.approx(np.array([-1, 2, 3]) * 7.3 * factor, rel=1e-6)
    assert_same_geometry(source, written_like(scan, tmp_path / "label.nii"))


def test_lone_sform_against_pixdim_is_told(tmp_path: Path) -> None:
    scan = read_scan(save(tmp_path / "scan.nii", SFORM, pixdim=[1, 1, 1, 1, 0, 0, 0, 0]))
    assert scan.volume.spacing_mm == pytest.approx(SIZES, abs=1e-6)
    assert scan.notes == (
        "its header gives two voxel sizes, [0.9115, 1.3, 5.2] mm by its sform, [1.0, 1.0, 1.0] mm by pixdim: "
        "the sform was used",
    )


@pytest.mark.parametrize("name", ["scan.nii", "scan.nii.gz"])
@pytest.mark.parametrize("transforms", [(SFORM, QFORM), (SFORM, None), (None, QFORM), (None, None)])
def test_nifti2_is_read_and_answered_in_kind(tmp_path: Path, name: str, transforms: tuple[Any, Any]) -> None:
    header = nib.Nifti2Header()
    header.set_data_dtype(np.int16)
    header.set_data_shape((7, 6, 5))
    header.set_zooms(SIZES)
    for matrix, put in zip(transforms, (header.set_sform, header.set_qform), strict=True):
        if matrix is not None:
            put(matrix, 1)
    nib.save(nib.Nifti2Image(np.arange(210, dtype=np.int16).reshape(7, 6, 5), None, header), tmp_path / name)
    scan = read_scan(tmp_path / name)
    np.testing.assert_array_equal(scan.volume.array, np.arange(210).reshape(7, 6, 5).transpose())
    if any(matrix is not None for matrix in transforms):
        used = transforms[0] if transforms[0] is not None else transforms[1]
        np.testing.assert_allclose(scan.volume.affine, LPS_FROM_RAS @ used, rtol=0, atol=1e-9)
    assert_same_geometry(tmp_path / name, written_like(scan, tmp_path / "label.nii.gz"))


@pytest.mark.parametrize("dtype", ["u1", "i2", "i4", "f4", "f8"])
@pytest.mark.parametrize(("slope", "intercept"), [(1, 0), (2.5, -1), (0, 3), (1, 5)])
def test_slope_and_intercept_give_what_itk_gives(tmp_path: Path, dtype: str, slope: float, intercept: float) -> None:
    source = save(tmp_path / "a.nii", SFORM)
    data = bytearray(source.read_bytes())
    code, bits = {"u1": (2, 8), "i2": (4, 16), "i4": (8, 32), "f4": (16, 32), "f8": (64, 64)}[dtype]
    data[70:74] = np.array([code, bits], "<i2").tobytes()
    data[112:120] = np.array([slope, intercept], "<f4").tobytes()
    source.write_bytes(data[:352] + np.arange(210).astype(f"<{dtype}").tobytes())
    found, theirs = read_volume(source).array, sitk.GetArrayFromImage(sitk.ReadImage(str(source)))
    if slope == 0:  # the standard: no scaling; ITK adds the intercept
        theirs = np.arange(210).astype(dtype).reshape(5, 6, 7)
    assert found.dtype == theirs.dtype
    np.testing.assert_array_equal(found, theirs)


def test_qform_that_is_no_rotation(tmp_path: Path) -> None:
    source = save(tmp_path / "scan.nii", None, QFORM, (0, 1))
    data = bytearray(source.read_bytes())
    data[256:264] = np.array([0.9, 0.9], "<f4").tobytes()
    source.write_bytes(data)
    with pytest.raises(InputError, match=r"its qform is no rotation: quaternion .* of length 1\.") as caught:
        read_scan(source)
    assert len(str(caught.value).splitlines()) == 2


def test_one_volume_in_four_dimensions_is_a_scan(tmp_path: Path) -> None:
    image = nib.Nifti1Image(np.arange(210, dtype=np.int16).reshape(7, 6, 5, 1), SFORM)
    nib.save(image, tmp_path / "scan.nii.gz")
    scan = read_scan(tmp_path / "scan.nii.gz")
    assert scan.volume.array.shape == (5, 6, 7)
    target = written_like(scan, tmp_path / "label.nii.gz")
    assert nib.load(target).shape == (7, 6, 5)
    assert_same_geometry(tmp_path / "scan.nii.gz", target)


def test_like_is_of_no_effect_in_other_formats_and_asks_for_the_same_size(tmp_path: Path) -> None:
    scan = read_scan(save(tmp_path / "scan.nii.gz", SFORM))
    assert read_volume(written_like(scan, tmp_path / "label.nrrd")).geometry_difference(scan.volume, 1e-12) is None
    write_volume(scan.volume, tmp_path / "other.nrrd")
    assert read_scan(tmp_path / "other.nrrd").nifti is None
    smaller = ScanFile(scan.volume, (), read_scan(save_smaller(tmp_path)).nifti)
    with pytest.raises(ValueError, match=r"Expected a file of \(3, 4, 5\) voxels. Received: \(7, 6, 5\)"):
        written_like(smaller, tmp_path / "label.nii.gz")
    assert not list(tmp_path.glob("*label.nii*"))
    assert scan.nifti is not None


def save_smaller(tmp_path: Path) -> Path:
    nib.save(nib.Nifti1Image(np.arange(60, dtype=np.int16).reshape(3, 4, 5), SFORM), tmp_path / "smaller.nii")
    return tmp_path / "smaller.nii"


def test_label_maps_of_real_scans_lie_on_their_grids(hips_dir: Path, tmp_path: Path) -> None:
    for source in sorted((hips_dir / "imagesTr").iterdir())[:2]:
        assert_same_geometry(source, written_like(read_scan(source), tmp_path / source.name))
