"""Writes a folder that makes femur3d a module of 3D Slicer.

    python -m femur3d.slicer_module -o DIR

In Slicer, choose Edit > Application Settings > Modules, add DIR to the additional module paths, and start Slicer again:
"Femur Segmentation (femur3d)" is there, under Segmentation. It runs femur3d in the Python that has written the folder;
nothing is installed in Slicer.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from absl import flags

from femur3d import cli
from femur3d.io.atomic import replacing

NAME = "FemurSegmentation"  # Slicer calls the module like its files
FILES = {"script.py": f"{NAME}.py", "description.xml": f"{NAME}.xml"}

FLAGS = flags.FLAGS
flags.DEFINE_string("output", None, "folder for the module", short_name="o", required=True)


def main(argv: Sequence[str]) -> int:
    """Writes the description, the script and the path of this Python."""
    cli.no_arguments(argv)
    here, folder = Path(__file__).parent, Path(FLAGS.output)
    folder.mkdir(parents=True, exist_ok=True)
    texts = {name: (here / own).read_text(encoding="utf-8") for own, name in FILES.items()}
    texts["python.txt"] = f"{sys.executable}\n"
    for name, text in texts.items():
        with replacing(folder / name) as temporary:
            temporary.write_text(text, encoding="utf-8")
    print(f"{folder.absolute()}: add this folder to Slicer's additional module paths, and start Slicer again")
    return 0


if __name__ == "__main__":
    cli.run(main)
