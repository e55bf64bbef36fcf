"""Models from Python: loaded once, by whichever thread comes first, and again where their folder has changed."""

import os
import shutil
import threading
import time

import numpy as np
import pytest

from femur3d import api, segment
from femur3d.config import Network, Preprocessing
from femur3d.engines import selection
from femur3d.inference.choice import find_models
from femur3d.inference.quality_limits import Limit, read_limits, write_limits
from femur3d.inference.saved_model import TrainedModel
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
