"""Multi-frame DICOM files (Enhanced MR): the attributes of each frame, and which frames make up one volume.

A file states what all frames share once (shared functional groups) and what differs frame by frame (per-frame
functional groups); which of the two an attribute is in is its writer's choice. See DICOM PS3.3, C.7.6.16.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pydicom
from pydicom.datadict import dictionary_description, keyword_for_tag

from femur3d.io.dicom.contrast import is_number
from femur3d.io.dicom.headers import ATTRIBUTES, numbers, text

Frame = Mapping[str, str]  # its attributes, text by keyword
Position = tuple[float, ...]

SHARED, PER_FRAME = "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"
# Attributes of each functional group, under the names that they have in files of one slice.
_GROUPS: dict[str, dict[str, str]] = {
    "PixelMeasuresSequence": {
        "PixelSpacing": "PixelSpacing",
        "SliceThickness": "SliceThickness",
        "SpacingBetweenSlices": "SpacingBetweenSlices",
    },
    "PlanePositionSequence": {"ImagePositionPatient": "ImagePositionPatient"},
    "PlaneOrientationSequence": {"ImageOrientationPatient": "ImageOrientationPatient"},
    "PixelValueTransformationSequence": {"RescaleSlope": "RescaleSlope", "RescaleIntercept": "RescaleIntercept"},
    "FrameContentSequence": {"StackID": "StackID", "TemporalPositionIndex": "TemporalPositionIdentifier"},
    "MRImageFrameTypeSequence": {"FrameType": "ImageType", "ComplexImageComponent": "ComplexImageComponent"},
    "CTImageFrameTypeSequence": {"FrameType": "ImageType"},
    "MREchoSequence": {"EffectiveEchoTime": "EchoTime"},
    "MRTimingAndRelatedParametersSequence": {"RepetitionTime": "RepetitionTime", "FlipAngle": "FlipAngle"},
    "MRModifierSequence": {"InversionTimes": "InversionTime"},
    "MRDiffusionSequence": {"DiffusionBValue": "DiffusionBValue"},
    "CardiacSynchronizationSequence": {
        "NominalPercentageOfCardiacPhase": "NominalPercentageOfCardiacPhase",
        "NominalCardiacTriggerDelayTime": "NominalCardiacTriggerDelayTime",
    },
}
_SPACE = {"StackID", "InStackPositionNumber", "ImagePositionPatient", "ImageOrientationPatient", "SliceLocation"}
_INDEX = "DimensionIndexValues: "  # before the name of what a dimension counts


@dataclasses.dataclass(frozen=True)
class _Dimension:
    """What may distinguish the volumes of a series, and how a list of them calls it: '{}' stands for the value."""

    keyword: str
    label: str


_DIMENSIONS = (
    _Dimension("ComplexImageComponent", "{}"),
    _Dimension("ImageType", "{}"),
    _Dimension("EchoTime", "echo time {} ms"),
    _Dimension("InversionTime", "inversion time {} ms"),
    _Dimension("FlipAngle", "flip angle {}°"),
    _Dimension("DiffusionBValue", "b-value {}"),
    _Dimension("DiffusionGradientOrientation", "gradient {}"),
    _Dimension("NominalPercentageOfCardiacPhase", "cardiac phase {}%"),
    _Dimension("NominalCardiacTriggerDelayTime", "trigger delay {} ms"),
    _Dimension("TemporalPositionIdentifier", "time point {}"),
)
_LAST = (_Dimension("InstanceNumber", "instance {}"), _Dimension("SOPInstanceUID", "file {}"))


def frames_of(dataset: pydicom.Dataset) -> list[dict[str, str]]:
    """The attributes of each frame of a file, text by keyword; empty where the file has no functional groups.

    A frame's own groups come before the shared ones, and these before the file's attributes.
    """
    per_frame = dataset.get(PER_FRAME) or []
    common = {name: text(dataset, name) for name in (*ATTRIBUTES, "ComplexImageComponent")}
    common["SequenceName"] = common["SequenceName"] or text(dataset, "PulseSequenceName")
    for shared in dataset.get(SHARED) or []:
        common |= _stated(shared)
    counted = [_dimension_name(one) for one in dataset.get("DimensionIndexSequence") or []]
    return [common | _stated(groups) | _indices(groups, counted) for groups in per_frame]


def volumes_of(frames: Sequence[Frame]) -> list[tuple[str, list[int]]]:
    """Which frames make up a volume, by their places in the list, and a label of each volume; '' where there is one.

    Stacks are distinguished by their number and orientation; within a stack volumes lie at the same place and differ in
    an echo time, a time point, a b-value, …: the fewest of these that tell frames at one place apart.
    """
    positions = [tuple(round(mm, 2) for mm in numbers(frame["ImagePositionPatient"])) for frame in frames]
    return _split(positions, list(range(len(frames))), [*_stacks(frames), *_dimensions(frames)])


def _stated(groups: pydicom.Dataset) -> dict[str, str]:
    """What the functional groups of a frame, or the shared ones, state."""
    found: dict[str, str] = {}
    for name, attributes in _GROUPS.items():
        for item in groups.get(name) or []:
            found |= {meant: value for own, meant in attributes.items() if (value := text(item, own))}
            for direction in item.get("DiffusionGradientDirectionSequence") or []:
                found["DiffusionGradientOrientation"] = text(direction, "DiffusionGradientOrientation")
    return found


def _dimension_name(item: pydicom.Dataset) -> str:
    """What a dimension of a file counts: a keyword, or the tag of an attribute of the maker's own."""
    pointer: Any = item.get("DimensionIndexPointer")
    return (keyword_for_tag(pointer) if pointer else "") or f"dimension {pointer}"


def _indices(groups: pydicom.Dataset, counted: Sequence[str]) -> dict[str, str]:
    """A frame's place along each dimension of the file that is no place in space."""
    content = groups.get("FrameContentSequence") or [pydicom.Dataset()]
    values = text(content[0], "DimensionIndexValues").split("\\")
    if len(values) != len(counted):
        return {}
    named = zip(counted, values, strict=True)
    return {_INDEX + name: value for name, value in named if name not in _SPACE}


@dataclasses.dataclass(frozen=True)
class _Division:
    """One way to tell frames apart.

    Attributes:
        values: of every frame, equal where they belong together.
        label: of a volume, '{}' stands for the value.
        always: whether frames at different places are distinguished too.
    """

    values: Sequence[Any]
    label: str
    always: bool = False


def _stacks(frames: Sequence[Frame]) -> list[_Division]:
    stacks = [frame.get("StackID", "") for frame in frames]
    if len(set(stacks)) == len(frames):  # counts slices
        stacks = [""] * len(frames)
    directions = _alike([numbers(frame.get("ImageOrientationPatient", "")) for frame in frames])
    return [_Division(stacks, "stack {}", always=True), _Division(directions, "direction {}", always=True)]


def _dimensions(frames: Sequence[Frame]) -> list[_Division]:
    indices = sorted({name for frame in frames for name in frame if name.startswith(_INDEX)})
    more = [_Dimension(name, f"{_spoken(name.removeprefix(_INDEX))} {{}}") for name in indices]
    return [
        _Division([_value(frame.get(one.keyword, "")) for frame in frames], one.label)
        for one in (*_DIMENSIONS, *more, *_LAST)
    ]


def _split(
    positions: Sequence[Position], members: list[int], divisions: Sequence[_Division]
) -> list[tuple[str, list[int]]]:
    """The members of each volume, places in the list of frames, by the divisions in their order."""
    for number, one in enumerate(divisions):
        values = {one.values[i] for i in members}
        if len(values) > 1 and (one.always or _varies_in_place(positions, members, one.values)):
            found = []
            for value in sorted(values, key=lambda v: (isinstance(v, str), v)):
                inner = _split(positions, [i for i in members if one.values[i] == value], divisions[number + 1 :])
                name = one.label.format(f"{value:g}" if isinstance(value, float) else value)
                found += [(", ".join(filter(None, (name, label))), inside) for label, inside in inner]
            return found
    return [("", members)]


def _varies_in_place(positions: Sequence[Position], members: Sequence[int], values: Sequence[Any]) -> bool:
    """Whether frames that lie at the same place have different values."""
    first: dict[Position, Any] = {}
    return any(first.setdefault(positions[i], values[i]) != values[i] for i in members)


def _alike(vectors: Sequence[Sequence[float]], tolerance: float = 0.01) -> list[float]:
    """A number for each vector, the same for those that agree to the tolerance."""
    kinds: list[Sequence[float]] = []
    found = []
    for vector in vectors:
        same = (len(kind) == len(vector) and np.allclose(kind, vector, 0, tolerance) for kind in kinds)
        number = next((k for k, agrees in enumerate(same) if agrees), len(kinds))
        if number == len(kinds):
            kinds.append(vector)
        found.append(float(number + 1))
    return found


def _value(value: str) -> float | str:
    """Numbers that differ by their notation, or in the last digits, are the same."""
    return float(f"{float(value):.5g}") if is_number(value) else value


def _spoken(keyword: str) -> str:
    """'TemporalPositionIndex' → 'temporal position index'."""
    try:
        return dictionary_description(keyword).lower()
    except (KeyError, ValueError):
        return keyword
