"""The command `femur3d`: `femur3d infer …` is `python -m femur3d.infer …`, and so for the other commands.

Without a command, `femur3d -i …`, it is `infer`.
"""

from __future__ import annotations

import runpy
import sys

import femur3d
from femur3d.errors import EXIT_USAGE

COMMANDS = {
    "infer": "segment the femurs of scans",
    "measure": "measure head, neck, alpha angle and cam of segmented femurs",
    "evaluate": "compare label maps with references",
    "report": "make a page of a folder of results",
    "train": "train a network",
    "slicer_module": "make femur3d a module of 3D Slicer",
    "pack": "prepare a dataset for training",
}
USAGE = "\n".join(
    [
        "femur3d COMMAND [flags]; femur3d COMMAND --help tells of its flags. Without a command it is infer.",
        *(f"  {name:14} {what}" for name, what in COMMANDS.items()),
    ]
)


def main() -> None:
    """Runs the entry point that the first word of the command line names, with the words that follow."""
    word = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if word in ("--version", "-V"):
        print(f"femur3d {femur3d.__version__}")
    elif word in ("--help", "-h", "help"):
        print(USAGE)
    elif word in COMMANDS or word.startswith("-"):
        word = sys.argv.pop(1) if word in COMMANDS else "infer"
        runpy.run_module(f"femur3d.{word}", run_name="__main__", alter_sys=True)
    else:
        print(f"femur3d: no command {word!r}.\nExpected {', '.join(COMMANDS)}, --version or --help.", file=sys.stderr)
        sys.exit(EXIT_USAGE)


if __name__ == "__main__":
    main()
