"""The training loop on a tiny network: resuming, stopping, diverging, what it writes."""

import itertools
import json
import re
import shutil
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest
from tqdm import tqdm

from femur3d.data.packed_dataset import PackedDataset
from femur3d.data.packing import pack_dataset
from femur3d.engines.backend import ENGINE
from femur3d.errors import InputError, UsageError
from femur3d.inference.quality_limits import Limit, write_limits
from femur3d.inference.saved_model import SHIPPED, check_fits, find_model, load_model
from femur3d.io.settings import with_settings
from femur3d.network.unet import build_network
from femur3d.training.reporting import COLUMNS, Window, duration
from femur3d.training.run_directory import open_run_directory
from femur3d.training.trainer import Trainer, TrainingError
from femur3d.training.validation import validate
from tests.support.ellipsoids import write_dataset
from tests.support.training import StandIn, rows, train


@pytest.fixture(scope="module")
def finished_run(tiny_experiment, packed_file, tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "unbroken"
    trainer, finished = train(tiny_experiment, packed_file, path)
    assert finished
    return path, trainer


@pytest.fixture(scope="module")
def stand_in_run(tiny_experiment, packed_file, tmp_path_factory):
    """The same loop, its updates not the network's: for tests that ask what the loop does with them."""
    path = tmp_path_factory.mktemp("runs") / "stand_in"
    return path, train(tiny_experiment, packed_file, path, engine=StandIn())[0]


@pytest.fixture(autouse=True)
def without_pictures(finished_run, stand_in_run, monkeypatch):
    """The two runs above have drawn theirs; drawing again would take half of the time of every other training."""
    monkeypatch.setattr("femur3d.training.tensorboard.contour_picture", lambda result: (b"", 1, 1))


def test_run_directory(finished_run, tiny_experiment):
    path, _ = finished_run
    names = {p.name for p in path.iterdir() if not p.name.startswith("events.out.tfevents.")} - {".lock"}
    assert names == {"config.json", "checkpoints", "model", "metrics.csv", "log.txt"}
    assert json.loads((path / "config.json").read_text())["training"]["steps"] == 6
    assert [p.name for p in sorted((path / "checkpoints").iterdir())] == ["step_00000003.npz", "step_00000006.npz"]
    assert [r["step"] for r in rows(path)] == ["2", "4", "6"]
    assert tuple(rows(path)[0]) == COLUMNS
    assert float(rows(path)[0]["learning_rate"]) == pytest.approx(tiny_experiment.training.rate)
    log = (path / "log.txt").read_text()
    assert "6 updates" in log
    assert re.search(r"about \d+ (s|min) on this machine", log)


def test_model_is_the_trained_network(finished_run):
    path, trainer = finished_run
    model = load_model(path / "model")
    assert model.provenance["step"] == 6
    assert model.provenance["training_cases"] == ["case_0", "case_1"]
    for a, b in zip(model.network.get_weights(), trainer.network.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_validation_dice_is_that_of_the_trained_network(finished_run, packed_file, tiny_experiment):
    path, trainer = finished_run

    def predict(patches):
        return keras.ops.softmax(trainer.network(patches[..., None], training=False)["upper"])[..., 1]

    with PackedDataset(packed_file) as packed:
        found = [volume.dice for volume in validate(packed, predict, tiny_experiment.preprocessing.patch_size)]
    assert float(rows(path)[-1]["validation_dice"]) == pytest.approx(np.mean(found), abs=1e-4)


@pytest.mark.parametrize(("stop_after", "engine"), [(2, StandIn()), (3, StandIn()), (5, StandIn()), (5, ENGINE)])
def test_resumed_run_gives_the_same_bits(request, tiny_experiment, packed_file, tmp_path, stop_after, engine):
    _, unbroken = request.getfixturevalue("finished_run" if engine is ENGINE else "stand_in_run")
    _, finished = train(tiny_experiment, packed_file, tmp_path / "r", stop_after, engine)
    assert not finished
    resumed, finished = train(tiny_experiment, packed_file, tmp_path / "r", engine=engine)
    assert finished
    state = [(t.network.variables, t.optimizer.variables) for t in (unbroken, resumed)]
    for part in range(2):
        for a, b in zip(state[0][part], state[1][part], strict=True):
            np.testing.assert_array_equal(np.asarray(a), np.asarray(b))
    # Its first row averages over the updates since the resumption only where they are all new.
    assert [r["step"] for r in rows(tmp_path / "r")] == ["2", "4", "6"]


def test_killed_run_goes_on_from_its_last_checkpoint(stand_in_run, tiny_experiment, packed_file, tmp_path):
    train(tiny_experiment, packed_file, tmp_path / "r", stop_after=5, engine=StandIn())
    (tmp_path / "r" / "checkpoints" / "step_00000005.npz").unlink()  # as if killed before it was written
    trainer, finished = train(tiny_experiment, packed_file, tmp_path / "r", engine=StandIn())
    assert finished
    assert trainer.step == 6
    assert [r["step"] for r in rows(tmp_path / "r")] == ["2", "4", "6"]
    for a, b in zip(stand_in_run[1].network.get_weights(), trainer.network.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_finished_run_has_nothing_left_to_do(finished_run, tiny_experiment, packed_file):
    path, before = finished_run
    trainer, finished = train(tiny_experiment, packed_file, path)
    assert finished
    for a, b in zip(before.network.get_weights(), trainer.network.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_finished_run_that_is_started_again_keeps_its_models_limits(
    stand_in_run, tiny_experiment, packed_file, tmp_path
):
    """Nothing is written anew that is there and whole; a damaged model is."""
    path = shutil.copytree(stand_in_run[0], tmp_path / "r")
    write_limits(path / "model", {"fragments": Limit(0.0, 1.0, 2.0)}, "imagination")
    files = [*path.glob("checkpoints/*"), *path.glob("model/*")]
    before = {file: file.stat().st_mtime_ns for file in files}
    assert train(tiny_experiment, packed_file, path, engine=StandIn())[1]
    assert {file: file.stat().st_mtime_ns for file in files if file.exists()} == before
    (path / "model" / "model.weights.h5").write_bytes(b"nothing")
    assert train(tiny_experiment, packed_file, path, engine=StandIn())[1]
    assert load_model(path / "model").provenance["step"] == 6


def test_fewer_updates_than_are_made_already_are_refused(stand_in_run, tiny_experiment, packed_file, tmp_path):
    """config.json would say 5 updates of a model of 6, and so would tables."""
    path = shutil.copytree(stand_in_run[0], tmp_path / "r")
    before = (path / "config.json").read_bytes()
    with pytest.raises(UsageError, match=r"6 updates are made already.*\n.*training\.steps.*Received: 5") as caught:
        train(with_settings(tiny_experiment, ["training.steps=5"]), packed_file, path, engine=StandIn())
    assert str(caught.value).count("\n") == 1
    assert (path / "config.json").read_bytes() == before


def test_other_experiment_in_the_same_run_is_refused(finished_run, tiny_experiment):
    run = open_run_directory(finished_run[0])
    with pytest.raises(UsageError, match=r"training\.rate=0\.01, now 0\.5"):
        run.check_experiment(with_settings(tiny_experiment, ["training.rate=0.5"]))
    run.check_experiment(with_settings(tiny_experiment, ["training.log_every=1"]))
    run.close()


@pytest.mark.parametrize(("mixed", "volumes"), [(False, 1), (True, 2)])
def test_loss_that_is_not_finite_stops_the_run(tiny_experiment, packed_file, tmp_path, mixed, volumes):
    run = open_run_directory(tmp_path / "r")
    experiment = with_settings(tiny_experiment, [f"training.multi_volume_batches={mixed}"])
    with PackedDataset(packed_file) as packed, tqdm(disable=True) as bar:
        trainer = Trainer(experiment, packed, run, StandIn())
        inner = trainer.train_step

        def poisoned(images, labels):
            return inner(images * (np.nan if trainer.step == 4 else 1), labels)

        trainer.train_step = poisoned
        with pytest.raises(TrainingError) as caught:
            trainer.train(bar)
    run.close()
    message = str(caught.value)
    assert message.startswith("Update 5 failed, the loss is nan")
    assert message.count("case_") == volumes
    assert "step_00000003.npz" in message
    assert message.count("\n") == 1
    restored = np.load(tmp_path / "r" / "checkpoints" / "step_00000003.npz")
    assert all(np.isfinite(restored[name]).all() for name in restored.files)


def test_transfer_fills_the_encoder_and_is_recorded(tiny_experiment, packed_file, tmp_path, capsys):
    path = tmp_path / "surrogate.h5"
    filters = (1, *tiny_experiment.network.encoder_filters)
    shapes = dict(zip(("conv1a", "conv2a", "conv3a", "conv4a"), itertools.pairwise(filters), strict=True))
    shapes |= {"conv3b": (filters[3],) * 2, "conv4b": (filters[4],) * 2}
    with h5py.File(path, "w") as file:
        for name, (inputs, outputs) in shapes.items():
            file[f"{name}/kernel"] = np.full((3, 3, 3, inputs, outputs), 0.5)
            file[f"{name}/bias"] = np.full(outputs, 0.25)
        file.attrs.update(source_kind="surrogate", source_sha256="ab" * 32)
    experiment = with_settings(tiny_experiment, [f"encoder_weights={path}"])
    with PackedDataset(packed_file) as packed:
        run = open_run_directory(tmp_path / "r")
        trainer = Trainer(experiment, packed, run, ENGINE)
        run.close()
    assert (np.asarray(trainer.network.get_layer("conv3b").kernel) == 0.5).all()
    assert not (np.asarray(trainer.network.get_layer("lower_conv_a").kernel) == 0.5).any()
    said = capsys.readouterr().out
    assert "source: surrogate" in said
    assert "Not transferred" in said
    config = json.loads((tmp_path / "r" / "config.json").read_text())
    assert config["encoder_source"] == {
        "source_kind": "surrogate", "source_sha256": "ab" * 32, "source_file": "unknown",
    }  # fmt: skip


def test_validation_does_not_wait_for_the_log(tiny_experiment, packed_file, tmp_path):
    experiment = with_settings(tiny_experiment, ["training.log_every=4", "training.validate_every=3"])
    train(experiment, packed_file, tmp_path / "r", engine=StandIn())
    found = {r["step"]: (bool(r["loss"]), bool(r["validation_dice"])) for r in rows(tmp_path / "r")}
    assert found == {"3": (False, True), "4": (True, False), "6": (True, True)}


def test_gradient_that_is_not_finite_stops_the_run_before_it_is_saved(tiny_experiment, packed_file, tmp_path):
    with PackedDataset(packed_file) as packed, tqdm(disable=True) as bar:
        run = open_run_directory(tmp_path / "r")
        trainer = Trainer(tiny_experiment, packed, run, StandIn())
        inner = trainer.train_step

        def exploded(images, labels):
            scalars = inner(images, labels)
            return {**scalars, "gradient_norm": np.inf} if trainer.step == 5 else scalars

        trainer.train_step = exploded
        with pytest.raises(TrainingError, match=r"Update 6 failed, the gradient_norm is inf"):
            trainer.train(bar)
        assert type(trainer.network.get_layer("conv1a_bn")) is keras.layers.BatchNormalization  # the plain network
        trainer.network.get_layer("conv1a").bias.assign([np.nan] * 2)
        trainer._pending.clear()
        with pytest.raises(TrainingError, match="weights are not finite"):
            trainer._save_checkpoint()
        run.close()
    assert [p.name for p in (tmp_path / "r" / "checkpoints").iterdir()] == ["step_00000003.npz"]


def test_other_data_in_the_same_run_is_refused(finished_run, dataset_dir, tiny_experiment, tmp_path):
    other = write_dataset(tmp_path / "other", cases=4)
    pack_dataset(other, tmp_path / "other.h5", tiny_experiment, lambda name: None)
    with pytest.raises(InputError, match="begun with data"):
        train(tiny_experiment, tmp_path / "other.h5", finished_run[0])


def test_a_case_that_was_trained_on_does_not_come_to_validate(tiny_experiment, tmp_path):
    experiment = with_settings(tiny_experiment, ["training.variants=(0,)"])
    dataset, packed = write_dataset(tmp_path / "d"), tmp_path / "p.h5"
    pack_dataset(dataset, packed, experiment, lambda name: None)
    train(experiment, packed, tmp_path / "r", stop_after=1, engine=StandIn())
    (dataset / "splits_final.json").write_text('[{"train": ["case_0"], "val": ["case_1", "case_2"]}]')
    pack_dataset(dataset, packed, experiment, lambda name: None)
    with pytest.raises(InputError, match="begun with other cases to train on"):
        train(experiment, packed, tmp_path / "r", engine=StandIn())


def test_transfer_is_done_once(tiny_experiment, packed_file, tmp_path):
    """A run that goes on keeps what it began with: the file may be gone, or another one."""
    network = build_network(tiny_experiment.network)
    path = tmp_path / "surrogate.h5"
    with h5py.File(path, "w") as file:
        for name in ("conv1a", "conv2a", "conv3a", "conv3b", "conv4a", "conv4b"):
            for part in ("kernel", "bias"):
                file[f"{name}/{part}"] = np.asarray(getattr(network.get_layer(name), part))
        file.attrs.update(source_kind="surrogate")
    experiment = with_settings(tiny_experiment, [f"encoder_weights={path}"])
    train(experiment, packed_file, tmp_path / "r", stop_after=2, engine=StandIn())
    path.unlink()
    _, finished = train(experiment, packed_file, tmp_path / "r", engine=StandIn())
    assert finished
    model = load_model(tmp_path / "r" / "model")
    assert model.provenance["encoder_source"]["source_kind"] == "surrogate"


def test_fine_tuning_starts_from_a_model_and_keeps_what_it_began_with(
    finished_run, tiny_experiment, packed_file, tmp_path, capsys
):
    before, trainer = finished_run
    folder = shutil.copytree(before / "model", tmp_path / "hospital")
    experiment = with_settings(tiny_experiment, [f"initial_weights={folder}", "training.seed=3"])
    with PackedDataset(packed_file) as packed, open_run_directory(tmp_path / "r") as run:
        begun = Trainer(experiment, packed, run, ENGINE)
        for a, b in zip(begun.network.get_weights(), trainer.network.get_weights(), strict=True):
            np.testing.assert_array_equal(a, b)
        begun.step = 2
        begun._finish()
    assert "Starts from the weights of model hospital" in capsys.readouterr().out
    shutil.rmtree(folder)  # a run that goes on needs it no more
    with PackedDataset(packed_file) as packed, open_run_directory(tmp_path / "r") as run:
        Trainer(experiment, packed, run, ENGINE)._finish()
        with pytest.raises(UsageError, match="begun with initial_weights="):
            run.check_experiment(with_settings(experiment, ["initial_weights=hip_t1"]))
    source = json.loads((tmp_path / "r" / "config.json").read_text())["initial_model"]
    assert source["name"] == "hospital"
    assert source["weights_sha256"] == load_model(before / "model").weights_sha256
    assert source["provenance"]["training_cases"] == ["case_0", "case_1"]
    assert load_model(tmp_path / "r" / "model").provenance["initial_model"] == source


def test_fine_tuning_needs_a_model_of_the_same_network(tiny_experiment):
    assert find_model("hip_t1") == SHIPPED
    assert find_model("runs/mine/model") == Path("runs/mine/model")
    with pytest.raises(InputError, match=r"encoder_filters are \(16, 32, 64, 128\), the experiment's \(2, 3, 4, 4\)"):
        check_fits(SHIPPED, tiny_experiment.network)
    with pytest.raises(InputError, match="no model here"):
        check_fits(find_model("hip_t9"), tiny_experiment.network)
    with pytest.raises(UsageError, match="expected no encoder_weights"):
        with_settings(tiny_experiment, ["initial_weights=hip_t1", "encoder_weights=data/c3d.h5"])


class Lazy:
    """A scalar that notes when it is fetched."""

    def __init__(self, value, fetched):
        self.value, self.fetched = value, fetched

    def __float__(self):
        self.fetched.append(self)
        return float(self.value)


def test_scalars_are_fetched_with_the_log_and_the_means_are_those_of_every_update(
    stand_in_run, tiny_experiment, packed_file, tmp_path
):
    """Rows of a window of six updates against the means of windows of one, and no scalar fetched in between."""
    settings = ["training.checkpoint_every=6", "training.validate_every=6"]
    counts, fetched = [], []
    for every in (6, 1):
        experiment = with_settings(tiny_experiment, [*settings, f"training.log_every={every}"])
        with PackedDataset(packed_file) as packed, tqdm(disable=True) as bar:
            run = open_run_directory(tmp_path / f"every_{every}")
            trainer = Trainer(experiment, packed, run, StandIn())
            inner = trainer.train_step

            def lazy(images, labels, inner=inner):
                counts.append(len(fetched))
                return {name: Lazy(value, fetched) for name, value in inner(images, labels).items()}

            trainer.train_step = lazy
            trainer.train(bar)
            run.close()
    scalars = len(fetched) // 12
    assert counts == [0] * 6 + [scalars * (6 + step) for step in range(6)]
    (whole,), single = rows(tmp_path / "every_6"), rows(tmp_path / "every_1")
    for name in ("loss", "ce_lower", "ce_mid", "ce_upper", "l2_penalty", "gradient_norm", "learning_rate"):
        assert float(whole[name]) == pytest.approx(np.mean([float(row[name]) for row in single]), rel=1e-5)
    assert whole["validation_dice"] == single[-1]["validation_dice"] == rows(stand_in_run[0])[-1]["validation_dice"]


def test_loss_that_is_not_finite_is_never_saved(tiny_experiment, packed_file, tmp_path):
    """Nobody looks before the checkpoint after update 3; then update 2 is named, not 3."""
    experiment = with_settings(tiny_experiment, ["training.log_every=100", "training.validate_every=100"])
    with PackedDataset(packed_file) as packed, tqdm(disable=True) as bar:
        run = open_run_directory(tmp_path / "r")
        trainer = Trainer(experiment, packed, run, StandIn())
        trainer.train_step = lambda *_: {"loss": np.nan if trainer.step == 1 else 1.0, "gradient_norm": 1.0}
        with pytest.raises(TrainingError, match=r"Update 2 failed, the loss is nan; its patches come from case_"):
            trainer.train(bar)
        run.close()
    assert not list((tmp_path / "r" / "checkpoints").iterdir())


def test_window_by_hand(monkeypatch):
    times = iter([10.0, 11.0, 11.5, 14.0])  # begun, batch awaited from … to, means asked for
    monkeypatch.setattr("time.perf_counter", lambda: next(times))
    window = Window()
    with window:
        window.rows += [{"loss": 1.0}, {"loss": 4.0}]
    assert window.means() == {"loss": 2.5, "steps_per_s": 0.5, "wait_share": 0.125}


def test_durations_are_for_people():
    assert [duration(s) for s in (40, 720, 12_600)] == ["40 s", "12 min", "3.5 h"]
