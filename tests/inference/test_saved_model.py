import dataclasses
import hashlib
import json
import os
import shutil

import h5py
import keras
import numpy as np
import pytest

from femur3d.config import Network, Preprocessing
from femur3d.errors import InputError
from femur3d.inference import saved_model
from femur3d.inference.quality_limits import Limit, write_limits
from femur3d.inference.saved_model import load_model, save_model
from femur3d.network.encoder import STAGES
from femur3d.network.encoder_weights import load_encoder_weights
from femur3d.network.unet import build_network

CONFIG = Network((2, 3, 4, 4), (4, 3, 2))
PREPROCESSING = Preprocessing(spacing_mm=(1.5, 2.6, 1.5), patch_size=(16, 16, 16))


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    keras.backend.clear_session()
    folder = tmp_path_factory.mktemp("saved") / "model"
    save_model(folder, build_network(CONFIG, seed=3), CONFIG, PREPROCESSING, {"step": 7})
    return folder


@pytest.fixture
def folder(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "model")


def rehash(folder):
    """Makes config.json vouch for the weights as they are, as an attacker would."""
    path = folder / "config.json"
    config = json.loads(path.read_text())
    config["weights_sha256"] = hashlib.sha256((folder / "model.weights.h5").read_bytes()).hexdigest()
    path.write_text(json.dumps(config))


def test_round_trip(folder):
    model = load_model(folder)
    assert (model.network_config, model.preprocessing, model.provenance) == (CONFIG, PREPROCESSING, {"step": 7})
    for a, b in zip(model.network.get_weights(), build_network(CONFIG, seed=3).get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_only_two_files_and_no_leftovers(folder):
    save_model(folder, build_network(CONFIG, seed=4), CONFIG, PREPROCESSING, {})
    assert sorted(p.name for p in folder.iterdir()) == ["config.json", "model.weights.h5"]
    assert [p.name for p in folder.parent.iterdir()] == ["model"]
    assert load_model(folder).provenance == {}


def test_half_precision_is_stored_and_loaded(tmp_path, folder):
    network = build_network(CONFIG, seed=3)
    save_model(tmp_path / "half", network, CONFIG, PREPROCESSING, {}, half=True)
    for a, b in zip(load_model(tmp_path / "half").network.get_weights(), network.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b.astype(np.float16).astype(np.float32))
    with h5py.File(tmp_path / "half" / "model.weights.h5") as half, h5py.File(folder / "model.weights.h5") as full:
        assert half["layers/conv3d/vars/0"].dtype == np.float16
        assert dict(half["layers/conv3d"].attrs) == dict(full["layers/conv3d"].attrs)
    assert sorted(p.name for p in (tmp_path / "half").iterdir()) == ["config.json", "model.weights.h5"]


def test_weights_beyond_half_precision_are_not_stored(tmp_path):
    network = build_network(CONFIG, seed=3)
    network.layers[1].bias.assign([1e6, 0])
    with pytest.raises(ValueError, match="float16"):
        save_model(tmp_path / "half", network, CONFIG, PREPROCESSING, {}, half=True)
    assert not list(tmp_path.iterdir())


def test_changed_weights_are_noticed(folder):
    with h5py.File(folder / "model.weights.h5", "a") as file:
        file["layers/conv3d/vars/0"][...] = 0
    with pytest.raises(InputError, match="SHA-256"):
        load_model(folder)


@pytest.mark.parametrize("tamper", ["extra", "missing", "shape", "type", "link", "soft"])
def test_weights_file_must_be_just_what_the_network_needs(folder, tamper):
    kernel = "layers/conv3d/vars/0"
    with h5py.File(folder / "model.weights.h5", "a") as file:
        if tamper == "extra":
            file["layers/lambda/vars/0"] = np.zeros(3)
        if tamper in ("missing", "shape", "type", "link", "soft"):
            shape = file[kernel].shape
            del file[kernel]
        if tamper == "shape":
            file[kernel] = np.zeros((*shape[:-1], 1000), np.float32)
        if tamper == "type":
            file[kernel] = np.zeros(shape, np.int32)
        if tamper == "link":
            file[kernel] = h5py.ExternalLink("/etc/passwd", "/x")
        if tamper == "soft":
            file[kernel] = h5py.SoftLink("/layers/conv3d/vars/1")
    rehash(folder)
    with pytest.raises(InputError, match=r"model\.weights\.h5") as caught:
        load_model(folder)
    assert str(caught.value).count("\n") <= 1


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "{}", "[" * 200_000, '{"format": "femur3d-model-1"}', '{"format": "other"}'],
)
def test_config_that_is_not_one(folder, text):
    (folder / "config.json").write_text(text)
    with pytest.raises(InputError, match=r"config\.json"):
        load_model(folder)


def test_limits_of_the_quality_flags_travel_with_the_model(folder):
    assert load_model(folder).quality == {}
    write_limits(folder, {"fragments": Limit(0.0, 1.0, 2.0)}, "nothing")
    assert load_model(folder).quality == {"fragments": Limit(0.0, 1.0, 2.0)}
    (folder / "quality.json").write_text("{")
    with pytest.raises(InputError, match=r"quality\.json"):
        load_model(folder)


def test_config_with_wrong_values(folder):
    path = folder / "config.json"
    config = json.loads(path.read_text())
    config["network"]["encoder_filters"] = ["import os", 1, 1, 1]
    path.write_text(json.dumps(config))
    with pytest.raises(InputError, match="encoder_filters"):
        load_model(folder)


@pytest.mark.parametrize(
    ("part", "change", "said"),
    [
        ("network", {"encoder_filters": [2, 3, 4]}, "network.encoder_filters: expected 4 numbers"),
        ("preprocessing", {"patch_size": [10, 16, 16]}, "preprocessing.patch_size: expected three multiples of 8"),
    ],
)
def test_values_that_no_model_has_are_the_files_mistake_and_not_the_commands(folder, part, change, said):
    path = folder / "config.json"
    config = json.loads(path.read_text())
    config[part] |= change
    path.write_text(json.dumps(config))
    with pytest.raises(InputError) as caught:
        load_model(folder)
    first, _ = str(caught.value).splitlines()
    assert first.startswith(f"{path}: {said}")


def test_a_changed_configuration_is_noticed_and_an_old_one_is_read(folder):
    path = folder / "config.json"
    config = json.loads(path.read_text())
    config["preparation"] = config.pop("preprocessing")  # as earlier versions called it
    path.write_text(json.dumps(config))
    assert load_model(folder).preprocessing == PREPROCESSING
    path.write_text(json.dumps(config).replace("2.6", "2.4"))
    with pytest.raises(InputError, match="not what was written"):
        load_model(folder)
    del config["config_sha256"]
    path.write_text(json.dumps(config))
    assert load_model(folder).preprocessing == PREPROCESSING


@dataclasses.dataclass(frozen=True)
class LaterPreprocessing(Preprocessing):
    """As a later version may have it: with one field more."""

    bias_field_mm: float = 0.0


def test_a_field_that_a_later_version_adds_leaves_old_models_sound(folder, monkeypatch):
    monkeypatch.setattr(saved_model, "Preprocessing", LaterPreprocessing)
    assert load_model(folder).preprocessing == LaterPreprocessing(spacing_mm=(1.5, 2.6, 1.5), patch_size=(16, 16, 16))
    path = folder / "config.json"
    path.write_text(path.read_text().replace('"margin_mm"', '"bias_field_mm": 1.0, "margin_mm"'))
    with pytest.raises(InputError, match="not what was written"):
        load_model(folder)


def test_weights_that_are_not_finite(folder):
    with h5py.File(folder / "model.weights.h5", "a") as file:
        file["layers/conv3d/vars/0"][0, 0, 0, 0, 0] = np.nan
    rehash(folder)
    with pytest.raises(InputError, match="not finite"):
        load_model(folder)


def test_failed_swap_puts_the_old_model_back(folder, monkeypatch):
    real = os.replace

    def replace(source, target):
        if str(target) == str(folder) and not str(source).endswith("-old"):
            raise OSError("no")
        real(source, target)

    monkeypatch.setattr(os, "replace", replace)
    monkeypatch.setattr(saved_model, "_exchange", lambda *_: False)  # as where the system cannot
    with pytest.raises(OSError, match="no"):
        save_model(folder, build_network(CONFIG, seed=4), CONFIG, PREPROCESSING, {})
    assert load_model(folder).provenance == {"step": 7}
    assert [p.name for p in folder.parent.iterdir()] == ["model"]


def test_no_model(tmp_path):
    with pytest.raises(InputError, match="no model"):
        load_model(tmp_path)


def ported(path, network):
    rng = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        for name in (n for stage in STAGES for n in stage):
            for part in ("kernel", "bias"):
                file[f"{name}/{part}"] = rng.normal(size=getattr(network.get_layer(name), part).shape)


def test_encoder_weights_fill_the_encoder_and_nothing_else(tmp_path):
    network = build_network(CONFIG, seed=3)
    before = {v.path: np.asarray(v) for v in network.variables}
    ported(tmp_path / "c3d.h5", network)
    names = load_encoder_weights(tmp_path / "c3d.h5", network)
    assert names == ["conv1a", "conv2a", "conv3a", "conv3b", "conv4a", "conv4b"]
    changed = {v.path for v in network.variables if not np.array_equal(np.asarray(v), before[v.path])}
    assert changed == {f"{n}/{part}" for n in names for part in ("kernel", "bias")}
    with h5py.File(tmp_path / "c3d.h5") as file:
        np.testing.assert_allclose(network.get_layer("conv4b").kernel, file["conv4b/kernel"], rtol=1e-6)


def test_encoder_weights_that_do_not_fit(tmp_path):
    with pytest.raises(InputError, match="make c3d"):
        load_encoder_weights(tmp_path / "none.h5", build_network(CONFIG))
    ported(tmp_path / "c3d.h5", build_network(CONFIG))
    wider = build_network(Network((4, 3, 4, 4), (4, 3, 2)))
    before = wider.get_weights()
    with pytest.raises(InputError, match="conv1a/kernel"):
        load_encoder_weights(tmp_path / "c3d.h5", wider)
    for a, b in zip(before, wider.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("number", [np.nan, -np.inf, 1e300])
def test_encoder_weights_that_are_not_finite_are_refused_before_any_is_taken(tmp_path, number):
    """The last one is finite in the file and not in the network, whose weights are float32."""
    network = build_network(CONFIG)
    ported(tmp_path / "c3d.h5", network)
    with h5py.File(tmp_path / "c3d.h5", "r+") as file:
        file["conv4b/bias"][1] = number
    before = network.get_weights()
    with pytest.raises(InputError, match=r"c3d\.h5: conv4b/bias holds NaN or infinity\.\n.*again\.$"):
        load_encoder_weights(tmp_path / "c3d.h5", network)
    for a, b in zip(before, network.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
