"""Winograd's convolution gives the numbers of the direct one."""

import keras
import numpy as np
import pytest

from femur3d.config import Network
from femur3d.engines.fused_for_inference import fuse_for_inference
from femur3d.engines.layers.winograd import (
    KERNEL,
    MIN_CHANNELS,
    WinogradConv3D,
    _input_factors,
    _outputs,
    with_winograd,
)
from femur3d.network.unet import build_network

RNG = np.random.default_rng(0)


def both(channels: int, filters: int):
    """A Conv3D and its twin."""
    direct, twin = keras.layers.Conv3D(filters, 3, padding="same"), WinogradConv3D(filters)
    for layer in (direct, twin):
        layer.build((None, None, None, None, channels))
    kernel, bias = RNG.normal(size=(3, 3, 3, channels, filters)), RNG.normal(size=filters)
    direct.set_weights([kernel, bias])
    twin.set_weights([twin.transformed(kernel), bias])
    return direct, twin


def test_four_outputs_of_a_filter_with_three_taps_by_hand():
    signal, taps = [1.0, -2.0, 3.0, 0.0, 5.0, 1.0], np.array([2.0, 1.0, -1.0])
    products = [a * b for a, b in zip(_input_factors(*signal), np.array(KERNEL) @ taps, strict=True)]
    np.testing.assert_allclose(_outputs(*products), [2 - 2 - 3, -4 + 3 - 0, 6 + 0 - 5, 0 + 5 - 1], atol=1e-12)


@pytest.mark.parametrize("shape", [(1, 8, 8, 8), (2, 4, 3, 5), (1, 1, 2, 2), (1, 7, 4, 3), (3, 13, 1, 1)])
def test_same_numbers_as_the_direct_convolution(shape):
    direct, twin = both(3, 5)
    x = RNG.normal(size=(*shape, 3)).astype(np.float32)
    np.testing.assert_allclose(twin(x), direct(x), rtol=1e-4, atol=1e-4)


def test_the_zeros_around_the_volume_are_those_of_the_direct_one():
    """A constant volume: the outermost slices get fewer taps."""
    direct, twin = both(1, 1)
    x = np.ones((1, 6, 3, 3, 1), np.float32)
    found = np.asarray(twin(x))
    np.testing.assert_allclose(found, direct(x), rtol=1e-4, atol=1e-4)
    assert len(np.unique(found[0, :, 1, 1, 0].round(3))) == 3  # first, inner, last


def test_any_size_goes_through_one_functional_model():
    inputs = keras.Input((None, None, None, 3))
    model = keras.Model(inputs, WinogradConv3D(2)(inputs))
    assert model.output.shape == (None, None, None, None, 2)
    assert model(np.zeros((1, 5, 4, 3, 3))).shape == (1, 5, 4, 3, 2)


WIDE = Network((4, MIN_CHANNELS, 64, 4), (4, 4, 4), initialisation="he")


def winograd_layers(network):
    return {layer.name for layer in network.layers if isinstance(layer, WinogradConv3D)}


def test_a_network_gets_it_where_the_input_is_wide_and_float32():
    fused = fuse_for_inference(build_network(WIDE))
    faster = with_winograd(fused)
    assert winograd_layers(faster) == {"conv3a", "conv3b", "conv4a", "lower_conv_a", "mid_conv_a"}
    assert winograd_layers(fused) == set()
    assert winograd_layers(with_winograd(fuse_for_inference(build_network(WIDE), "bfloat16"))) == set()
    x = RNG.normal(size=(1, 16, 8, 24, 1)).astype(np.float32)
    for head, logits in fused(x).items():
        np.testing.assert_allclose(faster(x)[head], logits, atol=1e-4 * np.abs(logits).max())


def test_a_classifier_stays_as_it_is():
    network = build_network(Network((4, 4, 4, 4), (MIN_CHANNELS, 4, MIN_CHANNELS)))
    assert winograd_layers(with_winograd(network)) == {"lower_conv_a", "lower_conv_b", "upper_conv_a", "upper_conv_b"}


def test_on_an_accelerator_its_own_convolutions_stay(monkeypatch):
    monkeypatch.setattr(keras.distribution, "list_devices", lambda: ["cpu:0", "gpu:0"])
    assert winograd_layers(with_winograd(build_network(WIDE))) == set()
