"""The folder that makes femur3d a module of 3D Slicer, called as Slicer calls it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

import femur3d
from femur3d.inference.choice import AUTO, NAMES
from femur3d.io.images import read_volume, write_volume
from tests.support.ellipsoids import scan_and_label

STAND_IN = """#!{python}
import json, os, pathlib, sys
folder = pathlib.Path(sys.argv[sys.argv.index("-o") + 1])
(folder / "scan.nrrd").write_text("femurs")
pathlib.Path({seen!r}).write_text(json.dumps([sys.argv[1:], dict(os.environ)]))
sys.exit(4)
"""


@pytest.fixture
def module(tmp_path: Path) -> Path:
    folder = tmp_path / "module"
    subprocess.run([sys.executable, "-m", "femur3d", "slicer_module", "-o", folder], check=True, capture_output=True)
    return folder


def call(module: Path, *words: str | Path, **environment: str) -> int:
    command = [sys.executable, module / "FemurSegmentation.py", *words]
    return subprocess.run(command, env={**os.environ, **environment}, check=False).returncode


def test_description_is_of_this_femur3d(module: Path) -> None:
    """Parameters with an index are the words behind the flags, in this order."""
    description = ET.parse(module / "FemurSegmentation.xml").getroot()
    assert description.tag == "executable"
    assert description.findtext("version") == femur3d.__version__
    places = {one.findtext("name"): one.findtext("index") for one in description.iterfind(".//image")}
    assert places == {"scan": "0", "femurs": "1"}
    assert {one.findtext("channel") for one in description.iterfind(".//image")} == {"input", "output"}
    assert [one.text for one in description.iterfind(".//longflag")] == ["model", "fast"]
    names = [str(one.text) for one in description.iterfind(".//element")]
    assert names == [AUTO, *NAMES]
    assert description.findtext(".//string-enumeration/default") == AUTO


@pytest.mark.skipif(os.name == "nt", reason="the stand-in is a script with #!")
def test_script_runs_the_python_of_femur3d(module: Path, tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text(STAND_IN.format(python=sys.executable, seen=str(tmp_path / "seen.json")))
    python.chmod(0o755)
    (module / "python.txt").write_text(f"{python}\n")
    words = ("--returnparameterfile", tmp_path / "parameters", "--model", "hip_mr", "--fast")
    code = call(module, *words, tmp_path / "scan.nrrd", tmp_path / "femurs.nrrd", PYTHONNOUSERSITE="1", LD_PRELOAD="")
    assert code == 4
    assert (tmp_path / "femurs.nrrd").read_text() == "femurs"
    received, environment = json.loads((tmp_path / "seen.json").read_text())
    assert received[:4] == ["-m", "femur3d.infer", "-i", str(tmp_path / "scan.nrrd")]
    assert received[6:] == ["--format", "nrrd", "--model", "hip_mr", "--fast"]
    assert not {"PYTHONNOUSERSITE", "LD_PRELOAD"} & set(environment)
    assert not Path(received[5]).exists()


@pytest.mark.slow
def test_script_segments_a_scan(module: Path, tmp_path: Path, threshold_model: Path) -> None:
    scan, label = scan_and_label()
    write_volume(scan, tmp_path / "scan.nrrd")
    (tmp_path / "femurs.nrrd").touch()  # Slicer makes the name, sometimes the file
    assert call(module, "--model", threshold_model, tmp_path / "scan.nrrd", tmp_path / "femurs.nrrd") == 0
    found = read_volume(tmp_path / "femurs.nrrd")
    assert found.array.shape == label.array.shape
    assert set(found.array.ravel().tolist()) == {0, 1, 2}
