"""UpperCls where LowerCls is unsure: in which box, from which features, and the same numbers inside."""

import keras
import numpy as np
import pytest

from femur3d.config import Network
from femur3d.engines import coarse_to_fine
from femur3d.engines.backend import ENGINE
from femur3d.engines.fused_for_inference import fuse_for_inference
from femur3d.network.unet import LOWER_FEATURES, build_network, head_probabilities

CONFIG = Network((4, 6, 8, 8), (8, 6, 4), initialisation="he")
RNG = np.random.default_rng(0)
HEADS = ("lower_cls", "mid_cls", "upper_cls")


@pytest.fixture
def network() -> keras.Model:
    return fuse_for_inference(build_network(CONFIG))


def functions(network: keras.Model) -> tuple[coarse_to_fine.Function, coarse_to_fine.Function]:
    """What the engine makes of a network for both looks."""
    features = network.get_layer(LOWER_FEATURES).output
    look = ENGINE.make_function([network.input], [network.output["lower"], features])
    return look, ENGINE.make_function([network.input, features], [network.output["upper"]])


def set_background(network: keras.Model, logit: float, heads: tuple[str, ...] = HEADS) -> None:
    """Heads answer a black patch with this logit for the background."""
    for head in heads:
        kernel, _ = network.get_layer(head).get_weights()
        network.get_layer(head).set_weights([kernel, np.array([logit, 0], np.float32)])


def test_unsure_everywhere_is_the_upper_head(network: keras.Model) -> None:
    patches = RNG.normal(0, 0.1, (2, 16, 8, 24)).astype(np.float32)
    expected = head_probabilities(network, patches)
    assert all(((p > 0.1) & (p < 0.9)).all() for p in expected.values())
    found = coarse_to_fine.make_predict(*functions(network))(patches)
    assert (found.dtype, found.shape) == (np.float32, patches.shape)
    np.testing.assert_allclose(found, expected["upper"], atol=1e-6)


def test_where_lower_cls_is_sure_it_has_the_last_word(network: keras.Model) -> None:
    set_background(network, 9.0)
    patches = RNG.normal(0, 0.1, (1, 16, 16, 16)).astype(np.float32)
    found = coarse_to_fine.make_predict(*functions(network))(patches)
    np.testing.assert_allclose(found, head_probabilities(network, patches)["lower"], atol=1e-6)
    assert found.max() < 0.1


def test_box_by_hand() -> None:
    """One voxel unsure, in a patch whose features tell their own places."""
    calls = []

    def look(image: np.ndarray) -> list[np.ndarray]:
        calls.append(image.shape)
        logits = np.zeros((*image.shape[:4], 2), np.float32)
        logits[..., 0] = 20
        logits[0, 20, 2, 30] = 0
        places = np.meshgrid(*(np.arange(n // 4) for n in image.shape[1:4]), indexing="ij")
        return [logits, np.stack(places, axis=-1)[np.newaxis].astype(np.float32)]

    def look_closer(image: np.ndarray, features: np.ndarray) -> list[np.ndarray]:
        calls.append((image.shape, image[0, 0, 0, 0, 0], features[0, 0, 0, 0].tolist(), features.shape))
        return [np.broadcast_to(np.array([0, 1], np.float32), (*image.shape[:4], 2))]

    predict = coarse_to_fine.make_predict(look, look_closer)
    patch = np.arange(64 * 16 * 64, dtype=np.float32).reshape(1, 64, 16, 64)
    found = predict(patch)[0]

    # 20 - 8 … 20 + 8 → 12 … 32; 2 - 8 … 2 + 8 → 0 … 12; 30 - 8 … 30 + 8 → 20 … 40
    assert calls == [(1, 64, 16, 64, 1), ((1, 20, 12, 20, 1), patch[0, 12, 0, 20], [3, 0, 5], (1, 5, 3, 5, 3))]
    expected = np.full(patch.shape[1:], 1 / (1 + np.exp(20.0)))
    expected[12:32, :12, 20:40] = 1 / (1 + np.exp(-1.0))
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_box_of_the_unsure(monkeypatch: pytest.MonkeyPatch) -> None:
    probabilities = np.zeros((16, 16, 24))
    assert coarse_to_fine.unsure_box(probabilities) is None
    assert coarse_to_fine.unsure_box(1 - probabilities) is None
    probabilities[7, 9, 11] = probabilities[8, 9, 4] = 0.5
    boxes = {
        0: (slice(4, 12), slice(8, 12), slice(4, 12)),
        3: (slice(4, 12), slice(4, 16), slice(0, 16)),
        99: (slice(0, 16), slice(0, 16), slice(0, 24)),
    }
    for margin, box in boxes.items():
        monkeypatch.setattr(coarse_to_fine, "MARGIN", margin)
        assert coarse_to_fine.unsure_box(probabilities) == box
    monkeypatch.setattr(coarse_to_fine, "MARGIN", 0)
    probabilities[0, 0, 0] = coarse_to_fine.SURE  # just not sure
    assert coarse_to_fine.unsure_box(probabilities) == (slice(0, 12), slice(0, 12), slice(0, 12))


def test_inside_a_wide_margin_the_box_changes_nothing(network: keras.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """What UpperCls says of a voxel depends on no more than the 12 voxels around, and on the lower level's features."""
    monkeypatch.setattr(coarse_to_fine, "MARGIN", 12)
    set_background(network, 3.0)
    patch = np.zeros((1, 64, 64, 64), np.float32)
    patch[0, 28:36, 28:36, 28:36] = np.random.default_rng(1).normal(0, 3, (8, 8, 8))
    sizes = []

    def counting(function: coarse_to_fine.Function) -> coarse_to_fine.Function:
        def counted(*arrays: np.ndarray) -> list[np.ndarray]:
            sizes.append(arrays[0].size)
            return function(*arrays)

        return counted

    look, refine = map(counting, functions(network))
    found, heads = coarse_to_fine.make_predict(look, refine)(patch), head_probabilities(network, patch)
    assert len(sizes) == 2
    assert sizes[0] == 64**3 > sizes[1]
    unsure = (heads["lower"] > 0.1) & (heads["lower"] < 0.9)
    assert unsure.sum() > 5
    np.testing.assert_allclose(found[unsure], heads["upper"][unsure], atol=1e-5)
