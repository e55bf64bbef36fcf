"""The DICOM report of the femurs' measures, read back by highdicom."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest
from highdicom.sr import srread

from femur3d.errors import InputError
from femur3d.export.dicom.measures import write_dicom_sr
from femur3d.export.segments import LEFT, RIGHT
from femur3d.io.dicom.series import series_folder
from femur3d.morphometry.error_bars import Boundary
from femur3d.morphometry.gate import NOT
from femur3d.morphometry.measure import Morphometry, measure_surface
from tests.support.dicom_series import make_scan, write_scan
from tests.support.femurs import left_femur


@pytest.fixture(scope="module")
def femurs() -> list[Morphometry]:
    """One that thick slices keep from much, and one that they do not."""
    thick = Boundary(np.array([0.9, 5.2, 0.9]), np.eye(3))
    return [measure_surface(left_femur(2.0), "left"), measure_surface(left_femur(2.0), "right", boundary=thick)]


def write(tmp_path: Path, femurs: list[Morphometry]) -> Path:
    write_scan(tmp_path / "scan", make_scan(), seed=1, t0010_0020="P7")
    (series,) = series_folder(tmp_path / "scan").series
    write_dicom_sr(femurs, series.slices, tmp_path / "out" / "a_sr.dcm")
    return tmp_path / "out" / "a_sr.dcm"


def test_every_number_has_its_interval_and_its_gate(tmp_path: Path, femurs: list[Morphometry]) -> None:
    report = srread(write(tmp_path, femurs))
    groups = report.content.get_image_measurement_groups()
    assert len(groups) == 2
    for one, group, side in zip(femurs, groups, (LEFT, RIGHT), strict=True):
        (site,) = group.finding_sites
        assert site.laterality.value == side.value
        numbers = {item.name.meaning: (item.value, item.unit.value) for item in group.get_measurements()}
        gates = {item.name.meaning: item.value.meaning for item in group.get_qualitative_evaluations()}
        expected = {}
        for name, measure in one.measures.items():
            words = name.replace("_", " ")
            assert gates[f"gate: {words}"] == measure.verdict.level
            if measure.verdict.level != NOT:
                triple = {"": measure.value, ", low 90%": measure.low, ", high 90%": measure.high}
                expected |= {words + part: value for part, value in triple.items()}
        assert {name for name in numbers if not name.startswith("head centre")} == set(expected)
        for name, value in expected.items():
            assert numbers[name][0] == pytest.approx(value, abs=1e-4)
        centre = [numbers[f"head centre {axis} mm"][0] for axis in "xyz"]
        np.testing.assert_allclose(centre, one.centre_mm, atol=1e-4)
        assert numbers["head radius mm"][1] == "mm"
    refused, measured = (group.get_measurements() for group in groups[::-1])
    assert len(refused) < len(measured)
    assert not [item for item in refused if item.name.meaning.startswith("alpha max")]


def test_it_refers_to_the_series_and_its_patient(tmp_path: Path, femurs: list[Morphometry]) -> None:
    dataset = pydicom.dcmread(write(tmp_path, femurs[:1]))
    slices = [pydicom.dcmread(path) for path in sorted((tmp_path / "scan").iterdir())]
    assert dataset.PatientID == "P7"
    assert dataset.StudyInstanceUID == slices[0].StudyInstanceUID
    (study,) = dataset.CurrentRequestedProcedureEvidenceSequence
    (series,) = study.ReferencedSeriesSequence
    assert series.SeriesInstanceUID == slices[0].SeriesInstanceUID
    named = {item.ReferencedSOPInstanceUID for item in series.ReferencedSOPSequence}
    assert named == {one.SOPInstanceUID for one in slices}


def test_where_it_cannot_be_written(tmp_path: Path, femurs: list[Morphometry]) -> None:
    (tmp_path / "out").write_text("a file")
    with pytest.raises(InputError, match=r"\n."):
        write(tmp_path, femurs[:1])
