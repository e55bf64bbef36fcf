"""A label map as a DICOM RT Structure Set: closed contours on the slices of the series that it was made from.

Written with pydicom: rt-utils, which writes such files too, wants the whole series alone in one folder and reads its
pixels again.
"""

from __future__ import annotations

import datetime
import itertools
import os
import warnings
from collections.abc import Iterator, Sequence

import numpy as np
import pydicom
from contourpy import FillType, contour_generator
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, RTStructureSetStorage, generate_uid

import femur3d
from femur3d.errors import no_femur
from femur3d.export.dicom.source import MAY_BE_EMPTY, SERIES_OFFSET, UTF_8, decimal, in_slice_order, patient_and_study
from femur3d.export.segments import FEMUR, Code, Labels, Segment, segments_of
from femur3d.io.dicom.slices import Slice
from femur3d.io.integrity import writing
from femur3d.volume import Volume

_OF_PATIENT = (0x0010, 0x0012)  # groups of attributes
_OF_STUDY = ("StudyDate", "StudyTime", "StudyID", "StudyDescription", "AccessionNumber", "ReferringPhysicianName")
_STUDY_COMPONENT = "1.2.840.10008.3.1.2.3.1"  # retired, and still what RT Referenced Study Sequence refers to


def write_rtstruct(
    label_map: Volume, slices: Sequence[Slice | str | os.PathLike[str]], path: str | os.PathLike[str], labels: Labels
) -> None:
    """Writes one region (ROI) for each label that has voxels, whole or not at all.

    A voxel belongs to a label exactly where its centre lies within the contours. A hole is joined to the contour around
    it by a cut of no width ("keyhole"), which every reader understands.

    Args:
        label_map: integers, axes (z, y, x), on the grid of the series; 0 is background.
        slices: all slices of the series (`ScanFile.dicom.slices`), or their files, in any order.
        path: the file to write; its folder is created if needed.
        labels: 'femur' (1 is any femur) or 'sides' (1 left, 2 right).

    Raises:
        ValueError: the label map holds other values.
        InputError: the label map is empty; a slice cannot be read or referred to; the series does not lie on the label
            map's grid; or the file cannot be written.
    """
    segments = segments_of(label_map, labels)
    if not segments:
        raise no_femur()
    ordered = in_slice_order(slices, label_map)
    with warnings.catch_warnings(), pydicom.config.disable_value_validation():  # identifiers are taken over as they are
        warnings.simplefilter("ignore")
        structures = _header(ordered[0])
        structures.ReferencedFrameOfReferenceSequence = [_references(ordered)]
        numbered = list(enumerate(segments, start=1))
        structures.StructureSetROISequence = [_roi(number, one, ordered[0]) for number, one in numbered]
        structures.ROIContourSequence = [
            _contours(number, one, label_map.array == one.value, ordered) for number, one in numbered
        ]
        structures.RTROIObservationsSequence = [_observation(number, one) for number, one in numbered]
        with writing(path) as temporary:
            structures.save_as(temporary, enforce_file_format=True)


def outlines(mask: np.ndarray) -> Iterator[np.ndarray]:
    """The closed contours of a slice: halfway between the voxels of a mask and the others, holes joined by a cut.

    Args:
        mask: bool, axes (y, x).

    Yields:
        Points (N, 2) as (x, y) in voxels, the centre of the first voxel at 0; the first one is not repeated.
    """
    padded = np.pad(mask, 1).astype(np.float64)
    found = contour_generator(z=padded, fill_type=FillType.OuterOffset).filled(0.5, 2.0)
    for points, offsets in zip(*found, strict=True):
        outer, *holes = (points[i:j] for i, j in itertools.pairwise(offsets))  # each ends where it began
        for hole in holes:
            outer = _with_hole(outer, hole)
        yield outer[:-1] - 1


def _with_hole(outer: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """Goes along a contour to the point next to the hole, around the hole, back, and on; both end where they begin."""
    distances = np.linalg.norm(outer[:, None] - hole[None], axis=-1)
    i, j = np.unravel_index(distances.argmin(), distances.shape)
    around = np.concatenate([hole[j:-1], hole[: j + 1]])
    return np.concatenate([outer[: i + 1], around, outer[i:]])


# ---- the data set


def _header(first: Slice) -> Dataset:
    """What describes patient, study, the new series and its only instance, with new identifiers."""
    now = datetime.datetime.now()
    found = Dataset()
    for name in (*MAY_BE_EMPTY, "ReferringPhysicianName"):
        setattr(found, name, "")
    known = patient_and_study(first.path)
    found.update({one.tag: one for one in known if one.tag.group in _OF_PATIENT or one.keyword in _OF_STUDY})
    found.file_meta = FileMetaDataset()
    found.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    found.file_meta.MediaStorageSOPClassUID = found.SOPClassUID = RTStructureSetStorage
    found.file_meta.MediaStorageSOPInstanceUID = found.SOPInstanceUID = generate_uid()
    found.SpecificCharacterSet, found.Modality = UTF_8, "RTSTRUCT"
    found.StudyInstanceUID, found.SeriesInstanceUID = first.header["StudyInstanceUID"], generate_uid()
    found.FrameOfReferenceUID, found.PositionReferenceIndicator = first.header["FrameOfReferenceUID"], ""
    found.SeriesNumber, found.InstanceNumber = int(known.SeriesNumber) + SERIES_OFFSET + 2, 1
    found.SeriesDescription = f"Femur contours (femur3d {femur3d.__version__})"
    found.Manufacturer = found.ManufacturerModelName = "femur3d"
    found.SoftwareVersions, found.OperatorsName = femur3d.__version__, ""
    found.StructureSetLabel, found.StructureSetName = "FEMUR", "Proximal femur, segmented automatically"
    found.StructureSetDate = found.SeriesDate = found.InstanceCreationDate = f"{now:%Y%m%d}"
    found.StructureSetTime = found.SeriesTime = found.InstanceCreationTime = f"{now:%H%M%S}"
    found.ApprovalStatus = "UNAPPROVED"
    return found


def _references(slices: Sequence[Slice]) -> Dataset:
    """Frame of reference, study, series and images, these in the order of the slices."""
    header = slices[0].header
    series, study, frame = Dataset(), Dataset(), Dataset()
    series.SeriesInstanceUID = header["SeriesInstanceUID"]
    series.ContourImageSequence = [_image(one, whole=True) for one in {one.path: one for one in slices}.values()]
    study.ReferencedSOPClassUID, study.ReferencedSOPInstanceUID = _STUDY_COMPONENT, header["StudyInstanceUID"]
    study.RTReferencedSeriesSequence = [series]
    frame.FrameOfReferenceUID, frame.RTReferencedStudySequence = header["FrameOfReferenceUID"], [study]
    return frame


def _image(one: Slice, whole: bool = False) -> Dataset:
    """The reference to a slice, or to the whole file in which it is a frame."""
    image = Dataset()
    image.ReferencedSOPClassUID = one.header["SOPClassUID"]
    image.ReferencedSOPInstanceUID = one.header["SOPInstanceUID"]
    if one.frame is not None and not whole:
        image.ReferencedFrameNumber = one.frame + 1
    return image


def _roi(number: int, segment: Segment, first: Slice) -> Dataset:
    roi = Dataset()
    roi.ROINumber, roi.ROIName = number, segment.name
    roi.ReferencedFrameOfReferenceUID = first.header["FrameOfReferenceUID"]
    roi.ROIGenerationAlgorithm, roi.ROIGenerationDescription = "AUTOMATIC", f"femur3d {femur3d.__version__}"
    return roi


def _contours(number: int, segment: Segment, mask: np.ndarray, slices: Sequence[Slice]) -> Dataset:
    contours = Dataset()
    contours.ReferencedROINumber = number
    contours.ROIDisplayColor = [round(255 * part) for part in segment.colour]
    contours.ContourSequence = [
        _contour(points, one) for one, plane in zip(slices, mask, strict=True) for points in outlines(plane)
    ]
    for i, contour in enumerate(contours.ContourSequence, start=1):
        contour.ContourNumber = i
    return contours


def _contour(points: np.ndarray, one: Slice) -> Dataset:
    """A closed contour of points (x, y), voxels, in the plane of a slice."""
    world_mm = one.position_mm + (points * one.spacing_mm) @ one.direction[:, :2].T
    contour = Dataset()
    contour.ContourImageSequence = [_image(one)]
    contour.ContourGeometricType, contour.NumberOfContourPoints = "CLOSED_PLANAR", len(points)
    contour.ContourData = [decimal(mm) for mm in world_mm.ravel()]
    return contour


def _observation(number: int, segment: Segment) -> Dataset:
    observation = Dataset()
    observation.ObservationNumber = observation.ReferencedROINumber = number
    observation.RTROIInterpretedType, observation.ROIInterpreter = "ORGAN", ""
    observation.RTROIIdentificationCodeSequence = [kind := _code(FEMUR)]
    if segment.side:
        kind.SegmentedPropertyTypeModifierCodeSequence = [_code(segment.side)]
    return observation


def _code(code: Code) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = code.value, code.scheme, code.meaning
    return item
