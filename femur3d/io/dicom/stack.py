"""Whether the slices of a series make up one regular stack: alike, of one contrast, on an even grid, none missing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from femur3d.errors import InputError
from femur3d.io.dicom.contrast import is_number, mixed_contrast
from femur3d.io.dicom.slices import Slice
from femur3d.io.integrity import check_voxel_count, whole_number

EVEN_FRACTION = 0.01  # a slice may lie this far off the even grid, in slice distances …
EVEN_MM = 0.02  # … or in mm, whichever is larger: positions are often stored with two decimals
DIRECTION_TOLERANCE = 1e-3  # of direction cosines and, relatively, of pixel spacings within a series


def check_alike(folder: Path, slices: Sequence[Slice]) -> None:
    """InputError unless there are at least two usable slices, all of one size, spacing, orientation and contrast."""
    first = slices[0]
    for one in slices:
        if one.problem:
            raise InputError(f"{one.path}: {one.problem}")
    if len(slices) < 2:
        raise InputError(f"{folder}: the series has one slice.\nAt least two are needed: copy the whole series.")
    check_voxel_count(folder, (*first.size, len(slices)))
    for other in slices[1:]:
        for what, mine, theirs, tolerance in (
            ("sizes (columns, rows)", first.size, other.size, 0.0),
            ("pixel spacings (mm)", first.spacing_mm, other.spacing_mm, DIRECTION_TOLERANCE),
            ("orientations", first.direction.ravel() + 0.0, other.direction.ravel() + 0.0, DIRECTION_TOLERANCE),
        ):
            if not np.allclose(mine, theirs, rtol=tolerance, atol=tolerance):
                names = f"{_name(folder, first)} has {np.round(mine, 3).tolist()}, {_name(folder, other)}"
                message = f"{folder}: one series with mixed {what}: {names} has {np.round(theirs, 3).tolist()}"
                raise InputError(f"{message}.\nKeep the slices of one stack only.")
    if mixed := mixed_contrast([(_name(folder, one), one.header) for one in slices]):
        advice = "Put the slices of each patient, contrast, echo or time point into a folder of their own"
        raise InputError(f"{folder}: one series with mixed {mixed}.\n{advice}.")


def slice_spacing_mm(folder: Path, slices: Sequence[Slice]) -> float:
    """Distance between neighbouring slices, mm. InputError where a slice is missing, repeated or out of place."""
    normal = slices[0].direction[:, 2]
    positions = np.stack([s.position_mm for s in slices])
    heights = (positions - positions[0]) @ normal
    gaps = np.diff(heights)
    usual = float(np.median(gaps))
    tolerance = max(EVEN_FRACTION * usual, EVEN_MM)
    if gaps.min() <= tolerance:
        advice = "Remove repeated slices, echoes or time points"
        raise _uneven(folder, slices, int(gaps.argmin()), "lie at the same position", advice)
    spacing = float(heights[-1]) / (len(slices) - 1)
    if np.abs(heights - spacing * np.arange(len(slices))).max() > tolerance:
        where = int(np.abs(gaps - usual).argmax())
        what = f"are {gaps[where]:.2f} mm apart, the others {usual:.2f} mm"
        raise _uneven(folder, slices, where, what, "Copy the missing slices, or resample the scan to even distances")
    drift = float(np.abs(positions - positions[0] - np.outer(heights, normal)).max())
    if drift > 0.5 * min(slices[0].spacing_mm):
        message = f"{folder}: the slices are not stacked along their normal (they drift by {drift:.2f} mm)."
        raise InputError(f"{message}\nTilted stacks are not read: resample the scan to an orthogonal grid.")
    _check_none_left_out(folder, slices, spacing)
    return spacing


def _check_none_left_out(folder: Path, slices: Sequence[Slice], spacing: float) -> None:
    """InputError where only every second, third … slice is there: so say both slice distance and instance numbers.

    Either alone tells nothing: some scanners write the gap between slices for their distance, and the instance numbers
    of one echo or contrast of several go up in steps.
    """
    stated = slices[0].header["SpacingBetweenSlices"]
    numbers = [whole_number(one.header["InstanceNumber"]) for one in slices]
    if not (is_number(stated) and float(stated) > 0 and min(numbers) >= 0):
        return
    steps = {abs(step) for step in np.diff(numbers).tolist()}
    times = round(spacing / float(stated))
    if times > 1 and steps == {times} and abs(spacing / float(stated) - times) <= EVEN_FRACTION * times:
        apart = f"{spacing:.2f} mm apart, by their headers {float(stated):.2f} mm, and numbered in steps of {times}"
        raise InputError(f"{folder}: slices are missing: they are {apart}.\nCopy the missing slices.")


def _uneven(folder: Path, slices: Sequence[Slice], where: int, what: str, advice: str) -> InputError:
    """The error for the slice pair (where, where + 1) of `slices`."""
    first, second = (_name(folder, one) for one in slices[where : where + 2])
    message = f"{folder}: slices {first} and {second} {what}"
    return InputError(f"{message}.\n{advice}: evenly spaced slices are needed ({EVEN_FRACTION:.0%}).")


def _name(folder: Path, one: Slice) -> str:
    """What a message about a folder calls a slice: with the folders between, where it lies deeper."""
    if not one.path.is_relative_to(folder) or one.path == folder:
        return one.name
    return str(one.path.relative_to(folder).with_name(one.name))
