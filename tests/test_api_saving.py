"""What a result writes to a folder from Python: never in the place of a scan, nor of another scan's results."""

import json

import numpy as np
import pytest

from femur3d import api, segment
from femur3d.config import Network, Preprocessing
from femur3d.errors import UsageError
from femur3d.export.case_files import Case, Wanted
from femur3d.export.case_results import MadeWith, is_done
from femur3d.inference.mode import EXACT
from femur3d.inference.saved_model import TrainedModel
from femur3d.inference.segmenter import Segmenter
from femur3d.io.images import read_volume, write_volume
from femur3d.io.inputs import open_sources
from tests.support.dicom_series import write_scan, write_series
from tests.support.ellipsoids import scan_and_label
from tests.support.stand_in_engine import StandInEngine

PREPROCESSING = Preprocessing(spacing_mm=(5.0, 5.0, 5.0), patch_size=(16, 16, 16))
MODEL = TrainedModel({}, Network(), PREPROCESSING, {"experiment": "stand-in"}, "a digest")


@pytest.fixture(autouse=True)
def _no_network(monkeypatch):
    """Bright voxels are femur."""
    segmenter = Segmenter(MODEL, StandInEngine(lambda patches: (patches > 0).astype(np.float32)))
    monkeypatch.setattr(api, "_segmenter", lambda *_: segmenter)


def segmented(path, **more):
    return segment(path, "hip_t1", **more)


def test_results_never_replace_the_scan_or_what_lies_beside_it(tmp_path):
    scan = tmp_path / "a.nii.gz"
    write_volume(scan_and_label()[0], scan)
    (tmp_path / "a.mha").write_bytes(b"another file")
    before = scan.read_bytes()
    with pytest.raises(UsageError, match="replace the scan"):
        segmented(scan).save_all(tmp_path)
    with pytest.raises(UsageError, match="lies beside a scan and is no result"):
        segmented(scan).save_all(tmp_path, format=".mha")
    assert (scan.read_bytes(), (tmp_path / "a.mha").read_bytes()) == (before, b"another file")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.mha", "a.nii.gz"]


def test_scans_of_one_name_do_not_replace_each_others_results(tmp_path):
    scan, _ = scan_and_label()
    write_volume(scan, tmp_path / "P1" / "a.mha")
    write_volume(scan.with_array(scan.array[:, :, ::-1]), tmp_path / "P2" / "a.mha")
    first, second = (segmented(tmp_path / patient / "a.mha") for patient in ("P1", "P2"))
    first.save_all(tmp_path / "out")
    with pytest.raises(UsageError, match=r"P1/a\.mha lie there, not of .*P2"):
        second.save_all(tmp_path / "out")
    np.testing.assert_array_equal(read_volume(tmp_path / "out" / "a.nii.gz").array, first.labels.array)
    second.save_all(tmp_path / "out", "a2")
    first.save_all(tmp_path / "out", surface="stl")  # its own results are replaced
    assert json.loads((tmp_path / "out" / "a.json").read_text())["files"] == ["a.nii.gz", "a_left.stl", "a_right.stl"]


def test_the_command_line_knows_a_dicom_series_that_python_has_saved(tmp_path):
    """Of a folder with one series none is chosen, in both."""
    scan = scan_and_label()[0]
    write_scan(tmp_path / "P1", scan.with_array((10 * scan.array).astype(np.int16)))
    result = segmented(tmp_path / "P1")
    result.save_all(tmp_path / "out")
    with open_sources([tmp_path / "P1"]) as (one,):
        options = {**vars(EXACT), **vars(Wanted())}
        made_with = MadeWith(one.source, result.scan.sha256, one.series, options, result.model)
        assert is_done(Case(one.name, one.path, one.series, tmp_path / "out"), made_with)


def test_two_series_of_a_folder_do_not_replace_each_other(tmp_path):
    scan = scan_and_label()[0]
    for number in (1, 2):
        own = scan.with_array((scan.array * number).astype(np.int16))
        write_series(tmp_path / "P1", own, uid=f"1.2.{number}", number=number)
    segmented(tmp_path / "P1", series=1).save_all(tmp_path / "out")
    second = segmented(tmp_path / "P1", series=2)
    with pytest.raises(UsageError, match=r"series 1 lie there, not of .*series 2"):
        second.save_all(tmp_path / "out")
    second.save_all(tmp_path / "out", "P1_series2")
    assert json.loads((tmp_path / "out" / "P1_series2.json").read_text())["series"] == 2
