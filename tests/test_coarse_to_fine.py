"""Each head where the one below it is unsure: which boxes, from which features, and the same numbers inside."""

import keras
import numpy as np
import pytest

from femur3d import coarse_to_fine
from femur3d.config import Network
from femur3d.network.folded import fold_network
from femur3d.network.unet import build_network, head_probabilities
from femur3d.predictor import make_function

CONFIG = Network((4, 6, 8, 8), (8, 6, 4), initialisation="he")
RNG = np.random.default_rng(0)
HEADS = ("lower_cls", "mid_cls", "upper_cls")


@pytest.fixture
def network() -> keras.Model:
    return fold_network(build_network(CONFIG), CONFIG)


def set_background(network: keras.Model, logit: float, heads: tuple[str, ...] = HEADS) -> None:
    """Heads answer a black patch with this logit for the background."""
    for head in heads:
        kernel, _ = network.get_layer(head).get_weights()
        network.get_layer(head).set_weights([kernel, np.array([logit, 0], np.float32)])


def test_unsure_everywhere_is_the_upper_head(network: keras.Model) -> None:
    patches = RNG.normal(0, 0.1, (2, 16, 8, 24)).astype(np.float32)
    expected = head_probabilities(network, patches)
    assert all(((p > 0.1) & (p < 0.9)).all() for p in expected.values())
    found = coarse_to_fine.make_predict(network, make_function)(patches)
    assert (found.dtype, found.shape) == (np.float32, patches.shape)
    np.testing.assert_allclose(found, expected["upper"], atol=1e-6)


@pytest.mark.parametrize("sure", ["lower_cls", "mid_cls"])
def test_a_sure_head_has_the_last_word(network: keras.Model, sure: str) -> None:
    set_background(network, 9.0, (sure,))
    patches = RNG.normal(0, 0.1, (1, 16, 16, 16)).astype(np.float32)
    found = coarse_to_fine.make_predict(network, make_function)(patches)
    np.testing.assert_allclose(found, head_probabilities(network, patches)[sure.removesuffix("_cls")], atol=1e-6)
    assert found.max() < 0.1


def test_boxes_by_hand() -> None:
    """One voxel unsure, in a patch whose features tell their own places."""
    calls = []

    def scores(shape: tuple[int, ...], unsure: tuple[int, ...], level: int) -> np.ndarray:
        logits = np.zeros((1, *shape, 2), np.float32)
        logits[..., 0] = 20 + level
        logits[(0, *unsure)] = 0
        return logits

    def places(shape: tuple[int, ...], scale: int) -> np.ndarray:
        grid = np.meshgrid(*(np.arange(n // scale) for n in shape), indexing="ij")
        return np.stack(grid, axis=-1)[np.newaxis].astype(np.float32)

    def lower(image: np.ndarray) -> list[np.ndarray]:
        calls.append(image.shape)
        return [scores(image.shape[1:4], (20, 2, 30), 0), places(image.shape[1:4], 4)]

    def mid(image: np.ndarray, features: np.ndarray) -> list[np.ndarray]:
        calls.append((image.shape, image[0, 0, 0, 0, 0], features[0, 0, 0, 0].tolist(), features.shape))
        return [scores(image.shape[1:4], (10, 2, 12), 1), places(image.shape[1:4], 2)]

    def upper(image: np.ndarray, features: np.ndarray) -> list[np.ndarray]:
        calls.append((image.shape, image[0, 0, 0, 0, 0], features[0, 0, 0, 0].tolist(), features.shape))
        return [scores(image.shape[1:4], (0, 0, 0), 2)]

    functions = iter([lower, mid, upper])
    predict = coarse_to_fine.make_predict(build_network(CONFIG), lambda *_: next(functions))
    patch = np.arange(64 * 16 * 64, dtype=np.float32).reshape(1, 64, 16, 64)
    found = predict(patch)[0]

    # LowerCls: 20 - 8 … 20 + 8 → 12 … 32; 2 - 8 … 2 + 8 → 0 … 12; 30 - 8 … 30 + 8 → 20 … 40.
    assert calls[0] == (1, 64, 16, 64, 1)
    assert calls[1] == ((1, 20, 12, 20, 1), patch[0, 12, 0, 20], [3, 0, 5], (1, 5, 3, 5, 3))
    # MidCls, within that: 10 - 3 … 10 + 3 → 4 … 16; 2 - 3 … 2 + 3 → 0 … 8; 12 - 3 … 12 + 3 → 8 … 16.
    assert calls[2] == ((1, 12, 8, 8, 1), patch[0, 16, 0, 28], [2, 0, 4], (1, 6, 4, 4, 3))
    level = np.full(patch.shape[1:], 20)
    level[12:32, :12, 20:40] = 21
    level[16:28, :8, 28:36] = 22
    expected = 1 / (1 + np.exp(level.astype(np.float64)))
    expected[16, 0, 28] = 0.5
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_box_of_the_unsure() -> None:
    probabilities = np.zeros((16, 16, 24))
    assert coarse_to_fine.unsure_box(probabilities, 3) is None
    assert coarse_to_fine.unsure_box(1 - probabilities, 3) is None
    probabilities[7, 9, 11] = probabilities[8, 9, 4] = 0.5
    assert coarse_to_fine.unsure_box(probabilities, 0) == (slice(4, 12), slice(8, 12), slice(4, 12))
    assert coarse_to_fine.unsure_box(probabilities, 3) == (slice(4, 12), slice(4, 16), slice(0, 16))
    assert coarse_to_fine.unsure_box(probabilities, 99) == (slice(0, 16), slice(0, 16), slice(0, 24))
    probabilities[0, 0, 0] = coarse_to_fine.SURE  # just not sure
    assert coarse_to_fine.unsure_box(probabilities, 0) == (slice(0, 12), slice(0, 12), slice(0, 12))


def test_inside_wide_margins_boxes_change_nothing(network: keras.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """The middle level sees 10 voxels around one of its own, the upper level and its classifier 4."""
    monkeypatch.setattr(coarse_to_fine, "MARGINS", (16, 4))
    set_background(network, 3.0)
    patch = np.zeros((1, 64, 64, 64), np.float32)
    patch[0, 28:36, 28:36, 28:36] = np.random.default_rng(1).normal(0, 3, (8, 8, 8))
    sizes = []

    def counting(inputs: list, outputs: list) -> coarse_to_fine.Function:
        function = make_function(inputs, outputs)

        def counted(*arrays: np.ndarray) -> list[np.ndarray]:
            sizes.append(arrays[0].size)
            return function(*arrays)

        return counted

    found, heads = coarse_to_fine.make_predict(network, counting)(patch), head_probabilities(network, patch)
    assert len(sizes) == 3
    assert sizes[0] == 64**3 > sizes[1] > sizes[2]
    unsure = (heads["mid"] > 0.1) & (heads["mid"] < 0.9)
    assert unsure.sum() > 20
    np.testing.assert_allclose(found[unsure], heads["upper"][unsure], atol=1e-5)
