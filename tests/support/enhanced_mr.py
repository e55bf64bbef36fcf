"""Enhanced (multi-frame) MR files as scanners write them, by pydicom."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import SimpleITK as sitk
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import ExplicitVRLittleEndian, JPEG2000Lossless, JPEGLosslessSV1

from femur3d.volume import Volume

GDCM_COMPRESSORS = {JPEG2000Lossless: "JPEG2000", JPEGLosslessSV1: "JPEG"}
ENHANCED_MR = "1.2.840.10008.5.1.4.1.1.4.1"
GROUPS = {  # attribute: the functional group that it lies in
    "PixelSpacing": "PixelMeasuresSequence",
    "SliceThickness": "PixelMeasuresSequence",
    "ImagePositionPatient": "PlanePositionSequence",
    "ImageOrientationPatient": "PlaneOrientationSequence",
    "RescaleSlope": "PixelValueTransformationSequence",
    "RescaleIntercept": "PixelValueTransformationSequence",
    "StackID": "FrameContentSequence",
    "InStackPositionNumber": "FrameContentSequence",
    "TemporalPositionIndex": "FrameContentSequence",
    "DimensionIndexValues": "FrameContentSequence",
    "FrameType": "MRImageFrameTypeSequence",
    "ComplexImageComponent": "MRImageFrameTypeSequence",
    "EffectiveEchoTime": "MREchoSequence",
    "RepetitionTime": "MRTimingAndRelatedParametersSequence",
    "DiffusionBValue": "MRDiffusionSequence",
}


def frames_of(scan: Volume, **attributes: Any) -> list[tuple[np.ndarray, dict[str, Any]]]:
    """The slices of a scan, each with its place in the world and the given attributes."""
    direction = np.reshape(scan.direction, (3, 3))
    common = {
        "PixelSpacing": [scan.spacing_mm[1], scan.spacing_mm[0]],
        "SliceThickness": scan.spacing_mm[2],
        "ImageOrientationPatient": [f"{x:.12g}" for x in direction[:, :2].T.ravel()],
    }
    return [
        (plane, {**common, "ImagePositionPatient": [f"{x:.10g}" for x in scan.world_mm((z, 0, 0))], **attributes})
        for z, plane in enumerate(scan.array)
    ]


def enhanced(
    frames: Sequence[tuple[np.ndarray, dict[str, Any]]], *, shared: Iterable[str] = ("PixelSpacing",), **attributes: Any
) -> Dataset:
    """A multi-frame data set.

    Args:
        frames: stored values (y, x) of 16 bits of each, and the attributes of its functional groups.
        shared: those that are written to the shared functional groups: the values of the first frame.
        attributes: of the whole file.
    """
    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = ENHANCED_MR, "1.2.3.5.1"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID, dataset.FrameOfReferenceUID = "1.2.3", "1.2.3.5", "1.2.3.7"
    dataset.Modality, dataset.SeriesNumber, dataset.SeriesDescription, dataset.PatientID = "MR", 4, "e-t1", "P"
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    array = np.stack([plane for plane, _ in frames])
    dataset.NumberOfFrames, dataset.Rows, dataset.Columns = array.shape
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 16, 15
    dataset.PixelRepresentation = int(np.issubdtype(array.dtype, np.signedinteger))
    dataset.SharedFunctionalGroupsSequence = [_groups(frames[0][1], set(shared), inside=True)]
    dataset.PerFrameFunctionalGroupsSequence = [_groups(own, set(shared), inside=False) for _, own in frames]
    for name, value in attributes.items():
        setattr(dataset, name, value)
    dataset.PixelData = array.astype(array.dtype.newbyteorder("<")).tobytes()
    dataset["PixelData"].VR = "OW"
    return dataset


def _groups(attributes: dict[str, Any], shared: set[str], inside: bool) -> Dataset:
    groups = Dataset()
    for name, value in attributes.items():
        if (name in shared) == inside:
            sequence = GROUPS[name]
            if sequence not in groups:
                setattr(groups, sequence, [Dataset()])
            setattr(groups[sequence].value[0], name, value)
    return groups


def save(dataset: Dataset, path: Path, syntax: str = ExplicitVRLittleEndian) -> Path:
    """Writes a data set to a DICOM file, compressed where the transfer syntax says so."""
    path.parent.mkdir(exist_ok=True)
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    if syntax in GDCM_COMPRESSORS:
        dataset.PixelData = encapsulate(_compressed(dataset.pixel_array, GDCM_COMPRESSORS[syntax], path))
        dataset["PixelData"].VR = "OB"
        dataset.file_meta.TransferSyntaxUID = pydicom.uid.UID(syntax)
    elif pydicom.uid.UID(syntax).is_encapsulated:
        dataset.compress(syntax, generate_instance_uid=False)
    else:
        dataset.file_meta.TransferSyntaxUID = pydicom.uid.UID(syntax)
    dataset.save_as(path, enforce_file_format=True)
    return path


def _compressed(array: np.ndarray, compressor: str, path: Path) -> list[bytes]:
    """Each plane of an array (z, y, x), packed by GDCM, which does this for files of one slice only."""
    writer = sitk.ImageFileWriter()
    writer.SetImageIO("GDCMImageIO")
    writer.SetFileName(str(path.with_suffix(".dcm")))
    writer.UseCompressionOn()
    writer.SetCompressor(compressor)
    packed = []
    for plane in array:
        writer.Execute(sitk.GetImageFromArray(plane))
        packed += list(generate_frames(pydicom.dcmread(path.with_suffix(".dcm")).PixelData, number_of_frames=1))
    path.with_suffix(".dcm").unlink()
    return packed
