"""How studies output their tables: the command that makes the table first, printed, and written where -o says."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

from femur3d.io.atomic import replacing


def command_line(study: str) -> str:
    """The command to repeat in the project's folder, '$ python -m experiments.studies.NAME …'.

    Args:
        study: `__file__` of the study.
    """
    return f"$ {shlex.join(['python', '-m', f'experiments.studies.{Path(study).stem}', *sys.argv[1:]])}"


def output_table(table: str, path: str | None) -> None:
    """Prints a table, and writes it to a file where a path is given."""
    print(table, end="")
    if path:
        with replacing(Path(path)) as temporary:
            temporary.write_text(table, encoding="utf-8")
