"""A run that was trained and evaluated, read from its folder."""

import json
import math

import pytest

from experiments.studies.evaluated_run import load_run, read_femurs
from femur3d.errors import InputError
from femur3d.evaluation.metrics import METRICS, FemurMetrics
from femur3d.evaluation.tables import write_csv
from femur3d.io.settings import to_dict
from tests.support.ablation_runs import SOURCE


@pytest.fixture
def run_folder(tmp_path, tiny_experiment):
    """What training and evaluation leave behind."""
    folder = tmp_path / "transfer_seed0"
    (folder / "model").mkdir(parents=True)
    config = {**to_dict(tiny_experiment), "encoder_source": SOURCE, "data": "00"}
    (folder / "config.json").write_text(json.dumps(config))
    provenance = {"dataset": "hips", "training_cases": ["case_0", "case_1"], "step": 6}
    (folder / "model" / "config.json").write_text(json.dumps({"provenance": provenance}))
    (folder / "metrics.csv").write_text("step,ce_upper,validation_dice\n2,0.75,\n3,,0.25\n4,0.5,0.5\n")
    rows = [
        FemurMetrics("case_2", "femur_left", 1.5, 0.5, 4.0, 3.0, 0.9, 0.8, 0.95, 0.85, 100.0, 90.0, 1.25),
        FemurMetrics("case_2", "femur_right", *[math.inf] * 4, 0.0, 0.0, 0.0, 0.0, 100.0, 0.0, math.inf),
    ]
    write_csv(rows, folder / "evaluation" / "metrics.csv")
    return folder


def test_finished_run_is_read(run_folder):
    run = load_run("transfer", 4, run_folder)
    assert (run.arm, run.seed, run.label, run.source) == ("transfer", 4, "transfer (surrogate)", SOURCE)
    assert list(run.femurs) == [("case_2", "femur_left"), ("case_2", "femur_right")]
    assert tuple(run.femurs["case_2", "femur_left"]) == METRICS
    assert list(run.femurs["case_2", "femur_left"].values()) == [
        1.5, 0.5, 4, 3, 0.9, 0.8, 0.95, 0.85, 100, 90, 1.25, -10, -10,
    ]  # fmt: skip
    assert run.femurs["case_2", "femur_right"]["mean_mm"] == math.inf
    assert run.curve == {
        2: {"ce_upper": 0.75},
        3: {"validation_dice": 0.25},
        4: {"ce_upper": 0.5, "validation_dice": 0.5},
    }
    for words in ("hips: 2 cases", "6 updates of 2 patches of (16, 16, 16)", "(2, 3, 4, 4)", "(4, 3, 2)", "'tiny'"):
        assert words in run.setting


def test_run_of_an_earlier_version_is_read(run_folder):
    now = load_run("scratch", 0, run_folder).setting
    config = json.loads((run_folder / "config.json").read_text())
    config["preparation"] = config.pop("preprocessing")
    config["training"]["femur_share"] = config["training"].pop("foreground_probability")
    (run_folder / "config.json").write_text(json.dumps(config))
    assert load_run("scratch", 0, run_folder).setting == now


@pytest.mark.parametrize(("arm", "label"), [("scratch", "scratch"), ("no_deep_supervision", "no deep supervision")])
def test_label_without_transferred_weights(run_folder, arm, label):
    config = json.loads((run_folder / "config.json").read_text())
    (run_folder / "config.json").write_text(json.dumps({**config, "encoder_source": {}}))
    run = load_run(arm, 0, run_folder)
    assert (run.label, run.source) == (label, {})


@pytest.mark.parametrize(
    ("name", "content"),
    [
        *((name, None) for name in ("config.json", "model/config.json", "metrics.csv", "evaluation/metrics.csv")),
        *((name, text) for name in ("config.json", "model/config.json") for text in ("", "{", "[]", "{}")),
        ("metrics.csv", "step,ce_upper\nfour,0.5\n"),
        ("metrics.csv", "time\n4\n"),
        ("evaluation/metrics.csv", "case,label,dice\na,left,much\n"),
        ("evaluation/metrics.csv", "case,dice\na,0.5\n"),
    ],
)
def test_unfinished_or_damaged_run_is_two_lines(run_folder, name, content):
    (run_folder / name).unlink()
    if content is not None:
        (run_folder / name).write_text(content)
    with pytest.raises(InputError, match="cannot be read as a finished run") as caught:
        load_run("transfer", 0, run_folder)
    assert str(caught.value).count("\n") == 1
    assert str(run_folder) in str(caught.value)


def test_scans_of_one_hip_are_the_patients(tmp_path):
    """What is compared by patient averages both hips."""
    (tmp_path / "metrics.csv").write_text(
        "case,label,dice\na_femur_left,femur_left,0.9\na_femur_right,femur_right,0.7\n"
    )
    assert read_femurs(tmp_path / "metrics.csv") == {
        ("a", "femur_left"): {"dice": 0.9},
        ("a", "femur_right"): {"dice": 0.7},
    }
