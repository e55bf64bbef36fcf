"""A packed dataset small enough to travel to a machine that nothing else reaches, and the packed dataset again there.

    python -m experiments.accelerator.compact --packed hips.h5 -o compact.h5      # here: 1,130 MB become 50
    python -m experiments.accelerator.compact --expand compact.h5 -o hips.h5      # there

Only volumes without variants travel, in 256 levels of grey between each volume's lowest and highest value (what that
loses is printed: half a level), as second differences along y: between the slices of a coronal scan the volume is
interpolated, so they compress best. The eight variants are made on arrival. The two files do not hold the same voxels,
so a run that was begun on one does not go on with the other.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import h5py
import numpy as np
from absl import flags
from tqdm import tqdm

from femur3d import cli
from femur3d.config import Training
from femur3d.data.augmentation import variant
from femur3d.data.packed_dataset import Entry, PackedDataset, create_packed_file
from femur3d.errors import UsageError
from femur3d.io.atomic import replacing
from femur3d.io.formats.hdf5 import open_hdf5
from femur3d.volume import Volume

FLAGS = flags.FLAGS
LEVELS = 255


def quantise(image: np.ndarray) -> tuple[np.ndarray, float, float]:
    """An image in 256 levels, uint8 of the same shape; the value of level 0; a level's height."""
    lowest, highest = float(image.min()), float(image.max())
    step = (highest - lowest) / LEVELS or 1.0
    return np.round((image - lowest) / step).astype(np.uint8), lowest, step


def _differences(levels: np.ndarray) -> np.ndarray:
    return np.diff(np.diff(levels, axis=1, prepend=0), axis=1, prepend=0)


def compact(packed: PackedDataset, output: str) -> float:
    """Writes the compact file. Returns the largest change of a voxel, in standard deviations of its volume."""
    lost = 0.0
    with replacing(output) as temporary, h5py.File(temporary, "w") as file:
        file.attrs.update(dataset=packed.dataset, preprocessing=json.dumps(packed.preprocessing), fold=packed.fold)
        for number, entry in enumerate(packed.entries):
            if entry.variant != 0:
                continue
            image, label = packed.read_volume(number)
            levels, lowest, step = quantise(image.array)
            lost = max(lost, float(np.abs(levels * step + lowest - image.array).max()))
            group = file.create_group(f"{number:05d}")
            geometry = {name: getattr(image, name) for name in ("spacing_mm", "origin_mm", "direction")}
            group.attrs.update(case=entry.case, label_value=entry.label_value, split=entry.split, source=entry.source)
            group.attrs.update(lowest=lowest, step=step, **geometry)
            group.create_dataset("image", data=_differences(levels), compression="gzip")
            group.create_dataset("label", data=label.array, compression="gzip")
    return lost


def expand(path: str, output: str, variants: Sequence[int]) -> int:
    """Writes the packed dataset of a compact file, training volumes in all `variants`; returns how many volumes."""
    count = 0
    with open_hdf5(path) as file, replacing(output) as temporary:
        attrs = file.attrs
        preprocessing = json.loads(attrs["preprocessing"])
        with create_packed_file(temporary, attrs["dataset"], preprocessing, fold=int(attrs["fold"])) as writer:
            for group in tqdm(file.values(), disable=None):
                levels = group["image"][...].cumsum(1, np.uint8).cumsum(1, np.uint8)  # modulo 256, as the differences
                image = levels * np.float32(group.attrs["step"]) + np.float32(group.attrs["lowest"])
                label = group["label"][...]
                geometry = {n: tuple(group.attrs[n].tolist()) for n in ("spacing_mm", "origin_mm", "direction")}
                grid, split = Volume(image, **geometry), str(group.attrs["split"])
                for v in variants if split == "train" else (0,):
                    source = str(group.attrs["source"])
                    entry = Entry(str(group.attrs["case"]), int(group.attrs["label_value"]), v, split, source)
                    writer.add(entry, variant(image, v), variant(label, v), grid)
                    count += 1
    return count


def main(argv: Sequence[str]) -> int:
    """One of the two ways."""
    cli.no_arguments(argv)
    if (FLAGS.packed is None) == (FLAGS.expand is None):
        raise UsageError("Give --packed FILE to make a compact file, or --expand FILE to make a packed one.\nNot both.")
    if FLAGS.packed:
        with PackedDataset(FLAGS.packed) as packed:
            lost = compact(packed, FLAGS.output)
        print(f"{FLAGS.output}: a voxel changed by {lost:.4f} standard deviations at most")
    else:
        print(f"{FLAGS.output}: {expand(FLAGS.expand, FLAGS.output, Training().variants)} volumes")
    return 0


if __name__ == "__main__":
    flags.DEFINE_string("packed", None, "Packed dataset (femur3d.pack) to make small.")
    flags.DEFINE_string("expand", None, "Compact file to make a packed dataset of.")
    flags.DEFINE_string("output", None, "File to write.", short_name="o", required=True)
    cli.run(main)
