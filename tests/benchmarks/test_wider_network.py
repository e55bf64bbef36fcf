import keras
import numpy as np
import pytest

from benchmarks.wider_network import embed_in_wider_network
from femur3d.config import Network
from femur3d.errors import UsageError
from femur3d.network.unet import build_network

NARROW = Network((2, 3, 4, 5), (4, 3, 2), initialisation="he")
WIDE = Network((5, 7, 8, 9), (6, 5, 4))


@pytest.fixture(scope="module")
def narrow():
    network, rng = build_network(NARROW), np.random.default_rng(0)
    for layer in network.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            n = layer.gamma.shape[0]
            layer.set_weights([rng.uniform(0.5, 2, n), rng.normal(size=n), rng.normal(size=n), rng.uniform(0.5, 2, n)])
        elif layer.weights:
            kernel, bias = layer.get_weights()
            layer.set_weights([kernel, rng.normal(size=bias.shape)])
    return network


def test_all_heads_say_the_same(narrow):
    patch = np.random.default_rng(1).normal(size=(1, 16, 8, 8, 1)).astype(np.float32)
    wide = embed_in_wider_network(narrow, WIDE)
    assert wide.count_params() == build_network(WIDE).count_params()
    expected = narrow(patch, training=False)
    for head, logits in wide(patch, training=False).items():
        assert np.std(expected[head]) > 0.1
        np.testing.assert_allclose(logits, expected[head], rtol=1e-4, atol=1e-4)


def test_the_same_width_gives_the_same_weights(narrow):
    for ours, theirs in zip(embed_in_wider_network(narrow, NARROW).get_weights(), narrow.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_refuses_fewer_filters(narrow):
    with pytest.raises(UsageError, match="conv2a: 2 filters cannot hold those of the trained network, 3"):
        embed_in_wider_network(narrow, Network((2, 2, 4, 5), (4, 3, 2)))
