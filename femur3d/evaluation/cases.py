"""Pairs of predictions and references: which files belong together, and which voxels to which femur.

Labels: 1 is the patient's left femur and 2 the right one, or 1 is any femur. A prediction that knows no sides is
compared with a reference that does after a split: each of its connected components (voxels that share a face) goes,
whole, to the reference femur it overlaps most, or to the nearest one if it overlaps none. So each femur has its row,
and a third object counts as false positive of the femur next to it. A component that joins both femurs counts for one
of them and misses the other.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
from scipy import ndimage
from scipy.spatial import KDTree

from femur3d.config import IGNORED
from femur3d.errors import InputError
from femur3d.evaluation.label_roles import LabelRoles, roles_of_references
from femur3d.io.images import SCAN_EXTENSIONS, case_name, read_volume, scan_extension
from femur3d.io.integrity import listed, read_json
from femur3d.volume import Volume

FIRST, SECOND = 1, 2  # left and right femur; or FIRST alone for any femur


@dataclasses.dataclass(frozen=True)
class Case:
    """The files of one case; None where there is none."""

    name: str
    reference: Path
    prediction: Path | None
    image: Path | None


def find_cases(references: Path, predictions: Path, images: Path | None = None) -> list[Case]:
    """Every reference of a folder with the prediction and image of the same case name (extension and _0000 aside).

    Raises:
        InputError: a folder is missing, holds no scans or two files of one case, or no case has a prediction.
    """
    found = scans_by_case(references), scans_by_case(predictions), scans_by_case(images) if images else {}
    cases = [Case(name, path, found[1].get(name), found[2].get(name)) for name, path in found[0].items()]
    if all(case.prediction is None for case in cases):
        raise InputError(
            f"No prediction has the name of a reference. Received: {predictions} with {listed(list(found[1]))}.\n"
            f"Expected names as in {references}: {listed(list(found[0]))}."
        )
    return cases


def scans_by_case(folder: Path) -> dict[str, Path]:
    """Case name → scan file, sorted by name; hidden files and other extensions are passed over.

    Raises:
        InputError: there is no such folder, it holds no scans, or two of one case.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder.\nExpected a folder of {', '.join(SCAN_EXTENSIONS)} files.")
    scans: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or not scan_extension(path):
            continue
        other = scans.setdefault(case_name(path), path)
        if other != path:
            raise InputError(f"{folder}: two files of one case, {other.name} and {path.name}.\nKeep one of them.")
    if not scans:
        raise InputError(f"{folder}: no scans in this folder.\nExpected {', '.join(SCAN_EXTENSIONS)} files.")
    return scans


def roles_beside(references: Path) -> LabelRoles | None:
    """What the values of the references in a folder mean, by ../dataset.json; None where there is no such file.

    Entries that are no single number (nnU-Net's regions) are passed over.

    Raises:
        InputError: the file is not JSON, or has no "labels" of the form {name: number}.
    """
    path = references.resolve().parent / "dataset.json"
    if not path.is_file():
        return None
    try:
        labels = read_json(path)["labels"]
        found = {str(name): value for name, value in labels.items() if isinstance(value, int) and 0 < value < 256}
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f'{path}: cannot be read as a dataset description ({error!r}).\nExpected {{"labels": {{"femur": 1}}}}.'
        ) from error
    return roles_of_references(found) if found else None


def label_names(roles: LabelRoles | None) -> dict[int, str]:
    """1 and 2 → the name that dataset.json gives this femur; none where several labels make one femur."""
    sides = roles.sides() if roles else {}
    named = zip(sides.values(), roles.names if roles else (), strict=True)
    return {side: name for side, name in named if list(sides.values()).count(side) == 1}


def load_pair(case: Case, roles: LabelRoles | None, is_own: bool) -> tuple[Volume, Volume, InputError | None]:
    """Reference and prediction of a case on one grid; what the reference ignores is background in both.

    Args:
        case: with a reference.
        roles: of `roles_beside`.
        is_own: whether femur3d made the prediction. Another's prediction has the labels of the references' dataset.

    Returns:
        Label maps with 0, 1 and 2; and why a prediction is no use, which is all background then.

    Raises:
        InputError: the reference cannot be used.
    """
    reference = load_labels(case.reference, roles)
    try:
        prediction, problem = load_prediction(case, reference, None if is_own else roles), None
    except InputError as error:
        prediction, problem = empty_labels(reference), error
    return *without_ignored(reference, prediction), problem


def load_prediction(case: Case, reference: Volume, roles: LabelRoles | None = None) -> Volume:
    """The prediction of a case as a uint8 label map on the reference's grid; a missing one is all background.

    Args:
        case: its files.
        reference: with its grid.
        roles: what the prediction's values mean; None: 1 left, 2 right.

    Raises:
        InputError: unreadable, another value than these, or on another grid than the reference.
    """
    if case.prediction is None:
        return empty_labels(reference)
    prediction = load_labels(case.prediction, roles)
    check_geometry(case.prediction, prediction, case.reference, reference)
    return prediction


def empty_labels(reference: Volume) -> Volume:
    """A label map without femur on the reference's grid."""
    return reference.with_array(np.zeros_like(reference.array))


def load_labels(path: Path, roles: LabelRoles | None = None) -> Volume:
    """A label map with 0, 1 for the left femur or any, 2 for the right one, as uint8; IGNORED where nothing counts.

    Args:
        path: of the file.
        roles: what its values mean; None: these, and none is ignored.

    Raises:
        InputError: it cannot be read or holds another value.
    """
    volume = read_volume(path)
    values = np.unique(volume.array)
    known = roles.known() if roles else {0: "background", FIRST: "left femur, or any", SECOND: "right femur"}
    unknown = values[~np.isin(values, list(known))]
    if unknown.size:
        expected = ", ".join(f"{value} {name}" for value, name in sorted(known.items()))
        raise InputError(f"{path}: unknown label values {unknown[:5].tolist()}.\nExpected {expected}.")
    array = volume.array.astype(np.uint8)
    if roles:
        meaning = np.zeros(256, np.uint8)
        for value, side in {**roles.sides(), **({} if roles.ignored is None else {roles.ignored: IGNORED})}.items():
            meaning[value] = side
        array = meaning[array]
    return volume.with_array(array)


def without_ignored(reference: Volume, prediction: Volume) -> tuple[Volume, Volume]:
    """Both with background where the reference says IGNORED, so that these voxels are neither right nor wrong.

    What only the prediction ignores is background in it: it draws no femur there.
    """
    ignored = reference.array == IGNORED
    left_open = ignored | (prediction.array == IGNORED)
    if not left_open.any():
        return reference, prediction
    none = np.uint8(0)
    kept = np.where(ignored, none, reference.array), np.where(left_open, none, prediction.array)
    return reference.with_array(kept[0]), prediction.with_array(kept[1])


def check_geometry(path: Path, volume: Volume, reference_path: Path, reference: Volume) -> None:
    """Raises InputError where a volume does not lie on the grid of the reference."""
    if difference := volume.geometry_difference(reference):
        raise InputError(
            f"{path} and {reference_path} lie on different grids: {difference}.\nResample one to the other."
        )


def split_femurs(reference: Volume, prediction: Volume) -> Volume:
    """Gives each connected component of a prediction the label of its reference femur, see the top of this file.

    With one label in the reference all of the prediction takes it; with none, label 1.
    """
    labels = sorted(femur_labels(reference))
    foreground = prediction.array != 0
    if len(labels) < 2:
        return prediction.with_array(foreground.astype(np.uint8) * np.uint8(labels[0] if labels else FIRST))
    components, count = ndimage.label(foreground)
    values = np.zeros(count + 1, np.uint8)
    trees = {label: KDTree(reference.world_mm(np.argwhere(reference.array == label))) for label in labels}
    for component, box in enumerate(ndimage.find_objects(components), start=1):
        inside = components[box] == component
        overlap = [int(np.count_nonzero(reference.array[box][inside] == label)) for label in labels]
        if any(overlap):
            values[component] = labels[int(np.argmax(overlap))]
        else:
            points = reference.world_mm(np.argwhere(inside) + [axis.start for axis in box])
            values[component] = min(labels, key=lambda label: trees[label].query(points)[0].min())
    return prediction.with_array(values[components])


def femur_labels(volume: Volume) -> set[int]:
    """Which of 1 and 2 a label map holds."""
    return {label for label in (FIRST, SECOND) if (volume.array == label).any()}
