"""The benchmarks, run as a user runs them, on sizes that say nothing about speed."""

import importlib
import importlib.util
import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest

from benchmarks import inference as bench_inference
from femur3d.config import Network, Preprocessing
from femur3d.inference.saved_model import save_model
from femur3d.network.unet import build_network

TINY_NETWORK = ["--width", "0.0625", "--patch", "16", "--repeats", "1"]
TINY_PIPELINE = ["--size", "40,36,32", "--patch", "16", "--width", "0.0625", "--seconds", "0.1", "--steps", "2"]


def bench(tool: str, *flags: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", tool, *flags], capture_output=True, encoding="utf-8", check=False)


def timings(output: str) -> dict[tuple[str, str], list[float]]:
    """The numbers of benchmarks.network's table by task and library."""
    found = re.findall(r"^(training step|forward pass) +(\S.*?)  +([\d., ]+)$", output, re.MULTILINE)
    return {(task, name): [float(n.replace(",", "")) for n in numbers.split()] for task, name, numbers in found}


@pytest.mark.slow
def test_network_alone_has_a_row_for_each_task() -> None:
    done = bench("benchmarks.network", *TINY_NETWORK, "--peer", "none")
    assert done.returncode == 0, done.stderr
    table = timings(done.stdout)
    assert set(table) == {("training step", "femur3d"), ("forward pass", "femur3d")}
    for parameters, median, best in table.values():
        assert parameters == 88_218  # of filters (4, 8, 16, 32) and (16, 8, 4)
        assert median == best > 0  # one timing is its own median


@pytest.mark.slow
def test_peer_has_the_same_parameters_and_logits_and_the_ratio_is_that_of_the_rows() -> None:
    if importlib.util.find_spec("torch") is None:
        pytest.skip("PyTorch is not installed: pip install '.[bench]'")
    done = bench("benchmarks.network", *TINY_NETWORK, "--peer", "torch")
    assert done.returncode == 0, done.stderr
    table = timings(done.stdout)
    for task in ("training step", "forward pass"):
        rows = [table[task, name] for name in ("femur3d", "PyTorch, channels first", "PyTorch, channels last")]
        assert [row[0] for row in rows] == [88_218] * 3
        for row, name in zip(rows[1:], ("channels first", "channels last"), strict=True):
            printed = table[task, f"femur3d / PyTorch, {name}"][0]
            assert printed == pytest.approx(rows[0][1] / row[1], rel=0.3, abs=0.01)  # rounded
    difference = re.search(r"logits of both differ by (\S+) of the largest", done.stdout)
    assert difference is not None
    assert float(difference[1]) < 1e-3


@pytest.mark.slow
def test_pipeline_answers_its_three_questions() -> None:
    done = bench("benchmarks.pipeline", *TINY_PIPELINE)
    assert done.returncode == 0, done.stderr
    assert "synthetic, 8 volumes of 40×36×32 voxels" in done.stdout
    rate = re.search(r"^sampler, .*: (\d+) patches/s of 16×16×16", done.stdout, re.MULTILINE)
    assert rate is not None
    layouts = re.findall(r"^(contiguous|chunks \S+(?:, \w+)?) +(\d+\.\d+) +\d+\.\d+$", done.stdout, re.MULTILINE)
    expected = ["contiguous", "chunks 64³", "chunks 32³", "chunks 32³, lzf", "chunks 32³, gzip"]
    assert [name for name, _ in layouts] == expected
    share = re.search(r"^waiting for patches: (\d+\.\d+)% of 2 training steps of \d+\.\d+ s", done.stdout, re.MULTILINE)
    assert share is not None


def test_volumes_are_cut_or_filled_with_mirror_images() -> None:
    array = np.arange(6).reshape(1, 2, 3)
    np.testing.assert_array_equal(bench_inference.mirrored(array, (1, 1, 5)), [[[0, 1, 2, 2, 1]]])
    np.testing.assert_array_equal(bench_inference.mirrored(array, (2, 3, 1)), [[[0], [3], [3]], [[0], [3], [3]]])


@pytest.mark.slow
def test_inference_takes_a_trained_model_at_another_width(tmp_path: pathlib.Path) -> None:
    config = Network((2, 4, 8, 8), (8, 4, 2), initialisation="he")
    preprocessing = Preprocessing(spacing_mm=(8.0, 8.0, 8.0), patch_size=(16, 16, 16))
    save_model(tmp_path / "model", build_network(config), config, preprocessing, {})
    flags = ["--width", "0.0625", "--size", "30,24,20", "--peer", "none", "--model", str(tmp_path / "model")]
    done = bench("benchmarks.inference", *flags)
    assert done.returncode == 0, done.stderr
    assert "filters (4, 8, 16, 32) and (16, 8, 4), the weights of" in done.stdout
    assert "(16, 16, 16) (z, y, x)" in done.stdout
    rows = re.findall(r"^femur3d, (exact|fast)\b.* (\d+\.\d) s", done.stdout, re.MULTILINE)
    assert [name for name, _ in rows] == ["exact", "fast"]
    differing = re.search(r"against exact: (\d+\.\d+)% of voxels differ, Dice (\S+)", done.stdout)
    assert differing is not None
    assert float(differing[1]) < 5  # of an untrained network in bfloat16


@pytest.mark.parametrize(
    ("tool", "flags", "hint"),
    [
        ("benchmarks.network", ["--patch", "20"], "patch_size"),
        ("benchmarks.network", ["--batch", "0"], "batch_size"),
        ("benchmarks.network", ["--peer", "jax"], "peer"),
        ("benchmarks.network", ["stray"], "stray"),
        ("benchmarks.inference", ["--size", "40,36"], "--size"),
        ("benchmarks.inference", ["--model", "nowhere"], "nowhere"),
        ("benchmarks.inference", ["--scan", "nowhere.nii.gz"], "nowhere.nii.gz"),
        ("benchmarks.inference", ["--width", "0.125", "--peer", "none"], "wider"),
        ("benchmarks.pipeline", ["--size", "40,36"], "--size"),
        ("benchmarks.pipeline", ["--size", "40,36,32"], "at least 64"),
    ],
)
def test_wrong_flags_are_two_lines_and_exit_code_2(tool: str, flags: list[str], hint: str) -> None:
    done = bench(tool, *flags)
    assert done.returncode == 2
    assert hint in done.stderr
    assert "Traceback" not in done.stderr


def test_a_file_that_is_not_packed_is_an_input_error(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "scan.h5"
    path.write_text("not HDF5")
    done = bench("benchmarks.pipeline", "--packed", str(path))
    assert done.returncode == 3
    assert "scan.h5" in done.stderr
    assert "Traceback" not in done.stderr
