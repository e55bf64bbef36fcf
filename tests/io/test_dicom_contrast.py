"""Which attributes make another contrast, and by how much they may differ."""

from __future__ import annotations

import pytest

from femur3d.io.dicom.contrast import CONTRAST_ATTRIBUTES, mixed_contrast

TE, TR, TI, FLIP, TIME_POINT, ECHO = (
    "EchoTime",
    "RepetitionTime",
    "InversionTime",
    "FlipAngle",
    "TemporalPositionIdentifier",
    "EchoNumbers",
)
SEQUENCE, IMAGE_TYPE = "SequenceName", "ImageType"


def mixed(keyword: str, *values: str) -> str | None:
    return mixed_contrast([(f"{number}.dcm", {keyword: value}) for number, value in enumerate(values)])


@pytest.mark.parametrize(
    ("keyword", "mine", "theirs"),
    [
        (TE, "6.2", "6.45"),  # 0.25 ms
        (TE, "100", "101"),  # 1%
        (TR, "500", "550"),  # 10%
        (TR, "4.1", "5.1"),  # 1 ms
        (TI, "150", "165"),
        (FLIP, "120", "121"),
        (TIME_POINT, "1", "1.0"),
        (ECHO, "1", "01"),
        (SEQUENCE, "*tse2d1_3", "*TSE2D1_3 "),
        (IMAGE_TYPE, r"ORIGINAL\PRIMARY\M", r"ORIGINAL\ PRIMARY\M\ "),
        (TE, "6.2", ""),  # not stated
        (TE, "6.2", "unknown"),
    ],
)
def test_equal_within_the_tolerance(keyword: str, mine: str, theirs: str) -> None:
    assert keyword in CONTRAST_ATTRIBUTES
    assert mixed(keyword, mine, theirs, mine) is None


@pytest.mark.parametrize(
    ("keyword", "mine", "theirs"),
    [
        (TE, "6.2", "6.6"),
        (TE, "100", "102"),
        (TR, "500", "570"),
        (TI, "150", "170"),
        (FLIP, "120", "122"),
        (TIME_POINT, "1", "2"),
        (ECHO, "1", "2"),
        (SEQUENCE, "*tse2d1_3", "*tse2d1_5"),
        ("PatientID", "P1", "P2"),  # another patient
        ("FrameOfReferenceUID", "1.2.3", "1.2.4"),  # another frame of reference
        ("ContrastBolusAgent", "none", "Gadovist"),
        (IMAGE_TYPE, r"ORIGINAL\PRIMARY\M", r"ORIGINAL\PRIMARY\P"),
        (IMAGE_TYPE, r"ORIGINAL\PRIMARY\M", r"ORIGINAL\PRIMARY\M\NORM"),
    ],
)
def test_mixed_beyond_it(keyword: str, mine: str, theirs: str) -> None:
    phrase = mixed(keyword, mine, mine, theirs, mine)
    assert phrase is not None
    assert f"0.dcm has {mine}" in phrase
    assert f"2.dcm has {theirs}" in phrase


def test_jitter_does_not_add_up_unseen() -> None:
    """Neighbours are alike, first and last are not."""
    assert mixed(TR, "500", "540", "580") == "repetition times: 0.dcm has 500 ms, 2.dcm has 580 ms"


def test_nothing_stated_is_no_contradiction() -> None:
    assert mixed_contrast([("a", {}), ("b", {})]) is None
