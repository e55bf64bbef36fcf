"""The fused network computes what the trained one computes, without its batch normalisation."""

import keras
import numpy as np
import pytest

from femur3d.config import Network
from femur3d.engines.fused_for_inference import fuse_for_inference
from tests.support.networks import as_if_trained

TINY = Network((2, 3, 4, 5), (4, 3, 2), initialisation="he")


@pytest.fixture(scope="module")
def trained():
    return as_if_trained(TINY)


@pytest.fixture(scope="module")
def patch():
    return np.random.default_rng(1).standard_normal((2, 16, 8, 24, 1)).astype(np.float32)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("bfloat16", 0.05)])
def test_same_logits_of_all_heads(trained, patch, dtype, tolerance):
    expected, found = trained(patch, training=False), fuse_for_inference(trained, dtype)(patch)
    for head, logits in expected.items():
        assert keras.backend.standardize_dtype(found[head].dtype) == "float32"
        largest = np.abs(logits).max()
        assert largest > 0.1  # or the comparison would say little
        np.testing.assert_allclose(found[head], logits, atol=tolerance * largest)


def test_bfloat16_is_what_the_blocks_compute_in(trained):
    fused = fuse_for_inference(trained, "bfloat16")
    dtypes = {layer.name: layer.compute_dtype for layer in fused.layers if layer.weights}
    assert {n for n, dtype in dtypes.items() if dtype == "float32"} == {"lower_cls", "mid_cls", "upper_cls"}
    assert set(dtypes.values()) == {"float32", "bfloat16"}
    assert keras.config.dtype_policy().name == "float32"  # the policy of the process is as before


def test_no_normalisation_is_left_and_the_network_is_not_changed(trained, patch):
    before = trained.get_weights()
    fused = fuse_for_inference(trained)
    assert not any(isinstance(layer, keras.layers.BatchNormalization) for layer in fused.layers)
    assert all((a == b).all() for a, b in zip(before, trained.get_weights(), strict=True))


def test_one_channel_by_hand(trained):
    """conv1a's first filter: kernel and bias times γ/√(σ² + ε), shifted by β - μ·γ/√(σ² + ε)."""
    kernel, bias = trained.get_layer("conv1a").get_weights()
    gamma, beta, mean, variance = (w[0] for w in trained.get_layer("conv1a_bn").get_weights())
    scale = gamma / (variance + 0.001) ** 0.5
    fused_kernel, fused_bias = fuse_for_inference(trained).get_layer("conv1a").get_weights()
    np.testing.assert_allclose(fused_kernel[..., 0], kernel[..., 0] * scale, rtol=1e-6)
    np.testing.assert_allclose(fused_bias[0], bias[0] * scale + beta - mean * scale, rtol=1e-5)
