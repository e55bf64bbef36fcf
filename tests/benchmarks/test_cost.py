"""How cost grows: the command from end to end, on sizes that say nothing about speed."""

import csv
import subprocess
import sys

import pytest

from benchmarks import cost


def test_rows_of_the_networks_benchmark_are_read():
    """Ratios are no times."""
    text = (
        "training step  femur3d                                 88,218      0.123      0.100\n"
        "training step  PyTorch, channels last                  88,218      0.456      0.400\n"
        "training step  femur3d / PyTorch, channels last                     0.27       0.25\n"
    )
    expected = [("training step", "femur3d", "0.123"), ("training step", "PyTorch, channels last", "0.456")]
    assert cost._ROW.findall(text) == expected


def test_picture_has_a_panel_an_axis(tmp_path):
    points = [cost.Point("voxels", "infer", n, n, 2.0 * n, 100.0) for n in (1, 2)]
    points += [cost.Point("batch", "training step, femur3d", n, n, 3.0) for n in (1, 2)]
    cost.draw(points, tmp_path / "cost.png")
    assert (tmp_path / "cost.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_command(tmp_path):
    words = [
        "-o",
        tmp_path,
        "--edges",
        "40",
        "--scans",
        "1,2",
        "--widths",
        "0.0625",
        "--patches",
        "16",
        "--batches",
        "1,2",
    ]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.cost", *map(str, words)], capture_output=True, encoding="utf-8", check=False
    )
    assert done.returncode == 0, done.stderr
    with (tmp_path / "cost.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["axis"] for row in rows} == {"voxels", "scans", "width", "patch", "batch"}
    assert all(float(row["seconds"]) > 0 for row in rows)
    assert all(float(row["memory_mib"]) > 100 for row in rows if row["axis"] in ("voxels", "scans"))
