"""One update on JAX: what `train_step` does on TensorFlow, as one function of the whole state, compiled by XLA."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import keras

from femur3d.training.losses import total_loss

TrainStep = Callable[[Any, Any], dict[str, Any]]


def make_train_step(
    network: keras.Model,
    optimizer: keras.optimizers.Optimizer,
    head_weights: dict[str, float],
    l2: float,
    dice_weight: float = 0.0,
) -> TrainStep:
    """The update of `network` by `optimizer` on one batch; arguments and result as `train_step.make_train_step`.

    The variables of network and optimiser hold the new values after every call. The arrays that they held before it are
    given up to the update, so that it needs no second copy of them: nothing else may keep those.
    """

    def loss_and_rest(weights: list, statistics: list, images: Any, labels: Any) -> tuple[Any, tuple[dict, list]]:
        logits, statistics = network.stateless_call(weights, statistics, images, training=True)
        terms = total_loss(labels, logits, weights, head_weights, l2, dice_weight)
        return terms["loss"], (terms, statistics)

    @functools.partial(jax.jit, donate_argnums=0)
    def update(state: list[list], images: Any, labels: Any) -> tuple[list[list], dict[str, Any]]:
        weights, statistics, slots = state
        differentiate = jax.value_and_grad(loss_and_rest, has_aux=True)
        (_, (terms, statistics)), gradients = differentiate(weights, statistics, images, labels)
        with keras.StatelessScope(list(zip(optimizer.variables, slots, strict=True))):
            rate = optimizer.learning_rate
        norm = jnp.sqrt(sum(jnp.sum(jnp.square(g)) for g in gradients))
        weights, slots = optimizer.stateless_apply(slots, gradients, weights)
        return [weights, statistics, slots], {**terms, "learning_rate": rate, "gradient_norm": norm}

    variables = [network.trainable_variables, network.non_trainable_variables, optimizer.variables]

    def train_step(images: Any, labels: Any) -> dict[str, Any]:
        state, scalars = update([[v.value for v in group] for group in variables], images, labels)
        for group, values in zip(variables, state, strict=True):
            for variable, value in zip(group, values, strict=True):
                variable.assign(value)
        return scalars

    return train_step
