"""Loads an experiment: a short Python file with `get_config()`. It is code that the user chose to run."""

from __future__ import annotations

import importlib.util
import os

from femur3d.config import Experiment
from femur3d.errors import FemurError, UsageError


def load_experiment(path: str | os.PathLike[str]) -> Experiment:
    """The `Experiment` that the file's `get_config()` returns.

    Raises:
        UsageError: no such file, not Python, or without `get_config()`.
    """
    if not os.path.isfile(path):
        raise UsageError(
            f"{path}: no such experiment file.\nExpected e.g. experiments/scratch.py, from the project's root."
        )
    spec = importlib.util.spec_from_file_location("femur3d_experiment", path)
    if spec is None or spec.loader is None:
        raise UsageError(f"{path}: not a Python file.\nExpected e.g. experiments/scratch.py.")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        experiment = module.get_config()
    except FemurError:
        raise
    except Exception as error:  # the file is the user's code and may raise anything
        raise UsageError(f"{path}: {type(error).__name__}: {error}\nExpected a file with get_config().") from error
    if not isinstance(experiment, Experiment):
        raise UsageError(f"{path}: get_config() returned {type(experiment).__name__}.\nExpected an Experiment.")
    return experiment
