"""The folder for the results; what it holds is told from other scans' results by the digest of a scan's files."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from femur3d.errors import UsageError
from femur3d.export.case_files import Case
from femur3d.export.output_folder import check_tables_replace_nothing, digest, report_files
from femur3d.io.inputs import Scan, open_sources
from tests.support.dicom_series import make_scan, write_series


def test_the_digest_of_a_scan_is_empty_where_it_cannot_be_read(tmp_path: Path) -> None:
    """A pipe would be waited for."""
    os.mkfifo(tmp_path / "pipe.nrrd")
    (tmp_path / "a.nii").write_bytes(b"any bytes")
    found = {name: digest(Scan("a", tmp_path / name, None, "a")) for name in ("pipe.nrrd", "missing.nii", "", "a.nii")}
    assert found.pop("a.nii") == hashlib.sha256(b"any bytes").hexdigest()
    assert set(found.values()) == {""}


def test_the_digest_of_a_series_is_that_of_its_slices(tmp_path: Path) -> None:
    write_series(tmp_path / "scan", make_scan(), names=[f"{z}.dcm" for z in range(6)])
    (tmp_path / "scan" / "notes.txt").write_text("no slice")
    slices = b"".join((tmp_path / "scan" / f"{z}.dcm").read_bytes() for z in range(6))
    with open_sources([tmp_path / "scan"]) as (scan,):
        assert digest(scan) == hashlib.sha256(slices).hexdigest()


@pytest.mark.parametrize(
    ("name", "ours"),
    [
        ("femurs.csv", "case,side,head_centre_x_mm\na,left,1\n"),
        ("report.html", '<script id="report-data">'),
        ("report/index.html", '<script id="report-data">'),
    ],
)
def test_tables_of_all_results_replace_none_that_lies_beside_a_scan(tmp_path: Path, name: str, ours: str) -> None:
    cases = [Case("a", tmp_path / "scans" / "a.mha", None, tmp_path / folder) for folder in ("scans", "out")]
    for case in cases:
        (case.folder / name).parent.mkdir(parents=True)
        check_tables_replace_nothing([case], [name])
        (case.folder / name).write_text("patient,age\nthe user's own")
    check_tables_replace_nothing(cases[1:], [name])  # no scan lies there
    check_tables_replace_nothing(cases[:1], [])
    with pytest.raises(UsageError, match=rf"scans/{name}: lies beside a scan and is no result\.\nExpected another"):
        check_tables_replace_nothing(cases[:1], [name])
    (cases[0].folder / name).write_text(ours)
    check_tables_replace_nothing(cases[:1], [name])


@pytest.mark.parametrize("name", ["0.js", "7.js", "0.webp", "100.webp"])
def test_a_report_of_many_cases_replaces_or_removes_none_of_the_users_numbered_files(tmp_path: Path, name: str) -> None:
    beside, elsewhere = (Case("a", tmp_path / "scans" / "a.mha", None, tmp_path / to) for to in ("scans", "out"))
    for case in (beside, elsewhere):
        (case.folder / "report" / "cases").mkdir(parents=True)
        (case.folder / "report" / "cases" / "notes.js").touch()
        check_tables_replace_nothing([case], report_files(101))
        (case.folder / "report" / "cases" / name).write_text("the user's own")
    check_tables_replace_nothing([elsewhere], report_files(101))  # no scan lies there
    check_tables_replace_nothing([beside], report_files(100))  # no such folder will be written
    with pytest.raises(UsageError, match=rf"scans/report/cases/{name}: lies beside a scan and is no result\.\n"):
        check_tables_replace_nothing([beside], report_files(101))
    (beside.folder / "report" / "cases" / "0.js").write_text("femur3dCase(0, {});\n")  # all are of a report
    check_tables_replace_nothing([beside], report_files(101))


def test_of_many_cases_the_page_may_be_a_file_or_a_folder() -> None:
    assert report_files(100) == ["report.html"]
    assert report_files(101) == ["report.html", "report/index.html"]
