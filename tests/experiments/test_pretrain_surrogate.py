"""The stand-in for C3D: its layers, its training, and its file, computed again in NumPy from what stands in it."""

import json
import pathlib
import subprocess
import sys
import types

import h5py
import keras
import numpy as np
import pytest

import femur3d
from experiments.surrogate import motion_clips, pretrain
from femur3d.errors import UsageError
from tests.support import caffe_writer
from tools.c3d import caffe_reader as caffe_blobs

CLASSES = 10
THIRTY_SECOND = 1 / 32


@pytest.fixture
def tiny(monkeypatch):
    """Clips of 4×16×16 in batches of 2."""
    for name, value in {"FRAMES": 4, "SIZE": 16, "BATCH": 2, "HELD_OUT": 6, "CHECKPOINT_EVERY": 2}.items():
        monkeypatch.setattr(pretrain, name, value)


def tiny_model(seed=0):
    return pretrain.build_classifier(1 / 64, (4, 16, 16, 3), CLASSES, seed)


def randomized(model):
    """The model with other weights, biases too: no two layers are alike, and none falls silent."""
    rng = np.random.default_rng(3)
    for layer in (layer for layer in model.layers if layer.weights):
        if isinstance(layer, keras.layers.BatchNormalization):
            n = layer.gamma.shape[0]
            layer.set_weights([rng.uniform(0.5, 1.5, n), *rng.normal(0, 0.1, (2, n)), rng.uniform(0.5, 2, n)])
            continue
        kernel, bias = layer.get_weights()
        scale = (2 / np.prod(kernel.shape[:-1])) ** 0.5
        layer.set_weights([rng.normal(0, scale, kernel.shape), rng.normal(0.05, 0.1, bias.shape)])
    return model


def test_layers_are_c3ds_scaled():
    """On C3D's own clips: shapes of its file, all divided by 32 but the colours and the classes."""
    model = pretrain.build_classifier(THIRTY_SECOND, (16, 112, 112, 3), CLASSES, 0)
    layers = pretrain.caffe_layers(model)
    full = caffe_writer.shapes((64, 128, 256, 512), fc=(4096, 4096, CLASSES * 32), spatial=16)
    assert list(layers) == list(full)
    for name, (out, into, *taps) in full.items():
        into = into if name == "conv1a" else into // 32
        kind, kernel, bias = layers[name]
        expected = (out // 32, into, *taps) if taps else (1, 1, 1, out // 32, into)
        assert (kind, kernel.shape) == (30 if taps else 14, expected), name
        assert bias.shape == (1, 1, 1, 1, out // 32), name
    assert layers["fc6-1"][1].shape[-1] == 16 * layers["conv5b"][1].shape[0]
    normalisation = 4 * sum(len(kernel) for kind, kernel, _ in layers.values() if kind == 30)  # folded into the others
    assert model.count_params() == normalisation + sum(k.size + b.size for _, k, b in layers.values())
    assert model.output_shape == (None, CLASSES)


def test_full_width_is_c3ds():
    assert [pretrain.scaled(n, 1) for n in (*pretrain.FILTERS, pretrain.HIDDEN)] == [64, 128, 256, 512, 512, 4096]
    assert [pretrain.scaled(n, 0.25) for n in (64, 4096)] == [16, 1024]
    assert [pretrain.scaled(n, 1 / 64) for n in (64, 512)] == [1, 8]
    assert pretrain.scaled(1, 0.1) == 1


def test_seed_decides_the_initial_weights():
    first, same, other = (tiny_model(seed) for seed in (1, 1, 2))
    for name in (*caffe_writer.CONVOLUTIONS, "fc6_1", "fc7_1", "fc8_1"):
        (kernel, bias), (again, _), (another, _) = (m.get_layer(name).get_weights() for m in (first, same, other))
        np.testing.assert_array_equal(kernel, again, err_msg=name)
        assert not np.array_equal(kernel, another), name
        assert not bias.any(), name


def correlate(x, kernel, bias):
    """Cross-correlation with zeros around: (in, z, y, x) → (out, z, y, x)."""
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3, 3), (1, 2, 3))
    return np.einsum("izyxklm,oiklm->ozyx", windows, kernel, optimize=True) + bias.reshape(-1, 1, 1, 1)


def max_pool(x, sizes):
    """Caffe's: windows side by side, the last one cut off by the border."""
    for axis, size in enumerate(sizes, start=1):
        x = np.maximum.reduceat(x, range(0, x.shape[axis], size), axis=axis)
    return x


def caffe_logits(net, clip):
    """C3D in float64 from the blobs of its file, ReLU after all but the last: clip (frames, y, x, 3) → (classes,)."""
    x = np.moveaxis(clip.astype(np.float64), -1, 0)
    pools = {"conv1a": (1, 2, 2)} | dict.fromkeys(("conv2a", "conv3b", "conv4b", "conv5b"), (2, 2, 2))
    for name in caffe_writer.CONVOLUTIONS:
        x = np.maximum(correlate(x, *(blob.astype(np.float64) for blob in net.layers[name].blobs)), 0)
        x = max_pool(x, pools[name]) if name in pools else x
    x = x.ravel()  # channels first, as in Caffe
    for name in ("fc6-1", "fc7-1", "fc8-1"):
        kernel, bias = (blob.astype(np.float64)[0, 0, 0] for blob in net.layers[name].blobs)
        assert np.count_nonzero(x) > 0.2 * x.size  # a silent input proves nothing
        x = kernel @ x + bias[0]
        x = np.maximum(x, 0) if name != "fc8-1" else x
    return x


def test_pooling_cuts_the_last_window():
    x = np.array([[[[1, 5, 2, 3, 4]], [[9, 0, 0, 0, 7]], [[0, 0, 8, 0, 0]]]])
    np.testing.assert_array_equal(max_pool(x, (2, 2, 2)), [[[[9, 3, 7]], [[0, 8, 0]]]])
    np.testing.assert_array_equal(max_pool(x, (1, 2, 2))[0, 1], [[9, 0, 7]])


def test_file_computes_what_the_model_computes(tmp_path):
    """Clips of 20×40×72 leave 2×2×3 places before fc6-1: a wrong order of any two axes would show."""
    shape = (20, 40, 72, 3)
    model = randomized(pretrain.build_classifier(THIRTY_SECOND, shape, CLASSES, 0))
    caffe_blobs.write_net(tmp_path / "weights", "surrogate-test", pretrain.caffe_layers(model))
    net = caffe_blobs.read_net(tmp_path / "weights")
    assert net.layers["fc6-1"].blobs[0].shape == (1, 1, 1, 128, 16 * 2 * 2 * 3)
    clips = np.random.default_rng(0).normal(size=(2, *shape)).astype(np.float32)
    found = np.asarray(model(clips, training=False))
    expected = np.array([caffe_logits(net, clip) for clip in clips])
    assert np.abs(expected[0] - expected[1]).max() > 0.05  # the input matters
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())


def test_batches_depend_on_seed_and_number_only(tiny):
    batches = list(pretrain.clip_batches(7, 0, 5))
    assert len(batches) == 5
    for number, (clips, kinds) in enumerate(batches):
        assert clips.shape == (2, 4, 16, 16, 3)
        for i in range(2):
            clip, kind = motion_clips.make_clip(7, 2 * number + i, 4, 16)
            np.testing.assert_array_equal(clips[i], clip, strict=True)
            assert kinds[i] == kind
    for first, last in ((3, 5), (4, 5), (5, 5)):
        rest = list(pretrain.clip_batches(7, first, last))
        assert len(rest) == last - first
        for (a, ka), (b, kb) in zip(rest, batches[first:], strict=True):
            np.testing.assert_array_equal(a, b)
            np.testing.assert_array_equal(ka, kb)


@pytest.mark.slow
def test_stopped_training_goes_on_as_if_it_had_not_been(tiny, tmp_path):
    """Killed after the checkpoint of update 2: weights, Adam's state and dropout's go on, and so do the clips."""

    def start():
        keras.utils.clear_session(free_memory=False)  # as a new process, that numbers dropout's states from 0
        model = tiny_model()
        model.set_weights(untrained)
        pretrain.train(model, tmp_path, 4, seed=1)
        return model

    untrained = tiny_model().get_weights()
    unbroken = start()
    assert not any(map(np.array_equal, untrained, unbroken.get_weights()))  # every kernel and bias has learnt
    assert [p.name for p in sorted(tmp_path.iterdir())] == ["step_00000002.npz", "step_00000004.npz"]
    (tmp_path / "step_00000004.npz").unlink()
    resumed = start()
    assert int(resumed.optimizer.iterations) == 4
    finished = start()  # nothing is left to do
    for found in (resumed, finished):
        variables = [[*model.variables, *model.optimizer.variables] for model in (unbroken, found)]
        for a, b in zip(*variables, strict=True):
            np.testing.assert_array_equal(np.asarray(a), np.asarray(b), err_msg=a.path)


@pytest.mark.slow
def test_training_learns(tiny, tmp_path, monkeypatch, capfd):
    """One batch over and over is learnt by heart; the loss is printed with each checkpoint."""
    batch = pretrain._batch(0, 0)
    monkeypatch.setattr(pretrain, "clip_batches", lambda seed, first, last: [batch] * (last - first))
    monkeypatch.setattr(pretrain, "CHECKPOINT_EVERY", 20)
    model = randomized(pretrain.build_classifier(THIRTY_SECOND, (4, 16, 16, 3), CLASSES, 0))
    for layer in model.layers:
        if isinstance(layer, keras.layers.Dropout):
            layer.rate = 0
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.5  # 50 updates are few for the moving statistics
    pretrain.train(model, tmp_path, 50, seed=0)
    np.testing.assert_array_equal(model.predict_on_batch(batch[0]).argmax(1), batch[1])
    said = [line for line in capfd.readouterr().out.splitlines() if line.startswith("Step")]
    assert [line.split(":")[0] for line in said] == ["Step 20", "Step 40", "Step 50"]
    assert float(said[-1].split("loss ")[1].split(",")[0]) < 0.5  # ln 10 = 2.3 by chance
    assert said[-1].endswith("accuracy 1.000 in its batch")
    assert float(model.optimizer.learning_rate) == pytest.approx(0, abs=1e-9)  # cosine to zero


def test_accuracy_counts_the_held_out_clips(tiny):
    kinds = [motion_clips.make_clip(4, n, 4, 16)[1] for n in range(6)]
    first = kinds[0]
    always_first = types.SimpleNamespace(predict_on_batch=lambda clips: np.tile(np.eye(10)[first], (len(clips), 1)))
    assert pretrain.accuracy(always_first, 4) == kinds.count(first) / 6
    told = iter(kinds)
    right = types.SimpleNamespace(predict_on_batch=lambda clips: np.array([np.eye(10)[next(told)] for _ in clips]))
    assert pretrain.accuracy(right, 4) == 1
    assert next(told, None) is None


@pytest.mark.parametrize("name", [None, "", "c3d_weights", "surrogate/weights", "surrogate_folder", "Surogate"])
def test_output_has_to_say_what_it_is(tmp_path, monkeypatch, name):
    (tmp_path / "surrogate_folder").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=r"^-o: received .*\.\nExpected a file whose name says `surrogate`"):
        pretrain.check_output(name)


def test_command_refuses_another_name_before_it_begins(tmp_path, monkeypatch):
    values = types.SimpleNamespace(output=str(tmp_path / "c3d_weights"), width=1.0, steps=1, seed=0)
    monkeypatch.setattr(pretrain, "flags", types.SimpleNamespace(FLAGS=values))
    monkeypatch.setattr(pretrain, "build_classifier", lambda *args: pytest.fail("has begun"))
    with pytest.raises(UsageError, match="-o: received"):
        pretrain.main(["experiments.surrogate.pretrain"])
    with pytest.raises(UsageError, match="Unexpected arguments: weights"):
        pretrain.main(["experiments.surrogate.pretrain", "weights"])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["surrogate", "data/surrogate_weights", "new/my-surrogate-16.bin"])
def test_output_that_says_what_it_is(name):
    assert pretrain.check_output(name) == pathlib.Path(name)


def run(tool, *words):
    """A command as a user types it."""
    return subprocess.run(
        [sys.executable, "-m", tool, *map(str, words)], capture_output=True, encoding="utf-8", check=False
    )


@pytest.mark.slow
def test_command_and_port(tmp_path):
    weights, ported = tmp_path / "surrogate_weights", tmp_path / "surrogate_encoder.h5"
    done = run("experiments.surrogate.pretrain", "-o", weights, "--width", "0.03125", "--steps", "2", "--seed", "3")
    assert done.returncode == 0, done.stderr
    name = "surrogate-motion10-width0.03125-steps2-seed3"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["surrogate_weights", "surrogate_weights.json"]
    report = json.loads((tmp_path / "surrogate_weights.json").read_text(encoding="utf-8"))
    assert report["network"] == name
    assert "not C3D's" in report["what"]
    assert report["kinds"] == list(motion_clips.KINDS)
    assert (report["clip"], report["held_out_clips"]) == ([16, 48, 48, 3], 512)
    assert report["femur3d"] == femur3d.__version__
    lines = done.stdout.splitlines()
    assert lines[0].startswith(f"{name}: ")
    assert lines[1].startswith("Step 2: loss ")
    assert lines[2] == f"Accuracy on 512 held-out clips: {report['held_out_accuracy']:.3f} (chance: 0.100)"
    net = caffe_blobs.read_net(weights)
    expected = caffe_writer.shapes((2, 4, 8, 16), fc=(128, 128, 10), spatial=4)
    assert net.name == name
    assert {n: layer.blobs[0].size for n, layer in net.layers.items()} == {n: np.prod(s) for n, s in expected.items()}
    parameters = sum(blob.size for layer in net.layers.values() for blob in layer.blobs)
    parameters += 4 * sum(len(layer.blobs[0]) for layer in net.layers.values() if layer.type == 30)  # normalisation
    assert lines[0] == f"{name}: {parameters:,} parameters, 2 updates of 16 clips"

    done = run("tools.c3d.port", "--weights", weights, "-o", ported)
    assert done.returncode == 0, done.stderr
    with h5py.File(ported) as file:
        attrs = dict(file.attrs)
        kernel = file["conv4b/kernel"][...]
    assert (attrs["source_kind"], attrs["source_network"]) == ("surrogate", name)
    assert attrs["encoder_filters"].tolist() == [2, 4, 8, 16]
    np.testing.assert_array_equal(kernel, net.layers["conv4b"].blobs[0].transpose(2, 3, 4, 1, 0))


def test_dropout_is_off_when_clips_are_told():
    model = randomized(tiny_model())
    clips = np.random.default_rng(1).normal(size=(2, 4, 16, 16, 3)).astype(np.float32)
    told, again = model.predict_on_batch(clips), model.predict_on_batch(clips)
    np.testing.assert_array_equal(told, again)
    trained, again = (keras.ops.convert_to_numpy(model(clips, training=True)) for _ in range(2))
    assert not np.array_equal(trained, again)
