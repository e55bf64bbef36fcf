"""Segmenting from Python without a network: what is taken, and when models are loaded: once, until they change."""

import dataclasses
import os
import shutil
import threading
import time

import numpy as np
import pytest

from femur3d import api, segment, segment_many
from femur3d.config import Network, Preprocessing
from femur3d.engines import selection
from femur3d.errors import InputError
from femur3d.inference.choice import find_models
from femur3d.inference.quality_limits import Limit, read_limits, write_limits
from femur3d.inference.saved_model import TrainedModel
from femur3d.io.images import write_volume
from tests.support.ellipsoids import scan_and_label
from tests.support.stand_in_engine import StandInEngine

PREPROCESSING = Preprocessing(spacing_mm=(5.0, 5.0, 5.0), patch_size=(16, 16, 16))
SCAN, _ = scan_and_label()


@pytest.fixture
def loaded(monkeypatch):
    """Names of the models that were loaded; no network: bright voxels are femur."""
    names = []

    def load_model(folder):
        names.append(folder.name)
        time.sleep(0.05)
        return TrainedModel({}, Network(), PREPROCESSING, {}, "", read_limits(folder))

    def inference_engine(name, fast):
        time.sleep(0.05)  # as the import of a library, while what it says on stderr is hidden
        return StandInEngine(lambda patches: (patches > 0).astype(np.float32))

    monkeypatch.setattr(api, "load_model", load_model)
    monkeypatch.setattr(selection, "inference_engine", inference_engine)
    api._segmenter.cache_clear()
    yield names
    api._segmenter.cache_clear()


def test_two_threads_load_a_model_once_and_leave_standard_error_as_it_was(loaded):
    before, together, found = os.fstat(2), threading.Barrier(3), []

    def work():
        together.wait()
        found.append(segment(SCAN, "hip_t1").volumes_ml)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert loaded == ["hip_t1"]
    assert os.path.samestat(os.fstat(2), before)
    assert found == [found[0]] * 3
    assert set(found[0]) == {"left", "right"}


def test_both_models_stay_loaded_in_both_modes(loaded):
    for fast in (False, True, False, True):
        for model in ("hip_t1", "hip_mr"):
            segment(SCAN, model, fast=fast)
    assert loaded == ["hip_t1", "hip_mr"] * 2


def test_limits_that_were_learnt_after_a_model_was_loaded_count(loaded, tmp_path):
    (folder,) = find_models("hip_t1")
    shutil.copytree(folder, tmp_path / "mine", ignore=shutil.ignore_patterns("quality.json"))
    assert segment(SCAN, tmp_path / "mine").quality["smallest_volume_ml"].level == "unknown"
    write_limits(tmp_path / "mine", {"smallest_volume_ml": Limit(9e5, 8e5, 7e5)}, "imagination")
    assert segment(SCAN, tmp_path / "mine").quality["smallest_volume_ml"].level == "red"
    segment(SCAN, tmp_path / "mine")
    assert loaded == ["mine"] * 2


def test_a_mask_is_a_scan_of_two_values(loaded):
    mask = SCAN.array > 250
    found = [segment(array, "hip_t1", spacing_mm=SCAN.spacing_mm) for array in (mask, mask.astype(np.uint8))]
    assert found[0].volumes_ml == found[1].volumes_ml != {}
    np.testing.assert_array_equal(found[0].labels.array, found[1].labels.array)


def test_an_image_of_another_library_is_refused_in_two_lines(loaded):
    """Such as one of ITK or VTK, which have GetSpacing, too."""

    class Image:
        def GetSpacing(self):
            return (1.0, 1.0, 1.0)

    with pytest.raises(InputError, match=r"^A Image cannot be segmented\.\nExpected a path, a SimpleITK image, "):
        segment(Image(), "hip_t1")


def test_a_scan_that_memory_is_too_small_for_does_not_stop_the_others(loaded, tmp_path, monkeypatch):
    for name, size in (("a", 40), ("b", 39), ("c", 40)):
        write_volume(dataclasses.replace(SCAN, array=SCAN.array[:, :, :size]), tmp_path / f"{name}.mha")
    paths = [tmp_path / f"{name}.mha" for name in "abc"]

    def predict(patches):
        if api_scans[-1] == 39:
            raise MemoryError("not enough for patches of 16³ voxels")
        return (patches > 0).astype(np.float32)

    api_scans = []
    really = api.Chooser.__call__
    monkeypatch.setattr(
        api.Chooser,
        "__call__",
        lambda self, scan, labels: (api_scans.append(scan.array.shape[2]), really(self, scan, labels))[1],
    )
    monkeypatch.setattr(selection, "inference_engine", lambda name, fast: StandInEngine(predict))
    results = dict(segment_many(paths, "hip_t1"))
    assert list(results) == paths
    assert results[paths[0]].volumes_ml == results[paths[2]].volumes_ml != {}
    assert isinstance(results[paths[1]], InputError)
    assert str(results[paths[1]]).splitlines() == [
        f"{paths[1]}: not enough memory (not enough for patches of 16³ voxels).",
        "Crop the scan to the hips, or segment it on a machine with more.",
    ]
