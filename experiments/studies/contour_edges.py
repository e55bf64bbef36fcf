"""Whose contours follow the image more evenly, the references' or the segmentations'? Tells how good references are.

    python -m experiments.studies.contour_edges --images DIR --references DIR --predictions DIR [-o table.txt]

Marrow is bright in T1-weighted MR and the cortex around it dark. At every point of a femur's contour in a slice, the
steepest fall of intensity across the contour is looked for. Whoever draws always to the same side of the cortex, always
finds it at about the same distance; how much this distance scatters (standard deviation, mm) is what the cortex's
thickness and the hand's unsteadiness make together. Both contours have the same cortex, so where a reference scatters
more than a segmentation by a network that has not seen the patient, the rest, √(reference² - segmentation²), is the
reference's own: no segmentation can foretell it. Slices in which the two disagree about more than the contour are left
out, so that gross mistakes do not count.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from absl import flags
from scipy import ndimage
from tqdm import tqdm

from experiments.studies.table_output import command_line, output_table
from femur3d import cli
from femur3d.errors import InputError
from femur3d.evaluation.cases import Case, check_geometry, find_cases, load_labels, load_prediction
from femur3d.evaluation.overlap import count_overlap, dice
from femur3d.io.images import read_volume

FLAGS = flags.FLAGS
REACH_MM = 4.0  # to both sides of a contour
STEP_MM = 0.1
SMOOTHING = 0.7  # of a slice, pixels: noise has steep falls too
FALL = 0.04  # of the femur's median intensity per millimetre: less is no edge
MIN_PIXELS = 600  # of a femur in a slice
MIN_DICE = 0.88  # of the two in a slice


def edge_distances(image: np.ndarray, mask: np.ndarray, spacing_mm: tuple[float, float]) -> np.ndarray:
    """How far outside the contour the steepest fall of intensity lies, at each point of the contour that has one.

    Args:
        image: a slice (row, column).
        mask: bool, the femur in it.
        spacing_mm: (row, column).

    Returns:
        float (points,), mm; negative inside.
    """
    image = ndimage.gaussian_filter(image.astype(np.float32), SMOOTHING)
    soft = ndimage.gaussian_filter(mask.astype(np.float32), 1.0)
    points = np.argwhere(mask & ~ndimage.binary_erosion(mask))
    slope = np.stack(np.gradient(soft, *spacing_mm), axis=-1)[tuple(points.T)]
    outward = -slope / np.maximum(np.linalg.norm(slope, axis=1, keepdims=True), 1e-6)
    mm = np.arange(-REACH_MM, REACH_MM + STEP_MM / 2, STEP_MM)
    where = points[..., np.newaxis] + outward[..., np.newaxis] * mm / np.reshape(spacing_mm, (2, 1))

    def across(array: np.ndarray) -> np.ndarray:
        return ndimage.map_coordinates(array, where.swapaxes(0, 1), order=1, mode="nearest")

    contour = np.argmin(np.abs(across(soft) - 0.5), axis=1)
    fall = -np.gradient(across(image), STEP_MM, axis=1)
    edge = fall.argmax(axis=1)
    found = (fall.max(axis=1) > FALL * np.median(image[mask])) & (edge > 0) & (edge < len(mm) - 1)
    return (mm[edge] - mm[contour])[found]


def scatter(distances: Sequence[np.ndarray]) -> float:
    """Standard deviation of all distances, mm; NaN where there are none."""
    together = np.concatenate([np.empty(0), *distances])
    return float(together.std()) if together.size else float("nan")


def compare(case: Case) -> tuple[float, float, int]:
    """Scatter of the reference's and of the prediction's contours, and the number of slices of a femur compared."""
    if case.image is None:
        raise InputError(f"{case.name}: no scan of this name.\nExpected it among --images.")
    reference, scan = load_labels(case.reference), read_volume(case.image)
    check_geometry(case.image, scan, case.reference, reference)
    prediction = load_prediction(case, reference)
    axis = int(np.argmax(reference.spacing_mm[::-1]))  # across the slices
    spacing = tuple(np.delete(reference.spacing_mm[::-1], axis))
    drawn, segmented = [], []
    for image, first, second in _slices(axis, scan.array, reference.array, prediction.array):
        drawn.append(edge_distances(image, first, spacing))
        segmented.append(edge_distances(image, second, spacing))
    return scatter(drawn), scatter(segmented), len(drawn)


def _slices(
    axis: int, image: np.ndarray, reference: np.ndarray, prediction: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Slices, with both masks of a femur, in which the masks differ by little more than their contours."""
    volumes = [np.moveaxis(array, axis, 0) for array in (image, reference, prediction)]
    for value in np.unique(reference[reference > 0]):
        for scan, *labels in zip(*volumes, strict=True):
            first, second = (label == value for label in labels)
            if min(first.sum(), second.sum()) >= MIN_PIXELS and dice(count_overlap(first, second)) >= MIN_DICE:
                yield scan, first, second


def format_table(found: dict[str, tuple[float, float, int]], head: Sequence[str]) -> str:
    """A line a case and their mean: scatter of both, what is the reference's own, slices.

    Raises:
        InputError: there is no slice in any case.
    """
    if not any(slices for _, _, slices in found.values()):
        raise InputError("No slice in which reference and prediction agree.\nExpected label maps of --labels sides.")
    lines = [*head, "", f"{'Case':<12}{'Slices':>8}{'Reference':>12}{'Segmentation':>14}   mm"]
    for name, (drawn, segmented, slices) in found.items():
        lines.append(f"{name:<12}{slices:>8}{drawn:>12.2f}{segmented:>14.2f}")
    drawn, segmented = np.nanmean([row[:2] for row in found.values()], axis=0)
    lines.append(f"{'Mean':<12}{sum(row[2] for row in found.values()):>8}{drawn:>12.2f}{segmented:>14.2f}")
    own = np.sqrt(max(drawn**2 - segmented**2, 0))
    lines.append(f"Scatter of the references' own: {own:.2f} mm")
    return "\n".join(lines) + "\n"


def _define_flags() -> None:
    """Not at import: tests use the functions above."""
    flags.DEFINE_string("images", None, "folder of scans", required=True)
    flags.DEFINE_string("references", None, "folder of label maps drawn by hand", required=True)
    flags.DEFINE_string("predictions", None, "folder of segmentations, labels sides", required=True)
    flags.DEFINE_string("output", None, "write the table to this file too", short_name="o")


def main(argv: Sequence[str]) -> int:
    """Compares case after case, and prints the table."""
    cases = find_cases(Path(FLAGS.references), Path(FLAGS.predictions), Path(FLAGS.images))
    found = {c.name: compare(c) for c in tqdm(cases, unit="case", disable=None) if c.prediction}
    table = format_table(found, [command_line(__file__)])
    output_table(table, FLAGS.output)
    return 0


if __name__ == "__main__":
    _define_flags()
    cli.run(main)
