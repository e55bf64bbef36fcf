"""Which attributes make another contrast, and by how much they may differ."""

from __future__ import annotations

import pytest

from femur3d.io.dicom.contrast import CONTRAST_TAGS, mixed_contrast

TE, TR, TI, FLIP, TIME_POINT, ECHO = "0018|0081", "0018|0080", "0018|0082", "0018|1314", "0020|0100", "0018|0086"
SEQUENCE, IMAGE_TYPE = "0018|0024", "0008|0008"


def mixed(tag: str, *values: str) -> str | None:
    return mixed_contrast([(f"{number}.dcm", {tag: value}) for number, value in enumerate(values)])


@pytest.mark.parametrize(
    ("tag", "mine", "theirs"),
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
def test_equal_within_the_tolerance(tag: str, mine: str, theirs: str) -> None:
    assert tag in CONTRAST_TAGS
    assert mixed(tag, mine, theirs, mine) is None


@pytest.mark.parametrize(
    ("tag", "mine", "theirs"),
    [
        (TE, "6.2", "6.6"),
        (TE, "100", "102"),
        (TR, "500", "570"),
        (TI, "150", "170"),
        (FLIP, "120", "122"),
        (TIME_POINT, "1", "2"),
        (ECHO, "1", "2"),
        (SEQUENCE, "*tse2d1_3", "*tse2d1_5"),
        ("0010|0020", "P1", "P2"),  # another patient
        ("0020|0052", "1.2.3", "1.2.4"),  # another frame of reference
        ("0018|0010", "none", "Gadovist"),
        (IMAGE_TYPE, r"ORIGINAL\PRIMARY\M", r"ORIGINAL\PRIMARY\P"),
        (IMAGE_TYPE, r"ORIGINAL\PRIMARY\M", r"ORIGINAL\PRIMARY\M\NORM"),
    ],
)
def test_mixed_beyond_it(tag: str, mine: str, theirs: str) -> None:
    phrase = mixed(tag, mine, mine, theirs, mine)
    assert phrase is not None
    assert f"0.dcm has {mine}" in phrase
    assert f"2.dcm has {theirs}" in phrase


def test_jitter_does_not_add_up_unseen() -> None:
    """Neighbours are alike, first and last are not."""
    assert mixed(TR, "500", "540", "580") == "repetition times: 0.dcm has 500 ms, 2.dcm has 580 ms"


def test_nothing_stated_is_no_contradiction() -> None:
    assert mixed_contrast([("a", {}), ("b", {})]) is None
