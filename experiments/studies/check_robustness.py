"""Does a model give the same femurs when a scan is stored in another way, cropped, or has other intensities?

    python -m experiments.studies.check_robustness -i SCAN [SCAN ...] [--model DIR] [-o table.txt]

Each scan is written to a temporary NIfTI file in every way of the tables below, segmented from there, and compared
with the segmentation of the scan as it is: Dice of each femur, on the voxels that both have. Needs no labels: it
measures whether results agree, not whether they are right.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from absl import flags
from tqdm import tqdm

from experiments.studies.table_output import command_line, define_scan_flags, output_table
from femur3d import cli
from femur3d.data.preprocessing import cut, orient
from femur3d.evaluation.overlap import count_overlap, dice
from femur3d.inference.postprocessing import LEFT, RIGHT
from femur3d.io.images import read_volume, write_volume
from femur3d.volume import Volume, bounding_box

with cli.quiet_imports():
    from femur3d import segment

FLAGS = flags.FLAGS
SIDES = {LEFT: "left", RIGHT: "right"}
CROP_MARGIN_MM = 40.0

# Codes of the index axes (i, j, k), as in DICOM.
STORED = {"stored axial": "LPS", "stored coronal": "LIP", "stored sagittal": "PIR", "stored upside down": "RAI"}
INTENSITIES = {"intensities × 3.7 + 250": (3.7, 250.0), "intensities × 0.01 - 5": (0.01, -5.0)}


def crops(scan: Volume, labels: Volume) -> Iterator[tuple[str, int, tuple[slice, ...]]]:
    """The scan cut to one hip in two ways, as name, label and box: half the scan, and tightly around the femur."""
    masks = {side: labels.array == side for side in SIDES if (labels.array == side).any()}
    for side, mask in masks.items():
        margin = [int(np.ceil(CROP_MARGIN_MM / mm)) for mm in scan.spacing_mm[::-1]]
        tight = bounding_box(mask, margin)
        assert tight is not None
        yield f"{CROP_MARGIN_MM:.0f} mm around one femur", side, tight
        if len(masks) == 2:
            yield "cut to one hip", side, _half(masks[side], masks[LEFT + RIGHT - side])


def _half(own: np.ndarray, other: np.ndarray) -> tuple[slice, ...]:
    """The box of the array's part nearer to one mask than to the other, cut along the axis that separates them best."""
    a, b = (np.argwhere(mask) for mask in (own, other))
    axis = int(np.argmax(np.abs(a.mean(axis=0) - b.mean(axis=0)) / own.shape))
    middle = round((a[:, axis].mean() + b[:, axis].mean()) / 2)
    low = a[:, axis].mean() < middle
    box = [slice(0, n) for n in own.shape]
    box[axis] = slice(0, middle) if low else slice(middle, own.shape[axis])
    return tuple(box)


def measure(path: Path, model: Path, folder: Path, step: Callable[[], object]) -> dict[str, list[float]]:
    """Dice of each femur of a scan with itself after each change.

    Args:
        path: of the scan.
        model: folder of a trained model.
        folder: for temporary files.
        step: called after each segmentation.
    """
    scan = read_volume(path)

    def result(volume: Volume) -> Volume:
        write_volume(volume, folder / "scan.nii.gz")
        labels = segment(folder / "scan.nii.gz", model).labels
        step()
        return labels

    original = result(scan)
    pairs = {}
    for name, code in STORED.items():
        changed = result(orient(scan, code))
        pairs[name] = [(orient(original, code), changed, side) for side in SIDES]
    for name, (scale, shift) in INTENSITIES.items():
        changed = result(scan.with_array(scan.array.astype(np.float32) * np.float32(scale) + np.float32(shift)))
        pairs[name] = [(original, changed, side) for side in SIDES]
    for name, side, box in crops(scan, original):
        pairs.setdefault(name, []).append((cut(original, box), result(cut(scan, box)), side))
    return {name: [dice(count_overlap(a.array, b.array, side)) for a, b, side in both] for name, both in pairs.items()}


def format_table(found: dict[str, list[float]], head: Sequence[str]) -> str:
    """A line a change: mean and smallest Dice over the femurs."""
    lines = [*head, "", f"{'Change':<28}{'Femurs':>8}{'Mean Dice':>12}{'Smallest':>12}"]
    for name, values in found.items():
        lines.append(f"{name:<28}{len(values):>8}{np.mean(values):>12.4f}{min(values):>12.4f}")
    return "\n".join(lines) + "\n"


def main(argv: Sequence[str]) -> int:
    """Measures scan after scan, and prints the table."""
    paths, found = [Path(p) for p in [*FLAGS.input, *argv[1:]]], dict[str, list[float]]()
    with tempfile.TemporaryDirectory() as folder, tqdm(unit="segmentation", disable=None) as bar:
        for path in paths:
            for name, values in measure(path, Path(FLAGS.model), Path(folder), bar.update).items():
                found.setdefault(name, []).extend(values)
    table = format_table(found, [command_line(__file__)])
    output_table(table, FLAGS.output)
    return 0


if __name__ == "__main__":
    define_scan_flags()
    cli.run(main)
