"""CSV files, byte for byte."""

from __future__ import annotations

from pathlib import Path

from femur3d.io.formats.csv_table import write_csv


def test_text_that_spreadsheets_would_compute_is_text_and_all_else_as_it_is(tmp_path: Path) -> None:
    rows = [
        {"case": "hip, 1", "mm": -0.5},
        {"case": "=1+1", "mm": float("inf")},
        {"case": "-a"},
        {"case": "@", "mm": None},
    ]
    write_csv(tmp_path / "a.csv", ["case", "mm"], rows)
    assert (tmp_path / "a.csv").read_bytes() == b"case,mm\n\"hip, 1\",-0.5\n'=1+1,inf\n'-a,\n'@,\n"
