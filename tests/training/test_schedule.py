import keras
import numpy as np
import pytest

from femur3d.config import Training
from femur3d.training.optimizer import make_optimizer, make_schedule
from femur3d.training.schedule import PolynomialRate


@pytest.mark.parametrize(
    ("update", "rate"),
    [(1, 1e-3), (2, 1e-3), (3_000, 1e-3), (3_001, 5e-4), (6_000, 5e-4), (6_001, 2.5e-4), (9_000, 2.5e-4),
     (9_001, 1.25e-4), (12_000, 1.25e-4), (12_001, 6.25e-5), (14_000, 6.25e-5)],
)  # fmt: skip
def test_rate_of_the_paper_on_both_sides_of_every_halving(update, rate):
    assert float(make_schedule(Training())(update - 1)) == pytest.approx(rate, rel=1e-6)


def test_updates_really_use_those_rates():
    """Without momentum and with a gradient of 1, SGD moves a weight by the rate itself."""
    weight = keras.Variable(np.zeros(1, np.float32))
    optimizer = keras.optimizers.SGD(make_schedule(Training(halve_every=3, rate=0.5)))
    optimizer.build([weight])
    places = [0.0]
    for _ in range(7):
        optimizer.apply([keras.ops.ones(1)], [weight])
        places.append(float(weight[0]))
    np.testing.assert_allclose(-np.diff(places), [0.5, 0.5, 0.5, 0.25, 0.25, 0.25, 0.125], rtol=1e-6)


def test_polynomial_rate():
    schedule = PolynomialRate(0.1, 100)
    assert float(schedule(0)) == pytest.approx(0.1)
    assert float(schedule(50)) == pytest.approx(0.1 * 0.5**0.9)
    assert float(schedule(100)) == float(schedule(150)) == 0


def test_polynomial_rate_starts_again_in_every_cycle():
    schedule, once = PolynomialRate(0.1, 200, warm_restarts=1), PolynomialRate(0.1, 100)
    rates = [float(schedule(step)) for step in range(200)]
    assert rates == [float(once(step)) for step in range(100)] * 2
    assert float(schedule(200)) == float(schedule(250)) == 0


def test_a_last_cycle_may_be_shorter():
    rates = [float(PolynomialRate(1.0, 5, warm_restarts=1)(step)) for step in range(6)]
    assert [rate == 1.0 for rate in rates] == [True, False, False, True, False, False]
    assert (rates[-2], rates[-1]) == (rates[1], 0)


def test_experiments_choose_the_warm_restarts():
    schedule = make_schedule(Training(schedule="polynomial", steps=200, warm_restarts=1, rate=0.1))
    assert float(schedule(100)) == float(schedule(0)) == pytest.approx(0.1)


def test_clip_norm_bounds_the_whole_gradient():
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, kernel_initializer="zeros")])
    optimizer = make_optimizer(Training(rate=1.0, momentum=0.0, clip_norm=1.0), model)
    optimizer.apply([keras.ops.array([[3.0]]), keras.ops.array([4.0])], model.trainable_variables)
    np.testing.assert_allclose([float(w[0].squeeze()) for w in map(np.asarray, model.weights)], [-0.6, -0.8], rtol=1e-5)
    assert make_optimizer(Training(), model).global_clipnorm is None


def test_optimizer_is_built_as_configured():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    optimizer = make_optimizer(Training(momentum=0.8, nesterov=True), model)
    assert (optimizer.momentum, optimizer.nesterov) == (0.8, True)
    assert len(optimizer.variables) == 3  # the number of updates, two momenta


def test_adam_is_built_as_configured():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    optimizer = make_optimizer(Training(optimizer="adam", momentum=0.8, rate=0.01, clip_norm=2.0), model)
    assert type(optimizer) is keras.optimizers.Adam
    assert (optimizer.beta_1, optimizer.global_clipnorm) == (0.8, 2.0)
    before = [np.array(w) for w in model.get_weights()]
    optimizer.apply([keras.ops.array([[0.3], [-0.2]]), keras.ops.array([0.1])], model.trainable_variables)
    for old, new, sign in zip(before, model.get_weights(), ([[1], [-1]], [1]), strict=True):
        np.testing.assert_allclose(old - new, 0.01 * np.array(sign), rtol=1e-4)  # the first step is the rate's sign
