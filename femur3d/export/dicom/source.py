"""The series that DICOM results refer to: its slices in the label map's order, and what it says of patient and study.

highdicom is asked for only here, and only when a result needs it, because few users do: `pip install '.[dicomseg]'`.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.config import RAISE
from pydicom.valuerep import DA, DT, TM, validate_value

from femur3d.errors import InputError, UsageError
from femur3d.export.segments import Code
from femur3d.io.dicom.headers import text
from femur3d.io.dicom.slices import Slice, read_slices
from femur3d.io.integrity import whole_number
from femur3d.volume import Volume

NEEDED = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID")
# Of the patient and study modules; may be empty (type 2), but anonymised files often lack them.
MAY_BE_EMPTY = (
    "PatientID",
    "PatientName",
    "PatientBirthDate",
    "PatientSex",
    "AccessionNumber",
    "StudyID",
    "StudyDate",
    "StudyTime",
)
_GROUPS = (0x0008, 0x0010, 0x0012, 0x0032, 0x0038, 0x0040)  # in which patient and study are described
_STUDY_ID = 0x00200010
_OWN = (*NEEDED, "Modality", "SpecificCharacterSet")  # what the source of a segmentation says for itself
_SEXES = ("M", "F", "O")
UTF_8 = "ISO_IR 192"
SERIES_OFFSET = 1000  # (ours) series number of the segmentation: that of the scan and this
_MAX_SERIES_NUMBER = 2**31 - 1 - (SERIES_OFFSET + 2)  # two more have the contours; DICOM's IS ends at 2³¹ − 1
_POSITION_VOXELS = 0.5  # a slice of the series may lie this far off the label map's: its direction may be a rounded one
_COSINES = 0.02


def require_highdicom() -> Any:
    """The module highdicom; UsageError, with the way to install it, where it is missing."""
    try:
        import highdicom
    except ImportError as error:
        message = f"A DICOM segmentation needs the package highdicom, which cannot be imported ({error})"
        raise UsageError(f"{message}.\nInstall it: pip install highdicom") from error
    return highdicom


def _all_slices(slices: Sequence[Slice | str | os.PathLike[str]]) -> list[Slice]:
    """The slices, those of files read. InputError where a file holds none."""
    found: list[Slice] = []
    for one in slices:
        read = [one] if isinstance(one, Slice) else read_slices(Path(one))
        if not read:
            raise _other_grid(str(one), "no slice of a series")
        found += read
    return found


def in_slice_order(slices: Sequence[Slice | str | os.PathLike[str]], label_map: Volume) -> list[Slice]:
    """The slices, or those of files, in the order of the label map's; InputError where they are not exactly these."""
    slices, found = _all_slices(slices), dict[int, Slice]()
    for one in slices:
        check_can_be_referred_to(one)
        place = _slice_index(one, label_map)
        if place is None or place in found:
            raise _other_grid(one.path, "lies on another grid" if place is None else "lies where another slice lies")
        found[place] = one
    if len(found) != len(label_map.array):
        received = f"{len(found)} slices against {len(label_map.array)} of the label map"
        raise _other_grid(slices[0].path if slices else "no files", f"belongs to a series of {received}")
    ordered = [found[place] for place in sorted(found)]
    for name in ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID"):
        other = next((one for one in ordered if one.header[name] != ordered[0].header[name]), None)
        if other is not None:
            raise _other_grid(other.path, f"has another {name} than {ordered[0].path.name}")
    return ordered


def check_can_be_referred_to(one: Slice) -> None:
    """InputError where a slice is unsound, or lacks an identifier."""
    if one.problem:
        raise InputError(f"{one.path}: {one.problem}")
    if missing := [name for name in NEEDED if not one.header[name]]:
        message = f"{one.path}: a slice without {', '.join(missing)}, which a DICOM result must refer to"
        raise InputError(f"{message}.\nExport the series again from the scanner or archive, or choose another format.")


def _slice_index(one: Slice, label_map: Volume) -> int | None:
    """Which slice of the label map it is; None where it does not lie on the label map's grid."""
    slices, rows, columns = label_map.array.shape
    ijk = np.linalg.solve(label_map.affine[:3, :3], one.position_mm - label_map.origin_mm)
    place = round(ijk[2])
    fits = (
        one.size == (columns, rows)
        and np.allclose(one.spacing_mm, label_map.spacing_mm[:2], rtol=_COSINES)
        and np.allclose(one.direction[:, :2], np.reshape(label_map.direction, (3, 3))[:, :2], rtol=0, atol=_COSINES)
        and np.abs(ijk - (0, 0, place)).max() < _POSITION_VOXELS
        and 0 <= place < slices
    )
    return place if fits else None


def _other_grid(name: Path | str, what: str) -> InputError:
    return InputError(f"{name}: {what}.\nGive exactly the files of the series that was segmented.")


def identifiers_of(one: Slice) -> pydicom.Dataset:
    """What highdicom wants to know of every slice; `patient_and_study` is left empty."""
    found = pydicom.Dataset()
    for name in MAY_BE_EMPTY:
        setattr(found, name, "")
    for name in NEEDED:
        setattr(found, name, one.header[name])
    found.Modality, found.SpecificCharacterSet = "MR", UTF_8
    return found


def patient_and_study(path: Path) -> pydicom.Dataset:
    """What a file says of its patient and study, without what DICOM does not allow. InputError where it is gone."""
    try:
        header = pydicom.dcmread(path, stop_before_pixels=True, force=True)
    except Exception as error:  # a file that was sound when it was read
        raise InputError(f"{path}: cannot be read ({error}).\nCopy the file again.") from error
    found = pydicom.Dataset()
    number = whole_number(text(header, "SeriesNumber"))
    found.SeriesNumber = number if 0 <= number <= _MAX_SERIES_NUMBER else 0
    for tag in list(header.keys()):
        with contextlib.suppress(Exception):  # whatever pydicom makes of an invalid value
            if (tag.group in _GROUPS and header[tag].keyword not in _OWN) or tag == _STUDY_ID:
                _check(header[tag])
                found[tag] = header[tag]
    return found


def _check(element: pydicom.DataElement) -> None:
    """Raises an exception where DICOM does not allow a value, of the element or of those in a sequence."""
    if element.VR == "SQ":
        for item in element.value:
            for inner in item:
                _check(inner)
        return
    for value in element.value if element.VM > 1 else [element.value]:
        if value in (None, ""):
            continue
        validate_value(element.VR, value if element.VR == "PN" else str(value), RAISE)
        {"DA": DA, "TM": TM, "DT": DT}.get(element.VR, str)(value)  # 31 February is written like a date
    if element.keyword == "PatientSex" and element.value not in ("", None, *_SEXES):
        raise ValueError(element.value)


def decimal(value: float) -> str:
    """A number as DICOM's decimal string of at most 16 characters."""
    return f"{value:.10g}"


def concept(highdicom: Any, code: Code) -> Any:
    """A code as highdicom wants it."""
    return highdicom.sr.CodedConcept(code.value, code.scheme, code.meaning)
