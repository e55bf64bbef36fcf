"""Pictures of a volume with the contours of a reference and a prediction."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from femur3d.io.atomic import replacing
from femur3d.volume import Volume, bounding_box

REFERENCE_COLOUR = "#00d000"
PREDICTION_COLOUR = "#ff2020"
MARGIN_MM = 25.0
CORONAL, AXIAL = 4, 2  # panels
PANEL_INCHES = 4.0  # of the longest side
TITLES = ("axial", "coronal")  # by the array axis (z, y) that the slice fixes
TOPS = ("A", "S")  # what is at the top of such a slice: front, head


def contour_figure(
    image: Volume,
    reference: Volume | None,
    prediction: Volume | None,
    path: str | os.PathLike[str],
    title: str | None = None,
) -> None:
    """Writes a PNG: a row of coronal, then axial slices through the femurs, with the contours of all labels.

    Radiological convention, whatever the order of the array: the patient's right on the picture's left, coronal slices
    with the head up, axial ones with the front up. An oblique grid is shown along its own axes, named by the nearest
    anatomical ones. Slices are spread over the labelled voxels, over the whole volume where there are none.

    Args:
        image: the scan, axes (z, y, x).
        reference: label map (any value but 0 is femur) on the image's grid, or None.
        prediction: the same, or None.
        path: the PNG to write or replace.
        title: heading; None for the file's name.

    Raises:
        ValueError: a label map does not lie on the image's grid.
    """
    for labels in (reference, prediction):
        if labels is not None and (difference := image.geometry_difference(labels)):
            raise ValueError(f"Expected label maps on the image's grid. Received: {difference}")
    grey, spacing_mm = anatomical(image)
    masks = [None if v is None else anatomical(v)[0] != 0 for v in (reference, prediction)]
    shown = np.zeros(grey.shape, bool)
    for mask in masks:
        if mask is not None:
            shown |= mask
    box = femur_region(shown, spacing_mm)
    masks = [None if mask is None else mask[box] for mask in masks]
    figure = _draw(grey[box], masks, shown[box], spacing_mm, title or Path(path).stem)
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", facecolor="black")


def anatomical(volume: Volume) -> tuple[np.ndarray, tuple[float, float, float]]:
    """The array turned so that its axes run inferior → superior, anterior → posterior, right → left.

    Axes are permuted and flipped, never resampled: each index axis goes to the anatomical axis it is nearest to.

    Returns:
        a view of the array, and the spacing in mm along its (z, y, x) axes.
    """
    cosines = np.reshape(volume.direction, (3, 3))  # row: world axis x, y, z; column: index axis i, j, k
    order = max(itertools.permutations(range(3)), key=lambda p: sum(abs(cosines[w, a]) for w, a in enumerate(p)))
    axes = [2 - order[world] for world in (2, 1, 0)]
    flips = [slice(None, None, -1 if cosines[world, order[world]] < 0 else 1) for world in (2, 1, 0)]
    z, y, x = (volume.spacing_mm[order[world]] for world in (2, 1, 0))
    return volume.array.transpose(axes)[tuple(flips)], (z, y, x)


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


def _draw(
    grey: np.ndarray,
    masks: list[np.ndarray | None],
    shown: np.ndarray,
    spacing_mm: tuple[float, float, float],
    title: str,
) -> Figure:
    """The figure of arrays that `anatomical` has turned."""
    panels = [(1, index) for index in slice_indices(shown, 1, CORONAL)]
    panels += [(0, index) for index in slice_indices(shown, 0, AXIAL)]
    tall, deep, wide = np.multiply(grey.shape, spacing_mm)
    inches = PANEL_INCHES / max(tall, deep, wide)  # per millimetre: one scale for all panels
    size = (len(panels) * (wide * inches + 0.1), max(tall, deep) * inches + 1.0)
    figure = Figure(figsize=size, dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, color="white", parse_math=False)
    limits = tuple(np.percentile(grey, (1, 99.5)).tolist())
    grid = figure.subplots(1, len(panels), squeeze=False)[0]
    for axes, (axis, index) in zip(grid, panels, strict=True):
        cut = [None if mask is None else mask.take(index, axis) for mask in masks]
        aspect = spacing_mm[1 - axis] / spacing_mm[2]
        _panel(axes, axis, grey.take(index, axis), cut, aspect, limits)
    _legend(figure, masks)
    return figure


def _panel(
    axes: Axes,
    axis: int,
    grey: np.ndarray,
    masks: list[np.ndarray | None],
    aspect: float,
    limits: tuple[float, ...],
) -> None:
    """One slice: array axis 0 fixed is axial (front up), axis 1 fixed is coronal (head up)."""
    axes.imshow(
        grey, cmap="gray", origin="upper" if axis == 0 else "lower", aspect=aspect, vmin=limits[0], vmax=limits[1]
    )
    for mask, colour in zip(masks, (REFERENCE_COLOUR, PREDICTION_COLOUR), strict=True):
        if mask is not None and mask.any():
            columns, rows = np.arange(-1, mask.shape[1] + 1), np.arange(-1, mask.shape[0] + 1)
            axes.contour(columns, rows, np.pad(mask, 1).astype(float), levels=[0.5], colors=colour, linewidths=1.0)
    axes.set_axis_off()
    axes.set_title(TITLES[axis], color="white", fontsize=9)
    marks = ((0.01, 0.5, "R", "left"), (0.99, 0.5, "L", "right"), (0.5, 0.96, TOPS[axis], "center"))
    for x, y, mark, alignment in marks:
        axes.text(x, y, mark, transform=axes.transAxes, color="yellow", fontsize=8, ha=alignment, va="center")


def _legend(figure: Figure, masks: list[np.ndarray | None]) -> None:
    names = (("reference", REFERENCE_COLOUR), ("prediction", PREDICTION_COLOUR))
    drawn = [name for mask, name in zip(masks, names, strict=True) if mask is not None]
    handles = [Line2D([], [], color=colour, label=name) for name, colour in drawn]
    if handles:
        figure.legend(handles=handles, loc="outside lower center", ncols=2, labelcolor="white", facecolor="black")
