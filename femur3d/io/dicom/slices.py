"""Slices: the images of a DICOM file, each with its place in the world, or why a file cannot be part of a scan.

GDCM 3.2 (in SimpleITK 2.5) puts identity for an orientation, 0 for a position and 1 mm for a pixel spacing that it
cannot use, without a word: so the geometry is taken from the attributes themselves.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pydicom
from pydicom.uid import UID, ImplicitVRLittleEndian

from femur3d.io.dicom.headers import ATTRIBUTES, GEOMETRY, numbers, read_header, text, transfer_syntax
from femur3d.io.dicom.multiframe import PER_FRAME, SHARED, frames_of
from femur3d.io.geometry import shear
from femur3d.io.integrity import damaged, whole_number

_COSINES_OFF = 0.01  # direction cosines may be this far from unit length and right angles: some have two decimals
_AGAIN = "Export the series again from the scanner or archive."


@dataclasses.dataclass(frozen=True, eq=False)
class Slice:
    """One image of one file.

    Attributes:
        path: the file.
        header: the attributes that are used here, text by DICOM keyword.
        frame: its number, from 0, in a multi-frame file; None in a file of one slice.
        size: columns, rows.
        transfer_syntax: how its pixels are stored.
        problem: why it cannot be a slice of a scan, and on a second line what to do; '' where it can. The place in the
            world then means nothing.
        is_picture: it never was a slice of a scan: a screenshot or a report, in colour or without geometry.
        spacing_mm: between columns, between rows.
        position_mm: centre of the first voxel, LPS.
        direction: 3×3; columns along the row, the column and the normal, each of length 1.
    """

    path: Path
    header: Mapping[str, str]
    frame: int | None = None
    size: tuple[int, int] = (0, 0)
    transfer_syntax: UID = ImplicitVRLittleEndian
    problem: str = ""
    is_picture: bool = False
    spacing_mm: tuple[float, float] = (1.0, 1.0)
    position_mm: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(3))
    direction: np.ndarray = dataclasses.field(default_factory=lambda: np.eye(3))

    @property
    def name(self) -> str:
        """What a message calls it: its file, and which frame of it, counted from 1."""
        return self.path.name if self.frame is None else f"{self.path.name} frame {self.frame + 1}"

    @property
    def height_mm(self) -> float:
        """Position along the slice's own normal."""
        return float(self.position_mm @ self.direction[:, 2])

    @property
    def rescale(self) -> tuple[float, float]:
        """Slope and intercept from stored values to intensities."""
        slope, intercept = (numbers(self.header[name]) for name in ("RescaleSlope", "RescaleIntercept"))
        return slope[0] if slope else 1.0, intercept[0] if intercept else 0.0


def read_slices(path: Path) -> list[Slice]:
    """The slices of one file, read once: one for most files, one for each frame of others, none where it is no image.

    Raises:
        InputError: it is a damaged DICOM image.
    """
    dataset = read_header(path)
    if dataset is None:
        return []
    try:
        return _slices(path, dataset)
    except Exception as error:  # a damaged file makes pydicom stumble in any way
        raise damaged(path, f"{type(error).__name__}: {error}"[:100]) from error


def _slices(path: Path, dataset: pydicom.Dataset) -> list[Slice]:
    header = {name: text(dataset, name) for name in ATTRIBUTES}
    size = (int(header["Columns"]), int(header["Rows"]))
    whole = Slice(path, header, None, size, transfer_syntax(dataset))
    if header["SamplesPerPixel"] not in ("", "1") or header["PhotometricInterpretation"].startswith("PALETTE"):
        return [_unusable(whole, "a DICOM image in colour", "Give a series of grey-value slices.", is_picture=True)]
    if PER_FRAME in dataset or SHARED in dataset:
        return _frames(whole, dataset)
    if header["NumberOfFrames"] not in ("", "0", "1"):
        return [_no_places(whole)]
    return [_placed(whole)]


def _frames(whole: Slice, dataset: pydicom.Dataset) -> list[Slice]:
    """The frames of a file with functional groups."""
    frames = frames_of(dataset)
    if len(frames) != whole_number(whole.header["NumberOfFrames"] or "1"):
        return [_no_places(whole)]
    placed = [_placed(dataclasses.replace(whole, header=header, frame=i)) for i, header in enumerate(frames)]
    return [_no_places(whole)] if all(one.is_picture for one in placed) else placed


def _no_places(whole: Slice) -> Slice:
    """A multi-frame file whose frames cannot be stacked. It may be the scan, so it is not passed over as a picture."""
    received = "a multi-frame DICOM file that does not say where each of its frames lies"
    return _unusable(whole, received, f"{_AGAIN[:-1]}, as Enhanced MR or as one file a slice.")


def _placed(one: Slice) -> Slice:
    """The slice with its place in the world; PixelSpacing gives the distance between rows first."""
    if missing := [name for name in ("SeriesInstanceUID", *GEOMETRY) if not one.header[name]]:
        received = f"a DICOM image without {', '.join(missing)}"
        return _unusable(one, received, "Export the series again with its geometry.", is_picture=True)
    if wrong := _wrong(one.header):
        return _unusable(one, f"a DICOM image with {wrong}", _AGAIN)
    rows_mm, columns_mm = numbers(one.header["PixelSpacing"])
    row, column = np.reshape(numbers(one.header["ImageOrientationPatient"]), (2, 3))
    row, column = row / np.linalg.norm(row), column / np.linalg.norm(column)
    normal = np.cross(row, column)
    return dataclasses.replace(
        one,
        spacing_mm=(columns_mm, rows_mm),
        position_mm=np.array(numbers(one.header["ImagePositionPatient"])),
        direction=np.stack([row, column, normal / np.linalg.norm(normal)], axis=1),
    )


def _unusable(one: Slice, what: str, advice: str, is_picture: bool = False) -> Slice:
    return dataclasses.replace(one, problem=f"{what}.\n{advice}", is_picture=is_picture)


def _wrong(header: Mapping[str, str]) -> str:
    """The first attribute whose value cannot be used, with that value; '' where all can."""
    position, cosines, spacing = (numbers(header[name]) for name in GEOMETRY)
    slope, intercept = (header[name] for name in ("RescaleSlope", "RescaleIntercept"))
    if len(spacing) != 2 or not min(spacing) > 0:
        return f"pixels of {header['PixelSpacing']} mm (PixelSpacing)"
    if len(position) != 3:
        return f"ImagePositionPatient {header['ImagePositionPatient']}"
    if len(cosines) != 6 or shear(np.reshape(cosines, (2, 3)).T) > 2 * _COSINES_OFF:
        return f"directions that are not at right angles (ImageOrientationPatient {header['ImageOrientationPatient']})"
    if slope and not any(numbers(slope)):
        return f"RescaleSlope {slope}"
    return f"RescaleIntercept {intercept}" if intercept and not numbers(intercept) else ""
