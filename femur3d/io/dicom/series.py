"""DICOM folders: which series they hold, and one series as a SimpleITK image with its slices in spatial order."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from femur3d.errors import InputError
from femur3d.io.dicom.contrast import is_number, mixed_contrast
from femur3d.io.dicom.headers import DESCRIPTION, INSTANCE, NUMBER, SLICE_DISTANCE, UID, Slice, read_slice
from femur3d.io.integrity import check_voxel_count, damaged, itk_error, quiet_itk, unreadable

EVEN_FRACTION = 0.01  # a slice may lie this far off the even grid, in slice distances …
EVEN_MM = 0.02  # … or in mm, whichever is larger: positions are often stored with two decimals
DIRECTION_TOLERANCE = 1e-3  # of direction cosines and, relatively, of pixel spacings within a series


@dataclasses.dataclass(frozen=True)
class Series:
    """One DICOM series of a folder.

    Attributes:
        number: 1, 2, … in the folder, ordered by the scanner's SeriesNumber: what `read_volume(series=…)` takes.
        uid: SeriesInstanceUID.
        description: SeriesDescription, '' where there is none.
        size: columns, rows, slices.
        spacing_mm: between columns, between rows, between slices (median; 0 for a single slice).
        n_files: number of files.
    """

    number: int
    uid: str
    description: str
    size: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    n_files: int

    def __str__(self) -> str:
        size = "×".join(map(str, self.size))
        spacing = "×".join(f"{mm:.3g}" for mm in self.spacing_mm)
        return f"{self.number} = {self.description or 'no description'} ({size} voxels of {spacing} mm)"


def list_series(folder: str | Path) -> list[Series]:
    """The DICOM series directly inside a folder (not in its sub-folders), ordered by the scanner's series number.

    Raises:
        InputError: no folder, no DICOM images in it, or a damaged DICOM file.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder}: not a folder.\nGive the folder that holds the DICOM files of a series.")
    return [_summary(number, slices) for number, slices in enumerate(_grouped(folder), start=1)]


def read_series(folder: Path, series: int | None = None) -> sitk.Image:
    """One series as a 3-D image: slices ordered by position along their normal, whatever the files are called.

    The slices must show one contrast (see dicom_contrast.py) and lie on an even grid: along the normal to 1% of the
    slice distance or 0.02 mm, whichever is larger, and within the slice plane to half a pixel over the whole stack (no
    gantry tilt).

    Args:
        folder: holds the files; other files may lie beside them.
        series: number from `list_series`; needed where there are several.

    Returns:
        The image; its third axis runs along the cross product of the row and column directions.

    Raises:
        InputError: nothing to read, several series and no choice, or slices missing, repeated, uneven or mixed.
    """
    slices = _checked(folder, series)
    spacing_mm = _slice_spacing(folder, slices)
    image = _pixels(folder, slices)
    first = slices[0]
    image.SetOrigin(first.position_mm.tolist())
    image.SetDirection(first.direction.ravel().tolist())
    image.SetSpacing([*first.spacing_mm, spacing_mm])
    return image


def series_files(folder: Path, series: int | None = None) -> list[Path]:
    """The files of the series that `read_series` reads, in the order of its slices. Raises InputError where mixed."""
    return [one.path for one in _checked(folder, series)]


def _checked(folder: Path, series: int | None) -> list[Slice]:
    """The slices of the chosen series, by position, all of one kind."""
    slices = _chosen(folder, _grouped(folder), series)
    _check_alike(folder, slices)
    return slices


def _grouped(folder: Path) -> list[list[Slice]]:
    """The slices of each series, sorted by position; the series sorted by the scanner's number. InputError if none.

    Series of pictures only (screenshots, reports in colour) are left out, unless there is nothing else.
    """
    groups: dict[str, list[Slice]] = {}
    files = _files(folder)
    with quiet_itk():
        for path in files:
            if (found := read_slice(path)) is not None:
                groups.setdefault(found.tags.get(UID, ""), []).append(found)
    if not groups:
        names = ", ".join(path.name for path in files[:3]) + (", …" if len(files) > 3 else "") or "no files"
        message = f"{folder}: no DICOM images in this folder (it holds {names})"
        raise InputError(f"{message}.\nGive one scan file, or the folder that itself holds the slices of a series.")
    all_series = list(groups.values())
    scans = [slices for slices in all_series if not all(s.is_picture for s in slices)] or all_series
    for slices in scans:
        slices.sort(key=lambda s: (s.height_mm, s.path.name))
    return sorted(scans, key=lambda slices: (_series_number(slices[0]), slices[0].tags.get(UID, "")))


def _files(folder: Path) -> list[Path]:
    """The files directly in a folder, hidden ones left out, by name."""
    try:
        return sorted(entry for entry in folder.iterdir() if entry.is_file() and not entry.name.startswith("."))
    except OSError as error:
        raise unreadable(folder, error) from error


def _series_number(one: Slice) -> int:
    number = one.tags.get(NUMBER, "")
    return int(number) if number.lstrip("-").isdigit() else 0


def _summary(number: int, slices: Sequence[Slice]) -> Series:
    first = slices[0]
    gaps = np.diff([s.height_mm for s in slices])
    spacing = (*first.spacing_mm, float(np.median(gaps)) if len(gaps) else 0.0)
    size = (*first.size, len(slices))
    return Series(number, first.tags.get(UID, ""), first.tags.get(DESCRIPTION, ""), size, spacing, len(slices))


def _chosen(folder: Path, groups: list[list[Slice]], series: int | None) -> list[Slice]:
    """The slices of series number `series`, or of the only one."""
    if series is None and len(groups) == 1:
        return groups[0]
    if series is not None and 1 <= series <= len(groups):
        return groups[series - 1]
    known = "; ".join(str(_summary(number, slices)) for number, slices in enumerate(groups, start=1))
    received = f"{len(groups)} DICOM series" if series is None else f"no series number {series}"
    raise InputError(f"{folder}: {received}.\nChoose a series by its number: {known}.")


def _check_alike(folder: Path, slices: Sequence[Slice]) -> None:
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
                names = f"{first.path.name} has {np.round(mine, 3).tolist()}, {other.path.name}"
                message = f"{folder}: one series with mixed {what}: {names} has {np.round(theirs, 3).tolist()}"
                raise InputError(f"{message}.\nKeep the slices of one stack only.")
    if mixed := mixed_contrast([(one.path.name, one.tags) for one in slices]):
        advice = "Put the slices of each patient, contrast, echo or time point into a folder of their own"
        raise InputError(f"{folder}: one series with mixed {mixed}.\n{advice}.")


def _slice_spacing(folder: Path, slices: Sequence[Slice]) -> float:
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
    stated, numbers = slices[0].tags.get(SLICE_DISTANCE, ""), [one.tags.get(INSTANCE, "").strip() for one in slices]
    if not (is_number(stated) and float(stated) > 0 and all(number.isdigit() for number in numbers)):
        return
    steps = {abs(step) for step in np.diff([int(number) for number in numbers]).tolist()}
    times = round(spacing / float(stated))
    if times > 1 and steps == {times} and abs(spacing / float(stated) - times) <= EVEN_FRACTION * times:
        apart = f"{spacing:.2f} mm apart, by their headers {float(stated):.2f} mm, and numbered in steps of {times}"
        raise InputError(f"{folder}: slices are missing: they are {apart}.\nCopy the missing slices.")


def _uneven(folder: Path, slices: Sequence[Slice], where: int, what: str, advice: str) -> InputError:
    """The error for the slice pair (where, where + 1) of `slices`."""
    message = f"{folder}: slices {slices[where].path.name} and {slices[where + 1].path.name} {what}"
    return InputError(f"{message}.\n{advice}: evenly spaced slices are needed ({EVEN_FRACTION:.0%}).")


def _pixels(folder: Path, slices: Sequence[Slice]) -> sitk.Image:
    """The stacked slices, rescale slopes applied; float64 where these give different types from slice to slice."""
    reader = sitk.ImageSeriesReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileNames([str(s.path) for s in slices])
    if len({s.pixel_id for s in slices}) > 1:
        reader.SetOutputPixelType(sitk.sitkFloat64)
    with quiet_itk():
        try:
            return reader.Execute()
        except RuntimeError as error:
            raise damaged(folder, itk_error(error)) from error
