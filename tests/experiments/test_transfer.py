"""The paper's experiment end to end, by its commands: C3D's file ported at full width, two updates, provenance."""

import json
import shutil
import subprocess
import sys

import h5py
import numpy as np
import pytest

from femur3d.inference.saved_model import load_model
from tests.support.caffe_writer import random_weights, write_net
from tests.support.ellipsoids import write_dataset


def run(*words):
    done = subprocess.run([sys.executable, *map(str, words)], capture_output=True, text=True, check=False, timeout=900)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.mark.slow
def test_transfer_at_full_width(tmp_path):
    source = write_net(tmp_path / "c3d", random_weights((64, 128, 256, 512)), "deepnetA")
    encoder = tmp_path / "c3d_encoder.h5"
    run("tools/port_c3d.py", "--weights", source, "-o", encoder)
    source.unlink()
    settings = {
        "encoder_weights": encoder, "training.steps": 2, "training.rate": 1e-6, "training.variants": (0,),
        "preprocessing.spacing_mm": (2.0, 2.0, 2.0), "preprocessing.margin_mm": 6.0,
        "preprocessing.patch_size": (16, 16, 16),
    }  # fmt: skip
    words = [word for name, value in settings.items() for word in ("--set", f"{name}={value}")]
    dataset = write_dataset(tmp_path / "data", cases=2, validation=0)
    train = ["-m", "femur3d.train", "--experiment", "experiments/transfer.py", "--dataset", dataset]
    said = run(*train, "--run", tmp_path / "run", *words)
    assert "conv1a, conv2a, conv3a, conv3b, conv4a, conv4b" in said
    model = load_model(tmp_path / "run" / "model")
    assert (model.provenance["experiment"], model.provenance["step"]) == ("transfer", 2)
    assert model.network_config.encoder_filters == (64, 128, 256, 512)
    with h5py.File(encoder) as file:  # two updates at so low a rate leave what was transferred
        for name in ("conv1a", "conv4b"):
            found = np.asarray(model.network.get_layer(name).kernel)
            np.testing.assert_allclose(found, file[f"{name}/kernel"], atol=1e-4)
            assert not np.array_equal(found, file[f"{name}/kernel"])
        sha256 = str(file.attrs["source_sha256"])
    kept = json.loads((tmp_path / "run" / "config.json").read_text())["encoder_source"]
    assert kept == {"source_kind": "unknown", "source_sha256": sha256, "source_file": "c3d"}
    assert model.provenance["encoder_source"] == kept
    shutil.rmtree(tmp_path / "run")
