"""How studies output what they measured."""

import pathlib
import sys

import pytest

from experiments.studies import table_output as tables


def test_command_is_one_to_repeat(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["/somewhere/else", "--name", "two words"])
    assert tables.command_line("/home/me/femur3d/experiments/studies/compare_modes.py") == (
        "$ python -m experiments.studies.compare_modes --name 'two words'"
    )


def test_table_is_printed_and_written_whole(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    tables.output_table("Dice ≥ 0.9\n", None)
    assert not list(tmp_path.iterdir())
    tables.output_table("Dice ≥ 0.9\n", str(tmp_path / "table.txt"))
    assert capsys.readouterr().out == "Dice ≥ 0.9\n" * 2
    assert [path.name for path in tmp_path.iterdir()] == ["table.txt"]
    assert (tmp_path / "table.txt").read_text(encoding="utf-8") == "Dice ≥ 0.9\n"
