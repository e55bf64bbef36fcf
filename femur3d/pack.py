"""Packs a dataset in nnU-Net's layout into one HDF5 file of prepared, augmented volumes.

python -m femur3d.pack --dataset DIR --output FILE.h5 --experiment experiments/scratch.py
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from absl import flags
from tqdm import tqdm

from femur3d import cli
from femur3d.cli import load_experiment
from femur3d.data.nnunet_dataset import find_cases
from femur3d.data.packing import describe_packing, pack_dataset
from femur3d.io.settings import with_settings

FLAGS = flags.FLAGS
flags.DEFINE_string("dataset", None, "folder in nnU-Net's layout", required=True)
flags.DEFINE_string("output", None, "HDF5 file to write", short_name="o", required=True)
flags.DEFINE_string("experiment", "experiments/scratch.py", "experiment whose preprocessing and variants are used")
flags.DEFINE_integer("fold", 0, "which entry of splits_final.json, from 0", lower_bound=0)
flags.DEFINE_list("femur_labels", [], "labels of dataset.json that are femurs; all others count as background")
flags.DEFINE_multi_string("set", [], "section.field=value: change one field of the experiment; repeatable")


def main(argv: Sequence[str]) -> int:
    """Parses, packs, prints."""
    cli.no_arguments(argv)
    experiment = with_settings(load_experiment(FLAGS.experiment), FLAGS.set)
    print(describe_packing(FLAGS.dataset, FLAGS.fold, FLAGS.femur_labels))
    with tqdm(total=len(find_cases(FLAGS.dataset)), unit="case", desc="packing", disable=None) as bar:

        def progress(name: str) -> None:
            bar.set_postfix_str(name)
            bar.update()

        count = pack_dataset(FLAGS.dataset, FLAGS.output, experiment, progress, FLAGS.fold, FLAGS.femur_labels)
    size = os.path.getsize(FLAGS.output) / 1e6
    print(f"{FLAGS.output}: {count} volumes, {size:,.0f} MB")
    return 0


if __name__ == "__main__":
    cli.run(main)
