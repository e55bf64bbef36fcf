"""OpenVINO computes what Keras computes; skipped where it is not installed (`pip install '.[openvino]'`)."""

import sys

import numpy as np
import pytest

from femur3d.config import Network
from femur3d.engines import coarse_to_fine, openvino_predictor
from femur3d.engines.backend import ENGINE
from femur3d.engines.fused_for_inference import fuse_for_inference
from femur3d.network.unet import build_network
from tests.support.networks import as_if_trained

pytestmark = pytest.mark.skipif(
    not openvino_predictor.is_installed(), reason="OpenVINO is not installed: pip install '.[openvino]'"
)
CONFIG = Network((8, 16, 16, 24), (16, 12, 8), initialisation="he")
RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def fused():
    return fuse_for_inference(as_if_trained(CONFIG), "bfloat16")


@pytest.mark.parametrize("shape", [(1, 16, 16, 16), (2, 8, 24, 16)])
def test_probabilities_are_those_of_keras(fused, shape):
    patches = RNG.normal(size=shape).astype(np.float32)
    ours, theirs = openvino_predictor.make_predict(fused)(patches), ENGINE.make_predict(fused)(patches)
    assert ours.dtype == np.float32
    assert ours.shape == shape
    assert theirs.std() > 0.05  # not a constant that anything would match
    np.testing.assert_allclose(ours, theirs, atol=0.03)  # both round to bfloat16, each in its own places
    assert np.abs(ours - theirs).mean() < 0.004


def test_results_of_earlier_calls_stay(fused):
    predict = openvino_predictor.make_predict(fused)
    first = predict(np.zeros((1, 8, 8, 8), np.float32))
    kept = first.copy()
    predict(np.ones((1, 8, 8, 8), np.float32))
    np.testing.assert_array_equal(first, kept)


@pytest.mark.parametrize(("said", "raised"), [("Failed to allocate 8 bytes", MemoryError), ("Broken", RuntimeError)])
def test_out_of_memory_is_told_from_other_failures(fused, monkeypatch, said, raised):
    class Core:
        def get_property(self, *_):
            return []

        def compile_model(self, *_):
            raise RuntimeError(said)

    with monkeypatch.context() as patch:
        patch.setattr(openvino_predictor._openvino(), "Core", Core)
        predict = openvino_predictor.make_predict(fused)
    with pytest.raises(raised):
        predict(np.zeros((1, 8, 8, 8), np.float32))


def test_an_old_openvino_counts_as_none(monkeypatch):
    monkeypatch.setattr(openvino_predictor, "_openvino", lambda: object())
    assert not openvino_predictor.is_installed()


def test_only_what_the_upper_head_needs_is_built(fused):
    names = [layer.name for layer in openvino_predictor._between([fused.input], [fused.output["upper"]])]
    assert names[0] == "conv1a"
    assert names[-1] == "upper_cls"
    assert not [name for name in names if name.startswith(("lower_cls", "mid_cls"))]


def test_refuses_a_network_that_is_not_fused():
    with pytest.raises(TypeError, match="no operator for BatchNormalization 'conv1a_bn'"):
        openvino_predictor.make_predict(build_network(CONFIG))


def test_telemetry_is_not_loaded(fused):
    openvino_predictor.make_predict(fused)
    assert sys.modules["openvino_telemetry"] is None
    assert openvino_predictor.version().count(".") == 2


def test_two_looks_are_those_of_keras(fused):
    patches = RNG.normal(size=(1, 16, 16, 24)).astype(np.float32)
    ours, theirs = (coarse_to_fine.make_predict(fused, p.make_function)(patches) for p in (openvino_predictor, ENGINE))
    np.testing.assert_allclose(ours, theirs, atol=0.03)
    assert theirs.std() > 0.05
