"""How good is a model on the same patients in other contrasts, slice directions and voxel sizes?

    python -m experiments.studies.contrast_table --dataset hips [--model DIR] [--fold 0] [-o table.txt]

The fold's validation scans are changed in every way of CONTRASTS and GRIDS, segmented (fast mode), taken back to their
own grid and compared with the references there. Nothing of this is the training's code (`data/random_transforms.py`).
The Dice is the mean over the femurs; a femur that is not found counts as 0. A femur is flagged where its scan has a red
flag or no femur.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from absl import flags
from scipy import ndimage
from tqdm import tqdm

from experiments.studies.corruption import top_box
from experiments.studies.table_output import command_line, output_table
from femur3d import cli
from femur3d.data.nnunet_dataset import find_cases, load_case, read_labels, read_split
from femur3d.data.preprocessing import cut
from femur3d.evaluation.overlap import count_overlap, dice
from femur3d.inference.postprocessing import LEFT, RIGHT
from femur3d.io.images import sitk_from_volume, volume_from_sitk
from femur3d.volume import Volume

with cli.quiet_imports():
    from femur3d import segment
    from femur3d.inference.saved_model import SHIPPED

FLAGS = flags.FLAGS
ABOVE_MM = 10.0
BODY = 0.08  # of the 99.5th percentile: what is darker is air
PRESSED = 0.12  # what fat suppression leaves


def gamma(shares: np.ndarray) -> np.ndarray:
    """Dark tissues brighter."""
    return shares**0.45


def inverted(shares: np.ndarray) -> np.ndarray:
    """Dark and bright exchanged within the body; air stays dark."""
    return np.where(ndimage.gaussian_filter(shares, 1) > BODY, 1.02 - shares, 0)


def fat_suppressed(shares: np.ndarray) -> np.ndarray:
    """What is brighter than Otsu's threshold of the body, fat and marrow in T1, pressed down."""
    body = sitk.GetImageFromArray(shares[shares > BODY].reshape(1, 1, -1).astype(np.float32))
    otsu = sitk.OtsuThresholdImageFilter()
    otsu.Execute(body)
    return np.where(shares > otsu.GetThreshold(), PRESSED * shares, shares)


CONTRASTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "as it is": lambda shares: shares,
    "gamma 0.45": gamma,
    "inverted": inverted,
    "fat-suppressed": fat_suppressed,
}
GRIDS: dict[str, tuple[float, float, float] | None] = {  # voxels (right-left, front-back, up-down), mm
    "as acquired": None,
    "axial 3 mm": (1.0, 1.0, 3.0),
    "sagittal 4 mm": (4.0, 1.0, 1.0),
    "1.5 mm cubes": (1.5, 1.5, 1.5),
}


def recontrasted(scan: Volume, contrast: str) -> Volume:
    """The scan in another contrast, int16."""
    shares = np.clip(scan.array / np.float32(np.percentile(scan.array, 99.5)), 0, 1).astype(np.float32)
    return scan.with_array(np.rint(1000 * CONTRASTS[contrast](shares)).astype(np.int16))


def regridded(scan: Volume, grid: str) -> Volume:
    """The scan averaged over and interpolated at other voxels, axes along the patient's; all of it is in view."""
    spacing = GRIDS[grid]
    if spacing is None:
        return scan
    image = sitk.DICOMOrient(sitk_from_volume(scan.with_array(scan.array.astype(np.float32))), "LPS")
    old, new = np.array(image.GetSpacing()), np.array(spacing)
    coarser = new > 1.2 * old
    if coarser.any():
        image = sitk.SmoothingRecursiveGaussian(image, np.where(coarser, 0.4 * new, 0.01 * old).tolist())
    size = np.ceil(np.array(image.GetSize()) * old / new).astype(int).tolist()
    at = (image.GetOrigin(), new.tolist(), image.GetDirection())
    return volume_from_sitk(sitk.Resample(image, size, sitk.Transform(), sitk.sitkLinear, *at, 0.0))


def on_grid_of(labels: Volume, scan: Volume, value: int) -> np.ndarray:
    """Mask of one label on the scan's grid, by linear interpolation."""
    mask = sitk_from_volume(labels.with_array((labels.array == value).astype(np.float32)))
    like = sitk_from_volume(scan)
    return sitk.GetArrayFromImage(sitk.Resample(mask, like, sitk.Transform(), sitk.sitkLinear, 0.0)) > 0.5


def measure(scan: Volume, reference: Volume, model: str | Path, contrast: str, grid: str) -> tuple[list[float], bool]:
    """Dice of each femur of the reference, and whether a red flag was raised or nothing found."""
    result = segment(regridded(recontrasted(scan, contrast), grid), model, fast=True)
    found = {value: on_grid_of(result.labels, scan, value) for value in (LEFT, RIGHT)}
    sides = [value for value in (LEFT, RIGHT) if (reference.array == value).any()]
    return [dice(count_overlap(reference.array == v, found[v])) for v in sides], result.needs_a_look


def without_hips(scan: Volume, reference: Volume) -> Volume:
    """What of a scan lies ABOVE_MM and more above both femurs: lower back and sacroiliac joints."""
    heights = scan.world_mm(np.argwhere(reference.array > 0))[:, 2]
    corners = scan.world_mm(list(itertools.product(*[(0, n - 1) for n in scan.array.shape])))[:, 2]
    return cut(scan, top_box(scan, float(corners.max() - heights.max()) - ABOVE_MM, keep=True))


def format_table(found: dict[tuple[str, str], tuple[list[float], int]], head: Sequence[str]) -> str:
    """A line for each contrast and grid."""
    lines = [*head, "", f"{'Contrast':<16}{'Grid':<16}{'Femurs':>8}{'Dice':>9}{'Smallest':>10}{'Flagged':>9}"]
    for (contrast, grid), (values, flagged) in found.items():
        mean, least = np.mean(values), min(values)
        lines.append(f"{contrast:<16}{grid:<16}{len(values):>8}{mean:>9.4f}{least:>10.4f}{flagged:>9}")
    return "\n".join(lines) + "\n"


def _define_flags() -> None:
    """Not at import: tests use the functions above."""
    flags.DEFINE_string("dataset", None, "folder in nnU-Net's layout, labels 1 left and 2 right", required=True)
    flags.DEFINE_integer("fold", 0, "whose validation cases are taken", lower_bound=0)
    flags.DEFINE_bool("all", False, "take every case")
    flags.DEFINE_bool("negatives", False, "also the part of each scan above the hips: no femur or a red flag is right")
    flags.DEFINE_multi_enum("contrast", list(CONTRASTS), list(CONTRASTS), "repeatable; by default all")
    flags.DEFINE_multi_enum("grid", list(GRIDS), list(GRIDS), "repeatable; by default all")
    flags.DEFINE_string("model", str(SHIPPED), "folder of a trained model; by default the one that comes with femur3d")
    flags.DEFINE_string("output", None, "write the table to this file too", short_name="o")


def main(argv: Sequence[str]) -> int:
    """Measures case after case, and prints the table."""
    cli.no_arguments(argv)
    names = set(read_split(FLAGS.dataset, FLAGS.fold).val)
    cases = [case for case in find_cases(FLAGS.dataset) if FLAGS.all or case.name in names]
    ways = list(itertools.product(FLAGS.contrast, FLAGS.grid))
    found: dict[tuple[str, str], tuple[list[float], int]] = {}
    for case, way in tqdm(list(itertools.product(cases, ways)), unit="segmentation", disable=None):
        values, flagged = measure(*load_case(case, read_labels(FLAGS.dataset)), FLAGS.model, *way)
        before, count = found.get(way, ([], 0))
        found[way] = (before + values, count + flagged * len(values))
    table = format_table(found, [command_line(__file__)])
    if FLAGS.negatives:
        parts = [without_hips(*load_case(case, read_labels(FLAGS.dataset))) for case in cases]
        told = {
            c: [segment(recontrasted(p, c), FLAGS.model, fast=True).needs_a_look for p in parts] for c in FLAGS.contrast
        }
        lines = [f"{c:<32}{len(seen):>8}{sum(seen):>9}" for c, seen in told.items()]
        table += "\n".join(["", f"{'Cut above the hips':<32}{'Scans':>8}{'Flagged':>9}", *lines, ""])
    output_table(table, FLAGS.output)
    return 0


if __name__ == "__main__":
    _define_flags()
    cli.run(main)
