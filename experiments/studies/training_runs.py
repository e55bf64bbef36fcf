"""What tools that drive whole trainings share: whether one is finished, and a command that can be interrupted."""

from __future__ import annotations

import json
import shlex
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from femur3d import cli
from femur3d.config import Experiment
from femur3d.errors import EXIT_SOME_FAILED, InputError
from femur3d.io.settings import from_dict

with cli.quiet_imports():
    from femur3d.training.run_directory import NOTES


def read_run(folder: Path) -> tuple[Experiment, dict[str, Any]]:
    """The experiment of a run, and the notes beside it in config.json; runs of earlier versions are read too.

    Raises:
        InputError, OSError, ValueError, AttributeError: there is no run in the folder, or its file is damaged.
    """
    stored = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    notes = {name: value for name, value in stored.items() if name in NOTES}
    values = {name: value for name, value in stored.items() if name not in NOTES}
    return from_dict(Experiment, values, str(folder)), notes


def is_trained(folder: Path, experiment: Experiment) -> bool:
    """Whether the run in a folder has made all its updates, with just this experiment."""
    try:
        stored, _ = read_run(folder)
        model = json.loads((folder / "model" / "config.json").read_text(encoding="utf-8"))
        step = model["provenance"]["step"]
    except (InputError, OSError, ValueError, KeyError, TypeError, AttributeError):
        return False
    return stored == experiment and step == experiment.training.steps


def call(command: Sequence[str]) -> None:
    """Runs a command to its end; SIGINT and SIGTERM are handed on to it, so that it can save its work.

    That femur3d.infer found no femur in some scan is a result: they count as not found in the evaluation.

    Raises:
        SystemExit: with the command's exit code where it has failed, or 130 where a signal came in its last moment.
    """
    print("$", shlex.join(["python", *command[1:]]), flush=True)
    child = subprocess.Popen(command, process_group=0)  # a group of its own: Ctrl-C reaches it through us, once
    received: list[int] = []

    def hand_on(number: int, _: object) -> None:
        received.append(number)
        child.send_signal(number)

    before = {number: signal.signal(number, hand_on) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        code = child.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if code == EXIT_SOME_FAILED and "femur3d.infer" in command:
        code = 0
    if code or received:
        sys.exit(128 - code if code < 0 else code or cli.EXIT_INTERRUPTED)
