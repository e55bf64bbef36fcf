"""The optimiser of an experiment: SGD with momentum (section 3.3), or Adam, at the experiment's rate."""

from __future__ import annotations

import keras

from femur3d.config import Training
from femur3d.training.schedule import HalvingRate, PolynomialRate


def make_schedule(training: Training) -> keras.optimizers.schedules.LearningRateSchedule:
    """The learning rate as a function of the number of updates already made."""
    if training.schedule == "polynomial":
        return PolynomialRate(training.rate, training.steps, training.warm_restarts)
    return HalvingRate(training.rate, training.halve_every)


def make_optimizer(training: Training, network: keras.Model) -> keras.optimizers.Optimizer:
    """SGD or Adam built for the network's trainable variables, so that its state can be restored before any update.

    It has no weight decay of its own: the paper's 0.005 is λ in the loss, once **(ours)**. Momentum is Keras's, whose
    velocity holds the rate, where TensorFlow 1 multiplies by it afterwards **(ours)**.
    """
    schedule, clip = make_schedule(training), training.clip_norm or None
    if training.optimizer == "adam":
        optimizer = keras.optimizers.Adam(schedule, training.momentum, global_clipnorm=clip)
    else:
        optimizer = keras.optimizers.SGD(schedule, training.momentum, training.nesterov, global_clipnorm=clip)
    optimizer.build(network.trainable_variables)
    return optimizer
