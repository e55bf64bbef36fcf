"""A label map as a DICOM Segmentation that refers to the series it was made from.

highdicom writes it; the package is asked for only here and only when a segmentation is written, because few users need
it: `pip install '.[dicomseg]'`.
"""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.config import RAISE
from pydicom.uid import MRImageStorage, generate_uid
from pydicom.valuerep import DA, DT, TM, validate_value

import femur3d
from femur3d.errors import InputError, UsageError, no_femur
from femur3d.export.segments import FEMUR, Code, Labels, Segment, segments_of
from femur3d.io.dicom.headers import text
from femur3d.io.dicom.slices import Slice, read_slices
from femur3d.io.integrity import writing
from femur3d.volume import Volume

_CATEGORY = Code("91723000", "Anatomical Structure")  # DICOM PS3.16, CID 7150
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


def write_dicom_seg(
    label_map: Volume,
    slices: Sequence[Slice | str | os.PathLike[str]],
    path: str | os.PathLike[str],
    labels: Labels,
    *,
    weights_sha256: str = "",
) -> None:
    """Writes a label map as a DICOM Segmentation object (binary, one segment for each label), whole or not at all.

    Segments are numbered from 1 in the order of the labels; labels without voxels are left out. The frames have the
    plane positions of the series' own slices and refer to them; slices without femur have no frame. What the series
    says of its patient and study is taken over in UTF-8; values that DICOM does not allow are left out.

    Args:
        label_map: integers, axes (z, y, x), on the grid of the series; 0 is background.
        slices: all slices of the series (`ScanFile.dicom.slices`), or their files, in any order: they are matched by
            position.
        path: the file to write; its folder is created if needed.
        labels: 'femur' (1 is any femur) or 'sides' (1 left, 2 right).
        weights_sha256: of the model, to be stored as a parameter of the algorithm.

    Raises:
        ValueError: the label map holds other values.
        UsageError: highdicom is not installed.
        InputError: the label map is empty; a slice cannot be read, or lacks what a segmentation must refer to; the
            series does not lie on the label map's grid; or the file cannot be written.
    """
    highdicom = require_highdicom()
    segments = segments_of(label_map, labels)
    if not segments:
        raise no_femur()
    ordered = _in_slice_order(_all_slices(slices), label_map)
    with warnings.catch_warnings(), pydicom.config.disable_value_validation():  # identifiers are taken over as they are
        warnings.simplefilter("ignore")  # of pydicom and highdicom about how the scanner filled in its tags
        sources = [_source(one, label_map, ordered[0]) for one in ordered]
        sources[0].update(patient_and_study(ordered[0].path))
        segmentation = _segmentation(highdicom, ordered[0].path, sources, label_map, segments, weights_sha256)
        _refer_to_frames(segmentation, sources, ordered)
        with writing(path) as temporary:
            segmentation.save_as(temporary)


def _all_slices(slices: Sequence[Slice | str | os.PathLike[str]]) -> list[Slice]:
    """The slices, those of files read. InputError where a file holds none."""
    found: list[Slice] = []
    for one in slices:
        read = [one] if isinstance(one, Slice) else read_slices(Path(one))
        if not read:
            raise _other_grid(str(one), "no slice of a series")
        found += read
    return found


def _in_slice_order(slices: Sequence[Slice], label_map: Volume) -> list[Slice]:
    """The slices in the order of the label map's; InputError where they are not exactly these."""
    found: dict[int, Slice] = {}
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
    if one.problem:
        raise InputError(f"{one.path}: {one.problem}")
    if missing := [name for name in NEEDED if not one.header[name]]:
        message = f"{one.path}: a slice without {', '.join(missing)}, which a DICOM segmentation must refer to"
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


def _source(one: Slice, label_map: Volume, first: Slice) -> pydicom.Dataset:
    """What highdicom wants to know of a slice, as of a file of one slice; with the reader's values where it has none.

    The frames of one file pass for files of one slice here; `_refer_to_frames` puts the true identifiers back.
    """
    source = pydicom.Dataset()
    for name in NEEDED:
        setattr(source, name, one.header[name])
    if one.frame is not None:
        source.SOPClassUID, source.SOPInstanceUID = MRImageStorage, generate_uid()
    for name in MAY_BE_EMPTY:
        setattr(source, name, "")
    source.Modality, source.SpecificCharacterSet = "MR", UTF_8
    source.Columns, source.Rows = one.size
    source.PixelSpacing = [_decimal(mm) for mm in one.spacing_mm[::-1]]
    source.ImagePositionPatient = [_decimal(mm) for mm in one.position_mm]
    source.ImageOrientationPatient = [_decimal(x) for x in first.direction[:, :2].T.ravel()]  # last decimals may differ
    source.SliceThickness = one.header["SliceThickness"] or _decimal(label_map.spacing_mm[2])
    source.SpacingBetweenSlices = _decimal(label_map.spacing_mm[2])
    return source


def patient_and_study(path: Path) -> pydicom.Dataset:
    """What a file says of its patient and study, without what DICOM does not allow. InputError where it is gone."""
    try:
        header = pydicom.dcmread(path, stop_before_pixels=True, force=True)
    except Exception as error:  # a file that was sound when it was read
        raise InputError(f"{path}: cannot be read ({error}).\nCopy the file again.") from error
    number = text(header, "SeriesNumber")
    found = pydicom.Dataset()
    found.SeriesNumber = int(number) if number.isdigit() else 0
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


def _refer_to_frames(segmentation: Any, sources: list[pydicom.Dataset], slices: Sequence[Slice]) -> None:
    """Puts the identifiers of multi-frame files, with the numbers of their frames, where `_source` made some up."""
    meant = {source.SOPInstanceUID: one for source, one in zip(sources, slices, strict=True) if one.frame is not None}
    if not meant:
        return
    derivations = [g.get("DerivationImageSequence", []) for g in segmentation.PerFrameFunctionalGroupsSequence]
    for item in (item for group in derivations for derivation in group for item in derivation.SourceImageSequence):
        if one := meant.get(item.ReferencedSOPInstanceUID):  # the frames of two segments share their items
            item.ReferencedFrameNumber = (one.frame or 0) + 1
            _refer_to_file(item, one)
    for series in segmentation.ReferencedSeriesSequence:
        files = {meant[item.ReferencedSOPInstanceUID].path: item for item in series.ReferencedInstanceSequence}
        for item in files.values():
            _refer_to_file(item, meant[item.ReferencedSOPInstanceUID])
        series.ReferencedInstanceSequence = list(files.values())


def _refer_to_file(item: pydicom.Dataset, one: Slice) -> None:
    item.ReferencedSOPClassUID = one.header["SOPClassUID"]
    item.ReferencedSOPInstanceUID = one.header["SOPInstanceUID"]


def _decimal(value: float) -> str:
    """A number as DICOM's decimal string of at most 16 characters."""
    return f"{value:.10g}"


def _segmentation(
    highdicom: Any,
    path: Path,
    sources: list[pydicom.Dataset],
    label_map: Volume,
    segments: list[Segment],
    weights_sha256: str,
) -> Any:
    """The DICOM data set. InputError where highdicom cannot make sense of the headers."""
    numbers = np.zeros(label_map.array.shape, np.uint8)
    for number, segment in enumerate(segments, start=1):
        numbers[label_map.array == segment.value] = number
    descriptions = _descriptions(highdicom, segments, weights_sha256)
    try:
        return highdicom.seg.Segmentation(sources, numbers, "BINARY", descriptions, **_series(highdicom, sources[0]))
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        reason = " ".join(str(error).split())[:300]
        message = f"{path}: no DICOM segmentation can refer to this series ({reason})"
        raise InputError(f"{message}.\nExport the series again, or choose another format.") from error


def _series(highdicom: Any, source: Any) -> dict[str, Any]:
    """What describes the new series and its only instance: new identifiers each time, as for every DICOM object."""
    return {
        "series_instance_uid": highdicom.UID(),
        "series_number": int(source.SeriesNumber) + SERIES_OFFSET,
        "series_description": f"Femur segmentation (femur3d {femur3d.__version__})",
        "sop_instance_uid": highdicom.UID(),
        "instance_number": 1,
        "manufacturer": "femur3d",
        "manufacturer_model_name": "femur3d",
        "software_versions": femur3d.__version__,
        "device_serial_number": "none",
        "content_label": "FEMUR",
        "content_description": "Proximal femur, segmented automatically",
    }


def _descriptions(highdicom: Any, segments: list[Segment], weights_sha256: str) -> list[Any]:
    from pydicom.sr.codedict import codes

    algorithm = highdicom.AlgorithmIdentificationSequence(
        name="femur3d",
        family=codes.DCM.ArtificialIntelligence,
        version=femur3d.__version__,
        parameters={"weights_sha256": weights_sha256} if weights_sha256 else None,
    )
    return [_description(highdicom, number, one, algorithm) for number, one in enumerate(segments, start=1)]


def _description(highdicom: Any, number: int, segment: Segment, algorithm: Any) -> Any:
    description = highdicom.seg.SegmentDescription(
        segment_number=number,
        segment_label=segment.name,
        segmented_property_category=concept(highdicom, _CATEGORY),
        segmented_property_type=concept(highdicom, FEMUR),
        algorithm_type="AUTOMATIC",
        algorithm_identification=algorithm,
        display_color=highdicom.color.CIELabColor.from_rgb(*(255 * part for part in segment.colour)),
    )
    if segment.side is not None:  # highdicom has no argument for it (its issue 458)
        kind = description.SegmentedPropertyTypeCodeSequence[0]
        kind.SegmentedPropertyTypeModifierCodeSequence = [concept(highdicom, segment.side)]
    return description


def concept(highdicom: Any, code: Code) -> Any:
    return highdicom.sr.CodedConcept(code.value, code.scheme, code.meaning)
