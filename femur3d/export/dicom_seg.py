"""A label map as a DICOM Segmentation that refers to the series it was made from.

highdicom writes it; the package is asked for only here and only when a segmentation is written, because few users need
it: `pip install '.[dicomseg]'`.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import femur3d
from femur3d.errors import InputError, UsageError
from femur3d.export.segments import FEMUR, Code, Labels, Segment, no_femur, segments_of
from femur3d.io.atomic import replacing
from femur3d.volume import Volume

_CATEGORY = Code("91723000", "Anatomical Structure")  # DICOM PS3.16, CID 7150
_NEEDED = (
    "SOPClassUID",
    "SOPInstanceUID",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "FrameOfReferenceUID",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "PixelSpacing",
    "Rows",
    "Columns",
)
# Of the patient and study modules; may be empty (type 2), but anonymised files often lack them.
_MAY_BE_EMPTY = (
    "PatientID",
    "PatientName",
    "PatientBirthDate",
    "PatientSex",
    "AccessionNumber",
    "StudyID",
    "StudyDate",
    "StudyTime",
)
_SERIES_OFFSET = 1000  # (ours) series number of the segmentation: that of the scan and this
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
    series_files: Sequence[str | os.PathLike[str]],
    path: str | os.PathLike[str],
    labels: Labels,
    *,
    weights_sha256: str = "",
) -> None:
    """Writes a label map as a DICOM Segmentation object (binary, one segment for each label), whole or not at all.

    Segments are numbered from 1 in the order of the labels; labels without voxels are left out. The frames have the
    plane positions of the series' own files and refer to them; slices without femur have no frame.

    Args:
        label_map: integers, axes (z, y, x), on the grid of the series; 0 is background.
        series_files: the files of all slices of the series, in any order: they are matched by position.
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
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of pydicom and highdicom about how the scanner filled in its tags
        sources = _in_slice_order([_read_header(Path(file)) for file in series_files], label_map)
        _complete(sources, label_map)
        segmentation = _segmentation(highdicom, sources, label_map, segments, weights_sha256)
        try:
            with replacing(path) as temporary:
                segmentation.save_as(temporary)
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise InputError(f"{path}: cannot be written ({reason}).\nCheck permissions and free space.") from error


def _read_header(path: Path) -> Any:
    """The data set of one slice without its pixels. InputError where it cannot be read or lacks a needed tag."""
    import pydicom

    try:
        header = pydicom.dcmread(path, stop_before_pixels=True, force=True)  # force: old files lack DICOM's mark
    except (OSError, ValueError, EOFError, AttributeError) as error:
        raise InputError(f"{path}: cannot be read ({error}).\nCopy the file again.") from error
    missing = [name for name in _NEEDED if not header.get(name)]
    if missing:
        message = f"{path}: a slice without {', '.join(missing)}, which a DICOM segmentation must refer to"
        raise InputError(f"{message}.\nExport the series again from the scanner or archive, or choose another format.")
    return header


def _in_slice_order(headers: list[Any], label_map: Volume) -> list[Any]:
    """The headers in the order of the label map's slices; InputError where they are not exactly these slices."""
    found: dict[int, Any] = {}
    for header in headers:
        place = _slice_index(header, label_map)
        if place is None or place in found:
            raise _other_grid(header, "lies on another grid" if place is None else "lies where another slice lies")
        found[place] = header
    if len(found) != len(label_map.array):
        received = f"{len(found)} slices against {len(label_map.array)} of the label map"
        raise _other_grid(headers[0] if headers else None, f"belongs to a series of {received}")
    ordered = [found[place] for place in sorted(found)]
    for name in ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID"):
        other = next((header for header in ordered if header.get(name) != ordered[0].get(name)), None)
        if other is not None:
            raise _other_grid(other, f"has another {name} than {Path(ordered[0].filename).name}")
    return ordered


def _slice_index(header: Any, label_map: Volume) -> int | None:
    """Which slice of the label map a file holds; None where it does not lie on the label map's grid."""
    slices, rows, columns = label_map.array.shape
    row_and_column = np.reshape(np.array(header.ImageOrientationPatient, np.float64), (2, 3)).T
    offset = np.array(header.ImagePositionPatient, np.float64) - label_map.origin_mm
    ijk = np.linalg.solve(label_map.affine[:3, :3], offset)
    place = round(ijk[2])
    fits = (
        (header.Rows, header.Columns) == (rows, columns)
        and np.allclose(np.array(header.PixelSpacing, np.float64)[::-1], label_map.spacing_mm[:2], rtol=_COSINES)
        and np.allclose(row_and_column, np.reshape(label_map.direction, (3, 3))[:, :2], rtol=0, atol=_COSINES)
        and np.abs(ijk - (0, 0, place)).max() < _POSITION_VOXELS
        and 0 <= place < slices
    )
    return place if fits else None


def _other_grid(header: Any, what: str) -> InputError:
    name = "no files" if header is None else header.filename
    return InputError(f"{name}: {what}.\nGive exactly the files of the series that was segmented.")


def _complete(headers: list[Any], label_map: Volume) -> None:
    """Fills in what highdicom wants to find in every header, with the reader's values where the file has none."""
    for header in headers:
        for name in _MAY_BE_EMPTY:
            if name not in header:
                setattr(header, name, "")
        if not header.get("SliceThickness"):
            header.SliceThickness = _decimal(label_map.spacing_mm[2])
        header.SpacingBetweenSlices = _decimal(label_map.spacing_mm[2])
        header.ImageOrientationPatient = headers[0].ImageOrientationPatient  # may differ in the last decimals


def _decimal(value: float) -> str:
    """A number as DICOM's decimal string of at most 16 characters."""
    return f"{value:.10g}"


def _segmentation(
    highdicom: Any, sources: list[Any], label_map: Volume, segments: list[Segment], weights_sha256: str
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
        message = f"{sources[0].filename}: no DICOM segmentation can refer to this series ({reason})"
        raise InputError(f"{message}.\nExport the series again, or choose another format.") from error


def _series(highdicom: Any, source: Any) -> dict[str, Any]:
    """What describes the new series and its only instance: new identifiers each time, as for every DICOM object."""
    return {
        "series_instance_uid": highdicom.UID(),
        "series_number": int(source.get("SeriesNumber") or 0) + _SERIES_OFFSET,
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
        segmented_property_category=_concept(highdicom, _CATEGORY),
        segmented_property_type=_concept(highdicom, FEMUR),
        algorithm_type="AUTOMATIC",
        algorithm_identification=algorithm,
        display_color=highdicom.color.CIELabColor.from_rgb(*(255 * part for part in segment.colour)),
    )
    if segment.side is not None:  # highdicom has no argument for it (its issue 458)
        kind = description.SegmentedPropertyTypeCodeSequence[0]
        kind.SegmentedPropertyTypeModifierCodeSequence = [_concept(highdicom, segment.side)]
    return description


def _concept(highdicom: Any, code: Code) -> Any:
    return highdicom.sr.CodedConcept(code.value, code.scheme, code.meaning)
