"""Every file that femur3d wrote and reads again, damaged: it is told in two lines, or what is read is what was written.

Never another error, a wait of ten seconds, or a wrong value.
"""

import time

import h5py
import keras
import numpy as np
import pytest

from femur3d.config import Network, Preprocessing, Training
from femur3d.data.packed_dataset import PackedDataset
from femur3d.errors import FemurError
from femur3d.inference.quality_limits import KINDS, Limit, write_limits
from femur3d.inference.saved_model import load_model, save_model
from femur3d.io.atomic import SEAL_BYTES, seal
from femur3d.network.encoder import STAGES
from femur3d.network.encoder_weights import load_encoder_weights
from femur3d.network.unet import build_network
from femur3d.training.checkpoint import restore_latest, save_checkpoint
from femur3d.training.optimizer import make_optimizer
from femur3d.training.run_directory import MetricsLog, RunDirectory
from tests.support.damage import damaged

SLOWEST_SECONDS = 20.0  # ten are promised; the machine may be busy
NETWORK = Network((2, 2, 2, 2), (2, 2, 2))


def packed_dataset(folder, packed_file, experiment):
    path = folder / "p.h5"
    path.write_bytes(packed_file.read_bytes())

    def read():
        with PackedDataset(path) as packed:
            volumes = [packed.read_volume(number) for number in range(len(packed.entries))]
            voxels = [packed.femur_voxels(number).tobytes() for number in range(len(packed.entries))]
            known = packed.content, packed.entries, packed.fold, packed.source, packed.preprocessing, packed.dataset
            return known, voxels, [(a.array.tobytes(), b.array.tobytes(), a.spacing_mm) for a, b in volumes]

    return path, read


def old_packed_dataset(folder, packed_file, experiment):
    """Of earlier versions: without a seal. What their attributes say is not hashed, but their voxels are."""
    path, read = packed_dataset(folder, packed_file, experiment)
    path.write_bytes(path.read_bytes()[:-SEAL_BYTES])

    def read_voxels():
        (content, *_), _, volumes = read()
        return content, [(image, label) for image, label, _ in volumes]

    return path, read_voxels


def model(name):
    def make(folder, packed_file, experiment):
        write = build_network(NETWORK, seed=1)
        save_model(folder, write, NETWORK, Preprocessing(), {"step": 7, "training_cases": ["a", "b"]})
        write_limits(folder, {kind: Limit(*_numbers(kind)) for kind in KINDS}, "nothing")

        def read():
            found = load_model(folder)
            weights = [w.tobytes() for w in found.network.get_weights()]
            return weights, found.provenance, found.network_config, found.preprocessing, found.quality

        return folder / name, read

    return make


def _numbers(kind):
    return (3.0, 2.0, 1.0) if KINDS[kind].low_is_bad else (1.0, 2.0, 3.0)


def checkpoint(folder, packed_file, experiment):
    """The newest of two: a damaged one is passed over, so this one's values are read or the other's."""
    saved = {step: _trained(seed=step) for step in (5, 6)}
    for step, state in saved.items():
        path = save_checkpoint(folder, step, *state)
    values = {step: _values(*state) for step, state in saved.items()}
    restored = _trained(seed=7)

    def read():
        step = restore_latest(folder, *restored)
        assert _values(*restored) == values[step]
        return True

    return path, read


def old_checkpoint(folder, packed_file, experiment):
    path, read = checkpoint(folder, packed_file, experiment)
    path.write_bytes(path.read_bytes()[:-SEAL_BYTES])
    return path, read


def _trained(seed):
    layers = [keras.Input((3,)), keras.layers.Dense(4, kernel_initializer="ones", name="dense")]
    network = keras.Sequential(layers, name="tiny")  # names as of a new process
    network.layers[0].bias.assign(np.full(4, seed))
    optimizer = make_optimizer(Training(), network)
    for number, variable in enumerate(optimizer.variables):
        variable.assign(np.full(variable.shape, seed * 1000 + number))
    return network, optimizer


def _values(network, optimizer):
    return [np.asarray(v).tobytes() for v in (*network.variables, *optimizer.variables)]


def encoder_weights(folder, packed_file, experiment):
    path, network = folder / "c3d.h5", build_network(NETWORK)
    random = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        for name in (name for stage in STAGES for name in stage):
            for part in ("kernel", "bias"):
                file[f"{name}/{part}"] = random.normal(size=getattr(network.get_layer(name), part).shape)
        file.attrs.update(source_kind="c3d", source_file="conv3d", source_sha256="0" * 64)
    seal(path)

    def read():
        load_encoder_weights(path, network)
        return [w.tobytes() for w in network.get_weights()]

    return path, read


def run_configuration(folder, packed_file, experiment):
    run = RunDirectory(folder)
    run.write_config(experiment, {"source_kind": "c3d"}, "0" * 64)

    def read():
        run.check_experiment(experiment)
        return run.stored()

    return folder / "config.json", read


def metrics(folder, packed_file, experiment):
    """Rows that cannot be read are dropped; what is written afterwards is a table again."""
    path = folder / "metrics.csv"
    log = MetricsLog(path, ("step", "loss"))
    log.start_after(0)
    for step in range(1, 9):
        log.add({"step": step, "loss": 0.5})
    sound = path.read_bytes()

    def read():
        log.start_after(8)
        assert path.read_text(encoding="utf-8").startswith("step,loss\n")
        assert len(path.read_bytes()) <= 2 * len(sound)
        return True

    return path, read


MAKERS = {
    "packed": packed_dataset,
    "packed-old": old_packed_dataset,
    "model-config": model("config.json"),
    "model-weights": model("model.weights.h5"),
    "model-quality": model("quality.json"),
    "checkpoint": checkpoint,
    "checkpoint-old": old_checkpoint,
    "encoder": encoder_weights,
    "run-config": run_configuration,
    "metrics": metrics,
}


SLOWLY_READ = {"packed-old": 40, "encoder": 100}  # how many of these take as long as 400 others


@pytest.mark.parametrize("count", [3, pytest.param(400, marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", MAKERS)
def test_damage_is_told_or_harmless(tmp_path, packed_file, tiny_experiment, kind, count):
    path, read = MAKERS[kind](tmp_path, packed_file, tiny_experiment)
    sound, expected, told = path.read_bytes(), read(), list[str]()
    for number in range(min(count, SLOWLY_READ.get(kind, count))):
        path.write_bytes(damaged(sound, number))
        start = time.perf_counter()
        try:
            assert read() == expected, f"damage {number}"
        except FemurError as error:
            told.append(str(error))
        assert time.perf_counter() - start < SLOWEST_SECONDS
    assert all(message.count("\n") <= 1 for message in told)
    assert told or kind in ("checkpoint", "checkpoint-old", "metrics")  # which never fail
