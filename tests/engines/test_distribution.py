"""Training on several devices: TensorFlow's logical CPUs, JAX's, and two processes over loopback."""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import types

import numpy as np
import pytest

from femur3d.config import HEADS, Experiment
from femur3d.data.packed_dataset import PackedDataset
from femur3d.data.sampler import PatchSampler
from femur3d.engines.distribution.cluster import Cluster, read_cluster
from femur3d.engines.distribution.strategy import _check_share, check_environment
from femur3d.engines.distribution.workers import ReadOnlyRun
from femur3d.errors import InputError, UsageError
from femur3d.io.settings import to_dict, with_settings
from femur3d.training.run_directory import RunDirectory
from tests.support.training import rows, train

SECONDS = 1500  # for a training of a few updates where others compute on the same cores


def tf_config(**changes):
    return json.dumps({"cluster": {"worker": ["a:1", "b:2"]}, "task": {"type": "worker", "index": 1}} | changes)


def test_workers_of_tf_config():
    assert read_cluster(tf_config()) == Cluster(("a:1", "b:2"), 1)
    cluster = {"chief": ["c:1"], "worker": ["a:1", "b:2"]}
    assert read_cluster(tf_config(cluster=cluster)) == Cluster(("c:1", "a:1", "b:2"), 2)
    assert read_cluster(tf_config(cluster=cluster, task={"type": "chief", "index": 0})).index == 0


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "is not set"),
        ("{'cluster'", "no JSON"),
        ("[]", "no cluster"),
        (tf_config(task=1), "no task"),
        (tf_config(cluster={"worker": "a:1"}), 'cluster is {"worker": "a:1"}'),
        (tf_config(cluster={"worker": ["a", "b:2"]}), "cluster is"),
        (tf_config(cluster={"worker": ["a:1", "b:2"], "ps": ["c:3"]}), "cluster is"),
        (tf_config(task={"type": "worker", "index": 2}), "none of its cluster's"),
        (tf_config(task={"type": "evaluator", "index": 0}), "none of its cluster's"),
        (tf_config(task={"type": "worker", "index": "1"}), "none of its cluster's"),
        (tf_config(cluster={"worker": ["a:1"]}, task={"type": "worker", "index": 0}), "one worker"),
    ],
)
def test_tf_config_that_is_none_is_refused(text, told, monkeypatch):
    monkeypatch.setenv("TF_CONFIG", text)
    check_environment("one")
    with pytest.raises(UsageError, match=re.escape(told)) as caught:
        check_environment("multiworker")
    check_environment("mirrored", synchronized=False)
    with pytest.raises(UsageError, match="nothing to synchronise"):
        check_environment("one", synchronized=False)
    assert str(caught.value).count("\n") == 1


@pytest.mark.parametrize(
    ("batch", "replicas", "told"), [(2, 1, "one device only"), (3, 2, "equal shares"), (1, 2, "of 1")]
)
def test_a_batch_that_cannot_be_shared_is_refused(batch, replicas, told):
    _check_share(4, 2)
    with pytest.raises(UsageError, match=told) as caught:
        _check_share(batch, replicas)
    assert str(caught.value).count("\n") == 1


def test_workers_that_begin_with_other_data_are_told(tiny_experiment, packed_file, monkeypatch):
    from femur3d.engines.distribution.tensorflow_replicas import TensorFlowReplicas

    engine = TensorFlowReplicas(types.SimpleNamespace(num_replicas_in_sync=2), Cluster(("a:1", "b:2"), 1), True)
    with PackedDataset(packed_file) as packed:
        sampler = PatchSampler(packed, tiny_experiment.training, (16, 16, 16))
        monkeypatch.setattr(engine, "_numbers_of_all", lambda own: [own, own])
        images, _ = next(iter(engine.patch_stream(sampler, 3, 4)))
        np.testing.assert_array_equal(images, sampler.batch(3)[0][1:])  # the second of two workers has the second patch
        monkeypatch.setattr(engine, "_numbers_of_all", lambda own: [own, own + 1])
        with pytest.raises(UsageError, match=r"Worker 1 \(b:2\) begins with other data"):
            engine.patch_stream(sampler, 3, 4)


def test_a_run_that_is_only_read(tmp_path, capsys):
    run = RunDirectory(tmp_path / "run")
    run.path.mkdir()
    run.write_config(Experiment("tiny"), {}, "aa")
    before = {path: path.read_bytes() for path in run.path.iterdir()}
    with ReadOnlyRun(run.path) as read:
        read.say("a line")
        read.write_config(Experiment("tiny"), {}, "aa")
        with pytest.raises(InputError, match="begun with data aa"):
            read.write_config(Experiment("tiny"), {}, "bb")
        read.discard()
    assert {path: path.read_bytes() for path in run.path.iterdir()} == before
    assert capsys.readouterr().out == "a line\n"


@pytest.fixture(scope="module")
def experiment(tiny_experiment):
    """Its updates are logged one by one, and the loss has everything that counts over the whole batch."""
    return with_settings(tiny_experiment, ["training.log_every=1", "loss.dice_weight=0.5"])


@pytest.fixture(scope="module")
def unbroken(experiment, packed_file, tmp_path_factory):
    """Folder and trainer of a run of six updates on one device."""
    path = tmp_path_factory.mktemp("one") / "run"
    return path, train(experiment, packed_file, path)[0]


@pytest.fixture
def command(experiment, packed_file, tmp_path):
    """The command of a run in tmp_path, from its strategy on; words are appended to it."""
    lines = [
        "from femur3d.config import Experiment",
        "from femur3d.io.settings import from_dict",
        "def get_config():",
        f"    return from_dict(Experiment, {to_dict(experiment)!r})",
    ]
    (tmp_path / "tiny.py").write_text("\n".join(lines))
    return [
        "--experiment", str(tmp_path / "tiny.py"), "--dataset", str(packed_file), "--run", str(tmp_path / "run"),
        "--strategy",
    ]  # fmt: skip


def mirrored(*words, code=0, devices=2, **environment):
    """Trains on logical devices; returns what was told in errors."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.logical_devices", str(devices), *words],
        capture_output=True, text=True, check=False, timeout=SECONDS, env=os.environ | environment,
    )  # fmt: skip
    assert done.returncode == code, (done.stdout, done.stderr[-3000:])
    return done.stderr.splitlines()


def assert_same_training(path, expected, rtol=1e-5):
    """The losses of a run's updates are those of another, and so are its last weights and moments."""
    found, wanted = rows(path), rows(expected)
    assert [row["step"] for row in found] == [row["step"] for row in wanted]
    for name in (
        "loss",
        "ce_lower",
        "ce_mid",
        "ce_upper",
        "l2_penalty",
        "dice_upper",
        "gradient_norm",
        "learning_rate",
    ):
        values = [[float(row[name]) for row in part] for part in (found, wanted)]
        np.testing.assert_allclose(*values, rtol=rtol, err_msg=name)
    last = [np.load(p / "checkpoints" / "step_00000006.npz") for p in (path, expected)]
    assert last[0].files == last[1].files
    for name in last[0].files:
        normalised_bias = name.endswith("bias") and "cls/" not in name  # without effect: its gradient is rounding
        if not normalised_bias:
            np.testing.assert_allclose(last[0][name], last[1][name], rtol=1e-3, atol=1e-5, err_msg=name)


@pytest.mark.slow
def test_two_replicas_of_one_patch_make_the_update_of_two(unbroken, command, experiment, packed_file, tmp_path):
    """From the start, clipped, with Nesterov's momentum; then one device goes on from their checkpoint."""
    mirrored(*command, "mirrored", "--set", "training.steps=3", "--set", "training.validate_every=6")
    assert "2 replicas" in (tmp_path / "run" / "log.txt").read_text()
    assert train(experiment, packed_file, tmp_path / "run")[1]
    assert_same_training(tmp_path / "run", unbroken[0])


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["tensorflow", "jax"])
def test_a_run_of_one_device_goes_on_with_two(unbroken, command, experiment, packed_file, tmp_path, backend):
    if backend == "jax":
        pytest.importorskip("jax")
    train(experiment, packed_file, tmp_path / "run", stop_after=3)
    mirrored(*command, "mirrored", KERAS_BACKEND=backend)
    assert_same_training(tmp_path / "run", unbroken[0])
    files = [
        {p.name for p in path.rglob("*") if ".tfevents." not in p.name} for path in (tmp_path / "run", unbroken[0])
    ]
    assert files[0] == files[1]


@pytest.mark.slow
def test_jax_cuts_the_batch_and_copies_the_weights():
    pytest.importorskip("jax")
    code = """if True:
        import keras, numpy
        from femur3d.engines.distribution.jax_replicas import JaxReplicas
        batch = JaxReplicas()._cut(numpy.arange(4.0)[:, None])
        weights = keras.Variable(numpy.arange(3.0)).value
        print([s.data.ravel().tolist() for array in (batch, weights) for s in array.addressable_shards])
    """
    environment = os.environ | {"KERAS_BACKEND": "jax", "XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    printed = subprocess.check_output([sys.executable, "-c", code], env=environment, text=True, timeout=SECONDS)
    assert printed == "[[0.0, 1.0], [2.0, 3.0], [0.0, 1.0, 2.0], [0.0, 1.0, 2.0]]\n"


@pytest.mark.slow
def test_without_synchronisation_each_replica_normalises_its_own_patch(command, experiment, packed_file, tmp_path):
    """The first losses are the means of those of two batches of one; the moving means lie between theirs."""
    from femur3d.network.unet import build_network
    from femur3d.training.losses import voxel_cross_entropy

    mirrored(*command, "mirrored", "--nosynchronized_batch_norm", "--set", "training.steps=1")
    expected, moving = {head: [] for head in HEADS}, []
    for element in range(2):
        with PackedDataset(packed_file) as packed:
            sampler = PatchSampler(packed, experiment.training, (16, 16, 16), elements=range(element, element + 1))
            images, labels = sampler.batch(0)
        network = build_network(experiment.network)
        for head, logits in network(images, training=True).items():
            expected[head].append(float(voxel_cross_entropy(labels, logits)))
        moving.append(np.asarray(network.get_layer("conv1a_bn").moving_mean))
    (row,) = rows(tmp_path / "run")
    for head, values in expected.items():
        assert float(row[f"ce_{head}"]) == pytest.approx(np.mean(values), rel=1e-5)
        assert abs(values[0] - values[1]) > 1e-3
    kept = np.load(tmp_path / "run" / "checkpoints" / "step_00000001.npz")["network/conv1a_bn/moving_mean"]
    np.testing.assert_allclose(kept, np.mean(moving, axis=0), rtol=1e-4, atol=1e-7)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "environment", "told"),
    [
        (["mirrored", "--set", "training.batch_size=3"], {}, "2 replicas cannot have equal shares of a batch of 3"),
        (["multiworker"], {"TF_CONFIG": "{"}, "TF_CONFIG is no JSON"),
        (["multiworker"], {"TF_CONFIG": tf_config(), "KERAS_BACKEND": "jax"}, "not with JAX"),
        (["mirrored", "--nosynchronized_batch_norm"], {"KERAS_BACKEND": "jax"}, "not with JAX"),
    ],
)
def test_what_is_refused_in_two_lines(command, tmp_path, words, environment, told):
    lines = mirrored(*command, *words, code=2, **environment)
    assert told in lines[-2]
    assert len(lines) == 2
    assert not (tmp_path / "run").exists()


def start_workers(words):
    """Two processes of one training over loopback, the chief first."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(2)]
        hosts = [f"127.0.0.1:{s.getsockname()[1]}" for s in sockets]
    return [
        subprocess.Popen(
            [sys.executable, "-m", "femur3d.train", *words],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env=os.environ | {"TF_CONFIG": tf_config(cluster={"worker": hosts}, task={"type": "worker", "index": i})},
        )
        for i in range(2)
    ]  # fmt: skip


def ended(processes):
    """Exit codes, what was printed, and what was told in errors, of each."""
    told = []
    try:
        for process in processes:
            told.append(process.communicate(timeout=SECONDS))
    finally:
        for process in processes:
            process.kill()
    return [p.returncode for p in processes], [out for out, _ in told], [errors.splitlines() for _, errors in told]


@pytest.mark.slow
def test_two_processes_make_the_update_of_one(unbroken, command, tmp_path):
    """The chief alone writes, the same files as a run of one process."""
    codes, printed, errors = ended(start_workers([*command, "multiworker"]))
    assert codes == [0, 0], errors
    assert_same_training(tmp_path / "run", unbroken[0])
    files = [sorted(p.name for p in path.rglob("*")) for path in (tmp_path / "run", unbroken[0])]
    assert [len(names) for names in files] == [len(files[1])] * 2
    log = (tmp_path / "run" / "log.txt").read_text()
    assert "worker 0 of 2" in log
    assert "worker 1 of 2" not in log
    assert "worker 1 of 2" in printed[1]
    assert errors[1] == []


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
@pytest.mark.parametrize(("victim", "signum"), [(1, signal.SIGKILL), (0, signal.SIGKILL), (1, signal.SIGTERM)])
def test_workers_stop_together_and_go_on(command, tmp_path, victim, signum):
    """Where one is killed the other ends with two lines; where one is asked to stop both save and end."""
    words = [*command, "multiworker", "--set", "training.checkpoint_every=2", "--set", "training.steps=100000",
             "--set", "training.validate_every=100000"]  # fmt: skip
    processes = start_workers(words)
    metrics, end = tmp_path / "run" / "metrics.csv", time.monotonic() + SECONDS
    while time.monotonic() < end and not (metrics.exists() and metrics.read_text().count("\n") > 4):
        assert processes[0].poll() is None, ended(processes)
        time.sleep(0.1)
    processes[victim].send_signal(signum)
    codes, _, errors = ended(processes)
    kept = sorted((tmp_path / "run" / "checkpoints").iterdir())[-1]
    step = int(kept.stem.partition("_")[2])
    assert step >= 2
    if signum == signal.SIGTERM:
        assert codes == [130, 130]
    else:
        assert codes[1 - victim] == 1
        assert codes[victim] == -signal.SIGKILL
        assert "Another worker of this training is gone" in errors[1 - victim][-2]
        assert len(errors[1 - victim]) == 2
    codes, printed, errors = ended(start_workers([*words, "--set", f"training.steps={step + 2}"]))
    assert codes == [0, 0], errors
    assert f"goes on after step {step:,} to {step + 2:,} updates" in printed[0]
