"""How much work goes into a scan, and what an engine makes of a trained network for it. Needs no SimpleITK."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Protocol

import numpy as np

from femur3d.config import OVERLAP
from femur3d.inference.saved_model import TrainedModel
from femur3d.inference.sliding_window import Predict


@dataclasses.dataclass(frozen=True)
class Mode:
    """How much work goes into a scan.

    Attributes:
        overlap: of neighbouring patches, 0 to less than 1; 0.5 is a stride of 32 voxels for 64³ **(ours)**.
        dtype: the network computes in, 'float32', or 'bfloat16' where the processor has it.
        skip_air: whether patches that hold air only are passed over.
        refine_above: all overlapping patches are used only where fewer find more than this part femur; None:
            everywhere.
        coarse_to_fine: on a CPU, whether the decoder's finer levels see only what LowerCls is unsure about.
    """

    overlap: float = OVERLAP
    dtype: str = "float32"
    skip_air: bool = False
    refine_above: float | None = None
    coarse_to_fine: bool = False


EXACT = Mode()
# Less overlap at the femurs would change them too much: with 0.375 the Dice against the exact mode is 0.984 to 0.993.
FAST = Mode(dtype="bfloat16", skip_air=True, refine_above=0.005, coarse_to_fine=True)


@dataclasses.dataclass(frozen=True)
class Prepared:
    """A trained network ready for scans.

    Attributes:
        predict: P(femur) by UpperCls: float32 (batch, z, y, x) normalised patches → float32 (batch, z, y, x).
        predict_heads: the same by all heads, 'lower', 'mid' and 'upper'; see `network.unet.head_probabilities`.
        versions: of what computes.
        errors: what both raise besides MemoryError where they cannot compute.
    """

    predict: Predict
    predict_heads: Callable[[np.ndarray], dict[str, np.ndarray]]
    versions: dict[str, str]
    errors: tuple[type[Exception], ...]


class Engine(Protocol):
    """What computes: see `engines.selection`, or one of the reader's own."""

    name: str

    def make_repeatable(self, training: bool = True) -> None:
        """Has the engine give the same bits every time; to be called before anything is computed."""

    def device_name(self) -> str:
        """What the engine computes on, for people: 'CPU, 2 cores', 'GPU: NVIDIA H100'."""

    def prepare(self, model: TrainedModel, mode: Mode) -> Prepared:
        """The model ready for scans, as fast as the mode allows. Raises InputError for unsound weights."""
