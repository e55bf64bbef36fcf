import keras
import numpy as np
import pytest
import tensorflow as tf

from femur3d.config import Network
from femur3d.engines.layers.fused_batch_norm import FusedBatchNormalization, with_fused_batch_norm
from femur3d.network.unet import build_network

RNG = np.random.default_rng(0)
INPUTS = RNG.normal(1.5, 2.0, (2, 4, 5, 6, 3)).astype(np.float32)
WEIGHTS = RNG.normal(size=INPUTS.shape).astype(np.float32)  # of the outputs in the sum that is differentiated


def trained_once(fused, dtype="float32"):
    """Outputs, gradients (inputs, gamma, beta) and moving statistics of one call that trains."""
    layer = keras.layers.BatchNormalization(momentum=0.9, dtype=dtype)
    layer.build(INPUTS.shape)
    layer.gamma.assign([0.5, 1.0, 2.0])
    layer.beta.assign([-1.0, 0.0, 3.0])
    inputs = tf.cast(INPUTS, layer.compute_dtype)
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        outputs = (FusedBatchNormalization(layer) if fused else layer)(inputs, training=True)
        total = tf.reduce_sum(tf.cast(outputs, tf.float32) * WEIGHTS)
    gradients = tape.gradient(total, [inputs, layer.gamma.value, layer.beta.value])
    assert outputs.dtype == layer.compute_dtype
    return [tf.cast(t, tf.float32).numpy() for t in (outputs, *gradients, layer.moving_mean, layer.moving_variance)]


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("mixed_bfloat16", 2e-2)])
def test_outputs_gradients_and_statistics_are_those_of_keras(dtype, tolerance):
    found, expected = trained_once(True, dtype), trained_once(False)
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=tolerance, atol=tolerance * np.abs(theirs).max())


def test_variance_is_that_of_the_batch_not_of_a_sample():
    """Two values, 0 and 2: variance 1, while the unbiased estimate is 2. Momentum 0 shows it as it is."""
    layer = keras.layers.BatchNormalization(momentum=0.0)
    layer.build((None, 1, 1, 1, 1))
    FusedBatchNormalization(layer)(np.array([0, 2], np.float32).reshape(2, 1, 1, 1, 1), training=True)
    np.testing.assert_allclose(layer.moving_mean, [1.0])
    np.testing.assert_allclose(layer.moving_variance, [1.0], rtol=1e-6)


def test_network_has_the_same_variables_in_the_same_order_and_predicts_the_same():
    network = build_network(Network((2, 3, 4, 4), (4, 3, 2), initialisation="he"))
    faster = with_fused_batch_norm(network)
    for group in ("trainable_variables", "non_trainable_variables", "variables"):
        assert [id(v) for v in getattr(faster, group)] == [id(v) for v in getattr(network, group)]
    patch = RNG.normal(size=(1, 8, 8, 8, 1)).astype(np.float32)
    np.testing.assert_array_equal(faster(patch, training=False)["upper"], network(patch, training=False)["upper"])
    assert sum(isinstance(layer, FusedBatchNormalization) for layer in faster.layers) == 18
    assert not any(isinstance(layer, FusedBatchNormalization) for layer in network.layers)
