"""What studies have in common: flags, and tables that begin with their command, printed and written where -o says."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

from absl import flags

from femur3d.io.atomic import replacing


def define_scan_flags() -> None:
    """-i, --model and -o of a study of scans. Not at import: tests use a study's functions."""
    from femur3d.inference.saved_model import SHIPPED  # which imports Keras: after `cli.starting`

    flags.DEFINE_multi_string("input", None, "scan file; more may follow", short_name="i", required=True)
    flags.DEFINE_string("model", str(SHIPPED), "folder of a trained model; by default the one that comes with femur3d")
    flags.DEFINE_string("output", None, "write the table to this file too", short_name="o")


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
