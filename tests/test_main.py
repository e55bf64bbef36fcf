"""The command `femur3d` with its subcommands."""

import io
import subprocess
import sys
from pathlib import Path

import pytest

import femur3d
from femur3d import cli
from femur3d.__main__ import COMMANDS
from femur3d.engines import selection


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


def test_flags_alone_are_infer(tmp_path):
    done = femur3d_command("-i", str(tmp_path / "none"), "-o", str(tmp_path / "out"))
    assert done.returncode == 3, done.stderr
    assert str(tmp_path / "none") in done.stderr


def test_names_that_the_terminal_lacks_end_nothing(monkeypatch):
    """Windows, and output that is redirected there: cp1252 has no Japanese."""
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="cp1252"))
    monkeypatch.setattr(sys, "argv", ["femur3d"])

    def main(argv):
        print("股関節_é.nii.gz", flush=True)
        return 0

    with pytest.raises(SystemExit) as caught:
        cli.run(main)
    assert (caught.value.code, written.getvalue().strip()) == (0, b"\\u80a1\\u95a2\\u7bc0_\xe9.nii.gz")


def test_no_home_and_no_user(monkeypatch):
    """As in a container that runs under some number: Python's Path.home() raises there."""
    pwd = pytest.importorskip("pwd")

    def unknown(uid):
        raise KeyError(uid)

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    for name in ("HOME", "KERAS_HOME", "KERAS_BACKEND"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(RuntimeError):
        Path.home()
    assert "jax" in selection.idle_libraries()
