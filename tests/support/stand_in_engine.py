"""An engine for tests of the segmenter: any function of NumPy arrays in the place of a network."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from femur3d.inference.mode import Prepared


class StandInEngine:
    """Predicts by `predict`, (batch, z, y, x) → (batch, z, y, x), for all heads."""

    name = "stand-in"

    def __init__(self, predict: Callable[[np.ndarray], np.ndarray]) -> None:
        self.predict = predict

    def prepare(self, *_: object) -> Prepared:
        return Prepared(self.predict, lambda p: dict.fromkeys(("lower", "mid", "upper"), self.predict(p)), {}, ())
