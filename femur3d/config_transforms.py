"""The part of an experiment's configuration that the paper has nothing of: random transforms, all off by default."""

from __future__ import annotations

import dataclasses

from femur3d.errors import UsageError


@dataclasses.dataclass(frozen=True)
class Transforms:
    """How often, from 0 to 1, a training patch passes each of `data.random_transforms`; never in the paper **(ours)**.

    Attributes:
        patches: the share of the patches that any of the others may change.
        remap: one random curve of intensities for the whole volume.
        regions: of those, with another curve in some regions.
        femur: the femur's inside gets a mean and a texture of its own.
        fat_suppression: the bright mode is pressed down.
        bright_air: air is bright: an image turned inside out.
        bias: shading over centimetres.
        resolution: slices of 1 to 6 mm across one of the axes.
        ringing, noise: what else scanners do.
        narrow_view: nothing beyond a plane.
    """

    patches: float = 0.0
    remap: float = 0.0
    regions: float = 0.0
    femur: float = 0.0
    fat_suppression: float = 0.0
    bright_air: float = 0.0
    bias: float = 0.0
    resolution: float = 0.0
    ringing: float = 0.0
    noise: float = 0.0
    narrow_view: float = 0.0

    def __post_init__(self) -> None:
        for name, value in dataclasses.asdict(self).items():
            if not 0 <= value <= 1:
                raise UsageError(f"{name}: expected 0 to 1. Received: {value}")
