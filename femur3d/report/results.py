"""A folder of results of `femur3d.infer`, read again: what is known of each case without segmenting it."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from femur3d.errors import InputError
from femur3d.evaluation.cases import load_labels, roles_beside, scans_by_case
from femur3d.evaluation.label_roles import LabelRoles
from femur3d.export.case_files import LABEL_MAPS
from femur3d.export.case_results import read_summary
from femur3d.inference.postprocessing import LABEL_NAMES, keep_femurs
from femur3d.inference.quality_limits import GREEN, RED, UNKNOWN, YELLOW, Limit, read_limits, suspicion
from femur3d.io.images import read_scan
from femur3d.io.integrity import part
from femur3d.volume import Volume

LEVELS = (GREEN, UNKNOWN, YELLOW, RED)  # from harmless to suspicious
NO_FEMUR = {"name": "no_femur", "value": 0.0, "level": RED, "sentence": "No femur was found."}
_FLAG = ("value", "level", "sentence")
MODELS = Path(__file__).parents[1] / "models"  # those whose limits of the quality measures are at hand


@dataclasses.dataclass(frozen=True)
class Result:
    """One case of a folder of results.

    Attributes:
        name: of the case.
        summary: of CASE.json; {} where there is none, as for label maps of other programs.
        label_map: its file; None where it is missing.
        scan: file or folder that was segmented, None where it is not known.
        reference: label map to compare with, None where there is none.
    """

    name: str
    summary: dict[str, Any]
    label_map: Path | None
    scan: Path | None = None
    reference: Path | None = None

    @property
    def labels(self) -> str:
        """'sides' (1 left, 2 right), 'femur' (1 for both), or '' where CASE.json does not say."""
        wanted = part(self.summary, "options").get("labels")
        return wanted if wanted in list(LABEL_NAMES) else ""

    @property
    def volumes_ml(self) -> dict[str, float]:
        """Volume of each femur as CASE.json has it, by 'left', 'right' or 'femur'; files of femur3d 0.1 had numbers."""
        names = {str(value): name for value, name in LABEL_NAMES[self.labels or "sides"].items()}
        found = part(self.summary, "volumes_ml").items()
        return {names.get(key, key): float(ml) for key, ml in found if isinstance(ml, (int, float))}

    @property
    def flags(self) -> list[dict[str, Any]]:
        """Name, value, level and sentence of each quality measure, the most suspicious first."""
        found = {name: flag for name, flag in part(self.summary, "quality").items() if _is_flag(flag)}
        flags = [{"name": name, **{key: flag[key] for key in _FLAG}} for name, flag in found.items()]
        flags += [NO_FEMUR] * (self.summary.get("volumes_ml") == {})
        return sorted(flags, key=lambda flag: -LEVELS.index(flag["level"]))

    @property
    def level(self) -> str:
        """The worst level of its flags."""
        return max((flag["level"] for flag in self.flags), key=LEVELS.index, default=UNKNOWN)

    @property
    def suspicion(self) -> float:
        """How suspicious the case is, to sort by: above 1 for a red flag, 0 for the usual."""
        values = {flag["name"]: flag["value"] for flag in self.flags if flag["value"] is not None}
        graded = suspicion(values, limits_of(str(part(self.summary, "model").get("weights_sha256"))))
        return 10.0 if NO_FEMUR in self.flags else max(graded, (0.0, 0.0, 0.5, 1.0)[LEVELS.index(self.level)])

    def read_labels(self) -> Volume | None:
        """The label map, uint8, see `evaluation.cases.load_labels`; None where there is no readable one."""
        try:
            return load_labels(self.label_map, None if self.summary else self.roles) if self.label_map else None
        except InputError:
            return None

    def read_reference(self) -> Volume | None:
        """The reference, uint8, IGNORED where nothing counts. Raises InputError where it cannot be read."""
        return load_labels(self.reference, self.roles) if self.reference else None

    @property
    def roles(self) -> LabelRoles | None:
        """What the dataset.json beside the reference's folder says that its values mean."""
        return roles_beside(self.reference.parent) if self.reference else None

    def read_scan(self, grid: Volume) -> Volume | None:
        """The scan that was segmented; None where it is not there any more, was changed, or lies on another grid."""
        if self.scan is None or not self.scan.exists():
            return None
        try:
            found = read_scan(self.scan, series=self.summary.get("series"))
        except InputError:
            return None
        return None if found.volume.geometry_difference(grid) else found.volume


def find_results(folder: Path, images: Path | None = None, references: Path | None = None) -> list[Result]:
    """The cases of a folder, by name: those with a CASE.json, or else every label map that lies there.

    Args:
        folder: of results.
        images: folder of the scans; None for where CASE.json says that they were.
        references: folder of reference label maps, named as the cases.

    Raises:
        InputError: a folder is missing or holds nothing of the kind.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder.\nExpected a folder of results of femur3d.infer.")
    scans = scans_by_case(images) if images else {}
    summaries = {path.stem: read_summary(path) for path in sorted(folder.glob("*.json"))}
    found = [result_of(folder, name, summary, scans.get(name)) for name, summary in summaries.items() if summary]
    if not found:
        found = [Result(name, {}, path, scans.get(name)) for name, path in scans_by_case(folder).items()]
    truths = scans_by_case(references) if references else {}
    if truths and not any(result.name in truths for result in found):
        raise InputError(f"{references}: no reference has the name of a case.\nExpected names as {found[0].name}.")
    return [dataclasses.replace(result, reference=truths.get(result.name)) for result in found]


def result_of(folder: Path, name: str, summary: dict[str, Any], scan: Path | None = None) -> Result:
    """What a summary tells of a case in a folder; the scan is where the summary says, unless it is given."""
    expected = {f"{name}{extension}" for extension in LABEL_MAPS}
    label_map = next((folder / file for file in summary["files"] if file in expected), None)
    source = summary.get("input")
    known = Path(source) if isinstance(source, str) and source else None
    return Result(name, summary, label_map if label_map and label_map.is_file() else None, scan or known)


def femur_masks(label_map: Volume, labels: str) -> dict[str, np.ndarray]:
    """A bool mask (z, y, x) of each femur, by 'left', 'right' or, for one of unknown side, 'femur'.

    Args:
        label_map: integers; 0 is background.
        labels: 'sides'; or 'femur', where two femurs of one label are told apart by their place in the world; '' for
            what the values suggest.
    """
    if labels == "sides" or (not labels and label_map.array.max() > 1):
        masks = {name: label_map.array == value for value, name in LABEL_NAMES["sides"].items()}
        return {name: mask for name, mask in masks.items() if mask.any()}
    mask = label_map.array != 0
    parts = keep_femurs(label_map.with_array(mask))
    if len(parts) != 2:
        return {"femur": mask} if mask.any() else {}
    parts.sort(key=lambda part: -label_map.world_mm(np.argwhere(part).mean(axis=0))[0])  # +x is the patient's left
    return dict(zip(("left", "right"), parts, strict=True))


@functools.cache
def limits_of(weights_sha256: str) -> Mapping[str, Limit]:
    """The limits of the quality measures that belong to a model that comes with femur3d; {} for another one."""
    for folder in sorted(MODELS.iterdir()):
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        if config.get("weights_sha256") == weights_sha256:
            return read_limits(folder)
    return {}


def _is_flag(flag: Any) -> bool:
    known = isinstance(flag, dict) and set(_FLAG) <= flag.keys() and flag["level"] in LEVELS
    return known and isinstance(flag["value"], (int, float, type(None)))
