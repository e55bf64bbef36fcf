import types

import keras
import numpy as np
import pytest
import scipy.special
import tensorflow as tf

from femur3d.config import IGNORED, Loss, Network
from femur3d.network.unet import build_network
from femur3d.training import losses
from femur3d.training.losses import soft_dice_loss, softmax_cross_entropy, voxel_cross_entropy

RNG = np.random.default_rng(0)
LABELS = (RNG.random((2, 4, 4, 4)) < 0.3).astype(np.uint8)
LOGITS = {head: RNG.normal(size=(2, 4, 4, 4, 2)).astype(np.float32) for head in ("lower", "mid", "upper")}
ALPHA = {"lower": 0.33, "mid": 0.67, "upper": 1.0}


def cross_entropy(labels, logits):
    """Equation (1) by SciPy in float64: -log of the softmax's value at the true class, averaged over voxels."""
    log_p = scipy.special.log_softmax(logits.astype(np.float64), axis=-1)
    return -np.take_along_axis(log_p, labels[..., None].astype(int), -1).mean()


@pytest.mark.parametrize("scale", [0.01, 1, 30])
@pytest.mark.parametrize("loss", [voxel_cross_entropy, softmax_cross_entropy])
def test_cross_entropy_is_that_of_scipy_and_keras_with_its_gradient(loss, scale):
    logits = tf.constant(LOGITS["mid"] * np.float32(scale))
    values, gradients = [], []
    for function in (loss, lambda y, z: tf.reduce_mean(keras.losses.sparse_categorical_crossentropy(y, z, True))):
        with tf.GradientTape() as tape:
            tape.watch(logits)
            values.append(function(LABELS, logits))
        gradients.append(tape.gradient(values[-1], logits).numpy() * LABELS.size)  # of a voxel: p - y
    assert float(values[0]) == pytest.approx(cross_entropy(LABELS, logits.numpy()), rel=1e-6)
    assert float(values[0]) == pytest.approx(float(values[1]), rel=1e-6)
    np.testing.assert_allclose(gradients[0], gradients[1], atol=1e-6)


def test_cross_entropy_by_hand():
    logits = np.array([[0.0, 0.0], [np.log(3.0), 0.0]], np.float32).reshape(1, 1, 1, 2, 2)
    labels = np.array([1, 0]).reshape(1, 1, 1, 2)
    # -log(1/2) and -log(3/4)
    assert float(losses.voxel_cross_entropy(labels, logits)) == pytest.approx((np.log(2) + np.log(4 / 3)) / 2)


def test_cross_entropy_is_finite_for_huge_logits():
    logits = np.array([[-1e4, 1e4]], np.float32).reshape(1, 1, 1, 1, 2)
    assert float(losses.voxel_cross_entropy(np.zeros((1, 1, 1, 1)), logits)) == pytest.approx(2e4)
    assert float(losses.voxel_cross_entropy(np.ones((1, 1, 1, 1)), logits)) == 0


def test_total_loss_is_equation_2():
    kernel, bias = RNG.normal(size=(3, 3, 3, 2, 2)), RNG.normal(size=2)
    terms = losses.total_loss(LABELS, LOGITS, [kernel.astype(np.float32), bias], Loss(l2=0.005))
    expected = sum(a * cross_entropy(LABELS, LOGITS[h]) for h, a in ALPHA.items())
    expected += 0.005 * 0.5 * (kernel**2).sum()
    assert float(terms["loss"]) == pytest.approx(expected, rel=1e-5)
    assert float(terms["ce_lower"]) == pytest.approx(cross_entropy(LABELS, LOGITS["lower"]), rel=1e-5)
    assert float(terms["l2_penalty"]) == pytest.approx(0.0025 * (kernel**2).sum(), rel=1e-5)


def test_l2_penalty_counts_kernels_only():
    network = build_network(Network((2, 2, 2, 2), (2, 2, 2)))
    expected = 0.0
    for layer in network.layers:
        if isinstance(layer, (keras.layers.Conv3D, keras.layers.Conv3DTranspose)):
            expected += 0.5 * (np.asarray(layer.kernel, np.float64) ** 2).sum()
            layer.bias.assign(np.full(layer.bias.shape, 7.0))
    assert float(losses.l2_penalty(network.trainable_variables)) == pytest.approx(expected, rel=1e-5)


def test_soft_dice_loss_by_hand():
    logits = np.zeros((1, 1, 1, 4, 2), np.float32)  # P = 1/2 everywhere
    labels = np.array([1, 1, 1, 0]).reshape(1, 1, 1, 4)
    # 1 - (2·1.5 + 1) / (2 + 3 + 1)
    assert float(losses.soft_dice_loss(labels, logits)) == pytest.approx(1 / 3)


def test_dice_weight_adds_a_dice_loss_of_each_head():
    plain = losses.total_loss(LABELS, LOGITS, [], Loss(l2=0.0))
    both = losses.total_loss(LABELS, LOGITS, [], Loss(l2=0.0, dice_weight=2.0))
    extra = 2.0 * sum(a * float(losses.soft_dice_loss(LABELS, LOGITS[h])) for h, a in ALPHA.items())
    assert float(both["loss"]) - float(plain["loss"]) == pytest.approx(extra, rel=1e-5)


def test_ignored_voxels_count_for_nothing():
    """The loss is that of the known half alone, and the ignored half has no gradient."""
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(1, 4, 2, 2, 2)).astype(np.float32)
    labels = rng.integers(0, 2, (1, 4, 2, 2)).astype(np.uint8)
    masked = labels.copy()
    masked[:, 2:] = IGNORED
    for loss in (voxel_cross_entropy, soft_dice_loss):
        half = float(loss(labels[:, :2], logits[:, :2]))
        assert float(loss(masked, logits)) == pytest.approx(half, rel=1e-6)
        with tf.GradientTape() as tape:
            variable = tf.Variable(logits)
            value = loss(masked, variable)
        gradient = np.asarray(tape.gradient(value, variable))
        assert not gradient[:, 2:].any()
        assert gradient[:, :2].all()
    assert float(voxel_cross_entropy(np.full_like(labels, IGNORED), logits)) == 0


def test_loss_over_the_voxels_of_two_shares_is_that_of_the_batch():
    """Of two replicas with a patch each, of which one has fewer known voxels; two means, then three sums."""
    labels, logits, ops = LABELS.copy(), LOGITS["upper"], keras.ops
    labels[0, :3] = IGNORED
    seen = [], []
    for share, values in enumerate(seen):
        over = types.SimpleNamespace(
            mean=lambda x, to=values: to.append(ops.mean(x)) or to[-1],
            sum=lambda x, to=values: to.append(ops.sum(x)) or to[-1],
        )
        for loss in (voxel_cross_entropy, soft_dice_loss):
            loss(labels[share : share + 1], logits[share : share + 1], over)
    factors = (0.5, 0.5, 1, 1, 1)
    both = iter([factor * (a + b) for factor, a, b in zip(factors, *seen, strict=True)])
    over = types.SimpleNamespace(mean=lambda x: next(both), sum=lambda x: next(both))
    for loss in (voxel_cross_entropy, soft_dice_loss):
        assert float(loss(labels[:1], logits[:1], over)) == pytest.approx(float(loss(labels, logits)), rel=1e-6)
