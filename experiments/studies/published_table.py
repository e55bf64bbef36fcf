"""How tools publish their tables: headed by the command that made them, printed, and written where -o says."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

from femur3d.io.atomic import replacing


def command_line(tool: str) -> str:
    """What a reader repeats in the project's folder, '$ python -m …NAME …'; `tool` is the program's `__file__`."""
    return f"$ {shlex.join(['python', '-m', f'experiments.studies.{Path(tool).stem}', *sys.argv[1:]])}"


def publish(table: str, output: str | None) -> None:
    """Prints a table and, with an output, writes it to that file too."""
    print(table, end="")
    if output:
        with replacing(Path(output)) as temporary:
            temporary.write_text(table, encoding="utf-8")
