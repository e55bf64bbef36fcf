import numpy as np
import pytest

from femur3d.config import Loss, Network, Training
from femur3d.engines.layers.fused_batch_norm import with_fused_batch_norm
from femur3d.network.unet import build_network
from femur3d.training.optimizer import make_optimizer
from femur3d.training.train_step import make_train_step

ALPHA = (0.33, 0.67, 1.0)  # LowerCls, MidCls, UpperCls
RNG = np.random.default_rng(0)
IMAGES = RNG.normal(size=(2, 16, 16, 16, 1)).astype(np.float32)
LABELS = (IMAGES[..., 0] > 0.5).astype(np.uint8)


def setup(alpha=ALPHA, l2=0.0, **training):
    """A network and its update without the graph, which takes longer to trace than a few updates take."""
    network, step = with_graph(alpha, l2, **training)
    return network, step.python_function


def with_graph(alpha=ALPHA, l2=0.0, **training):
    config = Network((2, 3, 4, 4), (4, 3, 2), initialisation="he")
    network = build_network(config)
    optimizer = make_optimizer(Training(**{"rate": 1e-2, **training}), network)
    return network, make_train_step(with_fused_batch_norm(network), optimizer, Loss(alpha, l2))


def kernels(network):
    return {v.path: np.asarray(v) for v in network.trainable_variables if len(v.shape) == 5}


def test_graph_computes_what_the_function_says():
    found = []
    for make in (setup, with_graph):
        network, step = make(l2=0.005, rate=0.1)
        scalars = [step(IMAGES, LABELS) for _ in range(3)][-1]
        found.append({**{k: float(v) for k, v in scalars.items()}, "mean": float(np.mean(network.get_weights()[0]))})
    assert found[0] == pytest.approx(found[1], rel=1e-4)


def test_steps_lower_the_loss():
    _, step = setup(rate=0.1)
    losses = [float(step(IMAGES, LABELS)["loss"]) for _ in range(8)]
    assert losses[1] < losses[0]
    assert losses[-1] < 0.9 * losses[0]


def test_gradients_reach_every_weight():
    network, step = setup()
    before = [np.asarray(v) for v in network.trainable_variables]
    for _ in range(2):  # a bias before batch normalisation has no gradient; all else has
        step(IMAGES, LABELS)
    for variable, old in zip(network.trainable_variables, before, strict=True):
        normalised_bias = variable.path.endswith("bias") and "cls/" not in variable.path
        assert normalised_bias or not np.array_equal(np.asarray(variable), old), variable.path


def test_bfloat16_is_what_is_computed_in_not_what_is_kept():
    """Loss, gradient and weights stay float32 and come near those of float32; not nearer than bfloat16 can."""
    results, images = {}, RNG.normal(size=(2, 24, 8, 8, 1)).astype(np.float32)
    for precision in ("float32", "mixed_bfloat16"):
        config = Network((2, 3, 4, 4), (4, 3, 2), initialisation="he")
        network = build_network(config, precision=precision)
        step = make_train_step(
            with_fused_batch_norm(network), make_optimizer(Training(rate=1e-2), network), Loss(ALPHA, 0.0)
        )
        scalars = step.python_function(images, (images[..., 0] > 0.5).astype(np.uint8))
        assert {str(v.dtype) for v in network.variables} == {"float32"}
        assert scalars["loss"].dtype == scalars["gradient_norm"].dtype == "float32"
        results[precision] = [float(scalars[name]) for name in ("loss", "gradient_norm")]
    np.testing.assert_allclose(results["mixed_bfloat16"], results["float32"], rtol=0.05)
    assert results["mixed_bfloat16"] != results["float32"]


def test_moving_statistics_follow():
    network, step = setup()
    step(IMAGES, LABELS)
    assert all(np.asarray(v).any() for v in network.non_trainable_variables if v.path.endswith("moving_mean"))


@pytest.mark.parametrize(
    ("alpha", "silent"),
    [
        ((0.0, 0.0, 1.0), ("lower_cls", "mid_cls")),
        ((1.0, 0.0, 0.0), ("mid_", "upper_")),
        ((0.0, 1.0, 0.0), ("lower_cls", "upper_")),
    ],
)
def test_alpha_zero_silences_exactly_those_heads(alpha, silent):
    """A head without weight moves neither its own kernels nor those that only it depends on, and all others move."""
    network, step = setup(alpha)
    before = kernels(network)
    step(IMAGES, LABELS)
    still = {path for path, new in kernels(network).items() if np.array_equal(new, before[path])}
    assert still == {path for path in before if path.startswith(silent)}


def test_l2_penalty_alone_is_a_weight_decay_of_lambda():
    """With all α = 0 the gradient of λ·½‖w‖² is λ·w: one SGD update gives w·(1 - rate·λ), biases stay."""
    network, step = setup((0.0, 0.0, 0.0), l2=0.005, rate=0.1, momentum=0.0)
    before = kernels(network)
    biases = [np.asarray(v) for v in network.trainable_variables if v.name == "bias"]
    step(IMAGES, LABELS)
    for path, new in kernels(network).items():
        np.testing.assert_allclose(new, before[path] * (1 - 0.1 * 0.005), rtol=1e-5, atol=1e-9)
    after = [np.asarray(v) for v in network.trainable_variables if v.name == "bias"]
    for old, new in zip(biases, after, strict=True):
        np.testing.assert_array_equal(old, new)


def test_scalars_are_those_of_before_the_update():
    _, step = setup(l2=0.005, halve_every=1)
    rates = [float(step(IMAGES, LABELS)["learning_rate"]) for _ in range(3)]
    np.testing.assert_allclose(rates, [1e-2, 5e-3, 2.5e-3])
    scalars = step(IMAGES, LABELS)
    assert set(scalars) == {"loss", "ce_lower", "ce_mid", "ce_upper", "l2_penalty", "learning_rate", "gradient_norm"}


def test_gradient_norm_is_the_length_of_the_first_update_over_its_rate():
    network, step = setup(l2=0.005)
    before = [np.asarray(v) for v in network.trainable_variables]
    norm = float(step(IMAGES, LABELS)["gradient_norm"])
    change = [np.asarray(v) - old for v, old in zip(network.trainable_variables, before, strict=True)]
    assert norm == pytest.approx(np.sqrt(sum((c.astype(float) ** 2).sum() for c in change)) / 1e-2, rel=1e-4)
