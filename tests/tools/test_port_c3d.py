"""The port of C3D's weights: exact values, the proof, and the command as a user runs it."""

import dataclasses
import itertools
import json
import pathlib
import subprocess
import sys

import h5py
import numpy as np
import pytest
import scipy.ndimage

import femur3d
from femur3d.config import Network
from femur3d.errors import InputError, UsageError
from femur3d.network.encoder_weights import check_source_is_named, load_encoder_weights
from femur3d.network.unet import build_network
from tests.support.caffe_writer import blob, layer, net, random_weights, write_net
from tools.c3d import port as port_c3d

WIDTHS = (2, 3, 4, 5)
WEIGHTS = random_weights(WIDTHS)
ENCODER = ("conv1a", "conv2a", "conv3a", "conv3b", "conv4a", "conv4b")


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return write_net(tmp_path_factory.mktemp("c3d") / "weights", WEIGHTS)


@pytest.fixture(scope="module")
def ported(source):
    output = source.parent / "new" / "encoder.h5"
    return output, port_c3d.port(source, output)


def read_h5(path):
    """Arrays and attributes."""
    with h5py.File(path) as file:
        arrays = {f"{n}/{part}": file[n][part][...] for n in file for part in file[n]}
        return arrays, dict(file.attrs)


def test_names_types_and_shapes(ported):
    arrays, _ = read_h5(ported[0])
    assert {n: a.shape for n, a in arrays.items()} == {
        "conv1a/kernel": (3, 3, 3, 1, 2), "conv1a/bias": (2,),
        "conv2a/kernel": (3, 3, 3, 2, 3), "conv2a/bias": (3,),
        "conv3a/kernel": (3, 3, 3, 3, 4), "conv3a/bias": (4,),
        "conv3b/kernel": (3, 3, 3, 4, 4), "conv3b/bias": (4,),
        "conv4a/kernel": (3, 3, 3, 4, 5), "conv4a/bias": (5,),
        "conv4b/kernel": (3, 3, 3, 5, 5), "conv4b/bias": (5,),
    }  # fmt: skip
    assert {a.dtype for a in arrays.values()} == {np.dtype(np.float32)}


@pytest.mark.parametrize("name", ENCODER[1:])
def test_kernels_are_transposed_bit_for_bit(ported, name):
    found, (kernel, bias) = read_h5(ported[0])[0], WEIGHTS[name]
    for o, i, z, y, x in itertools.product(*map(range, kernel.shape)):
        assert found[f"{name}/kernel"][z, y, x, i, o] == kernel[o, i, z, y, x]
    np.testing.assert_array_equal(found[f"{name}/bias"], bias)


def test_colours_are_summed(ported):
    found, (kernel, bias) = read_h5(ported[0])[0], WEIGHTS["conv1a"]
    for o, z, y, x in itertools.product(range(2), range(3), range(3), range(3)):
        red, green, blue = kernel[o, :, z, y, x]
        assert found["conv1a/kernel"][z, y, x, 0, o] == red + green + blue
    np.testing.assert_array_equal(found["conv1a/bias"], bias)


@pytest.mark.parametrize("dims", [(2, 1, 1, 1, 1), (1, 2, 1, 1, 1), (1, 1, 1, 1, 2)])
def test_bias_is_flat_however_it_was_stored(tmp_path, dims):
    layers = {n: [blob(k), blob(b)] for n, (k, b) in WEIGHTS.items()}
    layers["conv1a"][1] = blob(WEIGHTS["conv1a"][1], dims)
    (tmp_path / "weights").write_bytes(net(layer(n, b) for n, b in layers.items()))
    bias = port_c3d.to_keras(port_c3d.read_source(tmp_path / "weights"), "conv1a/bias")
    np.testing.assert_array_equal(bias, WEIGHTS["conv1a"][1], strict=True)


def test_provenance(ported, source):
    attrs = read_h5(ported[0])[1]
    found = port_c3d.read_source(source)
    assert attrs["source_file"] == "weights"
    assert attrs["source_sha256"] == found.sha256
    assert attrs["source_size"] == source.stat().st_size
    assert attrs["source_network"] == "deepnet"
    assert attrs["source_kind"] == "unknown"
    assert attrs["encoder_filters"].tolist() == list(WIDTHS)
    assert attrs["femur3d_version"] == femur3d.__version__
    mapping = json.loads(attrs["mapping"])
    assert list(mapping) == [f"{n}/{part}" for n in ENCODER for part in ("kernel", "bias")]
    assert mapping["conv3b/bias"] == "conv3b blob 1"


@pytest.mark.parametrize(
    ("name", "kind"), [("surrogate, 16 to 128", "surrogate"), ("deepnet", "unknown"), ("a surrogate", "unknown")]
)
def test_kind_of_source(tmp_path, name, kind):
    found = port_c3d.read_source(write_net(tmp_path / "weights", WEIGHTS, name))
    assert port_c3d.source_kind(found) == kind
    assert port_c3d.source_kind(dataclasses.replace(found, sha256=port_c3d.PUBLISHED_SHA256)) == "c3d"


NOT_CALLED_SO = r"c3d_encoder\.h5: these are weights of a surrogate.*\n.*`surrogate` in the name"


@pytest.fixture(scope="module")
def surrogate(tmp_path_factory):
    """A surrogate's weights, in a folder that is called so too: folders do not count."""
    return write_net(tmp_path_factory.mktemp("surrogate") / "surrogate_weights", WEIGHTS, "surrogate-2-to-5")


def test_port_of_a_surrogate_has_to_be_called_so(surrogate):
    output = surrogate.parent / "new" / "c3d_encoder.h5"
    with pytest.raises(InputError, match=NOT_CALLED_SO):
        port_c3d.port(surrogate, output)
    assert [p.name for p in surrogate.parent.iterdir()] == ["surrogate_weights"]


def test_renamed_port_of_a_surrogate_is_not_loaded(surrogate, tmp_path):
    named, renamed = tmp_path / "my-surrogate.h5", tmp_path / "c3d_encoder.h5"
    port_c3d.port(surrogate, named)
    attrs = read_h5(named)[1]
    assert (attrs["source_kind"], attrs["source_network"]) == ("surrogate", "surrogate-2-to-5")
    network = build_network(Network(WIDTHS, (4, 3, 2)), seed=5)
    before = network.get_weights()
    named.rename(renamed)
    with pytest.raises(InputError, match=NOT_CALLED_SO):
        load_encoder_weights(renamed, network)
    for a, b in zip(before, network.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    renamed.rename(named)
    assert load_encoder_weights(named, network) == list(ENCODER)
    np.testing.assert_array_equal(network.get_layer("conv4b").bias, WEIGHTS["conv4b"][1])


def test_only_the_name_of_a_surrogates_file_matters():
    check_source_is_named("data/c3d_encoder.h5", "c3d")
    check_source_is_named("data/x.h5", "unknown")
    check_source_is_named("data/surrogate.h5", "surrogate")
    with pytest.raises(InputError, match="these are weights of a surrogate"):
        check_source_is_named("surrogate/x.h5", "surrogate")


def test_round_trip_into_the_network(ported):
    network = build_network(Network(WIDTHS, (4, 3, 2)), seed=5)
    assert load_encoder_weights(ported[0], network) == list(ENCODER)
    kernel, bias = WEIGHTS["conv4b"]
    np.testing.assert_array_equal(network.get_layer("conv4b").kernel, np.einsum("oizyx->zyxio", kernel))
    np.testing.assert_array_equal(network.get_layer("conv4b").bias, bias)


def test_correlation_is_scipys():
    rng = np.random.default_rng(1)
    x, kernel, bias = rng.normal(size=(2, 4, 5, 6)), rng.normal(size=(3, 2, 3, 3, 3)), rng.normal(size=3)
    expected = [
        b + sum(scipy.ndimage.correlate(c, k, mode="constant") for c, k in zip(x, kernels, strict=True))
        for kernels, b in zip(kernel, bias, strict=True)
    ]
    np.testing.assert_allclose(port_c3d.correlate(x, kernel, bias.reshape(1, 1, 1, 1, 3)), expected, rtol=1e-10)


def test_pooling_by_hand():
    x = np.zeros((1, 2, 2, 4))
    x[0, 1, 0, 1], x[0, 0, 1, 2], x[0, 0, 0, 3] = 7, -3, 5
    np.testing.assert_array_equal(port_c3d.max_pool(x), [[[[7, 5]]]])


def test_proof_holds(ported):
    rows = ported[1]
    assert [row.name for row in rows] == list(ENCODER)
    assert rows[1].shape == (3, 3, 3, 2, 3)
    for row in rows:
        assert row.difference < 1e-5
        assert row.active > 0.2
        assert row.largest > 0.1


def add_to_one(array):
    array.flat[array.size // 2] += 0.5


def flip_z(array):
    array[...] = array[::-1].copy()


def swap_y_and_x(array):
    array[...] = array.swapaxes(1, 2).copy()


@pytest.mark.parametrize("name", ENCODER)
@pytest.mark.parametrize(
    ("part", "tamper"), [("kernel", add_to_one), ("kernel", flip_z), ("kernel", swap_y_and_x), ("bias", add_to_one)]
)
def test_proof_fails_for_a_tampered_layer(ported, source, tmp_path, name, part, tamper):
    path = tmp_path / "encoder.h5"
    path.write_bytes(ported[0].read_bytes())
    with h5py.File(path, "a") as file:
        array = file[f"{name}/{part}"][...]
        tamper(array)
        file[f"{name}/{part}"][...] = array
    rows = port_c3d.prove(path, port_c3d.read_source(source), WIDTHS)
    different = [row.difference > port_c3d.TOLERANCE for row in rows]
    assert different[ENCODER.index(name)]
    assert not any(different[: ENCODER.index(name)])  # the layers before it are as they were


@pytest.mark.parametrize(
    ("value", "error", "exit_code", "message"),
    [
        (0.5, port_c3d.ProofError, 1, r"conv3a.*\n.*0\.0001"),
        (np.nan, InputError, 3, "conv3a/kernel holds NaN or infinity"),
    ],
)
def test_failed_proof_is_an_error_and_leaves_no_file(source, tmp_path, monkeypatch, value, error, exit_code, message):
    convert = port_c3d.to_keras

    def wrong(found, target):
        array = convert(found, target).copy()
        array.flat[0] += value if target == "conv3a/kernel" else 0
        return array

    monkeypatch.setattr(port_c3d, "to_keras", wrong)
    with pytest.raises(error, match=message) as caught:
        port_c3d.port(source, tmp_path / "encoder.h5")
    assert caught.value.exit_code == exit_code
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("name", "into"), [("conv3b", 4), ("conv4a", 4)])
def test_stages_of_two_widths_are_refused(tmp_path, name, into):
    weights = dict(WEIGHTS)
    weights[name] = np.zeros((6, into, 3, 3, 3), np.float32), np.zeros(6, np.float32)
    after = ENCODER[ENCODER.index(name) + 1]
    out = len(weights[after][1])
    weights[after] = np.zeros((out, 6, 3, 3, 3), np.float32), weights[after][1]
    with pytest.raises(InputError, match=r"filters\.\nExpected one width"):
        port_c3d.stage_filters(port_c3d.read_source(write_net(tmp_path / "weights", weights)))


def run(*words):
    """The command as a user types it."""
    command = [sys.executable, "tools/port_c3d.py", *map(str, words)]
    return subprocess.run(command, capture_output=True, encoding="utf-8", check=False)


@pytest.mark.slow
def test_command(source, ported, tmp_path):
    done = run("--weights", source, "-o", tmp_path / "encoder.h5")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines if line.endswith(" ported")] == list(ENCODER)
    assert [line.split()[0] for line in lines if line.endswith(" skipped")] == [
        "conv5a", "conv5b", "fc6-1", "fc7-1", "fc8-1"
    ]  # fmt: skip
    assert "network.encoder_filters=(2, 3, 4, 5)" in done.stdout
    proof = [line.split() for line in lines[lines.index(next(n for n in lines if n.startswith("Proof"))) + 2 : -1]]
    assert [row[0] for row in proof] == list(ENCODER)
    assert all(float(row[-1]) < 1e-5 for row in proof)
    arrays, attrs = read_h5(tmp_path / "encoder.h5")
    expected, expected_attrs = read_h5(ported[0])
    assert {n: a.tobytes() for n, a in arrays.items()} == {n: a.tobytes() for n, a in expected.items()}
    assert attrs["mapping"] == expected_attrs["mapping"]


@pytest.mark.slow
def test_another_network_is_two_lines(tmp_path):
    (tmp_path / "weights").write_bytes(net([layer("fc6", [blob(np.ones(2))])], "AlexNet"))
    done = run("--weights", tmp_path / "weights", "-o", tmp_path / "encoder.h5")
    assert done.returncode == 3, done.stderr
    assert "AlexNet" in done.stderr
    assert len(done.stderr.splitlines()) == 2
    assert not done.stdout
    assert [p.name for p in tmp_path.iterdir()] == ["weights"]


def test_missing_source(tmp_path):
    with pytest.raises(InputError, match=r"none: no such file\.\nExpected C3D's weight file"):
        port_c3d.port(tmp_path / "none", tmp_path / "encoder.h5")
    assert not list(tmp_path.iterdir())


def test_paths_that_make_no_sense(tmp_path):
    (tmp_path / "weights").write_bytes(b"precious")
    (tmp_path / "link").symlink_to("weights")
    for weights, output in [("weights", "weights"), ("weights", "link"), ("weights", ".")]:
        with pytest.raises(UsageError, match="folder or the weight file itself"):
            port_c3d.check_paths(str(tmp_path / weights), str(tmp_path / output))
    for weights, output in [(None, "new.h5"), ("weights", None), ("", "")]:
        with pytest.raises(UsageError, match="a file to read and a file to write"):
            port_c3d.check_paths(weights, output)
    assert port_c3d.check_paths("weights", "new.h5") == (pathlib.Path("weights"), pathlib.Path("new.h5"))
