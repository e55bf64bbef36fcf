"""OpenVINO computes what Keras computes; skipped where it is not installed (`pip install '.[openvino]'`)."""

import sys

import numpy as np
import pytest

from femur3d.config import Network
from femur3d.engines import coarse_to_fine
from femur3d.engines import openvino_predictor as predictor_openvino
from femur3d.engines import tensorflow_predictor as predictor
from femur3d.engines.fused_for_inference import fold_network
from femur3d.engines.tensorflow_predictor import make_predict
from femur3d.network.unet import build_network
from tests.support.networks import as_if_trained

pytestmark = pytest.mark.skipif(
    not predictor_openvino.is_installed(), reason="OpenVINO is not installed: pip install '.[openvino]'"
)
CONFIG = Network((8, 16, 16, 24), (16, 12, 8), initialisation="he")
RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def folded():
    return fold_network(as_if_trained(CONFIG), CONFIG, "bfloat16")


@pytest.mark.parametrize("shape", [(1, 16, 16, 16), (2, 8, 24, 16)])
def test_probabilities_are_those_of_keras(folded, shape):
    patches = RNG.normal(size=shape).astype(np.float32)
    ours, theirs = predictor_openvino.make_predict(folded)(patches), make_predict(folded)(patches)
    assert ours.dtype == np.float32
    assert ours.shape == shape
    assert theirs.std() > 0.05  # not a constant that anything would match
    np.testing.assert_allclose(ours, theirs, atol=0.03)  # both round to bfloat16, each in its own places
    assert np.abs(ours - theirs).mean() < 0.004


def test_results_of_earlier_calls_stay(folded):
    predict = predictor_openvino.make_predict(folded)
    first = predict(np.zeros((1, 8, 8, 8), np.float32))
    kept = first.copy()
    predict(np.ones((1, 8, 8, 8), np.float32))
    np.testing.assert_array_equal(first, kept)


@pytest.mark.parametrize(("said", "raised"), [("Failed to allocate 8 bytes", MemoryError), ("Broken", RuntimeError)])
def test_out_of_memory_is_told_from_other_failures(folded, monkeypatch, said, raised):
    class Core:
        def get_property(self, *_):
            return []

        def compile_model(self, *_):
            raise RuntimeError(said)

    with monkeypatch.context() as patch:
        patch.setattr(predictor_openvino._openvino(), "Core", Core)
        predict = predictor_openvino.make_predict(folded)
    with pytest.raises(raised):
        predict(np.zeros((1, 8, 8, 8), np.float32))


def test_an_old_openvino_counts_as_none(monkeypatch):
    monkeypatch.setattr(predictor_openvino, "_openvino", lambda: object())
    assert not predictor_openvino.is_installed()


def test_only_what_the_upper_head_needs_is_built(folded):
    names = [layer.name for layer in predictor_openvino._between([folded.input], [folded.output["upper"]])]
    assert names[0] == "conv1a"
    assert names[-1] == "upper_cls"
    assert not [name for name in names if name.startswith(("lower_cls", "mid_cls"))]


def test_refuses_a_network_that_is_not_folded():
    with pytest.raises(TypeError, match="no operator for BatchNormalization 'conv1a_bn'"):
        predictor_openvino.make_predict(build_network(CONFIG))


def test_telemetry_is_not_loaded(folded):
    predictor_openvino.make_predict(folded)
    assert sys.modules["openvino_telemetry"] is None
    assert predictor_openvino.version().count(".") == 2


def test_two_looks_are_those_of_keras(folded):
    patches = RNG.normal(size=(1, 16, 16, 24)).astype(np.float32)
    ours, theirs = (
        coarse_to_fine.make_predict(folded, p.make_function)(patches) for p in (predictor_openvino, predictor)
    )
    np.testing.assert_allclose(ours, theirs, atol=0.03)
    assert theirs.std() > 0.05
