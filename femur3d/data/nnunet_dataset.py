"""Dataset folders in nnU-Net's layout: cases, label names, splits, and one case read and checked.

imagesTr/CASE_0000.nii.gz    the scans; '_0000' (nnU-Net's channel number) may be left out
labelsTr/CASE.nii.gz         their label maps, on the same grids
dataset.json                 {"labels": {"background": 0, "femur_left": 1, …}, …}
splits_final.json            [{"train": [CASE, …], "val": [CASE, …]}, …], one entry a fold; may be missing
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Callable, Container, Iterable
from pathlib import Path

import numpy as np

from femur3d.errors import InputError
from femur3d.io.channels import numbered
from femur3d.io.images import SCAN_EXTENSIONS, case_name, read_volume, scan_extension
from femur3d.io.integrity import listed, read_json
from femur3d.volume import Volume

GEOMETRY_TOLERANCE = 1e-3  # mm of spacing and origin, and direction cosines
MAX_LABEL = 255  # label maps are uint8 throughout


@dataclasses.dataclass(frozen=True)
class CasePaths:
    """Where one case lies: its name, its scan and its label map."""

    name: str
    image: Path
    label: Path


@dataclasses.dataclass(frozen=True)
class Split:
    """Names of the cases to train on and to validate with; no case is in both."""

    train: list[str]
    val: list[str]


def find_cases(folder: str | os.PathLike[str]) -> list[CasePaths]:
    """The cases of a dataset, sorted by name.

    Raises:
        InputError: a folder is missing or empty, a scan has no label map or a label map no scan, or two files claim
            the name of one case.
    """
    folder = Path(folder)
    labels = _by_name(_scans(folder, "labelsTr"), _stem)
    files = _scans(folder, "imagesTr")
    further = _further_channels(files, labels)
    images = _by_name([f for f in files if f not in further], lambda path: _labelled_name(path, labels))
    _check_pairs(folder, images, labels)
    return [CasePaths(name, images[name], labels[name]) for name in sorted(images)]


def channels_left_out(folder: str | os.PathLike[str]) -> list[str]:
    """Channels that lie in a dataset and are not learnt, all but _0000: their names in dataset.json, or '_0001' …"""
    folder = Path(folder)
    further = _further_channels(_scans(folder, "imagesTr"), _by_name(_scans(folder, "labelsTr"), _stem))
    numbers = sorted({int(numbered(path)[1] or 0) for path in further})
    content = read_json(folder / "dataset.json") if numbers else {}
    known = content.get("channel_names", content.get("modality")) if isinstance(content, dict) else None
    names = known if isinstance(known, dict) else {}
    return [f"_{number:04d}" + (f" ({names[key]})" if (key := str(number)) in names else "") for number in numbers]


def _further_channels(files: Iterable[Path], labels: Container[str]) -> set[Path]:
    """CASE_0001, … where CASE_0000 lies beside it and CASE has a label map, and it has none of its own."""
    numbers = {path: numbered(path) for path in files}
    first = {case for case, number in numbers.values() if number == 0 and case in labels}
    return {path for path, (case, number) in numbers.items() if number and case in first and _stem(path) not in labels}


def fingerprint(folder: str | os.PathLike[str]) -> str:
    """SHA-256 over the names, sizes and times of all files of a dataset: another one where any of them was changed."""
    paths = [path for case in find_cases(folder) for path in (case.image, case.label)]
    paths += [Path(folder) / name for name in ("dataset.json", "splits_final.json")]
    stats = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in paths if path.exists()]
    return hashlib.sha256(repr(stats).encode()).hexdigest()


def read_labels(folder: str | os.PathLike[str]) -> dict[str, int]:
    """The label names and values of dataset.json, e.g. {'background': 0, 'femur_left': 1, 'femur_right': 2}.

    Raises:
        InputError: no dataset.json, or its 'labels' do not name 'background' as 0 and others as different 1…255.
    """
    path = Path(folder) / "dataset.json"
    content = read_json(path)
    labels = content.get("labels") if isinstance(content, dict) else None
    if not isinstance(labels, dict) or not all(_is_label(value) for value in labels.values()):
        raise _bad_labels(path, labels)
    if labels.get("background") != 0 or len(labels) < 2 or len(set(labels.values())) < len(labels):
        raise _bad_labels(path, labels)
    return labels


def count_folds(folder: str | os.PathLike[str]) -> int:
    """How many folds splits_final.json has; 0 without that file."""
    path = Path(folder) / "splits_final.json"
    content = read_json(path) if path.exists() else []
    return len(content) if isinstance(content, list) else 0


def read_split(folder: str | os.PathLike[str], fold: int = 0) -> Split:
    """The cases to train on and to validate with, from splits_final.json; without that file all cases train.

    Args:
        folder: the dataset.
        fold: which entry of the file, from 0.

    Raises:
        InputError: no such fold, not nnU-Net's form, unknown or repeated cases, or no case to train on.
    """
    known = [case.name for case in find_cases(folder)]
    path = Path(folder) / "splits_final.json"
    if not path.exists():
        if fold:
            raise InputError(f"{path}: no such file, so there is no fold {fold}.\nLeave --fold out, or write the file.")
        return Split(train=known, val=[])
    split = _fold(path, read_json(path), fold)
    _check_split(path, split, known)
    return split


def load_case(paths: CasePaths, labels: dict[str, int]) -> tuple[Volume, Volume]:
    """Reads and checks one case.

    Args:
        paths: from `find_cases`.
        labels: from `read_labels`.

    Returns:
        The scan with its stored dtype and the label map as uint8, both (z, y, x), on the same grid.

    Raises:
        InputError: a file is missing or unreadable, the grids differ (by more than 1e-3 mm or 1e-3 of a direction
            cosine), a label value is unknown or no whole number, or the label map is empty.
    """
    image, label = read_volume(paths.image), read_volume(paths.label)
    difference = image.geometry_difference(label, GEOMETRY_TOLERANCE)
    if difference:
        message = f"case {paths.name}: {paths.image} and {paths.label} lie on different grids: {difference}"
        raise InputError(f"{message}.\nA label map needs its scan's grid: draw it on this scan, or resample it.")
    return image, label.with_array(_label_values(paths, label.array, labels))


def _label_values(paths: CasePaths, array: np.ndarray, labels: dict[str, int]) -> np.ndarray:
    """The label map as uint8. InputError where it holds values that `labels` lacks, or background only."""
    found = np.unique(array)
    unknown = found[~np.isin(found, list(labels.values()))]
    if unknown.size:
        values = listed([f"{value:g}" for value in unknown.tolist()], 5)
        known = ", ".join(f"{value} ({name})" for name, value in labels.items())
        message = f"case {paths.name}: {paths.label} holds the unknown label values {values}"
        raise InputError(f"{message}.\ndataset.json knows {known}: correct the label map or dataset.json.")
    if not array.any():
        message = f"case {paths.name}: {paths.label} is empty: all {array.size} voxels are background (0)"
        raise InputError(f"{message}.\nDraw the femur in it, or take the case out of imagesTr and labelsTr.")
    return array.astype(np.uint8)


def _scans(folder: Path, name: str) -> list[Path]:
    """The scan files in a sub-folder, hidden ones left out. InputError where there are none."""
    inside = folder / name
    if not inside.is_dir():
        raise InputError(
            f"{folder}: no folder {name}.\nA dataset has imagesTr/CASE_0000.nii.gz and labelsTr/CASE.nii.gz."
        )
    files = [path for path in sorted(inside.iterdir()) if scan_extension(path) and not path.name.startswith(".")]
    if not files:
        raise InputError(f"{inside}: no scan in it.\nScans end in {', '.join(SCAN_EXTENSIONS)}.")
    return files


def _stem(path: Path) -> str:
    return path.name.removesuffix(scan_extension(path))


def _labelled_name(path: Path, labels: dict[str, Path]) -> str:
    """The case that a scan belongs to: its name without '_0000', unless its full name is that of a label map."""
    return _stem(path) if _stem(path) in labels else case_name(path)


def _by_name(paths: list[Path], name_of: Callable[[Path], str]) -> dict[str, Path]:
    """The files by their names. InputError where two have the same."""
    named: dict[str, Path] = {}
    for path in paths:
        name = name_of(path)
        if name in named:
            message = f"case {name} appears twice: {named[name]} and {path}"
            raise InputError(f"{message}.\nKeep one file for each case.")
        named[name] = path
    return named


def _check_pairs(folder: Path, images: dict[str, Path], labels: dict[str, Path]) -> None:
    """InputError unless every scan has a label map and every label map a scan."""
    for name in sorted(images.keys() - labels.keys()):
        expected = folder / "labelsTr" / f"{name}.nii.gz"
        raise InputError(f"case {name}: {images[name]} has no label map.\nExpected {expected} (or another extension).")
    for name in sorted(labels.keys() - images.keys()):
        expected = folder / "imagesTr" / f"{name}_0000.nii.gz"
        raise InputError(f"case {name}: {labels[name]} has no scan.\nExpected {expected} (or another extension).")


def _is_label(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_LABEL


def _bad_labels(path: Path, labels: object) -> InputError:
    expected = '{"background": 0, "femur": 1, …}'
    message = f"{path}: 'labels' is {_shown(labels)}"
    return InputError(f"{message}.\nExpected names with different whole numbers up to {MAX_LABEL}: {expected}.")


def _fold(path: Path, content: object, fold: int) -> Split:
    """Entry `fold` of a splits file. InputError where there is none or it has not nnU-Net's form."""
    if not isinstance(content, list) or not content:
        raise _bad_split(path, content)
    if not 0 <= fold < len(content):
        raise InputError(f"{path}: no fold {fold}.\nIt has {len(content)}: choose one from 0 to {len(content) - 1}.")
    entry = content[fold]
    if not isinstance(entry, dict) or not all(_is_names(entry.get(part)) for part in ("train", "val")):
        raise _bad_split(path, entry)
    return Split(train=list(entry["train"]), val=list(entry["val"]))


def _is_names(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) for name in value)


def _bad_split(path: Path, received: object) -> InputError:
    expected = '[{"train": ["case_1", …], "val": ["case_2", …]}, …]'
    return InputError(f"{path}: {_shown(received)} where a split should be.\nExpected {expected}.")


def _check_split(path: Path, split: Split, known: list[str]) -> None:
    """InputError unless all cases are known, none appears twice and some train."""
    unknown = sorted({*split.train, *split.val} - set(known))
    if unknown:
        raise InputError(f"{path}: unknown case {', '.join(unknown)}.\nThe dataset has {', '.join(known)}.")
    both = sorted(set(split.train) & set(split.val))
    if both:
        raise InputError(f"{path}: case {', '.join(both)} is in train and in val.\nA case may be in one of them only.")
    repeated = sorted({name for part in (split.train, split.val) for name in part if part.count(name) > 1})
    if repeated:
        raise InputError(f"{path}: case {', '.join(repeated)} is listed twice.\nList every case once.")
    if not split.train:
        raise InputError(f"{path}: no case to train on ('train' is empty).\nName at least one of {', '.join(known)}.")


def _shown(value: object) -> str:
    """A value of a JSON file on one line, shortened."""
    text = "missing" if value is None else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 120 else text[:117] + "…"
