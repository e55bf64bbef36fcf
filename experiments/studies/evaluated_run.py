"""A training that ended and was evaluated: its femurs, its curve, and what it was made of."""

from __future__ import annotations

import csv
import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from experiments.studies.training_runs import read_run
from femur3d.config import Experiment
from femur3d.errors import InputError

Femurs = dict[tuple[str, str], dict[str, float]]  # (case, label) → metric → value; inf mm where a femur is missed


@dataclasses.dataclass(frozen=True)
class Run:
    """One finished training and its evaluation.

    Attributes:
        arm, seed: which.
        label: the arm's name in tables and plots; says where transferred weights come from.
        femurs: metrics of every femur.
        curve: step → column of the run's metrics.csv → value; empty cells are left out.
        setting: dataset, steps and network in words.
        source: provenance of the encoder's weights; {} from scratch.
    """

    arm: str
    seed: int
    label: str
    femurs: Femurs
    curve: dict[int, dict[str, float]]
    setting: str
    source: dict[str, str]


def load_run(arm: str, seed: int, folder: Path, evaluation: str = "evaluation") -> Run:
    """Reads a run directory and what it has in its folder `evaluation`.

    Raises:
        InputError: a file is missing or damaged.
    """
    try:
        experiment, notes = read_run(folder)
        model = json.loads((folder / "model" / "config.json").read_text(encoding="utf-8"))
        femurs = read_femurs(folder / evaluation / "metrics.csv")
        curve = {int(row.pop("step")): _numbers(row) for row in _rows(folder / "metrics.csv")}
        source = dict(notes["encoder_source"])
        label = f"{arm} ({source['source_kind']})" if source else arm.replace("_", " ")
        setting = _setting(experiment, model["provenance"])
    except (InputError, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{folder}: cannot be read as a finished run ({error!r}).\nRemove it and run again."
        ) from error
    return Run(arm, seed, label, femurs, curve, setting, source)


def _setting(experiment: Experiment, provenance: Mapping[str, Any]) -> str:
    """Dataset, steps and network in words."""
    preprocessing, training, network = experiment.preprocessing, experiment.training, experiment.network
    return (
        f"{provenance['dataset']}: {len(provenance['training_cases'])} cases to train on, {training.steps:,} updates "
        f"of {training.batch_size} patches of {preprocessing.patch_size} voxels of {preprocessing.spacing_mm} mm; "
        f"filters {network.encoder_filters} and {network.decoder_filters}; experiment {experiment.name!r}"
    )


def read_femurs(path: Path) -> Femurs:
    """The metrics.csv that `femur3d.evaluate` writes, without femurs that are neither in reference nor prediction.

    The case is the patient, also where each hip has a scan of its own (`tools.one_hip`): CASE_LABEL counts as CASE.

    Raises:
        OSError, ValueError, KeyError, TypeError: it cannot be read, or is another file.
    """
    rows = [(row.pop("case"), row.pop("label"), _numbers(row)) for row in _rows(path)]
    return {(case.removesuffix(f"_{label}"), label): femur for case, label, femur in rows if "dice" in femur}


def distance_weighting(femurs: Femurs) -> str:
    """What surface distances are averaged over: 'area', or 'vertices' in what femur3d 0.1 measured."""
    return "area" if all("vertex_mean_mm" in femur for femur in femurs.values()) else "vertices"


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _numbers(row: Mapping[str, str]) -> dict[str, float]:
    return {name: float(text) for name, text in row.items() if text}
