"""Cuts scans of both hips into scans of one hip each, as the paper's are, each on its own grid.

    python -m tools.one_hip --dataset hips -o data/one_hip [--margin_mm 30]

Where a scan is cut comes from its label map, as it does for training volumes (the femur's bounding box and the margin,
and nothing of the other femur), so that results on these scans say what a network does on what it was trained for, and
not what it does on a whole scan. The folds are the dataset's: both hips of a patient are on the same side of each.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from absl import flags

from femur3d import cli
from femur3d.config import Preprocessing
from femur3d.data.nnunet_dataset import count_folds, find_cases, load_case, read_labels, read_split
from femur3d.data.preprocessing import cut, hip_boxes, orient
from femur3d.io.images import write_volume
from femur3d.volume import Volume

FLAGS = flags.FLAGS


def one_hip_scans(
    scan: Volume, label: Volume, femurs: Collection[int], margin_mm: float
) -> Iterator[tuple[int, Volume, Volume]]:
    """Of each femur its label value, the scan around it and its label map without the other femurs, turned to LPS.

    Args:
        scan: any orientation and spacing.
        label: integers on the scan's grid.
        femurs: label values; what is not there is left out.
        margin_mm: around the femur's bounding box.
    """
    scan, label = orient(scan, "LPS"), orient(label, "LPS")
    masks = {value: label.array == value for value in femurs}
    preprocessing = dataclasses.replace(Preprocessing(), spacing_mm=scan.spacing_mm, margin_mm=margin_mm)
    for value, box in hip_boxes(masks, preprocessing).items():
        others = np.isin(label.array, [v for v in femurs if v != value])
        yield value, cut(scan, box), cut(label.with_array(np.where(others, 0, label.array)), box)


def main(argv: Sequence[str]) -> int:
    """Writes the dataset."""
    cli.no_arguments(argv)
    source = Path(FLAGS.dataset)
    labels, folder = read_labels(source), cli.empty_folder(FLAGS.output)
    femurs = {value: name for name, value in labels.items() if name not in ("background", "ignore")}
    hips: dict[str, list[str]] = {}
    for case in find_cases(source):
        for value, scan, label in one_hip_scans(*load_case(case, labels), femurs, FLAGS.margin_mm):
            name = f"{case.name}_{femurs[value]}"
            write_volume(scan, folder / "imagesTr" / f"{name}_0000.nii.gz")
            write_volume(label, folder / "labelsTr" / f"{name}.nii.gz")
            hips.setdefault(case.name, []).append(name)
            print(f"{name}: {' × '.join(map(str, scan.array.shape[::-1]))} voxels", flush=True)
    described = json.loads((source / "dataset.json").read_text(encoding="utf-8-sig"))
    count = sum(map(len, hips.values()))
    _write(folder / "dataset.json", {**described, "numTraining": count, "file_ending": ".nii.gz"})
    if folds := [read_split(source, fold) for fold in range(count_folds(source))]:
        splits = [{"train": _all(hips, fold.train), "val": _all(hips, fold.val)} for fold in folds]
        _write(folder / "splits_final.json", splits)
    cli.finish_folder(folder)
    return 0


def _all(hips: dict[str, list[str]], patients: Iterable[str]) -> list[str]:
    return [name for patient in patients for name in hips[patient]]


def _write(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _define_flags() -> None:
    """Not at import: tests use the functions above."""
    flags.DEFINE_string("dataset", None, "folder in nnU-Net's layout with scans of both hips", required=True)
    flags.DEFINE_string("output", None, "folder of the new dataset", short_name="o", required=True)
    flags.DEFINE_float("margin_mm", Preprocessing().margin_mm, "around each femur's bounding box", lower_bound=0)


if __name__ == "__main__":
    _define_flags()
    cli.run(main)
