"""`from femur3d import segment`: every kind of input gives the same femurs, and the import stays light."""

import dataclasses
import json
import subprocess
import sys

import numpy as np
import pytest
import SimpleITK as sitk

import femur3d
from femur3d import api, segment
from femur3d.errors import InputError
from femur3d.io.images import read_volume, sitk_from_volume, write_volume
from femur3d.volume import Volume
from tests.support.ellipsoids import ellipsoid_case


@pytest.fixture(scope="module")
def scan():
    return dataclasses.replace(ellipsoid_case()[0], spacing_mm=(5.0, 5.0, 5.0), origin_mm=(10.0, -20.0, 30.0))


@pytest.fixture(scope="module")
def expected(scan, threshold_model):
    return segment(scan, threshold_model)


def test_every_kind_of_input_gives_the_same(scan, expected, threshold_model, tmp_path):
    write_volume(scan, tmp_path / "scan.nrrd")
    geometry = {name: getattr(scan, name) for name in ("spacing_mm", "origin_mm")} | {"direction": np.eye(3)}
    assert set(np.unique(expected.labels.array)) == {0, 1, 2}
    for given, more in ((tmp_path / "scan.nrrd", {}), (sitk_from_volume(scan), {}), (scan.array, geometry)):
        found = segment(given, threshold_model, **more)
        np.testing.assert_array_equal(found.labels.array, expected.labels.array)
        assert found.labels.geometry_difference(scan) is None


def test_volumes_by_hand_and_saving(expected, tmp_path):
    values = {"left": 1, "right": 2}
    counts = {name: np.count_nonzero(expected.labels.array == value) for name, value in values.items()}
    assert expected.volumes_ml == pytest.approx({name: n * 0.125 for name, n in counts.items()})
    expected.save(tmp_path / "femurs.nii.gz")
    np.testing.assert_array_equal(read_volume(tmp_path / "femurs.nii.gz").array, expected.labels.array)


def test_result_shows_its_femurs_and_no_arrays(expected):
    left, right = expected.volumes_ml["left"], expected.volumes_ml["right"]
    assert repr(expected) == f"Segmentation(left {left:.1f} ml, right {right:.1f} ml)"
    assert f"<td>left</td><td>{left:.1f} ml</td>" in expected._repr_html_()
    np.testing.assert_array_equal(expected.left.array, expected.labels.array == 1)
    np.testing.assert_array_equal(expected.right.array, expected.labels.array == 2)


def test_saving_for_slicer_and_all_that_the_command_line_writes(expected, scan, threshold_model, tmp_path):
    expected.save(tmp_path / "x.seg.nrrd")
    assert sitk.ReadImage(str(tmp_path / "x.seg.nrrd")).GetMetaData("Segment1_LabelValue") == "2"
    files = expected.save_all(tmp_path / "memory", "hip", probability=True, surface="stl")
    names = ["hip.nii.gz", "hip_prob.nii.gz", "hip_left.stl", "hip_right.stl"]
    assert files == [tmp_path / "memory" / name for name in names]
    assert all(file.stat().st_size for file in files)
    with pytest.raises(ValueError, match="name="):
        expected.save_all(tmp_path / "memory")
    write_volume(scan, tmp_path / "a_0000.nrrd")
    segment(tmp_path / "a_0000.nrrd", threshold_model).save_all(tmp_path / "out", format=".mha")
    summary = json.loads((tmp_path / "out" / "a.json").read_text())
    assert (summary["files"], summary["volumes_ml"]) == (["a.mha"], expected.volumes_ml)
    assert summary["model"]["weights_sha256"]


def test_many_scans_with_one_that_is_refused(expected, scan, threshold_model, tmp_path):
    write_volume(scan, tmp_path / "a.nrrd")
    paths = [tmp_path / "a.nrrd", tmp_path / "missing.nrrd", tmp_path / "a.nrrd"]
    found = list(femur3d.segment_many(iter(paths), threshold_model))
    assert [path for path, _ in found] == paths
    for _, result in (found[0], found[2]):
        np.testing.assert_array_equal(result.labels.array, expected.labels.array)
    assert isinstance(found[1][1], InputError)
    assert "no such file" in str(found[1][1])


def test_one_label_for_both_femurs(scan, threshold_model):
    assert set(np.unique(segment(scan, threshold_model, labels="femur").labels.array)) == {0, 1}


def test_model_is_loaded_once_for_each_mode(scan, threshold_model):
    api._segmenter.cache_clear()
    for fast in (False, False, True, True):
        segment(scan, threshold_model, fast=fast)
    assert (api._segmenter.cache_info().misses, api._segmenter.cache_info().hits) == (2, 2)


@pytest.mark.parametrize(
    ("given", "more", "words"),
    [
        (np.zeros((8, 8, 8)), {}, "spacing_mm"),
        (np.zeros((8, 8, 8)), {"spacing_mm": (1, 1, 0)}, "voxel sizes"),
        (np.zeros((8, 8, 8)), {"spacing_mm": 1.0}, "spacing_mm=1.0"),
        (np.zeros((8, 8, 8)), {"spacing_mm": "abc"}, "spacing_mm=abc"),
        (np.zeros((8, 8, 8)), {"spacing_mm": (1, 1, 1), "origin_mm": (0, 0)}, "origin_mm"),
        (np.zeros((8, 8, 8)), {"spacing_mm": (1, 1, 1), "origin_mm": (0, np.nan, 0)}, "origin"),
        (np.zeros((8, 1, 8)), {"spacing_mm": (1, 1, 1)}, "shape"),
        (np.zeros((8, 8, 8), np.longdouble), {"spacing_mm": (1, 1, 1)}, "float128|longdouble"),
        (Volume(np.zeros((8, 8, 8)), (1.0, 1.0, -1.0)), {}, "voxel sizes"),
        (Volume(np.zeros((8, 8, 8)), direction=(0.0,) * 9), {}, "right angles"),
        (sitk.Image([8, 8, 8, 8], sitk.sitkInt16), {}, "4 dimensions"),
        (sitk.Image([8, 8, 8], sitk.sitkVectorInt16), {}, "3 values a voxel"),
        (np.ones((2, 4, 8)) * np.arange(8), {"spacing_mm": (5, 5, 5)}, "at least"),
        (np.zeros((8, 8)), {"spacing_mm": (1, 1, 1)}, "shape"),
        (np.zeros((8, 8, 8), complex), {"spacing_mm": (1, 1, 1)}, "complex"),
        (np.zeros((8, 8, 8)), {"spacing_mm": (1, 1, 1)}, "differ"),
        (np.zeros((8, 8, 8)), {"spacing_mm": (1, 1, 1), "direction": (2.0, 0, 0, 0, 1, 0, 0, 0, 1)}, "right angles"),
        (np.zeros((8, 8, 8)), {"spacing_mm": (1, 1, 1), "direction": (1, 0, 0)}, "nine"),
        (np.full((8, 8, 8), np.nan), {"spacing_mm": (1, 1, 1)}, "nan"),
        (42, {}, "int"),
        ("nowhere.nii.gz", {}, "nowhere"),
    ],
)
def test_mistakes_are_two_lines(threshold_model, given, more, words):
    with pytest.raises(InputError, match=words) as caught:
        segment(given, threshold_model, **more)
    assert len(str(caught.value).splitlines()) == 2


def test_import_is_light_and_unknown_names_are_errors():
    code = (
        "import sys, femur3d; assert femur3d.__version__; "
        "heavy = {'tensorflow', 'keras', 'SimpleITK', 'vtkmodules', 'numpy'} & set(sys.modules); "
        "sys.exit(str(heavy) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stderr
    with pytest.raises(AttributeError, match="no attribute 'segmnt'"):
        femur3d.segmnt  # noqa: B018
