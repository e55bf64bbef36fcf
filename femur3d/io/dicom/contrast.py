"""Do all slices of a DICOM series show one patient in one contrast? Told from what the scanner wrote about each."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence


@dataclasses.dataclass(frozen=True)
class _Setting:
    """One DICOM attribute that makes the contrast, or says whose and where the image is.

    Attributes:
        keyword: its name in the standard.
        plural: what a message calls its values.
        unit: of its values, after a space; '' for none.
        absolute, relative: numbers that differ by no more than either are the same; None, None for text.
    """

    keyword: str
    plural: str
    unit: str = ""
    absolute: float | None = None
    relative: float | None = None


# Tolerances (ours). Echoes of one acquisition lie 0.4 ms or more apart, rounding to one decimal moves them by 0.1 ms.
# The repetition time of slices in one concatenation, or of a triggered scan, jitters; another contrast has another half
# of it. Trigger and acquisition times differ from slice to slice in sound scans and tell nothing.
_SETTINGS = (
    _Setting("PatientID", "patients (PatientID)"),
    _Setting("FrameOfReferenceUID", "frames of reference"),
    _Setting("EchoTime", "echo times", " ms", 0.25, 0.01),
    _Setting("RepetitionTime", "repetition times", " ms", 1.0, 0.1),
    _Setting("InversionTime", "inversion times", " ms", 1.0, 0.1),
    _Setting("FlipAngle", "flip angles", "°", 1.0, 0.0),
    _Setting("TemporalPositionIdentifier", "temporal positions", "", 0.0, 0.0),
    _Setting("EchoNumbers", "echo numbers", "", 0.0, 0.0),
    _Setting("SequenceName", "sequence names"),
    _Setting("ScanningSequence", "scanning sequences"),
    _Setting("ScanOptions", "scan options"),
    _Setting("ContrastBolusAgent", "contrast agents"),
    _Setting("ImageType", "image types"),
)
CONTRAST_ATTRIBUTES = tuple(setting.keyword for setting in _SETTINGS)


def mixed_contrast(slices: Sequence[tuple[str, Mapping[str, str]]]) -> str | None:
    """A phrase that names the first contrast setting with several values, and two files; None where all agree.

    A slice that does not state a setting agrees with every value of it.

    Args:
        slices: file name and DICOM attributes, text by keyword, of each.
    """
    for setting in _SETTINGS:
        stated = [(name, header[setting.keyword]) for name, header in slices if header.get(setting.keyword)]
        if (different := _different(setting, stated)) is not None:
            (one, mine), (other, theirs) = different
            return f"{setting.plural}: {one} has {mine}{setting.unit}, {other} has {theirs}{setting.unit}"
    return None


def _different(setting: _Setting, stated: Sequence[tuple[str, str]]) -> tuple[tuple[str, str], tuple[str, str]] | None:
    """Two (file name, value) pairs that differ beyond the tolerance of a setting, the furthest apart if numbers."""
    if setting.absolute is None or setting.relative is None:
        first = stated[0] if stated else ("", "")
        return next(((first, other) for other in stated if _plain(other[1]) != _plain(first[1])), None)
    numbers = [(name, value) for name, value in stated if is_number(value)]
    if not numbers:
        return None
    low, high = (choose(numbers, key=lambda pair: float(pair[1])) for choose in (min, max))
    tolerance = max(setting.absolute, setting.relative * abs(float(high[1])))
    return (low, high) if float(high[1]) - float(low[1]) > tolerance * (1 + 1e-9) else None


def _plain(value: str) -> str:
    r"""A text of several parts as it is compared: 'ORIGINAL\PRIMARY \M\' → 'ORIGINAL\PRIMARY\M'."""
    return "\\".join(part.strip().upper() for part in value.split("\\")).rstrip("\\")


def is_number(value: str) -> bool:
    """Whether the text of an attribute is one finite number."""
    try:
        return abs(float(value)) < float("inf")
    except ValueError:
        return False
