"""What can be measured: every measure gets a level and, where it is not plainly measurable, the reason in a sentence.

Each rule judges a part of the femur; a measure is as good as the worst part it is taken from. The limits are ours.
Between two slices of 5.2 mm an outline is a guess that is wrong by as much as what decides an alpha angle.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np

from femur3d.morphometry.alpha import FROM_DEG
from femur3d.morphometry.definitions import neck_shaft_angle
from femur3d.morphometry.femur import Femur

MEASURABLE, WITH_CARE, NOT = "measurable", "with care", "not measurable"
LEVELS = (MEASURABLE, WITH_CARE, NOT)
PARTS = ("head", "neck", "shaft", "junction", "clock")

HEAD_SEEN = (
    0.25,
    0.42,
)  # part of the whole sphere that was fitted: less is refused, is with care; 0.58 in a whole head
HEAD_RESIDUAL = (0.07, 0.04)  # of the radius, root mean square
JUNCTION_RESIDUAL = 0.03
JUNCTION_SLICES_MM = (3.0, 1.6)  # thicker slices are refused, are with care
HEAD_SLICES_MM = 3.0
SHAFT_MM = (12.0, 30.0)  # of shaft below the lesser trochanter: less is refused, is with care
SIDEDNESS = 0.1  # head radii
HEAD_RADIUS_MM = (17.0, 33.0)  # heads of adults have 19 to 30 mm
NECK_SHARE = 0.95  # of the head's diameter: what is as thick is no neck
NECK_SHAFT_DEG = (90.0, 170.0)  # adults have 110 to 150: what lies outside is no neck on a shaft
NECK_ENDS = 2.0  # head radii below the head's centre; a femur that ends above has no whole neck
WIDEST = {  # by unit: an error bar that reaches further to one side is refused, is with care
    "mm": (6.0, 2.0),
    "deg": (20.0, 8.0),
    "1": (0.15, 0.05),
    "h": (2.5, 1.0),
}

Finding = tuple[str, str, str]  # part, level, reason


@dataclasses.dataclass(frozen=True)
class Verdict:
    """Whether a measure can be trusted, and why not; `reason` is '' where it is measurable."""

    level: str
    reason: str = ""


def judge(
    femur: Femur, thickest_mm: float, side_is_given: bool, flags: Sequence[str] = (), in_world: bool = False
) -> dict[str, Verdict]:
    """The verdict on every part of PARTS.

    Args:
        femur: as it was found.
        thickest_mm: longest edge of the voxels that it was drawn in.
        side_is_given: whether the side is known from elsewhere than the shape.
        flags: sentences of the segmentation's red quality flags.
        in_world: whether the patient lies as LPS says.
    """
    verdicts = {part: Verdict(MEASURABLE) for part in PARTS}
    for part, level, reason in _findings(femur, thickest_mm, side_is_given, flags, in_world):
        if LEVELS.index(level) > LEVELS.index(verdicts[part].level):
            verdicts[part] = Verdict(level, reason)
    return verdicts


def worst(verdicts: Sequence[Verdict]) -> Verdict:
    """The first of the worst."""
    return max(verdicts, key=lambda verdict: LEVELS.index(verdict.level))


def of_bar(value: float, low: float, high: float, unit: str) -> Verdict:
    """The verdict on a measure's 90% interval; NaN is a measure that the surface does not show."""
    if not np.isfinite([value, low, high]).all():
        return Verdict(NOT, "The surface does not show it.")
    most, wide = WIDEST.get(unit, (np.inf, np.inf))
    reach = max(high - value, value - low)
    for level, limit in ((NOT, most), (WITH_CARE, wide)):
        if reach > limit:
            return Verdict(
                level, f"Its error bar is wider than {limit:g}{'' if unit == '1' else f' {unit}'} to one side."
            )
    return Verdict(MEASURABLE)


def _findings(
    femur: Femur, thickest_mm: float, side_is_given: bool, flags: Sequence[str], in_world: bool
) -> Iterator[Finding]:
    yield from _of_head(femur, thickest_mm)
    yield from _of_neck(femur)
    yield from _of_shaft(femur)
    yield from _of_junction(femur, thickest_mm)
    yield from _of_side(femur, side_is_given, in_world)
    for part in PARTS if flags else ():
        yield part, WITH_CARE, f"The segmentation has a red flag: {flags[0]}"


def _of_junction(femur: Femur, thickest_mm: float) -> Iterator[Finding]:
    slices = f"Slices of {thickest_mm:.1f} mm across the neck"
    better = f"{slices}: thinner than {JUNCTION_SLICES_MM[1]} mm would be better."
    if thickest_mm > JUNCTION_SLICES_MM[0]:
        yield "junction", NOT, f"{slices}: the outline of head and neck between them is not known."
    elif thickest_mm > JUNCTION_SLICES_MM[1]:
        yield "junction", WITH_CARE, better
    if thickest_mm > JUNCTION_SLICES_MM[1]:
        yield "neck", WITH_CARE, better
    if np.nanmax(femur.alpha_deg, initial=0.0) >= FROM_DEG:
        reason = "The outline stands out of the head's sphere on the articular side already: the head is not round."
        yield "junction", NOT, reason


def _of_side(femur: Femur, side_is_given: bool, in_world: bool) -> Iterator[Finding]:
    other = "right" if femur.side == "left" else "left"
    if in_world and femur.frame.axis[0] * (1 if femur.side == "left" else -1) < 0:
        yield "clock", NOT, f"The neck points to the patient's {other}, as that of a {other} femur does."
    if side_is_given and femur.sidedness < -SIDEDNESS:
        yield "clock", WITH_CARE, f"The shape is that of a {other} femur: front and back may be exchanged."
    elif not side_is_given and abs(femur.sidedness) < SIDEDNESS:
        yield "clock", WITH_CARE, "The shape hardly tells left from right: front and back may be exchanged."


def _of_head(femur: Femur, thickest_mm: float) -> Iterator[Finding]:
    head = femur.head
    if not HEAD_RADIUS_MM[0] <= head.radius_mm <= HEAD_RADIUS_MM[1]:
        yield "head", NOT, f"The roundest part has a radius of {head.radius_mm:.1f} mm; heads of adults have 19 to 30."
    seen = f"Only {head.coverage:.0%} of the head's sphere is there, of 58% in a whole head: it is cut off."
    if head.coverage < HEAD_SEEN[1]:
        yield "head", NOT if head.coverage < HEAD_SEEN[0] else WITH_CARE, seen
    round_ = f"The head differs from a sphere by {head.residual_mm:.1f} mm."
    share = head.residual_mm / head.radius_mm
    if share > HEAD_RESIDUAL[1]:
        yield "head", NOT if share > HEAD_RESIDUAL[0] else WITH_CARE, round_
    if share > JUNCTION_RESIDUAL:
        yield "junction", WITH_CARE, f"{round_} An alpha angle is decided by as little."
    if thickest_mm > HEAD_SLICES_MM:
        yield "head", WITH_CARE, f"Slices of {thickest_mm:.1f} mm: the head is known at a few places along them only."


def _of_neck(femur: Femur) -> Iterator[Finding]:
    if not femur.neck.is_bounded:
        for part in ("neck", "junction", "clock"):
            yield part, NOT, "No narrowest section was found between head and trochanters: the neck is cut off."
    elif np.sqrt(np.nanmin(femur.neck.areas_mm2) / np.pi) > NECK_SHARE * femur.head.radius_mm:
        yield "head", NOT, "What follows the roundest part is as thick as it is: this is no head on a neck."
    if femur.shaft is None and femur.below_head_mm < NECK_ENDS * femur.head.radius_mm:
        for part in ("neck", "junction", "clock"):
            yield (
                part,
                NOT,
                f"The femur ends {femur.below_head_mm:.0f} mm below the head's centre: the neck is cut off.",
            )


def _of_shaft(femur: Femur) -> Iterator[Finding]:
    length = 0.0 if femur.shaft is None else femur.shaft.length_mm
    if length < SHAFT_MM[1]:
        level = NOT if length < SHAFT_MM[0] else WITH_CARE
        yield (
            "shaft",
            level,
            f"The shaft below the lesser trochanter is {length:.0f} mm long, less than {SHAFT_MM[1]:.0f}.",
        )
    elif femur.shaft is not None:
        angle = neck_shaft_angle(femur)
        if not NECK_SHAFT_DEG[0] <= angle <= NECK_SHAFT_DEG[1]:
            yield "head", NOT, f"Neck and shaft would be at {angle:.0f}°; in adults it is 110 to 150: this is no head."
    if femur.shaft is None:
        yield "clock", WITH_CARE, "Without a shaft 12 o'clock is the direction of the body, not of the femur."
