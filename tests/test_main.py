"""The command `femur3d` with its subcommands."""

import subprocess
import sys

import pytest

import femur3d
from femur3d.__main__ import COMMANDS


def femur3d_command(*words):
    return subprocess.run([sys.executable, "-m", "femur3d", *words], capture_output=True, encoding="utf-8", check=False)


def test_version_and_help_need_no_engine():
    assert femur3d_command("--version").stdout == f"femur3d {femur3d.__version__}\n"
    said = femur3d_command().stdout
    assert all(f"  {name} " in said for name in COMMANDS)


def test_unknown_command_is_two_lines():
    done = femur3d_command("segment")
    assert (done.returncode, done.stderr.count("\n")) == (2, 2)
    assert "'segment'" in done.stderr


@pytest.mark.parametrize("name", ["evaluate", "pack"])
def test_subcommand_is_the_module(name, tmp_path):
    words = {
        "evaluate": ["--predictions", tmp_path / "none", "--references", tmp_path / "none", "-o", tmp_path / "out"],
        "pack": ["--dataset", tmp_path / "none", "-o", tmp_path / "out.h5"],
    }[name]
    done = femur3d_command(name, *map(str, words))
    assert done.returncode == 3, done.stderr
    assert str(tmp_path / "none") in done.stderr
    assert "Traceback" not in done.stderr
