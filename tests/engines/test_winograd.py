"""Winograd's convolution gives the numbers of the direct one."""

import keras
import numpy as np
import pytest

from femur3d.config import Network
from femur3d.engines.fused_for_inference import fold_network
from femur3d.engines.winograd import KERNEL, MIN_CHANNELS, WinogradConv3D, _input_factors, _outputs
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


def test_the_folded_network_uses_it_where_the_input_is_wide_and_float32():
    wide = Network((4, MIN_CHANNELS, 64, 4), (4, 4, 4), initialisation="he")
    network = build_network(wide)
    assert not any(isinstance(layer, WinogradConv3D) for layer in network.layers)
    folded = fold_network(network, wide)
    names = {layer.name for layer in folded.layers if isinstance(layer, WinogradConv3D)}
    assert names == {"conv3a", "conv3b", "conv4a", "lower_conv_a", "mid_conv_a"}
    assert not any(isinstance(layer, WinogradConv3D) for layer in fold_network(network, wide, "bfloat16").layers)
    x = RNG.normal(size=(1, 16, 8, 24, 1)).astype(np.float32)
    for head, logits in network(x, training=False).items():
        np.testing.assert_allclose(folded(x)[head], logits, atol=1e-4 * np.abs(logits).max())


def test_on_an_accelerator_its_own_convolutions_stay(monkeypatch):
    monkeypatch.setattr(keras.distribution, "list_devices", lambda: ["cpu:0", "gpu:0"])
    wide = Network((32, 4, 4, 4), (4, 4, 4))
    folded = fold_network(build_network(wide), wide)
    assert not any(isinstance(layer, WinogradConv3D) for layer in folded.layers)
