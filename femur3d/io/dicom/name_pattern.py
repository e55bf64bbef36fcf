"""Names of cases by what a DICOM header says: `--name '{PatientID}_{SeriesNumber}'`."""

from __future__ import annotations

import string
from pathlib import Path

import pydicom
from pydicom.datadict import dictionary_VR, tag_for_keyword

from femur3d.errors import UsageError
from femur3d.io.dicom.headers import text

_EXAMPLE = "Expected DICOM keywords in braces, such as --name '{PatientID}_{SeriesNumber}'."
_NO_NAMES = ("AT", "LT", "OB", "OD", "OF", "OL", "OV", "OW", "SQ", "UN", "UT", "OB or OW")  # value representations


def keywords(pattern: str) -> list[tuple[str, str]]:
    """Pairs of text and the DICOM keyword behind it, '' at the end. UsageError where there is none, or another word."""
    try:
        found = [(before, word or "", rest) for before, word, *rest in string.Formatter().parse(pattern)]
    except ValueError as error:
        raise UsageError(f"--name {pattern}: {error}.\n{_EXAMPLE}") from error
    for _, word, rest in found:
        tag = tag_for_keyword(word) if word else 0
        if tag is None or (tag and dictionary_VR(tag) in _NO_NAMES) or any(rest):
            raise UsageError(f"--name {pattern}: no DICOM keyword of a text or number: {word}.\n{_EXAMPLE}")
    if not any(word for _, word, _ in found):
        raise UsageError(f"--name {pattern}: no DICOM keyword.\n{_EXAMPLE}")
    return [(before, word) for before, word, _ in found]


def name_by_header(pattern: str, file: Path) -> tuple[str, str]:
    """The name that a pattern gives to a DICOM scan, or '' and why it gives none.

        name_by_header("{PatientID}_{SeriesNumber}", Path("IM1")) → ("P7_3", "")

    Args:
        pattern: words, and DICOM keywords in braces.
        file: one of the scan.

    Raises:
        UsageError: see `keywords`.
    """
    words = keywords(pattern)
    wanted = [word for _, word in words if word]
    try:
        tags = ["SpecificCharacterSet", *wanted]
        header = pydicom.dcmread(file, stop_before_pixels=True, force=True, specific_tags=tags)
    except Exception as error:  # a damaged file makes pydicom stumble in any way
        return "", f"{file}: its header cannot be read ({type(error).__name__}).\nExport it again."
    values = {word: text(header, word) for word in wanted}
    if missing := [word for word, value in values.items() if not value]:
        return "", f"{file}: no {missing[0]} for --name {pattern}.\nUse keywords that all scans have."
    return "".join(before + values.get(word, "") for before, word in words), ""
