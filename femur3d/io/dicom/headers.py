"""One DICOM file: its header as a slice with a place in the world, or why it cannot be one.

GDCM 3.2 (in SimpleITK 2.5) puts identity for an orientation, 0 for a position and 1 mm for a pixel spacing that it
cannot use, without a word: so the geometry is taken from the attributes themselves.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from femur3d.errors import InputError
from femur3d.io.dicom.contrast import CONTRAST_TAGS
from femur3d.io.geometry import shear
from femur3d.io.integrity import (
    check_name,
    claims_dicom_image,
    damaged,
    dicom_kind,
    is_dicom_file,
    is_dicom_segmentation,
    itk_error,
    unreadable,
)

UID, NUMBER, DESCRIPTION = "0020|000e", "0020|0011", "0008|103e"
INSTANCE, SLICE_DISTANCE = "0020|0013", "0018|0088"
_POSITION, _ORIENTATION, _SPACING = "0020|0032", "0020|0037", "0028|0030"
_NEEDED = {UID: "SeriesInstanceUID", _POSITION: "ImagePositionPatient", _ORIENTATION: "ImageOrientationPatient"}
_NEEDED[_SPACING] = "PixelSpacing"
_SLOPE, _INTERCEPT = "0028|1053", "0028|1052"
_KEPT = (*_NEEDED, NUMBER, DESCRIPTION, INSTANCE, SLICE_DISTANCE, _SLOPE, _INTERCEPT, *CONTRAST_TAGS)
_COSINES_OFF = 0.01  # direction cosines may be this far from unit length and right angles: some have two decimals


@dataclasses.dataclass(frozen=True, eq=False)
class Slice:
    """The header of one file.

    Attributes:
        path: the file.
        tags: the attributes that are used here, by 'gggg|eeee'.
        size: columns, rows.
        pixel_id: SimpleITK's type of the voxels, rescale slope applied.
        problem: why the file cannot be a slice of a scan, and on a second line what to do; '' where it can. The place
            in the world then means nothing.
        is_picture: it never was a slice of a scan: a screenshot or a report, in colour or without geometry.
        spacing_mm: between columns, between rows.
        position_mm: centre of the first voxel, LPS.
        direction: 3×3; columns along the row, the column and the normal, each of length 1.
    """

    path: Path
    tags: dict[str, str]
    size: tuple[int, int]
    pixel_id: int
    problem: str = ""
    is_picture: bool = False
    spacing_mm: tuple[float, float] = (1.0, 1.0)
    position_mm: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(3))
    direction: np.ndarray = dataclasses.field(default_factory=lambda: np.eye(3))

    @property
    def height_mm(self) -> float:
        """Position along the slice's own normal."""
        return float(self.position_mm @ self.direction[:, 2])


def read_slice(path: Path) -> Slice | None:
    """Header of one file; None where it is no DICOM image. Raises InputError where it is a damaged one."""
    check_name(path)
    if not _may_be_dicom(path) or is_dicom_segmentation(path):
        return None
    reader = sitk.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        _check_not_damaged(path, error)
        return None  # a DICOM file without an image (DICOMDIR, report, …) or something else altogether
    tags = {key: _printable(reader.GetMetaData(key)) for key in _KEPT if reader.HasMetaDataKey(key)}
    header = Slice(path, tags, reader.GetSize()[:2], reader.GetPixelIDValue())
    if reader.GetSize()[2] != 1:
        advice = "Files of one slice are read: convert it to NIfTI, for example with dcm2niix."
        return dataclasses.replace(header, problem=f"a multi-frame DICOM file.\n{advice}")
    if problem := _picture(reader, tags):
        return dataclasses.replace(header, problem=problem, is_picture=True)
    if wrong := _wrong(tags):
        advice = "Export the series again from the scanner or archive."
        return dataclasses.replace(header, problem=f"a DICOM image with {wrong}.\n{advice}")
    return _placed(header)


def _may_be_dicom(path: Path) -> bool:
    """DICOM's mark, or a name under which files of old systems come without it, such as 'IM3' or '1.2.840.17'."""
    try:
        return is_dicom_file(path) or path.suffix.lower() in ("", ".dcm", ".ima") or path.suffix[1:].isdigit()
    except OSError as error:
        raise unreadable(path, error) from error


def _check_not_damaged(path: Path, error: RuntimeError) -> None:
    """Raises InputError where a file that GDCM cannot read is what is left of a slice: else it would just be missing.

    That is a file that claims to be an image; one that breaks off before it says what it is; one of zeros, as a failed
    copy leaves it; or one called .dcm or .ima that is no DICOM at all.
    """
    with path.open("rb") as stream:
        head = stream.read(1024)
    if not head:
        raise InputError(f"{path}: the file is empty (0 bytes).\nCopy it again, or remove it if it is no slice.")
    is_marked = head[128:132] == b"DICM"
    is_slice_by_name = path.suffix.lower() in (".dcm", ".ima")
    if not any(head):
        raise damaged(path, "it holds zeros only")
    if claims_dicom_image(path) or (not dicom_kind(head) if is_marked else is_slice_by_name):
        raise damaged(path, itk_error(error)) from error


def _printable(text: str) -> str:
    """The text of an attribute without its padding, and with '�' for what would upset a terminal."""
    return "".join(c if c.isprintable() else "�" for c in text.strip(" \0"))


def _picture(reader: sitk.ImageFileReader, tags: dict[str, str]) -> str:
    """Why a DICOM image is no slice of a scan at all, and on a second line what to do; '' where it is one."""
    if reader.GetNumberOfComponents() != 1:
        return "a DICOM image in colour.\nGive a series of grey-value slices."
    missing = [name for tag, name in _NEEDED.items() if not tags.get(tag)]
    return f"a DICOM image without {', '.join(missing)}.\nExport the series again with its geometry." if missing else ""


def _wrong(tags: dict[str, str]) -> str:
    """The first attribute whose value cannot be used, with that value; '' where all can."""
    spacing, position, cosines = (_numbers(tags[tag]) for tag in (_SPACING, _POSITION, _ORIENTATION))
    if len(spacing) != 2 or not min(spacing) > 0:
        return f"pixels of {tags[_SPACING]} mm (PixelSpacing)"
    if len(position) != 3:
        return f"ImagePositionPatient {tags[_POSITION]}"
    if len(cosines) != 6 or shear(np.reshape(cosines, (2, 3)).T) > 2 * _COSINES_OFF:
        return f"directions that are not at right angles (ImageOrientationPatient {tags[_ORIENTATION]})"
    if tags.get(_SLOPE) and not any(_numbers(tags[_SLOPE])):
        return f"RescaleSlope {tags[_SLOPE]}"
    return f"RescaleIntercept {tags[_INTERCEPT]}" if tags.get(_INTERCEPT) and not _numbers(tags[_INTERCEPT]) else ""


def _numbers(text: str) -> list[float]:
    """The numbers of a DICOM text of several parts; none where one of the parts is no finite number."""
    try:
        numbers = [float(part) for part in text.split("\\")]
    except ValueError:
        return []
    return numbers if np.isfinite(numbers).all() else []


def _placed(header: Slice) -> Slice:
    """The slice with its place in the world; PixelSpacing gives the distance between rows first."""
    rows_mm, columns_mm = _numbers(header.tags[_SPACING])
    row, column = np.reshape(_numbers(header.tags[_ORIENTATION]), (2, 3))
    row, column = row / np.linalg.norm(row), column / np.linalg.norm(column)
    normal = np.cross(row, column)
    return dataclasses.replace(
        header,
        spacing_mm=(columns_mm, rows_mm),
        position_mm=np.array(_numbers(header.tags[_POSITION])),
        direction=np.stack([row, column, normal / np.linalg.norm(normal)], axis=1),
    )
