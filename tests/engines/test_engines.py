"""The JAX engine against TensorFlow's. This process has TensorFlow; JAX's have it blocked, as if not installed."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from femur3d.config import Training
from femur3d.engines import jax_engine
from femur3d.engines.backend import ENGINE
from femur3d.inference.saved_model import load_model
from femur3d.inference.segmenter import Segmenter
from femur3d.io.images import read_volume, write_volume
from femur3d.io.settings import with_settings
from femur3d.network.unet import build_network
from femur3d.training.checkpoint import save_checkpoint
from femur3d.training.optimizer import make_optimizer
from tests.support.ellipsoids import ellipsoid_case
from tests.support.engine_updates import NETWORK, RECIPES, ROUNDED_BY, make_updates
from tests.support.training import rows, train

ROOT = Path(__file__).parents[2]
BLOCKER = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "{library}":
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Blocker())
"""


@pytest.fixture(scope="module")
def on_engine(tmp_path_factory):
    """Runs Python in a process of its own, on an engine, with a library blocked, to an expected exit code."""
    folder = tmp_path_factory.mktemp("blockers")

    def run(*words, backend="jax", blocked="tensorflow", code=0):
        (folder / blocked).mkdir(exist_ok=True)
        (folder / blocked / "sitecustomize.py").write_text(BLOCKER.format(library=blocked))
        done = subprocess.run(
            [sys.executable, *map(str, words)],
            cwd=ROOT,
            env={
                **os.environ,
                "KERAS_BACKEND": backend,
                "PYTHONPATH": f"{folder / blocked}{os.pathsep}{ROOT}",
                "XLA_FLAGS": "--xla_backend_optimization_level=0",  # compiling is what takes the time here
            },
            capture_output=True,
            encoding="utf-8",
            stdin=subprocess.DEVNULL,
            timeout=600,
            check=False,
        )
        assert done.returncode == code, f"{words}: {done.returncode}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        return done

    return run


def assert_same_state(found: Path, expected: Path, moved_by_rounding: float = 0.0, tolerance: float = 1e-4):
    """Two checkpoints hold the same weights, moving statistics, momenta and step, to a tolerance.

    A bias in front of batch normalisation changes nothing, so its gradient is nothing but rounding, which differs from
    engine to engine. Adam makes steps of up to its rate of it: `moved_by_rounding`.
    """
    with np.load(found) as a, np.load(expected) as b:
        assert set(a.files) == set(b.files)
        assert {name.partition("/")[0] for name in a.files} == {"network", "optimizer", "step"}
        for name in a.files:
            normalised_bias = name.endswith("/bias") and "_cls/" not in name
            most = max(tolerance, moved_by_rounding * normalised_bias)
            np.testing.assert_allclose(a[name], b[name], rtol=tolerance, atol=most, err_msg=name)


def updates_differ_by(start: Path, found: Path, expected: Path) -> float:
    """What two engines added to all kernels: norm of the difference, as a part of the norm."""
    with np.load(start) as origin, np.load(found) as a, np.load(expected) as b:
        names = [name for name in origin.files if name.startswith("network/") and name.endswith("/kernel")]
        first, second = (np.concatenate([(file[n] - origin[n]).ravel() for n in names]) for file in (a, b))
    return float(np.linalg.norm(first - second) / np.linalg.norm(second))


@pytest.fixture(scope="module")
def both(on_engine, tmp_path_factory):
    """Every recipe's updates on both engines from the same weights: the folder, and scalars by engine and recipe."""
    folder = tmp_path_factory.mktemp("updates")
    network = build_network(NETWORK, seed=1)
    for recipe, (_, settings, _) in RECIPES.items():
        (folder / "start" / recipe).mkdir(parents=True)
        save_checkpoint(folder / "start" / recipe, 0, network, make_optimizer(Training(**settings), network))
    on_jax = on_engine("-m", "tests.support.engine_updates", folder / "start", folder / "jax")
    on_tensorflow = {r: make_updates(folder / "start", folder / "tensorflow" / r, r) for r in RECIPES}
    return folder, {"jax": json.loads(on_jax.stdout), "tensorflow": on_tensorflow}


@pytest.mark.slow
@pytest.mark.parametrize("recipe", [recipe for recipe in RECIPES if recipe != "bfloat16"])
def test_updates_of_both_engines_agree(both, recipe):
    folder, scalars = both
    count, settings, _ = RECIPES[recipe]
    for i, (found, expected) in enumerate(zip(scalars["jax"][recipe], scalars["tensorflow"][recipe], strict=True), 1):
        assert found["loss"] == pytest.approx(expected["loss"], rel=1e-5)
        assert found == pytest.approx(expected, rel=1e-4 if i == 1 else 1e-3)
    name = f"step_{count:08d}.npz"
    moved = 2 * count * Training().rate if settings.get("optimizer") == "adam" else 0.0  # one there, one back
    ends = [folder / engine / recipe / name for engine in ("jax", "tensorflow")]
    assert_same_state(*ends, moved)
    # A step changes a weight by little more than those tolerances. From the second on a unit whose input is nothing but
    # rounding may be on in one engine and off in the other, and its share of the gradient with it.
    most = 1e-4 if count == 1 else 1e-2
    assert updates_differ_by(folder / "start" / recipe / "step_00000000.npz", *ends) < most


ROUNDINGS = 15 * 3 * 2  # LowerCls: 15 blocks that round product, sum and normalised value, and the gradient's way back


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["jax", "tensorflow"])
def test_bfloat16_update_is_the_float32_update_but_for_rounding(both, engine):
    """What one rounding does is measured in float32, by rounding the input; n independent ones do √n times as much."""
    folder, scalars = both
    start, end = folder / "start" / "float32" / "step_00000000.npz", "step_00000001.npz"
    expected = folder / "tensorflow" / "float32" / end
    one_rounding = updates_differ_by(start, folder / "tensorflow" / "float32, input rounded" / end, expected)
    difference = updates_differ_by(start, folder / engine / "bfloat16" / end, expected)
    assert ROUNDED_BY < difference < ROUNDINGS**0.5 * one_rounding  # above: not computed in bfloat16 at all
    loss, reference = (scalars[e][r][0]["loss"] for e, r in ((engine, "bfloat16"), ("tensorflow", "float32")))
    assert loss == pytest.approx(reference, rel=ROUNDINGS**0.5 * ROUNDED_BY)


@pytest.fixture(scope="module")
def relay(on_engine, tiny_experiment, packed_file, tmp_path_factory):
    """An unbroken TensorFlow run, and one of which TensorFlow made updates 1-2 and 5-6 and JAX, without it, 3-4.

    One level is wide enough for `network.winograd`.
    """
    folder = tmp_path_factory.mktemp("relay")
    experiment = with_settings(
        tiny_experiment, ["network.encoder_filters=(2,32,2,2)", "network.decoder_filters=(2,2,2)"]
    )
    source = f"from femur3d.config import *\n\n\ndef get_config():\n    return {experiment!r}\n"
    (folder / "tiny.py").write_text(source)
    train(experiment, packed_file, folder / "unbroken")
    train(experiment, packed_file, folder / "relay", stop_after=2)
    on_engine(
        "-m", "femur3d.train", "--experiment", folder / "tiny.py", "--dataset", packed_file,
        "--run", folder / "relay", "--set", "training.steps=4",
    )  # fmt: skip
    config = json.loads((folder / "relay" / "model" / "config.json").read_text())
    _, finished = train(experiment, packed_file, folder / "relay")
    assert finished
    return folder, config


@pytest.mark.slow
def test_checkpoint_of_one_engine_resumes_in_the_other(relay):
    folder, config = relay
    assert config["provenance"]["step"] == 4
    assert "jax" in config["provenance"]
    assert "tensorflow" not in config["provenance"]
    ends = [folder / run / "checkpoints" / "step_00000006.npz" for run in ("relay", "unbroken")]
    assert_same_state(*ends)
    losses = [[float(row["loss"]) for row in rows(folder / run)] for run in ("relay", "unbroken")]
    np.testing.assert_allclose(*losses, rtol=1e-4)


@pytest.mark.slow
def test_jax_run_that_was_stopped_gives_the_weights_of_an_unbroken_one(relay, on_engine, packed_file, tmp_path):
    for run, stops in (("unbroken", [4]), ("stopped", [2, 4])):
        for steps in stops:
            on_engine(
                "-m", "femur3d.train", "--experiment", relay[0] / "tiny.py", "--dataset", packed_file,
                "--run", tmp_path / run, "--set", f"training.steps={steps}",
            )  # fmt: skip
    ends = [tmp_path / run / "checkpoints" / "step_00000004.npz" for run in ("stopped", "unbroken")]
    assert_same_state(*ends, tolerance=0)


@pytest.mark.slow
def test_predictions_of_both_engines_agree(relay, on_engine, tmp_path):
    scan, _ = ellipsoid_case(7)
    write_volume(scan, tmp_path / "scan.nii.gz")
    model, out = relay[0] / "relay" / "model", tmp_path / "out"
    command = ["-m", "femur3d.infer", "-i", tmp_path / "scan.nii.gz", "--model", model, "--probability"]
    on_engine(*command, "-o", out)
    on_engine(*command, "-o", tmp_path / "fast", "--fast")
    expected = Segmenter(load_model(model), ENGINE)(read_volume(tmp_path / "scan.nii.gz")).probability.array
    assert np.ptp(expected) > 0.01
    np.testing.assert_allclose(read_volume(out / "scan_prob.nii.gz").array, expected, atol=1e-4)
    np.testing.assert_allclose(read_volume(tmp_path / "fast" / "scan_prob.nii.gz").array, expected, atol=0.05)
    assert "jax" in json.loads((out / "scan.json").read_text())["versions"]


@pytest.mark.parametrize(
    ("backend", "blocked", "message"),
    [
        ("torch", "torch", "Keras backend torch: femur3d has no engine for it."),
        ("nonsense", "torch", "Keras backend nonsense: femur3d has no engine for it."),
        ("jax", "jax", "pip install jax"),
        ("tensorflow", "tensorflow", "KERAS_BACKEND=jax"),
    ],
)
def test_engine_that_is_not_there_is_said_in_two_lines(on_engine, backend, blocked, message, tmp_path):
    (tmp_path / "data").mkdir()
    words = ["--experiment", "demo", "--dataset", tmp_path / "data", "--run", tmp_path / "run"]
    said = on_engine("-m", "femur3d.train", *words, backend=backend, blocked=blocked, code=2).stderr
    assert not (tmp_path / "run").exists()
    assert message in said
    assert said.count("\n") == 2


def test_python_interface_tells_it_too(on_engine):
    said = on_engine("-c", "from femur3d import segment; segment('x')", backend="torch", blocked="torch", code=1).stderr
    assert "UsageError: Keras backend torch" in said


@pytest.mark.parametrize(("message", "error"), [("RESOURCE_EXHAUSTED: 1", MemoryError), ("INTERNAL: 2", RuntimeError)])
def test_out_of_memory_is_a_memory_error(monkeypatch, message, error):
    def compiled(*_):
        raise jax.errors.JaxRuntimeError(message)

    monkeypatch.setattr(jax_engine.jax, "jit", lambda _: compiled)
    with pytest.raises(error):
        jax_engine.JaxEngine().make_predict(build_network(NETWORK))(np.zeros((1, 16, 16, 16), np.float32))


@pytest.mark.parametrize(("hidden", "said"), [(None, "GPU that TensorFlow cannot use"), ("", ""), ("-1", "")])
def test_a_gpu_that_is_not_used_is_told(monkeypatch, hidden, said):
    from femur3d.engines import hardware, tensorflow_engine

    monkeypatch.setattr(hardware.shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(tensorflow_engine.tf.config, "list_physical_devices", lambda kind: [])
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if hidden is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
    name = tensorflow_engine.TensorFlowEngine().device_name()
    assert name.startswith("CPU, ")
    assert ("femur3d[gpu]" in name) == bool(said)
    assert said in name


def test_gpus_are_not_filled_at_once_and_named(monkeypatch):
    from femur3d.engines import tensorflow_engine

    grows, config = [], tensorflow_engine.tf.config
    monkeypatch.setattr(config, "list_physical_devices", lambda kind: ["gpu0", "gpu1"])
    monkeypatch.setattr(config.threading, "set_inter_op_parallelism_threads", lambda count: None)
    monkeypatch.setattr(config.experimental, "set_memory_growth", lambda gpu, on: grows.append((gpu, on)))
    monkeypatch.setattr(config.experimental, "get_device_details", lambda gpu: {"device_name": f"NVIDIA {gpu}"})
    engine = tensorflow_engine.TensorFlowEngine()
    engine.make_repeatable(training=False)
    assert grows == [("gpu0", True), ("gpu1", True)]
    assert engine.device_name() == "GPU: NVIDIA gpu0, NVIDIA gpu1"
