"""A dataset folder into one packed HDF5 file: checked first, then prepared case by case, then renamed into place."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import filelock
import numpy as np

from femur3d import __version__
from femur3d.config import Experiment, Preprocessing
from femur3d.data.augmentation import variant
from femur3d.data.nnunet_dataset import (
    CasePaths,
    channels_left_out,
    count_folds,
    find_cases,
    fingerprint,
    load_case,
    read_labels,
    read_split,
)
from femur3d.data.packed_dataset import Entry, PackedDataset, PackedWriter, create_packed_file
from femur3d.data.preprocessing import Hip, prepare_case
from femur3d.errors import InputError
from femur3d.evaluation.label_roles import LabelRoles, label_roles
from femur3d.io.atomic import TEMPORARY, replacing, writing_alone
from femur3d.io.settings import to_dict

Progress = Callable[[str], None]


def pack_dataset(
    folder: str | os.PathLike[str],
    output: str | os.PathLike[str],
    experiment: Experiment,
    progress: Progress,
    fold: int = 0,
    femur_labels: Sequence[str] = (),
) -> int:
    """Packs the training volumes with their variants, and the validation volumes as they are.

    Every case is read, checked and prepared before the file appears; a mistake in any leaves nothing behind.

    Args:
        folder: nnU-Net layout, see `nnunet_dataset`.
        output: the HDF5 file to write or replace.
        experiment: preprocessing and variants.
        progress: called with each case's name before it is worked on.
        fold: of the dataset's splits_final.json.
        femur_labels: see `evaluation.label_roles`.

    Returns:
        The number of volumes packed.

    Raises:
        InputError: names the case and what was found.
    """
    labels = read_labels(folder)
    roles = label_roles(labels, femur_labels)
    split = read_split(folder, fold)
    cases = {case.name: case for case in find_cases(folder)}
    jobs = [(cases[name], "train") for name in split.train] + [(cases[name], "val") for name in split.val]
    name, preprocessing = os.path.basename(os.path.realpath(folder)), to_dict(experiment.preprocessing)
    count = 0
    with (
        writing_alone(output),
        replacing(output) as temporary,
        create_packed_file(temporary, name, preprocessing, fingerprint(folder), fold, roles.names) as writer,
    ):
        for case, part in jobs:
            progress(case.name)
            variants = experiment.training.variants if part == "train" else (0,)
            for hip in _hips(case, labels, roles, experiment.preprocessing, variants):
                count += _add_variants(writer, hip, case, part, variants)
    return count


def pack_once(
    folder: str | os.PathLike[str],
    cache: Path,
    experiment: Experiment,
    say: Progress,
    fold: int = 0,
    femur_labels: Sequence[str] = (),
) -> PackedDataset:
    """The packed file of a dataset in a folder that trainings share, open: made where there is none that is sound.

    Its name holds a SHA-256 of all that it is made from: files of the dataset, preprocessing, variants, fold, labels,
    and femur3d's version, as another one may preprocess in another way.

    Args:
        folder, experiment, fold, femur_labels: as of `pack_dataset`.
        cache: where packed files are kept; processes take turns in it.
        say: called with lines for people.

    Raises:
        InputError: as `pack_dataset`; or the cache cannot be written.
    """
    name = os.path.basename(os.path.realpath(folder))
    roles = label_roles(read_labels(folder), femur_labels)
    made_from = [name, fingerprint(folder), to_dict(experiment.preprocessing), experiment.training.variants, fold]
    key = hashlib.sha256(json.dumps([*made_from, roles.names, __version__]).encode()).hexdigest()[:16]
    path = cache / f"{name}_{key}.h5"
    try:
        cache.mkdir(parents=True, exist_ok=True)
        turn = filelock.FileLock(cache / ".lock").acquire()
    except OSError as error:
        raise InputError(f"{cache}: cannot be written ({error.strerror}).\nName another --packed_cache.") from error
    with turn:
        for leftover in (*cache.glob(f"{TEMPORARY}*.h5"), *cache.glob(".*.h5.lock")):
            leftover.unlink(missing_ok=True)
        try:
            if path.exists():
                return PackedDataset(path)
        except InputError as error:  # cut off, say: the dataset is at hand to make it again
            say(str(error).partition("\n")[0])
        say(f"Packing {folder} into {path}")
        pack_dataset(folder, path, experiment, lambda case: say(f"  {case}"), fold, femur_labels)
        return PackedDataset(path)


def describe_packing(folder: str | os.PathLike[str], fold: int = 0, femur_labels: Sequence[str] = ()) -> str:
    """What `pack_dataset` will take, on one line: the fold, its cases, and labels that are not learnt."""
    split, roles = read_split(folder, fold), label_roles(read_labels(folder), femur_labels)
    folds = count_folds(folder)
    where = f"fold {fold} of {folds} (splits_final.json)" if folds else "no splits_final.json"
    words = [f"{where}: {len(split.train)} cases train, {len(split.val)} validate"]
    if further := channels_left_out(folder):
        words.append(f"channel _0000 is learnt, not {', '.join(further)}")
    if roles.left_out:
        words.append(f"labels that count as background: {', '.join(roles.left_out)}")
    if roles.ignored is not None:
        words.append(f"label {roles.ignored} (ignore) counts for nothing")
    return "; ".join(words)


def _hips(
    case: CasePaths, labels: dict[str, int], roles: LabelRoles, preprocessing: Preprocessing, variants: Sequence[int]
) -> list[Hip]:
    """The volumes of a case, all of whose variants hold a patch. Raises InputError."""
    scan, label = load_case(case, labels)
    femurs = label.with_array(np.where(np.isin(label.array, roles.femurs), label.array, 0).astype(np.uint8))
    if not femurs.array.any():
        raise InputError(f"{case.name}: {case.label} holds no femur (label {', '.join(map(str, roles.femurs))}).\n"
                         "Draw the femur in it, or take the case out of imagesTr and labelsTr.")  # fmt: skip
    ignored = label.array == roles.ignored if roles.ignored is not None else np.zeros(1, bool)
    hips = prepare_case(scan, femurs, preprocessing, ignored if ignored.any() else None)
    lost = set(np.unique(femurs.array).tolist()) - {0, *(hip.label_value for hip in hips)}
    if lost:
        raise InputError(
            f"{case.name}: label {min(lost)} has too few voxels to be seen at {preprocessing.spacing_mm} mm.\n"
            "Expected a whole femur, or a finer preprocessing.spacing_mm."
        )
    for hip, number in itertools.product(hips, variants):
        shape = variant(hip.image.array, number).shape
        if any(n < p for n, p in zip(shape, preprocessing.patch_size, strict=True)):
            turned = " when turned by 90°" if number % 2 else ""
            raise InputError(
                f"{case.name}: the volume around label {hip.label_value} has {shape} voxels (z, y, x){turned}, "
                f"less than a patch of {preprocessing.patch_size}.\nExpected a larger preprocessing.margin_mm, a finer "
                "preprocessing.spacing_mm or a scan with more around the femur."
            )
    return hips


def _add_variants(writer: PackedWriter, hip: Hip, case: CasePaths, part: str, variants: Sequence[int]) -> int:
    for number in variants:
        entry = Entry(case.name, hip.label_value, number, part, case.image.name)
        writer.add(entry, variant(hip.image.array, number), variant(hip.label.array, number), hip.image)
    return len(variants)
