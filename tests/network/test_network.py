import keras
import numpy as np
import pytest

from femur3d.config import Network
from femur3d.network.unet import build_network, head_probabilities, upper_probability
from femur3d.network.weights import layers_with_weights

TINY = Network((2, 3, 4, 5), (4, 3, 2))


@pytest.fixture(scope="module")
def tiny():
    return build_network(TINY)


def convolution(size, inputs, outputs):
    """Parameters of a convolution of size³ with bias."""
    return size**3 * inputs * outputs + outputs


def normalised(parameters, outputs):
    """Those and batch normalisation's gamma, beta, moving mean and variance."""
    return parameters + 4 * outputs


def test_parameter_count_by_hand():
    encoder = [(1, 64), (64, 128), (128, 256), (256, 256), (256, 512), (512, 512)]
    deconvs = [(512, 256), (256, 128), (128, 64), (256, 128), (128, 64), (128, 64)]  # decoder, then heads
    convs = [(512, 256), (256, 256), (256, 128), (128, 128), (128, 64), (64, 64)]
    count = sum(normalised(convolution(3, i, o), o) for i, o in encoder + convs)
    count += sum(normalised(convolution(2, i, o), o) for i, o in deconvs)
    count += 3 * convolution(3, 64, 2)
    assert build_network(Network()).count_params() == count == 22_257_734


def test_every_layer_is_named():
    names = [layer.name for layer in build_network(TINY).layers]
    blocks = {n for n in names if not n.endswith(("_bn", "_relu", "_concat"))}
    assert blocks == {
        "image", "conv1a", "pool1", "conv2a", "pool2", "conv3a", "conv3b", "pool3", "conv4a", "conv4b",
        "lower_deconv", "lower_conv_a", "lower_conv_b", "mid_deconv", "mid_conv_a", "mid_conv_b",
        "upper_deconv", "upper_conv_a", "upper_conv_b",
        "lower_cls_deconv1", "lower_cls_deconv2", "mid_cls_deconv1", "lower_cls", "mid_cls", "upper_cls",
    }  # fmt: skip
    assert len(names) == len(set(names))


@pytest.mark.parametrize("shape", [(8, 8, 8), (16, 24, 8), (40, 8, 16)])
def test_heads_have_the_resolution_of_the_input(tiny, shape):
    logits = tiny(np.zeros((2, *shape, 1), np.float32))
    assert list(logits) == ["lower", "mid", "upper"]
    assert all(tuple(v.shape) == (2, *shape, 2) for v in logits.values())


@pytest.mark.parametrize(
    ("layer", "factor", "filters"),
    [("conv1a", 1, 2), ("conv2a", 2, 3), ("conv3b", 4, 4), ("conv4b", 8, 5),
     ("lower_conv_b", 4, 4), ("mid_conv_b", 2, 3), ("upper_conv_b", 1, 2),
     ("lower_concat", 4, 8), ("mid_concat", 2, 6), ("upper_concat", 1, 4)],
)  # fmt: skip
def test_shapes_inside(tiny, layer, factor, filters):
    probe = keras.Model(tiny.input, tiny.get_layer(layer).output)
    assert tuple(probe(np.zeros((1, 16, 24, 32, 1), np.float32)).shape) == (
        1, 16 // factor, 24 // factor, 32 // factor, filters,
    )  # fmt: skip


def test_receptive_field_of_the_encoder_is_that_of_its_kernels():
    """conv4b sees 1 + 2·(1 + 2 + 2·4 + 2·8) + (1 + 2 + 4) = 62 voxels: six convolutions, three poolings."""
    network = build_network(Network((1, 1, 1, 1), (1, 1, 1), initialisation="he"))
    for layer in network.layers:  # positive kernels, so that nothing cancels and ReLU passes all
        if layer.name.startswith("conv") and hasattr(layer, "kernel"):
            layer.kernel.assign(np.ones(layer.kernel.shape))
    probe = keras.Model(network.input, network.get_layer("conv4b_relu").output)
    base = np.zeros((1, 128, 8, 8, 1), np.float32)
    quiet = np.asarray(probe(base))
    seen = []
    for z in range(128):
        image = base.copy()
        image[0, z, 4, 4, 0] = 1
        seen.append(np.asarray(probe(image))[0, 8, 0, 0, 0] != quiet[0, 8, 0, 0, 0])
    assert sum(seen) == 62


def test_seed_decides_the_kernels():
    first, same, other = (build_network(TINY, seed) for seed in (1, 1, 2))
    for a, b, c in zip(first.get_weights(), same.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
        assert a.ndim != 5 or not np.array_equal(a, c)


def test_initialisation_is_the_papers():
    network = build_network(Network((16, 16, 16, 16), (16, 16, 16)))
    for weight in network.trainable_variables:
        values = np.asarray(weight)
        if values.ndim == 5 and values.size > 1000:
            assert abs(values.std() - 0.01) < 1e-3
            assert abs(values.mean()) < 1e-3
        elif weight.name == "bias":
            assert not values.any()


def test_batch_normalisation_is_as_configured():
    network = build_network(Network((2, 2, 2, 2), (2, 2, 2), bn_momentum=0.9, bn_epsilon=1e-5))
    found = [(layer.momentum, layer.epsilon) for layer in network.layers if layer.name.endswith("_bn")]
    assert found == [(0.9, 1e-5)] * 18
    paper = build_network(TINY)
    assert {(layer.momentum, layer.epsilon) for layer in paper.layers if layer.name.endswith("_bn")} == {(0.99, 1e-3)}


def test_layers_of_one_shape_begin_with_different_kernels():
    network = build_network(Network((2, 2, 2, 2), (2, 2, 2)))
    kernels = [np.asarray(layer.kernel) for layer in network.layers if hasattr(layer, "kernel")]
    assert len(kernels) == 21
    assert len({kernel.tobytes() for kernel in kernels}) == 21


def test_upper_probability_is_the_softmax_of_upper_cls(tiny):
    image = np.random.default_rng(0).normal(size=(1, 16, 16, 16, 1)).astype(np.float32)
    logits = np.asarray(tiny(image, training=False)["upper"], np.float64)
    expected = np.exp(logits[..., 1]) / np.exp(logits).sum(-1)
    np.testing.assert_allclose(np.asarray(upper_probability(tiny)(image, training=False)), expected, atol=1e-6)


def test_probabilities_of_all_heads(tiny):
    patches = np.random.default_rng(0).normal(size=(3, 16, 8, 24)).astype(np.float32)
    found, logits = head_probabilities(tiny, patches), tiny(patches[..., None], training=False)
    assert set(found) == {"lower", "mid", "upper"}
    for head, probability in found.items():
        expected = keras.ops.softmax(logits[head])[..., 1]
        assert (probability.shape, probability.dtype) == (patches.shape, np.float32)
        np.testing.assert_allclose(probability, expected, atol=1e-5)
    assert head_probabilities(tiny, patches[:0])["mid"].shape == (0, 16, 8, 24)


def test_network_is_equivariant_to_shifts_of_eight_voxels(tiny):
    image = np.zeros((1, 96, 8, 8, 1), np.float32)
    image[0, 40:44, 3:5, 2:6, 0] = 1
    moved = np.roll(image, 8, axis=1)
    still, shifted = (np.asarray(tiny(i, training=False)["upper"]) for i in (image, moved))
    np.testing.assert_allclose(np.roll(still, 8, axis=1)[:, 32:64], shifted[:, 32:64], atol=1e-7)


def test_network_can_be_written_as_its_configuration_and_built_from_it(tiny):
    twin = keras.Model.from_config(tiny.get_config())
    twin.set_weights(tiny.get_weights())
    patch = np.random.default_rng(0).normal(size=(1, 8, 8, 16, 1)).astype(np.float32)
    np.testing.assert_array_equal(twin(patch)["mid"], tiny(patch)["mid"])


def test_weights_are_known_without_keras():
    """Kind and shapes of all weights, in the order of Keras's layers, which its weights files have."""
    kinds = {"Conv3D": "conv3d", "Conv3DTranspose": "conv3d_transpose", "BatchNormalization": "batch_normalization"}
    expected = [
        (layer.name, kinds[type(layer).__name__], [tuple(weight.shape) for weight in layer.weights])
        for layer in build_network(TINY).layers
        if layer.weights
    ]
    found = [(name, kind, shapes) for name, (kind, shapes) in layers_with_weights(TINY).items()]
    assert sorted(found) == sorted(expected)
    for kind in kinds.values():
        assert [name for name, k, _ in found if k == kind] == [name for name, k, _ in expected if k == kind]
