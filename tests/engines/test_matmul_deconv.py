import keras
import numpy as np

from femur3d.config import Network
from femur3d.engines.layers.matmul_deconv import MatmulDeconv3D, with_matmul_deconv
from femur3d.network.unet import build_network

RNG = np.random.default_rng(0)


def test_numbers_are_those_of_the_layer():
    layer = keras.layers.Conv3DTranspose(3, 2, strides=2)
    x = RNG.normal(size=(2, 3, 4, 5, 6)).astype(np.float32)
    layer(x)
    layer.set_weights([RNG.normal(size=w.shape) for w in layer.get_weights()])
    np.testing.assert_allclose(MatmulDeconv3D(layer)(x), layer(x), atol=1e-5)


def test_network_has_the_same_variables_in_the_same_order_and_predicts_the_same():
    network = build_network(Network((2, 3, 4, 4), (4, 3, 2), initialisation="he"))
    faster = with_matmul_deconv(network)
    for group in ("trainable_variables", "non_trainable_variables", "variables"):
        assert [id(v) for v in getattr(faster, group)] == [id(v) for v in getattr(network, group)]
    patch = RNG.normal(size=(1, 8, 8, 16, 1)).astype(np.float32)
    for head, logits in network(patch).items():
        np.testing.assert_allclose(faster(patch)[head], logits, atol=1e-5 * np.abs(logits).max())
    assert sum(isinstance(layer, MatmulDeconv3D) for layer in faster.layers) == 6
