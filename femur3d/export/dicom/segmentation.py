"""A label map as a DICOM Segmentation that refers to the series it was made from. highdicom writes it."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.uid import MRImageStorage, generate_uid

import femur3d
from femur3d.errors import InputError, no_femur
from femur3d.export.dicom.source import (
    SERIES_OFFSET,
    concept,
    decimal,
    identifiers_of,
    in_slice_order,
    patient_and_study,
    require_highdicom,
)
from femur3d.export.segments import FEMUR, Code, Labels, Segment, segments_of
from femur3d.io.dicom.slices import Slice
from femur3d.io.integrity import writing
from femur3d.volume import Volume

_CATEGORY = Code("91723000", "Anatomical Structure")  # DICOM PS3.16, CID 7150


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
    ordered = in_slice_order(slices, label_map)
    with warnings.catch_warnings(), pydicom.config.disable_value_validation():  # identifiers are taken over as they are
        warnings.simplefilter("ignore")  # of pydicom and highdicom about how the scanner filled in its tags
        sources = [_source(one, label_map, ordered[0]) for one in ordered]
        sources[0].update(patient_and_study(ordered[0].path))
        segmentation = _segmentation(highdicom, ordered[0].path, sources, label_map, segments, weights_sha256)
        _refer_to_frames(segmentation, sources, ordered)
        with writing(path) as temporary:
            segmentation.save_as(temporary)


def _source(one: Slice, label_map: Volume, first: Slice) -> pydicom.Dataset:
    """What highdicom wants to know of a slice, as of a file of one slice; with the reader's values where it has none.

    The frames of one file pass for files of one slice here; `_refer_to_frames` puts the true identifiers back.
    """
    source = identifiers_of(one)
    if one.frame is not None:
        source.SOPClassUID, source.SOPInstanceUID = MRImageStorage, generate_uid()
    source.Columns, source.Rows = one.size
    source.PixelSpacing = [decimal(mm) for mm in one.spacing_mm[::-1]]
    source.ImagePositionPatient = [decimal(mm) for mm in one.position_mm]
    source.ImageOrientationPatient = [decimal(x) for x in first.direction[:, :2].T.ravel()]  # last decimals may differ
    source.SliceThickness = one.header["SliceThickness"] or decimal(label_map.spacing_mm[2])
    source.SpacingBetweenSlices = decimal(label_map.spacing_mm[2])
    return source


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
