"""Validation during a training: what counts, what a stop leaves to be made up for, what is not saved."""

import numpy as np
import pytest
from tqdm import tqdm

from femur3d.config import IGNORED
from femur3d.data.packed_dataset import Entry, PackedDataset, create_packed_file
from femur3d.inference.saved_model import load_model
from femur3d.io.settings import with_settings
from femur3d.training import trainer as training
from femur3d.training.run_directory import open_run_directory
from femur3d.training.trainer import Trainer, TrainingError
from femur3d.training.validation import validate
from femur3d.volume import Volume
from tests.support.training import StandIn, rows, train

TIMES = ("steps_per_s", "wait_share")


@pytest.fixture(autouse=True)
def without_pictures(monkeypatch):
    monkeypatch.setattr("femur3d.training.tensorboard.contour_picture", lambda result: (b"", 1, 1))


@pytest.fixture(scope="module")
def experiment(tiny_experiment):
    return with_settings(tiny_experiment, ["training.validate_every=3", "training.log_every=3"])


def without_times(path):
    return [{name: text for name, text in row.items() if name not in TIMES} for row in rows(path)]


def test_ignored_voxels_are_neither_found_nor_missed(tmp_path):
    """Everything is called femur. 8 of 512 voxels are, 496 are ignored, 8 are background: 2·8 / (8 + 16)."""
    label = np.full((8, 8, 8), IGNORED, np.uint8)
    label[0, 0], label[1, 0] = 1, 0
    preprocessing = {"normalisation": "body"}
    with create_packed_file(tmp_path / "p.h5", "d", preprocessing) as writer:
        writer.add(Entry("a", 2, 0, "val", "a.nii"), np.zeros_like(label), label, Volume(label))
    with PackedDataset(tmp_path / "p.h5") as packed:
        (found,) = validate(packed, np.ones_like, (8, 8, 8))
    assert (found.name, found.dice) == ("a/2", pytest.approx(2 / 3))


@pytest.mark.parametrize("number", [0, 1])
def test_a_validation_that_a_stop_cuts_short_is_made_up_for(experiment, packed_file, tmp_path, monkeypatch, number):
    """In the first validation, after update 3, or in the last one, after which no update is left."""
    train(experiment, packed_file, tmp_path / "unbroken", engine=StandIn())
    begun = []
    with PackedDataset(packed_file) as packed, open_run_directory(tmp_path / "r") as run, tqdm(disable=True) as bar:
        trainer = Trainer(experiment, packed, run, StandIn())

        def stopped(*arguments):
            begun.append(trainer.step)
            for result in validate(*arguments):
                if len(begun) > number:
                    trainer.stop()
                yield result

        with monkeypatch.context() as patch:
            patch.setattr(training, "validate", stopped)
            trainer.train(bar)
    assert trainer.step == begun[-1] == (3, 6)[number]
    assert rows(tmp_path / "r")[-1]["validation_dice"] == ""
    _, finished = train(experiment, packed_file, tmp_path / "r", engine=StandIn())
    assert finished
    assert without_times(tmp_path / "r") == without_times(tmp_path / "unbroken")
    assert all(row["loss"] and row["validation_dice"] for row in rows(tmp_path / "r"))


def test_a_validation_is_made_once(experiment, packed_file, tmp_path, monkeypatch):
    train(experiment, packed_file, tmp_path / "r", engine=StandIn(), stop_after=4)
    (tmp_path / "r" / "checkpoints" / "step_00000004.npz").unlink()  # as if killed: goes on after update 3
    monkeypatch.setattr(training, "validate", lambda *_: pytest.fail("validated again"))
    trainer, _ = train(experiment, packed_file, tmp_path / "r", engine=StandIn(), stop_after=5)
    assert trainer.step == 5
    assert [bool(row["validation_dice"]) for row in rows(tmp_path / "r")] == [True]


def test_a_model_whose_weights_are_not_finite_does_not_replace_a_sound_one(experiment, packed_file, tmp_path):
    with PackedDataset(packed_file) as packed, open_run_directory(tmp_path / "r") as run, tqdm(disable=True) as bar:
        trainer = Trainer(experiment, packed, run, StandIn())
        inner = trainer.train_step

        def overflow(images, labels):
            scalars = inner(images, labels)
            if trainer.step == 5:
                trainer.network.get_layer("conv1a_bn").moving_variance.assign([np.inf] * 2)
            return scalars

        trainer.train_step = overflow
        with pytest.raises(TrainingError, match="Update 6 failed, the weights are not finite"):
            trainer.train(bar)
    assert load_model(tmp_path / "r" / "model").provenance["step"] == 3
