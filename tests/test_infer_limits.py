"""Quality limits that a model was given after it had segmented: earlier flags are no longer its word."""

import json
import shutil

import numpy as np
import pytest

from femur3d import cli, infer
from femur3d.config import Network, Preprocessing
from femur3d.inference.choice import find_models
from femur3d.inference.quality_limits import Limit, read_limits, write_limits
from femur3d.inference.saved_model import TrainedModel, identity
from femur3d.io.images import write_volume
from tests.support.ellipsoids import scan_and_label
from tests.support.loaded_once import run_main
from tests.support.stand_in_engine import StandInEngine

PREPROCESSING = Preprocessing(spacing_mm=(5.0, 5.0, 5.0), patch_size=(16, 16, 16))


class Engine(StandInEngine):
    def make_repeatable(self, training):
        pass

    def device_name(self):
        return "none"


@pytest.fixture
def model(monkeypatch, tmp_path):
    """A model without limits, whose network is that bright voxels are femur."""
    (shipped,) = find_models("hip_t1")
    folder = tmp_path / "mine"
    shutil.copytree(shipped, folder, ignore=shutil.ignore_patterns("quality.json"))
    engine = Engine(lambda patches: (patches > 0).astype(np.float32))

    def load_model(folder):
        return TrainedModel({}, Network(), PREPROCESSING, **identity(folder), quality=read_limits(folder))

    monkeypatch.setattr(infer, "load_model", load_model)
    monkeypatch.setattr(cli, "load_engine", lambda *_: engine)
    return folder


def levels(file):
    return {name: flag["level"] for name, flag in json.loads(file.read_text())["quality"].items()}


def test_continue_does_scans_again_whose_flags_have_other_levels_now(model, tmp_path, capsys):
    write_volume(scan_and_label()[0], tmp_path / "a.mha")
    words = ("-i", tmp_path / "a.mha", "-o", tmp_path / "out", "--model", model, "--continue", "--strict")
    assert run_main(*words) == 0
    assert set(levels(tmp_path / "out" / "a.json").values()) == {"unknown"}
    write_limits(model, {"smallest_volume_ml": Limit(9e5, 8e5, 7e5)}, "imagination")
    capsys.readouterr()
    assert run_main(*words) == 5
    assert "skipped" not in capsys.readouterr().out
    assert levels(tmp_path / "out" / "a.json")["smallest_volume_ml"] == "red"
    assert run_main(*words) == 5
    assert "1 of 1 scans are done already: skipped" in capsys.readouterr().out
    write_limits(model, {"smallest_volume_ml": Limit(9e6, 8e6, 7e6)}, "imagination")  # the same levels
    assert run_main(*words) == 5
    assert "1 of 1 scans are done already: skipped" in capsys.readouterr().out


def test_continue_keeps_results_whose_measures_another_version_made(model, tmp_path, capsys):
    write_volume(scan_and_label()[0], tmp_path / "a.mha")
    words = ("-i", tmp_path / "a.mha", "-o", tmp_path / "out", "--model", model, "--continue")
    assert run_main(*words) == 0
    file = tmp_path / "out" / "a.json"
    summary = json.loads(file.read_text())
    for quality in ({"a_new_measure": {"value": 1.0, "level": "red"}}, {"fragments": {"value": None}}, ["no flags"]):
        file.write_text(json.dumps({**summary, "quality": quality}))
        capsys.readouterr()
        assert run_main(*words) == 0
        assert "1 of 1 scans are done already: skipped" in capsys.readouterr().out


def test_a_worker_of_a_cluster_loads_a_model_again_that_was_given_limits(model, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(infer, "segment_all", lambda steps, *_: (0, len(seen)))
    load = infer.load_model
    monkeypatch.setattr(infer, "load_model", lambda folder: (seen.append(folder), load(folder))[1])
    monkeypatch.setattr(infer.sys, "argv", infer.sys.argv)
    segment_one = infer.prepare(["infer", "-i", "a.mha", "-o", "out", "--model", str(model)])
    assert [segment_one(None, None), segment_one(None, None)] == [(0, 1)] * 2
    write_limits(model, {"smallest_volume_ml": Limit(9e5, 8e5, 7e5)}, "imagination")
    assert [segment_one(None, None), segment_one(None, None)] == [(0, 2)] * 2
