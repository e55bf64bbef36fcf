"""The comparison of methods, worked out by hand."""

import math
import pathlib
import re

import pytest

from experiments.studies import compare_methods
from femur3d.errors import InputError, UsageError
from femur3d.evaluation.metrics import FemurMetrics
from femur3d.evaluation.tables import write_csv


def evaluation(folder, **dice):
    """A folder with metrics.csv, one left femur a case; distances are 1 - dice, and infinite where dice is 0."""
    rows = []
    for case, value in dice.items():
        mm = 1 - value if value else math.inf
        rows.append(FemurMetrics(case, "left", mm, mm, mm, mm, value, value, value, value, 100.0, 100.0, mm))
    folder.mkdir()
    write_csv(rows, folder / "metrics.csv")
    return folder


def compared(*folders):
    """Table lines of folders by name."""
    methods = compare_methods.shared({folder.name: compare_methods.load(folder) for folder in folders})
    return compare_methods.format_table(methods)


def test_rows_and_differences_by_hand(tmp_path):
    ours, theirs = evaluation(tmp_path / "ours", a=0.9, b=0.8), evaluation(tmp_path / "theirs", b=0.7, a=0.6)
    head, first, second, *rest = compared(ours, theirs)
    assert head.split()[:5] == ["Mean", "STD", "Hausdorff", "HD95", "DICE"]
    assert first.split() == ["ours", "0.150", "0.150", "0.15", "0.15", *["0.8500"] * 4, "0.8000", "0"]
    assert second.split() == ["theirs", "0.350", "0.350", "0.35", "0.35", *["0.6500"] * 4, "0.6000", "0"]
    assert rest[2] == "  dice     ours - theirs: +0.2000 [+0.1000, +0.3000], p = 0.500"
    assert rest[3].strip() == "a +0.3000, b +0.1000"
    assert rest[4].startswith("  mean_mm  ours - theirs: -0.2000")


def test_only_shared_femurs_count(tmp_path):
    ours, theirs = evaluation(tmp_path / "ours", a=0.9, b=0.1), evaluation(tmp_path / "theirs", a=0.5, c=0.1)
    _, first, second, *_ = compared(ours, theirs)
    assert "0.9000" in first
    assert "0.5000" in second
    assert "0.1000" not in first + second


def test_missed_femur_counts_and_makes_distances_infinite(tmp_path):
    ours, theirs = evaluation(tmp_path / "ours", a=0.9, b=0.9), evaluation(tmp_path / "theirs", a=0.8, b=0)
    _, _, second, *rest = compared(ours, theirs)
    assert second.split()[1] == "inf"
    assert second.split()[5] == "0.4000"
    assert second.split()[-2:] == ["0.0000", "1"]
    assert any("a femur was missed" in line for line in rest)


def test_nothing_shared_is_two_lines(tmp_path):
    ours, theirs = evaluation(tmp_path / "ours", a=0.9), evaluation(tmp_path / "theirs", b=0.8)
    with pytest.raises(InputError, match="ours, theirs") as caught:
        compared(ours, theirs)
    assert str(caught.value).count("\n") == 1


def test_evaluations_of_another_weighting_are_not_compared(tmp_path):
    """What femur3d 0.1 wrote has no vertex_mean_mm: its mean is over vertices."""
    old, older = evaluation(tmp_path / "old", a=0.9), evaluation(tmp_path / "older", a=0.8)
    ours = evaluation(tmp_path / "ours", a=0.9)
    for folder in (old, older):
        lines = (folder / "metrics.csv").read_text().splitlines()
        (folder / "metrics.csv").write_text("\n".join(",".join(line.split(",")[:12]) for line in lines) + "\n")
    with pytest.raises(InputError, match="old over vertices, ours over area") as caught:
        compared(old, ours)
    assert str(caught.value).count("\n") == 1
    assert compared(old, older)[1].split()[:2] == ["old", "0.100"]


def test_femurs_that_are_nowhere_are_not_compared(tmp_path):
    ours, theirs = evaluation(tmp_path / "ours", a=0.9, b=0.7), evaluation(tmp_path / "theirs", a=0.5, b=0.7)
    text = (ours / "metrics.csv").read_text()
    (ours / "metrics.csv").write_text(re.sub(r"(?m)^b,left,.*$", "b,left" + "," * 8 + ",0.0,0.0,,0.0,", text))
    _, first, second, *_ = compared(ours, theirs)
    assert "0.9000" in first
    assert "0.5000" in second


@pytest.mark.parametrize("text", [None, "case,label,dice\na,left,much\n", "case,label,dice\na,left,0.5\n", "x\n1\n"])
def test_other_files_are_two_lines(tmp_path, text):
    if text is not None:
        (tmp_path / "metrics.csv").write_text(text)
    with pytest.raises(InputError, match=r"femur3d\.evaluate") as caught:
        compare_methods.shared({"x": compare_methods.load(tmp_path)})
    assert str(caught.value).count("\n") == 1


@pytest.mark.parametrize("words", [[], ["a=x"], ["a=x", "b"], ["a=x", "a=y"], ["a=x", "=y"], ["a=x", "b="]])
def test_words_that_name_no_two_methods_are_refused(words):
    with pytest.raises(UsageError, match="NAME=EVALUATION"):
        compare_methods.parse(words)


def test_names_and_folders_are_told_apart():
    assert compare_methods.parse(["hip t1=runs/a=b", "x=y"]) == {
        "hip t1": pathlib.Path("runs/a=b"),
        "x": pathlib.Path("y"),
    }
