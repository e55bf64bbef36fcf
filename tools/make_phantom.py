"""Writes a dataset of synthetic hip scans with exact femur labels, in nnU-Net's layout.

    python tools/make_phantom.py -o data/phantom --cases 20 --seed 0

For demonstrations and tests: numbers measured on it say that the code works, not how good a model is on patients.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from absl import flags
from tqdm import tqdm

from femur3d import cli
from femur3d.errors import UsageError
from femur3d.io.images import write_volume
from femur3d.phantom.hip import SIDES, make_phantom
from femur3d.phantom.tissue import T1, random_contrast

OUTPUT = flags.DEFINE_string("output", None, "Folder of the dataset; created, must be empty or absent.", short_name="o")
CASES = flags.DEFINE_integer("cases", 20, "Number of synthetic patients.")
VAL_CASES = flags.DEFINE_integer("val_cases", None, "How many of them are for validation; by default a fifth.")
SEED = flags.DEFINE_integer("seed", 0, "Seed of the first patient; the next ones count on from it.")
SIZE = flags.DEFINE_list("size", ["300", "200", "100"], "Voxels along x,y,z. The field of view stays the same.")
SIDE = flags.DEFINE_enum("side", "random", ["random", *SIDES], "Which hip; random: left or right, by the seed.")
NOISE = flags.DEFINE_float("noise", 0.03, "Standard deviation of the noise, as a part of the intensity of fat.")
CONTRAST = flags.DEFINE_enum(
    "contrast", "t1", ["t1", "random"], "Grey values: T1-weighted, or of any kind, by the seed."
)
BIAS = flags.DEFINE_float("bias", 0.15, "Standard deviation of the logarithm of the bias field.")

LABELS = {"background": 0, "femur_left": 1, "femur_right": 2}


def parse_size(words: Sequence[str]) -> tuple[int, int, int]:
    """Three numbers of voxels (x, y, z), at least 8 each. Raises UsageError."""
    try:
        x, y, z = (int(word) for word in words)
        if min(x, y, z) < 8:
            raise ValueError
    except ValueError:
        raise UsageError(
            f"--size: received {','.join(words)}.\nExpected three whole numbers of at least 8, as in 96,80,96."
        ) from None
    return x, y, z


def validation_count(cases: int, wanted: int | None) -> int:
    """How many cases validate: `wanted`, or a fifth and at least one. Raises UsageError where none remains to train."""
    if cases < 2:
        raise UsageError(f"--cases: received {cases}.\nExpected at least 2: one to train and one to validate.")
    count = max(1, round(cases / 5)) if wanted is None else wanted
    if not 0 <= count < cases:
        raise UsageError(f"--val_cases: received {count} of {cases} cases.\nExpected 0 to {cases - 1}.")
    return count


def side_of(seed: int, side: str) -> str:
    """The side itself, or for "random" left or right by the seed."""
    return str(np.random.default_rng(seed).choice(["left", "right"])) if side == "random" else side


def describe(names: Sequence[str], val_cases: int) -> dict[str, object]:
    """The contents of the dataset's JSON files by file name; the last `val_cases` names validate."""
    train = len(names) - val_cases
    dataset = {
        "name": "phantom (synthetic)",
        "description": "Synthetic T1-weighted hip MR with exact proximal-femur labels; not patients",
        "channel_names": {"0": "T1 (synthetic)"},
        "labels": LABELS,
        "numTraining": len(names),
        "file_ending": ".nii.gz",
    }
    splits = [{"train": list(names[:train]), "val": list(names[train:])}]
    return {"dataset.json": dataset, "splits_final.json": splits}


def write_case(folder: Path, name: str, seed: int, size: tuple[int, int, int], side: str) -> None:
    """Makes one patient and writes image and label map."""
    contrast = T1 if CONTRAST.value == "t1" else random_contrast(np.random.default_rng(seed))
    image, label = make_phantom(seed, size, side_of(seed, side), noise=NOISE.value, bias=BIAS.value, contrast=contrast)
    write_volume(image, folder / "imagesTr" / f"{name}_0000.nii.gz")
    write_volume(label, folder / "labelsTr" / f"{name}.nii.gz")


def main(argv: Sequence[str]) -> int:
    """Checks the flags, writes the cases and the JSON files."""
    cli.no_arguments(argv)
    size, val_cases = parse_size(SIZE.value), validation_count(CASES.value, VAL_CASES.value)
    if min(SEED.value, NOISE.value, BIAS.value) < 0:
        raise UsageError(
            f"--seed {SEED.value} --noise {NOISE.value} --bias {BIAS.value}: received a negative number.\n"
            "Expected 0 or more for each."
        )
    folder = cli.empty_folder(OUTPUT.value)
    names = [f"phantom_{number:03d}" for number in range(CASES.value)]
    for number, name in enumerate(tqdm(names, desc="phantoms", unit="case")):
        write_case(folder, name, SEED.value + number, size, SIDE.value)
    for file, contents in describe(names, val_cases).items():
        (folder / file).write_text(json.dumps(contents, indent=2) + "\n", encoding="utf-8")
    folder = cli.finish_folder(folder)
    print(f"{len(names)} synthetic cases in {folder}: {len(names) - val_cases} to train, {val_cases} to validate")
    return 0


if __name__ == "__main__":
    cli.run(main)
