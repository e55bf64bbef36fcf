"""The optimiser of an experiment: SGD with momentum at the experiment's rate (section 3)."""

from __future__ import annotations

import keras

from femur3d.config import Training
from femur3d.schedule import HalvingRate, PolynomialRate


def make_schedule(training: Training) -> keras.optimizers.schedules.LearningRateSchedule:
    """The learning rate as a function of the number of updates already made."""
    if training.schedule == "polynomial":
        return PolynomialRate(training.rate, training.steps)
    return HalvingRate(training.rate, training.halve_every)


def make_optimizer(training: Training, network: keras.Model) -> keras.optimizers.Optimizer:
    """SGD built for the network's trainable variables, so that its state can be restored before the first update."""
    optimizer = keras.optimizers.SGD(
        make_schedule(training),
        training.momentum,
        nesterov=training.nesterov,
        global_clipnorm=training.clip_norm or None,
    )
    optimizer.build(network.trainable_variables)
    return optimizer
