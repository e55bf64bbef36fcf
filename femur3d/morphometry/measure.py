"""All measures of a femur, each with its error bar and its gate, from a surface, a mask or a label map."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from scipy import ndimage

from femur3d.errors import InputError
from femur3d.inference.postprocessing import without_holes
from femur3d.morphometry.definitions import DEFINITIONS, values
from femur3d.morphometry.error_bars import Boundary, spread
from femur3d.morphometry.femur import Femur, Side, find_femur
from femur3d.morphometry.gate import NOT, Verdict, judge, of_bar, worst
from femur3d.morphometry.implicit_surface import femur_mesh
from femur3d.morphometry.surface import Surface, bodies, clock_angles, encloses
from femur3d.volume import Volume, bounding_box

SURFACE_MM = 1.0  # what a surface is taken to have been drawn in, where that is not known
LEAST_ML = 15.0  # smaller pieces of a label are no femur
VERSION = Verdict(NOT, "Version is measured against the condyles, which a proximal femur does not have.")


@dataclasses.dataclass(frozen=True)
class Measure:
    """A measure; value, low and high are NaN where it is not measurable.

    Attributes:
        value: in `unit`.
        low, high: the 90% interval.
        unit: 'mm', 'mm2', 'mm3', 'deg', 'h' (of the clock) or '1'.
        verdict: the gate's.
    """

    value: float
    low: float
    high: float
    unit: str
    verdict: Verdict

    @property
    def short(self) -> str:
        """The number with its interval, unit and gate; the gate alone where it is not measurable."""
        if self.verdict.level == NOT:
            return NOT
        digits, numbers = 3 if self.unit == "1" else 1, [self.value, self.low, self.high]
        if self.unit == "h":
            numbers = [(hour - 1) % 12 + 1 for hour in numbers]  # 12.5 is half past twelve
        value, low, high = (f"{number:.{digits}f}" for number in numbers)
        return f"{value} ({low} to {high}) {'' if self.unit == '1' else self.unit}".rstrip() + f", {self.verdict.level}"

    def __str__(self) -> str:
        return f"{self.short}. {self.verdict.reason}".rstrip(". ") + "."


@dataclasses.dataclass(frozen=True, eq=False)
class Morphometry:
    """What was measured on one femur.

    Attributes:
        side: left or right.
        measures: by the names of `definitions.DEFINITIONS`, and 'version_deg', which is never measurable.
        centre_mm: (3,), of the head, world LPS; NaN where it is not measurable.
        centre_error_mm: the true centre lies within this of it in 90% of cases; NaN where it is not measurable.
        centre_verdict: the gate's.
        femur: axes, clock and profiles, for pictures.
        surface: what was measured.
    """

    side: Side
    measures: dict[str, Measure]
    centre_mm: np.ndarray
    centre_error_mm: float
    centre_verdict: Verdict
    femur: Femur
    surface: Surface

    def __str__(self) -> str:
        if self.centre_verdict.level == NOT:  # and so is everything
            return f"{self.side} femur: {NOT}. {self.centre_verdict.reason}"
        centre = ", ".join(f"{x:.1f}" for x in self.centre_mm)
        said = f"({centre}) ± {self.centre_error_mm:.1f} mm, {self.centre_verdict.level}. {self.centre_verdict.reason}"
        rows = {"head_centre_mm": said.strip(), **self.measures}
        return "\n".join([f"{self.side} femur", *(f"  {name:25} {row}" for name, row in rows.items())])

    def as_dict(self) -> dict[str, Any]:
        """For JSON: lengths in mm, world LPS; null where something is not measurable."""
        alpha = self.measures["alpha_max_deg"].verdict
        profile = self.femur.alpha_deg if alpha.level != NOT else np.full_like(self.femur.alpha_deg, np.nan)
        return {
            "side": self.side,
            "head_centre_mm": {
                "value": [_number(x) for x in self.centre_mm],
                "error": _number(self.centre_error_mm),
                **dataclasses.asdict(self.centre_verdict),
            },
            **{
                name: {
                    "value": _number(one.value),
                    "low": _number(one.low),
                    "high": _number(one.high),
                    "unit": one.unit,
                    **dataclasses.asdict(one.verdict),
                }
                for name, one in self.measures.items()
            },
            "alpha_by_clock": {
                "hours": [round(float(hour), 3) for hour in clock_angles() * 6 / np.pi],
                "degrees": [_number(degrees) for degrees in profile],
                **dataclasses.asdict(alpha),
            },
        }


def as_json(found: Mapping[str, Morphometry | InputError]) -> dict[str, Any]:
    """What CASE.json says of all femurs; of one that has no head, why."""
    return {
        name: one.as_dict() if isinstance(one, Morphometry) else {"error": " ".join(str(one).split())}
        for name, one in found.items()
    }


def _number(value: float) -> float | None:
    return round(float(value), 3) if math.isfinite(value) else None


def only_femur(surface: Surface) -> Surface:
    """The largest body of a surface, without specks beside it and without the walls of cavities in it.

    Raises:
        InputError: another body is as large as a femur.
    """
    largest, *others = bodies(surface, 1000 * LEAST_ML)
    if any(not encloses(largest, other.vertices[0]) for other in others):
        raise InputError("There are several bodies as large as a femur.\nExpected one femur: save each as a file.")
    return largest


def measure_surface(
    surface: Surface,
    side: Side | None = None,
    *,
    boundary: Boundary | None = None,
    flags: Sequence[str] = (),
    in_world: bool = False,
) -> Morphometry:
    """Measures one femur on its surface.

    Args:
        surface: closed; world millimetres (LPS), in any position if `side` is given or the shape is to tell it.
        side: which femur it is.
        boundary: how well the surface is known; by default as if drawn in voxels of 1 mm.
        flags: sentences of the segmentation's red quality flags.
        in_world: whether the patient lies as LPS says; the side that was not given follows from it.

    Raises:
        InputError: no femoral head was found.
    """
    femur = find_femur(surface, side, in_world=in_world)
    if boundary is None:
        frame = femur.frame
        boundary = Boundary(np.full(3, SURFACE_MM), np.stack([frame.axis, frame.superior, frame.anterior]))
    bars = spread(surface, femur, boundary)
    thickest = float(boundary.spacing_mm.max())
    parts = judge(femur, thickest, side_is_given=in_world or side is not None, flags=flags, in_world=in_world)
    measures = {}
    for (name, definition), value in zip(DEFINITIONS.items(), values(femur), strict=True):
        low, high = bars.interval(name, value)
        verdict = worst([*(parts[part] for part in definition.needs), of_bar(value, low, high, definition.unit)])
        numbers = (np.nan,) * 3 if verdict.level == NOT else (float(value), float(low), float(high))
        measures[name] = Measure(*numbers, definition.unit, verdict)
    measures["version_deg"] = Measure(np.nan, np.nan, np.nan, "deg", VERSION)
    head = parts["head"]
    centre = np.full(3, np.nan) if head.level == NOT else femur.head.centre_mm
    error = np.nan if head.level == NOT else bars.centre_error_mm
    return Morphometry(femur.side, measures, centre, error, head, femur, surface)


def measure_mask(
    mask: Volume, probability: Volume | None = None, side: Side | None = None, flags: Sequence[str] = ()
) -> Morphometry:
    """Measures one femur of a label map.

    Args:
        mask: bool (z, y, x).
        probability: P(femur) on the same grid, where known: it places the surface, and says how well it is known.
        side: which femur it is; None: as its neck points in the world.
        flags: sentences of the segmentation's red quality flags.

    Raises:
        InputError: the mask is empty, or has no head.
    """
    mesh = femur_mesh(mask, probability)
    boundary = Boundary(np.array(mask.spacing_mm), np.reshape(mask.direction, (3, 3)).T, probability)
    return measure_surface(Surface(*mesh), side, boundary=boundary, flags=flags, in_world=True)


def measure_labels(
    labels: Volume, names: Mapping[int, str], probability: Volume | None = None, flags: Sequence[str] = ()
) -> dict[str, Morphometry | InputError]:
    """Measures every femur of a label map; what cannot be is an error beside the others.

    Args:
        labels: integers (z, y, x).
        names: of the values; 'left' and 'right' are sides, whatever else a label of femurs of either side.
        probability: P(femur), where known.
        flags: sentences of the segmentation's red quality flags.

    Returns:
        By side ('left', 'right'), or the label's name where no head was found, or a second femur of a side.
    """
    found: dict[str, Morphometry | InputError] = {}
    sizes: dict[str, int] = {}
    for name, side, mask in _femurs(labels, names):
        try:
            one = measure_mask(mask, probability, side, flags)
        except InputError as error:
            found[name] = error
            continue
        size = int(np.count_nonzero(mask.array))
        if one.side in sizes:
            found[name] = InputError(f"More than one {one.side} femur by their necks.\nOnly the largest is measured.")
        if size > sizes.get(one.side, 0):
            found[one.side], sizes[one.side] = one, size
    return found


def _femurs(labels: Volume, names: Mapping[int, str]) -> Iterator[tuple[str, Side | None, Volume]]:
    """Name, side and mask of every piece of a label that is as large as a femur; the largest piece where sides are.

    What a piece encloses is bone: marrow that is not labelled would put a second wall beside the neck's.
    """
    for value, name in names.items():
        mask = labels.array == value
        box = bounding_box(mask)
        if box is None:
            continue
        pieces, _ = ndimage.label(mask[box], np.ones((3, 3, 3)))
        sizes = np.bincount(pieces.ravel())[1:] * labels.voxel_ml
        side: Side | None = "left" if name == "left" else "right" if name == "right" else None
        chosen = [int(sizes.argmax())] if side else np.flatnonzero(sizes > LEAST_ML).tolist()
        for piece in chosen:
            whole = np.zeros(mask.shape, bool)
            whole[box] = without_holes(pieces == piece + 1, labels)
            yield name, side, labels.with_array(whole)
