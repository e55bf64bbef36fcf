"""A full disk ends in an error that names the file; what was there before stays, and nothing is left over."""

import os
import types

import keras
import numpy as np
import pytest
from absl import flags

from femur3d import cli
from femur3d.config import Network, Preprocessing, Training
from femur3d.data.packed_dataset import PackedDataset
from femur3d.data.packing import pack_dataset
from femur3d.errors import InputError
from femur3d.inference.saved_model import load_model, save_model
from femur3d.network.unet import build_network
from femur3d.training.checkpoint import restore_latest, save_checkpoint
from femur3d.training.optimizer import make_optimizer
from femur3d.training.run_directory import MetricsLog
from femur3d.training.tensorboard import open_tensorboard_log
from tests.support.full_disk import full_disk

pytestmark = pytest.mark.skipif(os.name == "nt", reason="limits of POSIX")
WIDER = Network((4, 8, 8, 16), (8, 4, 4))


def told(capsys, work):
    """The lines that a command line would end in; its exit code is 3."""

    def main(argv):
        with full_disk():
            work()
        return 0

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cli, "flags", types.SimpleNamespace(FLAGS=list, Error=flags.Error))
        assert cli._exit_code(main) == 3
    return capsys.readouterr().err.splitlines()


def test_packing(tmp_path, dataset_dir, tiny_experiment, packed_file, capsys):
    path = tmp_path / "p.h5"
    path.write_bytes(packed_file.read_bytes())
    lines = told(capsys, lambda: pack_dataset(dataset_dir, path, tiny_experiment, lambda case: None))
    assert "cannot be written" in lines[0]
    assert lines[1] == "Is the disk full?"
    PackedDataset(path).close()
    assert os.listdir(tmp_path) == ["p.h5"]


def test_model(tmp_path):
    folder = tmp_path / "model"
    network = build_network(WIDER, seed=0)
    save_model(folder, network, WIDER, Preprocessing(), {"step": 1})
    with full_disk(), pytest.raises(InputError, match=r"model.*cannot be written.*\nIs the disk full") as caught:
        save_model(folder, network, WIDER, Preprocessing(), {"step": 2})
    assert str(caught.value).count("\n") == 1
    assert load_model(folder).provenance == {"step": 1}
    assert os.listdir(tmp_path) == ["model"]


def test_checkpoint_and_logs(tmp_path, capsys):
    network = keras.Sequential([keras.Input((100,)), keras.layers.Dense(100)])
    optimizer = make_optimizer(Training(), network)
    save_checkpoint(tmp_path / "checkpoints", 1, network, optimizer)
    lines = told(capsys, lambda: save_checkpoint(tmp_path / "checkpoints", 2, network, optimizer))
    assert "step_00000002.npz" in lines[0]
    assert lines[1].startswith("Free some space")
    assert os.listdir(tmp_path / "checkpoints") == ["step_00000001.npz"]
    assert restore_latest(tmp_path / "checkpoints", network, optimizer) == 1

    metrics = MetricsLog(tmp_path / "metrics.csv", ("step", "loss"))
    metrics.start_after(0)
    lines = told(capsys, lambda: [metrics.add({"step": step, "loss": 0.5}) for step in range(10_000)])
    assert str(tmp_path / "metrics.csv") in lines[0]
    metrics.start_after(10)
    assert len((tmp_path / "metrics.csv").read_text().splitlines()) == 12

    board = open_tensorboard_log(tmp_path / "run", 0)
    lines = told(capsys, lambda: [board.scalars(step, {"loss": 0.5}) for step in range(10_000)])
    assert "events.out.tfevents." in lines[0]
    assert len(lines) == 2
    assert np.isfinite(network.get_weights()[0]).all()
