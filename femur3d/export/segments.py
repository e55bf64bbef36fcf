"""What the values of a label map stand for: names, colours and SNOMED CT codes, one table for every output format."""

from __future__ import annotations

import dataclasses
from typing import Literal

import numpy as np

from femur3d.volume import Volume

Labels = Literal["femur", "sides"]


@dataclasses.dataclass(frozen=True)
class Code:
    """A concept of a coding scheme; `scheme` is DICOM's designator, 'SCT' for SNOMED CT."""

    value: str
    meaning: str
    scheme: str = "SCT"


FEMUR = Code("71341001", "Femur")  # T-12710 in the older SNOMED RT
LEFT, RIGHT = Code("7771000", "Left"), Code("24028007", "Right")


@dataclasses.dataclass(frozen=True)
class Segment:
    """One structure of a label map.

    Attributes:
        value: of its voxels.
        name: to show to people.
        side: laterality; None where the label map does not tell sides apart.
        colour: red, green, blue, 0 to 1.
    """

    value: int
    name: str
    side: Code | None
    colour: tuple[float, float, float]


_SEGMENTS: dict[str, tuple[Segment, ...]] = {
    "femur": (Segment(1, "Femur", None, (0.945, 0.839, 0.569)),),  # 3D Slicer's bone
    "sides": (  # sky blue and orange: colour-blind readers can tell them apart
        Segment(1, "Left femur", LEFT, (0.337, 0.706, 0.914)),
        Segment(2, "Right femur", RIGHT, (0.902, 0.624, 0.0)),
    ),
}


def segments_of(label_map: Volume, labels: Labels) -> list[Segment]:
    """The segments that have voxels in a label map, by ascending value; none for an empty one.

    Args:
        label_map: integers, axes (z, y, x); 0 is background.
        labels: 'femur' (1 is any femur) or 'sides' (1 left, 2 right): what `infer` was asked for.

    Raises:
        ValueError: voxels of another value, or `labels` is neither name.
    """
    if labels not in _SEGMENTS:
        raise ValueError(f'Expected labels "femur" or "sides". Received: {labels!r}')
    values = {int(value) for value in np.unique(label_map.array)} - {0}
    known = _SEGMENTS[labels]
    if unknown := values - {segment.value for segment in known}:
        expected = ", ".join(f"{segment.value} ({segment.name})" for segment in known)
        raise ValueError(f'Expected 0 and {expected} with labels "{labels}". Received: {sorted(unknown)}')
    return [segment for segment in known if segment.value in values]
