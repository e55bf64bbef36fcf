"""Slices of a volume with the contours of label maps: the one place where they are drawn.

`contour_figure` writes a row of slices for `femur3d.evaluate`, `draw_contours` is that figure for TensorBoard, and
`draw_slice` a single slice for the previews of `femur3d.infer`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke

from femur3d.io.atomic import replacing
from femur3d.volume import Volume, anatomical, bounding_box

REFERENCE_COLOUR = "#00d000"
PREDICTION_COLOUR = "#ff2020"
MARGIN_MM = 25.0
CORONAL, AXIAL = 4, 2  # panels
PANEL_INCHES = 4.0  # of the longest side
TITLES = ("axial", "coronal")  # by the array axis (z, y) that the slice fixes

_LETTERS = {  # on the left, on the right, above, below
    "axial": "RLAP",
    "coronal": "RLSI",
    "sagittal": "APSI",
    "surface from the front": "RLSI",
    "surface from behind": "LRSI",
}
RIM = [withStroke(linewidth=2, foreground="black")]  # of letters: they lie on bright fat, too


def contour_figure(
    image: Volume, reference: Volume | None, prediction: Volume | None, path: str | os.PathLike[str]
) -> None:
    """Writes the PNG of `draw_contours` under the file's name.

    Args:
        image, reference, prediction: see `draw_contours`.
        path: the PNG to write or replace.

    Raises:
        ValueError: a label map does not lie on the image's grid.
    """
    figure = draw_contours(image, reference, prediction, Path(path).stem)
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", facecolor="black")


def draw_contours(image: Volume, reference: Volume | None, prediction: Volume | None, title: str) -> Figure:
    """A row of coronal, then axial slices through the femurs, with the contours of all labels and a legend.

    Radiological convention, whatever the order of the array: the patient's right on the picture's left, coronal slices
    with the head up, axial ones with the front up. An oblique grid is shown along its own axes, named by the nearest
    anatomical ones. Slices are spread over the labelled voxels, over the whole volume where there are none.

    Args:
        image: the scan, axes (z, y, x).
        reference: label map (any value but 0 is femur) on the image's grid, or None.
        prediction: the same, or None.
        title: heading.

    Raises:
        ValueError: a label map does not lie on the image's grid.
    """
    for labels in (reference, prediction):
        if labels is not None and (difference := image.geometry_difference(labels)):
            raise ValueError(f"Expected label maps on the image's grid. Received: {difference}")
    grey, spacing_mm = anatomical(image)
    names = (("reference", REFERENCE_COLOUR, reference), ("prediction", PREDICTION_COLOUR, prediction))
    masks = {name: (anatomical(labels)[0] != 0, colour) for name, colour, labels in names if labels is not None}
    shown = np.zeros(grey.shape, bool)
    for mask, _ in masks.values():
        shown |= mask
    box = femur_region(shown, spacing_mm)
    outlines = [(mask[box], colour) for mask, colour in masks.values()]
    figure = _row_of_slices(windowed(grey[box], grey[box]), outlines, shown[box], spacing_mm)
    figure.suptitle(title, color="white", parse_math=False)
    handles = [Line2D([], [], color=colour, label=name) for name, (_, colour) in masks.items()]
    if handles:
        figure.legend(handles=handles, loc="outside lower center", ncols=2, labelcolor="white", facecolor="black")
    return figure


def slice_indices(shown: np.ndarray, axis: int, count: int) -> list[int]:
    """At most `count` different slices of an axis, at equal parts of the labelled voxels; evenly where there are none.

    Four slices of a mask lie at 1/8, 3/8, 5/8 and 7/8 of its voxels, so that none is at the very end of a femur.
    """
    voxels = shown.sum(axis=tuple(other for other in range(3) if other != axis), dtype=np.int64)
    cumulative = np.cumsum(voxels if voxels.any() else np.ones_like(voxels))
    parts = (np.arange(count) + 0.5) / count * cumulative[-1]
    return sorted(set(np.searchsorted(cumulative, parts).tolist()))


def femur_region(shown: np.ndarray, spacing_mm: tuple[float, float, float]) -> tuple[slice, ...]:
    """Slices (z, y, x): the box of the labelled voxels with MARGIN_MM around; everything where there are none."""
    margin = [int(np.ceil(MARGIN_MM / spacing)) for spacing in spacing_mm]
    return bounding_box(shown, margin) or (slice(None),) * 3


def windowed(grey: np.ndarray, part: np.ndarray) -> np.ndarray:
    """Grey values from 0 to 1, black and white at the percentiles 1 and 99.5 of a part of them."""
    low, high = np.percentile(part, (1, 99.5))
    return np.clip((grey - low) / max(high - low, 1e-9), 0, 1)


def draw_slice(
    axes: Axes,
    view: str,
    picture: np.ndarray,
    spacing_mm: tuple[float, float],
    outlines: Sequence[tuple[np.ndarray, Any]] = (),
    linewidth: float = 1.0,
) -> None:
    """A slice with contours and the letters of its sides, in mm; the first voxel's centre is at 0 mm.

    Args:
        axes: to draw in.
        view: 'axial' (shown with the front up), 'coronal', 'sagittal', or a surface 'from the front' or 'from behind'.
        picture: grey, 0 to 1, (rows, columns), or red, green, blue, opacity, (rows, columns, 4), axes as `anatomical`
            turns them.
        spacing_mm: along (rows, columns).
        outlines: masks of the picture's shape, and their colours.
        linewidth: of the contours, in points.
    """
    sizes = [*zip(picture.shape[:2], spacing_mm, strict=True)]
    (bottom, top), (left, right) = ((-0.5 * mm, (n - 0.5) * mm) for n, mm in sizes)
    axes.imshow(
        picture, "gray", vmin=0, vmax=1, origin="lower", extent=(left, right, bottom, top), interpolation="bilinear"
    )
    rows, columns = (np.arange(-1, n + 1) * mm for n, mm in sizes)
    for mask, colour in outlines:
        if mask.any():
            around = np.pad(mask, 1).astype(float)
            axes.contour(columns, rows, around, levels=[0.5], colors=[colour], linewidths=linewidth)
    axes.set_xlim(left, right)
    axes.set_ylim(*((top, bottom) if view == "axial" else (bottom, top)))
    axes.set(xticks=(), yticks=())  # Matplotlib would measure labels that nobody sees
    axes.set_axis_off()
    places = (((0, 0.5), (8, 0)), ((1, 0.5), (-8, 0)), ((0.5, 1), (0, -9)), ((0.5, 0), (0, 9)))
    style: dict[str, Any] = {"color": "yellow", "ha": "center", "va": "center", "path_effects": RIM}
    for letter, (place, points) in zip(_LETTERS[view], places, strict=True):
        axes.annotate(letter, place, points, "axes fraction", "offset points", **style)


def _row_of_slices(
    grey: np.ndarray,
    outlines: Sequence[tuple[np.ndarray, str]],
    shown: np.ndarray,
    spacing_mm: tuple[float, float, float],
) -> Figure:
    """The panels, of arrays that `anatomical` has turned, on one scale."""
    panels = [(1, index) for index in slice_indices(shown, 1, CORONAL)]
    panels += [(0, index) for index in slice_indices(shown, 0, AXIAL)]
    tall, deep, wide = np.multiply(grey.shape, spacing_mm)
    inches = PANEL_INCHES / max(tall, deep, wide)  # per millimetre: one scale for all panels
    size = (len(panels) * (wide * inches + 0.1), max(tall, deep) * inches + 1.0)
    figure = Figure(figsize=size, dpi=100, layout="constrained")
    grid = figure.subplots(1, len(panels), squeeze=False)[0]
    for axes, (axis, index) in zip(grid, panels, strict=True):
        cut = [(mask.take(index, axis), colour) for mask, colour in outlines]
        draw_slice(axes, TITLES[axis], grey.take(index, axis), (spacing_mm[1 - axis], spacing_mm[2]), cut)
        axes.set_title(TITLES[axis], color="white", fontsize=9, y=1.0)
    return figure
