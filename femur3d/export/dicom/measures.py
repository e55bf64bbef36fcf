"""What was measured on the femurs as a DICOM structured report, TID 1500, that refers to the series it came from.

highdicom writes it. Every measure has its 90% interval and its gate beside it; where it is not measurable, the gate
alone.
"""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Sequence
from typing import Any

import pydicom

import femur3d
from femur3d.errors import InputError
from femur3d.export.dicom.source import (
    SERIES_OFFSET,
    check_can_be_referred_to,
    concept,
    identifiers_of,
    patient_and_study,
    require_highdicom,
)
from femur3d.export.segments import FEMUR, LEFT, RIGHT, Code
from femur3d.io.dicom.slices import Slice
from femur3d.io.integrity import writing
from femur3d.morphometry.gate import NOT
from femur3d.morphometry.measure import Measure, Morphometry

_SCHEME = "99FEMUR3D"  # codes of our own: SNOMED CT and RadLex have none for most of these measures
_MRI = Code("113091000", "Magnetic resonance imaging")
_UNITS = {  # UCUM
    "mm": Code("mm", "millimeter", "UCUM"),
    "mm2": Code("mm2", "square millimeter", "UCUM"),
    "mm3": Code("mm3", "cubic millimeter", "UCUM"),
    "deg": Code("deg", "degree", "UCUM"),
    "h": Code("h", "hour", "UCUM"),
    "1": Code("1", "no units", "UCUM"),
}


def write_dicom_sr(femurs: Sequence[Morphometry], slices: Sequence[Slice], path: str | os.PathLike[str]) -> None:
    """Writes the measures of one scan's femurs as a Comprehensive 3D SR object, whole or not at all.

    Args:
        femurs: one or two.
        slices: of the series that was segmented (`ScanFile.dicom.slices`).
        path: the file to write.

    Raises:
        UsageError: highdicom is not installed.
        InputError: a slice cannot be referred to, or the file cannot be written.
    """
    highdicom = require_highdicom()
    with warnings.catch_warnings(), pydicom.config.disable_value_validation():  # identifiers are taken over as they are
        warnings.simplefilter("ignore")
        evidence = _evidence(slices)
        try:
            report = highdicom.sr.Comprehensive3DSR(
                evidence=evidence,
                content=_report(highdicom, femurs)[0],
                series_instance_uid=highdicom.UID(),
                series_number=int(evidence[0].SeriesNumber) + SERIES_OFFSET + 1,
                sop_instance_uid=highdicom.UID(),
                instance_number=1,
                manufacturer="femur3d",
                series_description=f"Femur morphometry (femur3d {femur3d.__version__})",
            )
        except (ValueError, TypeError, AttributeError, KeyError) as error:
            reason = " ".join(str(error).split())[:300]
            message = f"{path}: no DICOM report can refer to this series ({reason})"
            raise InputError(f"{message}.\nExport the series again.") from error
        with writing(path) as temporary:
            report.save_as(temporary)


def _evidence(slices: Sequence[Slice]) -> list[pydicom.Dataset]:
    """A data set for each file of the series, the first with what is said of patient and study."""
    found = []
    for one in {one.path: one for one in slices}.values():
        check_can_be_referred_to(one)
        found.append(identifiers_of(one))
    found[0].update(patient_and_study(slices[0].path))
    return found


def _report(highdicom: Any, femurs: Sequence[Morphometry]) -> Any:
    from pydicom.sr.codedict import codes

    sr = highdicom.sr
    device = sr.DeviceObserverIdentifyingAttributes(
        uid=highdicom.UID(), name="femur3d", manufacturer_name="femur3d", model_name=femur3d.__version__
    )
    observer = sr.ObserverContext(codes.DCM.Device, device)
    return sr.MeasurementReport(
        observation_context=sr.ObservationContext(observer_device_context=observer),
        procedure_reported=concept(highdicom, _MRI),
        imaging_measurements=[_group(highdicom, one) for one in femurs],
        title=codes.DCM.ImagingMeasurementReport,
    )


def _group(highdicom: Any, one: Morphometry) -> Any:
    sr, side = highdicom.sr, LEFT if one.side == "left" else RIGHT
    measurements, gates = [], []
    centre = [
        Measure(float(x), float(x) - one.centre_error_mm, float(x) + one.centre_error_mm, "mm", one.centre_verdict)
        for x in one.centre_mm
    ]
    named = {f"head_centre_{axis}_mm": value for axis, value in zip("xyz", centre, strict=True)}
    for name, measure in {**named, **one.measures}.items():
        words = name.replace("_", " ")
        level = measure.verdict.level
        gates.append(sr.QualitativeEvaluation(_own(highdicom, f"gate: {words}"), _own(highdicom, level)))
        if level == NOT:
            continue
        unit = concept(highdicom, _UNITS[measure.unit])
        for part, value in (("", measure.value), (", low 90%", measure.low), (", high 90%", measure.high)):
            measurements.append(sr.Measurement(_own(highdicom, words + part), round(value, 4), unit))
    return sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=sr.TrackingIdentifier(uid=highdicom.UID(), identifier=f"{one.side} femur"),
        finding_type=concept(highdicom, FEMUR),
        finding_sites=[sr.FindingSite(concept(highdicom, FEMUR), laterality=concept(highdicom, side))],
        measurements=measurements,
        qualitative_evaluations=gates,
    )


def _own(highdicom: Any, meaning: str) -> Any:
    """A concept of our own; its value is made from its meaning, so that it is the same in every report."""
    value = hashlib.sha256(meaning.encode()).hexdigest()[:12].upper()
    return highdicom.sr.CodedConcept(value, _SCHEME, meaning)
