import dataclasses
import json
import sys
from pathlib import Path

import pytest

from femur3d.cli import load_experiment
from femur3d.config import Experiment, Network, Preprocessing, Training
from femur3d.errors import InputError, UsageError
from femur3d.io.settings import from_dict, to_dict, with_settings


def test_defaults_are_the_numbers_of_the_paper():
    e = Experiment("x")
    assert e.preprocessing.patch_size == (64, 64, 64)
    assert e.network.encoder_filters == (64, 128, 256, 512)
    assert e.loss.head_weights == (0.33, 0.67, 1.0)
    assert (e.loss.l2, e.loss.dice_weight) == (0.005, 0.0)
    t = e.training
    assert (t.steps, t.rate, t.schedule, t.halve_every, t.momentum, t.nesterov) == (
        14_000, 1e-3, "halving", 3_000, 0.9, False,
    )  # fmt: skip
    assert (t.batch_size, t.batches_per_volume, t.foreground_probability, len(t.variants)) == (2, 5, 0.0, 8)


@pytest.mark.parametrize("name", ["scratch", "transfer"])
def test_faithful_experiments_keep_every_default(name):
    experiment = load_experiment(f"experiments/{name}.py")
    assert dataclasses.replace(experiment, name="x", encoder_weights="") == Experiment("x")
    assert bool(experiment.encoder_weights) == (name == "transfer")


def test_json_round_trip():
    experiment = load_experiment("experiments/hip_t1.py")
    assert from_dict(Experiment, json.loads(json.dumps(to_dict(experiment)))) == experiment


def test_settings_change_just_the_named_fields():
    changed = with_settings(Experiment("x"), ["training.steps=500", "network.encoder_filters=(4, 8, 8, 16)", "name=y"])
    assert (changed.training.steps, changed.network.encoder_filters, changed.name) == (500, (4, 8, 8, 16), "y")
    assert dataclasses.replace(changed, name="x", training=Training(), network=Network()) == Experiment("x")


def test_settings_are_validated_together():
    changed = with_settings(Experiment("x"), ["preprocessing.spacing_mm=(1, 2, 1)", "training.variants=(0, 6)"])
    assert changed.preprocessing.spacing_mm == (1.0, 2.0, 1.0)


@pytest.mark.parametrize(
    "setting",
    [
        "training.steps", "training.stepz=5", "training=5", "training.steps=many", "training.steps=0", "steps=5",
        "training.steps=1.5", "training.rate=nan", "training.nesterov=1", "loss.l2=-1", "loss.l3=1",
        "network.encoder_filters=(1, 2)",
        "network.encoder_filters=8", "preprocessing.patch_size=(60, 64, 64)", "preprocessing.orientation=LLS",
        "preprocessing.spacing_mm=(1, 0, 1)", "training.variants=(0, 0)", "training.variants=(8,)", "name.x=1",
        "training.steps={[]: 1}", "training.precision=float16", "loss.l2=1" + "0" * 400,
        "preprocessing.normalisation=none",
        "preprocessing.spacing_mm=(1.0, 2.0, 1.0)", "training.schedule=cosine", "training.warm_restarts=-1",
        "network.initialisation=zeros",
    ],
)  # fmt: skip
def test_wrong_settings_are_refused(setting):
    with pytest.raises(UsageError) as caught:
        with_settings(Experiment("x"), [setting])
    assert str(caught.value).count("\n") <= 1


def test_bfloat16_needs_patches_of_many_slices():
    settings = ["training.precision=mixed_bfloat16", "preprocessing.patch_size=(24, 8, 8)"]
    with_settings(Experiment("x"), settings)
    with pytest.raises(UsageError, match="at least 24 slices"):
        with_settings(Experiment("x"), [*settings, "preprocessing.patch_size=(16, 64, 64)"])


@pytest.mark.parametrize("values", [[], {"name": 1}, {"name": "x", "more": 1}, {}, {"name": "x", "loss": {"l2": "a"}}])
def test_wrong_json_is_refused(values):
    with pytest.raises(InputError):
        from_dict(Experiment, values)


@pytest.mark.parametrize(
    "text", ["def get_config(:", "x = 1", "def get_config():\n    return 3", "import no_such_thing", "x = unknown"]
)
def test_wrong_experiment_files_are_refused(tmp_path, text):
    path = tmp_path / "e.py"
    path.write_text(text)
    with pytest.raises(UsageError, match=r"e\.py"):
        load_experiment(path)


def test_missing_experiment_file():
    with pytest.raises(UsageError, match="no such experiment"):
        load_experiment("experiments/none.py")


def test_quarter_turns_need_square_voxels():
    with pytest.raises(UsageError, match="quarter turns"):
        Experiment("x", preprocessing=Preprocessing(spacing_mm=(1.0, 2.0, 1.0)))


def test_names_of_earlier_versions_are_read():
    old = to_dict(Experiment("x"))
    old["preparation"] = old.pop("preprocessing")
    training = old["training"]
    training["femur_share"], training["distort_share"] = 0.25, 0.75
    training["mixed_batches"], training["cycles"] = True, 3
    for name in ("foreground_probability", "augmentation_probability", "multi_volume_batches", "warm_restarts"):
        del training[name]
    expected = Training(
        foreground_probability=0.25, augmentation_probability=0.75, multi_volume_batches=True, warm_restarts=2
    )
    assert from_dict(Experiment, old) == Experiment("x", training=expected)
    settings = ["preparation.spacing_mm=(1, 2, 1)", "training.cycles=2", "training.femur_share=1.0"]
    changed = with_settings(Experiment("x", training=Training(variants=(0,))), settings)
    assert changed.preprocessing.spacing_mm == (1, 2, 1)
    assert (changed.training.warm_restarts, changed.training.foreground_probability) == (1, 1.0)


@pytest.mark.parametrize("path", sorted(Path("experiments").glob("*.py")), ids=lambda path: path.stem)
def test_experiments_need_no_package_of_that_name(path, monkeypatch):
    monkeypatch.setitem(sys.modules, "experiments", None)  # as where femur3d is installed
    assert load_experiment(path.stem).name


def test_experiments_that_come_with_femur3d_have_names():
    assert load_experiment("transfer") == load_experiment("experiments/transfer.py")
    with pytest.raises(UsageError, match="no such experiment"):
        load_experiment("../experiments/transfer")
