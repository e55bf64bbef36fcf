"""Learning-rate schedules. `step` counts the updates already made, as Keras's optimisers do."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops


class HalvingRate(keras.optimizers.schedules.LearningRateSchedule):
    """The paper's rate (section 3.3): updates 1…3,000 at 1e-3, 3,001…6,000 at half of it **(ours)**, and so on.

    Keras's own PiecewiseConstantDecay would make update 3,001 at the first rate: it compares with `<=`.
    """

    def __init__(self, rate: float, halve_every: int) -> None:
        self.rate = rate
        self.halve_every = halve_every

    def __call__(self, step: Any) -> Any:
        halvings = ops.floor_divide(ops.cast(step, "int32"), self.halve_every)
        return self.rate * ops.power(0.5, ops.cast(halvings, "float32"))

    def get_config(self) -> dict[str, Any]:
        return {"rate": self.rate, "halve_every": self.halve_every}


class PolynomialRate(keras.optimizers.schedules.LearningRateSchedule):
    """rate·(1 - step/length)^0.9, as in DeepLab and nnU-Net; in `steps` updates it falls `warm_restarts` + 1 times.

    A warm restart (Loshchilov and Hutter, SGDR, ICLR 2017) begins again at the full rate, with the weights reached so
    far. Used by CPU recipes only.
    """

    def __init__(self, rate: float, steps: int, warm_restarts: int = 0) -> None:
        self.rate = rate
        self.steps = steps
        self.warm_restarts = warm_restarts

    def __call__(self, step: Any) -> Any:
        length = -(-self.steps // (self.warm_restarts + 1))
        made = ops.cast(step, "int32")
        left = 1.0 - ops.cast(ops.mod(made, length), "float32") / length
        return self.rate * ops.where(made < self.steps, ops.power(left, 0.9), 0.0)

    def get_config(self) -> dict[str, Any]:
        return {"rate": self.rate, "steps": self.steps, "warm_restarts": self.warm_restarts}
