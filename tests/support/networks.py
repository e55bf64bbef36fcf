"""Networks that need no training."""

import keras
import numpy as np

from femur3d.config import Network, Preprocessing
from femur3d.network.unet import build_network

PREPROCESSING = Preprocessing(spacing_mm=(5.0, 5.0, 5.0), patch_size=(16, 16, 16))


def threshold_network():
    """A network that calls a voxel femur where its normalised intensity is above zero: exact, and needs no training.

    The skip from conv1a carries the intensity to UpperCls; every kernel off that path is zero.
    """
    config = Network((1, 1, 1, 1), (1, 1, 1))
    network = build_network(config)
    for layer in network.layers:
        if hasattr(layer, "kernel"):
            layer.kernel.assign(np.zeros(layer.kernel.shape))
    path = {"conv1a": (0, 0), "upper_conv_a": (1, 0), "upper_conv_b": (0, 0), "upper_cls": (0, 1)}
    for name, (i, o) in path.items():  # upper_concat holds [deconv, skip]
        kernel = np.zeros(network.get_layer(name).kernel.shape)
        kernel[1, 1, 1, i, o] = 1
        network.get_layer(name).kernel.assign(kernel)
    network.get_layer("upper_cls").bias.assign([0.0, -0.5])
    return config, network


def as_if_trained(config):
    """A network whose normalisations have statistics, scales and shifts of their own."""
    network, rng = build_network(config), np.random.default_rng(0)
    for layer in network.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            n = layer.gamma.shape[0]
            layer.set_weights([rng.uniform(0.5, 1.5, n), *rng.normal(0, 0.2, (2, n)), rng.uniform(0.5, 2, n)])
    return network
