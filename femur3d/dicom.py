"""DICOM folders: which series they hold, and one series as a SimpleITK image with its slices in spatial order."""

from __future__ import annotations

import contextlib
import dataclasses
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from femur3d.errors import InputError
from femur3d.scan_checks import check_voxel_count, claims_dicom_image, damaged, is_dicom_file, unreadable

EVEN_FRACTION = 0.01  # a slice may lie this far off the even grid, in slice distances …
EVEN_MM = 0.02  # … or in mm, whichever is larger: positions are often stored with two decimals
DIRECTION_TOLERANCE = 1e-3  # of direction cosines and, relatively, of pixel spacings within a series

_UID, _NUMBER, _DESCRIPTION, _POSITION = "0020|000e", "0020|0011", "0008|103e", "0020|0032"
_NEEDED = {_UID: "SeriesInstanceUID", _POSITION: "ImagePositionPatient", "0020|0037": "ImageOrientationPatient"}
_NEEDED["0028|0030"] = "PixelSpacing"

_ITK_PREFIX = re.compile(r"^(?:s?itk::ERROR:|ITK ERROR:)?\s*(?:\w+\(0x[0-9a-f]+\):\s*)?")


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


@dataclasses.dataclass(frozen=True, eq=False)
class _Slice:
    """The header of one file: size (columns, rows); direction with columns along the row, the column and the normal."""

    path: Path
    tags: dict[str, str]
    size: tuple[int, int]
    spacing_mm: tuple[float, float]
    position_mm: np.ndarray
    direction: np.ndarray
    pixel_id: int
    problem: str  # why the file cannot be a slice of a scan, and what to do; '' where it can

    @property
    def height_mm(self) -> float:
        """Position along the slice's own normal."""
        return float(self.position_mm @ self.direction[:, 2])


@contextlib.contextmanager
def quiet_itk() -> Iterator[None]:
    """Within the block ITK prints no warnings to stderr; its errors are raised as ever."""
    before = sitk.ProcessObject.GetGlobalWarningDisplay()
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        yield
    finally:
        sitk.ProcessObject.SetGlobalWarningDisplay(before)


def itk_error(error: Exception) -> str:
    """The last line of a SimpleITK error, without the names of its source files: the one that says what happened."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return _ITK_PREFIX.sub("", lines[-1])[:200].rstrip(".")


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

    The slices must lie on an even grid: along the normal to 1% of the slice distance or 0.02 mm, whichever is larger,
    and within the slice plane to half a pixel over the whole stack (no gantry tilt).

    Args:
        folder: holds the files; other files may lie beside them.
        series: number from `list_series`; needed where there are several.

    Returns:
        The image; its third axis runs along the cross product of the row and column directions.

    Raises:
        InputError: nothing to read, several series and no choice, or slices missing, repeated, uneven or mixed.
    """
    slices = _chosen(folder, _grouped(folder), series)
    _check_alike(folder, slices)
    spacing_mm = _slice_spacing(folder, slices)
    image = _pixels(folder, slices)
    first = slices[0]
    image.SetOrigin(first.position_mm.tolist())
    image.SetDirection(first.direction.ravel().tolist())
    image.SetSpacing([*first.spacing_mm, spacing_mm])
    return image


def _grouped(folder: Path) -> list[list[_Slice]]:
    """The slices of each series, sorted by position; the series sorted by the scanner's number. InputError if none.

    Series without a single usable slice (screenshots, reports in colour) are left out, unless there is nothing else.
    """
    groups: dict[str, list[_Slice]] = {}
    files = _files(folder)
    with quiet_itk():
        for path in files:
            if (found := _read_header(path)) is not None:
                groups.setdefault(found.tags.get(_UID, ""), []).append(found)
    if not groups:
        names = ", ".join(path.name for path in files[:3]) + (", …" if len(files) > 3 else "") or "no files"
        message = f"{folder}: no DICOM images in this folder (it holds {names})"
        raise InputError(f"{message}.\nGive one scan file, or the folder that itself holds the slices of a series.")
    all_series = list(groups.values())
    usable = [slices for slices in all_series if not all(s.problem for s in slices)] or all_series
    for slices in usable:
        slices.sort(key=lambda s: (s.height_mm, s.path.name))
    return sorted(usable, key=lambda slices: (_series_number(slices[0]), slices[0].tags.get(_UID, "")))


def _files(folder: Path) -> list[Path]:
    """The files directly in a folder, hidden ones left out, by name."""
    try:
        return sorted(entry for entry in folder.iterdir() if entry.is_file() and not entry.name.startswith("."))
    except OSError as error:
        raise unreadable(folder, error) from error


def _series_number(one: _Slice) -> int:
    number = one.tags.get(_NUMBER, "")
    return int(number) if number.lstrip("-").isdigit() else 0


def _read_header(path: Path) -> _Slice | None:
    """Header of one file; None where it is no DICOM image. InputError where it is a damaged one."""
    if not _may_be_dicom(path):
        return None
    reader = sitk.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        if claims_dicom_image(path):
            raise damaged(path, itk_error(error)) from error
        return None  # a DICOM file without an image (DICOMDIR, report, …) or something else altogether
    keys = (*_NEEDED, _NUMBER, _DESCRIPTION)
    tags = {key: reader.GetMetaData(key).strip(" \0") for key in keys if reader.HasMetaDataKey(key)}
    return _Slice(
        path=path,
        tags=tags,
        size=reader.GetSize()[:2],
        spacing_mm=reader.GetSpacing()[:2],
        position_mm=np.array(reader.GetOrigin()[:3]),
        direction=np.reshape(reader.GetDirection(), (3, 3)),
        pixel_id=reader.GetPixelIDValue(),
        problem=_problem(reader, tags),
    )


def _problem(reader: sitk.ImageFileReader, tags: dict[str, str]) -> str:
    """Why a DICOM image cannot be a slice of a scan, and on a second line what to do; '' where it can."""
    if reader.GetSize()[2] != 1:
        return "a multi-frame DICOM file.\nFiles of one slice are read: convert it to NIfTI, for example with dcm2niix."
    if reader.GetNumberOfComponents() != 1:
        return "a DICOM image in colour.\nGive a series of grey-value slices."
    missing = [name for tag, name in _NEEDED.items() if not tags.get(tag)]
    return f"a DICOM image without {', '.join(missing)}.\nExport the series again with its geometry." if missing else ""


def _may_be_dicom(path: Path) -> bool:
    """DICOM's mark, or a name under which files of old systems come without it."""
    try:
        return is_dicom_file(path) or path.suffix.lower() in ("", ".dcm", ".ima")
    except OSError as error:
        raise unreadable(path, error) from error


def _summary(number: int, slices: Sequence[_Slice]) -> Series:
    first = slices[0]
    gaps = np.diff([s.height_mm for s in slices])
    spacing = (*first.spacing_mm, float(np.median(gaps)) if len(gaps) else 0.0)
    size = (*first.size, len(slices))
    return Series(number, first.tags.get(_UID, ""), first.tags.get(_DESCRIPTION, ""), size, spacing, len(slices))


def _chosen(folder: Path, groups: list[list[_Slice]], series: int | None) -> list[_Slice]:
    """The slices of series number `series`, or of the only one."""
    if series is None and len(groups) == 1:
        return groups[0]
    if series is not None and 1 <= series <= len(groups):
        return groups[series - 1]
    known = "; ".join(str(_summary(number, slices)) for number, slices in enumerate(groups, start=1))
    received = f"{len(groups)} DICOM series" if series is None else f"no series number {series}"
    raise InputError(f"{folder}: {received}.\nChoose a series by its number: {known}.")


def _check_alike(folder: Path, slices: Sequence[_Slice]) -> None:
    """InputError unless there are at least two usable slices, all of one size, pixel spacing and orientation."""
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


def _slice_spacing(folder: Path, slices: Sequence[_Slice]) -> float:
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
    return spacing


def _uneven(folder: Path, slices: Sequence[_Slice], where: int, what: str, advice: str) -> InputError:
    """The error for the slice pair (where, where + 1) of `slices`."""
    message = f"{folder}: slices {slices[where].path.name} and {slices[where + 1].path.name} {what}"
    return InputError(f"{message}.\n{advice}: evenly spaced slices are needed ({EVEN_FRACTION:.0%}).")


def _pixels(folder: Path, slices: Sequence[_Slice]) -> sitk.Image:
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
