"""OpenVINO computes what Keras computes, of the weights alone; skipped where it is not installed."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from femur3d.config import Network
from femur3d.engines import openvino_engine
from femur3d.engines.backend import ENGINE
from femur3d.engines.openvino_engine import IMAGE, LOWER, Graph, OpenVinoEngine
from femur3d.errors import InputError
from femur3d.inference.mode import EXACT, FAST
from femur3d.inference.saved_model import TrainedModel, find_model, load_model, weights_of
from femur3d.inference.segmenter import Segmenter
from femur3d.io.images import read_volume, write_volume
from tests.support.ellipsoids import scan_and_label
from tests.support.networks import PREPROCESSING, as_if_trained

pytestmark = pytest.mark.skipif(
    not openvino_engine.is_installed(), reason="OpenVINO is not installed: pip install openvino"
)
CONFIG = Network((8, 16, 16, 24), (16, 12, 8), initialisation="he")
RNG = np.random.default_rng(0)
HIP = "imagesTr/hip_07_0000.nii.gz"


@pytest.fixture(scope="module")
def model():
    return TrainedModel(weights_of(as_if_trained(CONFIG)), CONFIG, PREPROCESSING, {}, "")


@pytest.mark.parametrize("shape", [(1, 16, 16, 16), (2, 8, 24, 16)])
def test_probabilities_of_all_heads_are_those_of_keras(model, shape):
    patches = RNG.normal(size=shape).astype(np.float32)
    ours, theirs = (engine.prepare(model, EXACT) for engine in (OpenVinoEngine(), ENGINE))
    found, expected = ours.predict(patches), theirs.predict(patches)
    assert (found.dtype, found.shape) == (np.float32, shape)
    assert expected.std() > 0.05  # not a constant that anything would match
    np.testing.assert_allclose(found, expected, atol=1e-5)
    heads = ours.predict_heads(patches)
    assert list(heads) == ["lower", "mid", "upper"]
    for head, probability in theirs.predict_heads(patches).items():
        assert (heads[head].dtype, heads[head].shape) == (np.float32, shape)
        np.testing.assert_allclose(heads[head], probability, atol=1e-5)
    assert ours.predict_heads(patches[:0])["mid"].shape == (0, *shape[1:])


def test_fast_mode_is_that_of_keras(model):
    patches = RNG.normal(size=(1, 16, 16, 24)).astype(np.float32)
    ours, theirs = (engine.prepare(model, FAST).predict(patches) for engine in (OpenVinoEngine(), ENGINE))
    np.testing.assert_allclose(ours, theirs, atol=0.03)  # both may round to bfloat16, each in its own places
    assert np.abs(ours - theirs).mean() < 0.004
    assert theirs.std() > 0.05


def test_results_of_earlier_calls_stay(model):
    predict = OpenVinoEngine().prepare(model, EXACT).predict
    first = predict(np.zeros((1, 8, 8, 8), np.float32))
    kept = first.copy()
    predict(np.ones((1, 8, 8, 8), np.float32))
    np.testing.assert_array_equal(first, kept)


@pytest.mark.parametrize(("said", "raised"), [("Failed to allocate 8 bytes", MemoryError), ("Broken", RuntimeError)])
def test_out_of_memory_is_told_from_other_failures(model, monkeypatch, said, raised):
    class Core:
        def get_property(self, *_):
            return []

        def compile_model(self, *_):
            raise RuntimeError(said)

    with monkeypatch.context() as patch:
        patch.setattr(openvino_engine._openvino(), "Core", Core)
        predict = OpenVinoEngine().prepare(model, EXACT).predict
    with pytest.raises(raised):
        predict(np.zeros((1, 8, 8, 8), np.float32))


def test_an_old_openvino_counts_as_none(monkeypatch):
    monkeypatch.setattr(openvino_engine, "_openvino", lambda: object())
    assert not openvino_engine.is_installed()


@pytest.mark.parametrize(
    ("inputs", "outputs", "convolutions"),
    [([IMAGE], ["upper_cls"], 16), ([IMAGE], ["lower_cls", LOWER], 12), ([IMAGE, LOWER], ["upper_cls"], 9)],
)
def test_only_what_is_wanted_is_built(model, monkeypatch, inputs, outputs, convolutions):
    """UpperCls: 6 + 3·3 + 1. LowerCls: 6 + 3 + 3. From LOWER up: conv1a, conv2a, 2·3 + 1."""
    graph, built = Graph(model, "float32"), []
    monkeypatch.setattr(graph, "_core", type("Core", (), {"compile_model": lambda _, one, *__: built.append(one)})())
    graph._compiled(inputs, outputs)
    kinds = [operator.get_type_name() for operator in built[0].get_ops()]
    assert sum(kind.startswith("Convolution") for kind in kinds) == convolutions


def test_unsound_weights_are_refused(model):
    gamma, beta, mean, variance = model.weights["conv1a_bn"]
    broken = {**model.weights, "conv1a_bn": [gamma, beta, mean, -variance]}
    with pytest.raises(InputError, match="conv1a_bn has a negative variance"):
        OpenVinoEngine().prepare(dataclasses.replace(model, weights=broken), EXACT)


def test_infer_imports_neither_tensorflow_nor_keras_nor_jax(threshold_model, tmp_path):
    """Nor what only some outputs want, nor OpenVINO's telemetry; the scan is segmented in that process."""
    write_volume(scan_and_label()[0], tmp_path / "a.nii.gz")
    code = """
import sys
sys.argv[0] = "infer"
from femur3d import cli, infer
try:
    cli.run(infer.main)
except SystemExit as end:
    assert not end.code, end.code
loaded = {name.partition(".")[0] for name, module in sys.modules.items() if module}
print("LOADED", *sorted(loaded))
"""
    words = ["-i", tmp_path / "a.nii.gz", "-o", tmp_path / "out", "--model", threshold_model, "--engine", "openvino"]
    done = subprocess.run([sys.executable, "-c", code, *map(str, words)], capture_output=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr
    loaded = set(done.stdout.partition("LOADED")[2].split())
    assert "openvino" in loaded
    heavy = {"tensorflow", "keras", "jax", "torch", "openvino_telemetry", "vtkmodules", "matplotlib", "pydicom", "PIL"}
    assert not heavy & loaded
    assert read_volume(tmp_path / "out" / "a.nii.gz").array.max() == 2


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is counted by Linux")
def test_memory_does_not_grow_with_the_number_of_shapes():
    """Of the boxes that the fast mode looks at closer, hardly two are alike; OpenVINO would keep 2 MB of each."""
    code = """
import numpy as np
from femur3d.engines.openvino_engine import IMAGE, LOWER, Graph
from femur3d.inference.saved_model import find_model, load_model

def pages():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1])

refine = Graph(load_model(find_model("hip_t1")), "bfloat16").function([IMAGE, LOWER], ["upper_cls"])
shapes, seen = np.random.default_rng(0).integers(2, (13, 8, 13), (160, 3)), []
for z, y, x in shapes.tolist():
    refine(np.zeros((1, 4 * z, 4 * y, 4 * x, 1), np.float32), np.zeros((1, z, y, x, 64), np.float32))
    seen.append(pages())
print((seen[-1] - seen[len(seen) // 2]) * 4096 >> 20)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=True)
    assert int(done.stdout) < 25  # MiB; it was 65 in float32, 190 in bfloat16


@pytest.mark.slow
@pytest.mark.parametrize("name", ["hip_t1", "hip_mr"])
def test_label_maps_of_a_hip_are_those_of_tensorflow(hips_dir, name):
    """But for one voxel in ten thousand: rounding."""
    shipped = load_model(find_model(name))
    scan = read_volume(hips_dir / HIP)
    ours, theirs = (Segmenter(shipped, engine)(scan) for engine in (OpenVinoEngine(), ENGINE))
    assert np.mean(ours.labels.array != theirs.labels.array) <= 1e-4
    assert theirs.labels.array.any()
    assert {n: flag.level for n, flag in ours.quality.items()} == {n: f.level for n, f in theirs.quality.items()}
