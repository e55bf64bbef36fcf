#!/usr/bin/env python-real
"""3D Slicer's way to femur3d: Slicer calls this with its own Python, and femur3d runs in the Python it is installed in.

Slicer gives the file of the scan and the file for the label map; description.xml says which flags may stand
before them. Needs Python's standard library alone.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path


def main() -> int:
    """Segments one scan; the exit code of `femur3d.infer`, whose messages Slicer shows."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="auto")
    parser.add_argument("--fast", action="store_true")
    for own in ("--returnparameterfile", "--processinformationaddress"):  # Slicer adds these
        parser.add_argument(own)
    parser.add_argument("scan")
    parser.add_argument("femurs")
    known = parser.parse_args()
    python = Path(__file__).with_name("python.txt").read_text(encoding="utf-8").strip()
    foreign = ("PYTHON", "LD_", "DYLD_")  # Slicer's own libraries are not for another Python
    environment = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    target = Path(known.femurs).absolute()
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        command = [python, "-m", "femur3d.infer", "-i", str(Path(known.scan).absolute()), "-o", folder]
        command += ["--format", "nrrd", "--model", known.model, *["--fast"] * known.fast]
        code = subprocess.run(command, env=environment, cwd=folder, check=False).returncode
        for made in Path(folder).glob("*.nrrd"):
            os.replace(made, target)
    return code


if __name__ == "__main__":
    sys.exit(main())
