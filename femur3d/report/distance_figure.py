"""The paper's Fig. 2 for one case: the surface coloured by its signed distance to the reference, beside slices."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import PolyCollection
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from femur3d.evaluation.contour_figure import (
    PREDICTION_COLOUR,
    REFERENCE_COLOUR,
    TITLES,
    draw_slice,
    femur_region,
    slice_indices,
    windowed,
)
from femur3d.io.atomic import replacing
from femur3d.report.results import femur_masks
from femur3d.report.surfaces import Surface, surfaces_of
from femur3d.volume import Volume, anatomical

TRIANGLES = 16_000  # of a femur
LIMITS_MM = (1.0, 2.0, 3.0, 5.0, 10.0)  # of the colour bar: the least that 98% of the vertices keep
COLOURS = colormaps["RdBu_r"]  # red: beyond the reference; blue: short of it
MISSED_GREY = (0.5, 0.5, 0.5)
INCHES_HIGH = 3.6
# Rows: what runs across the picture, up, and towards the eye, in world coordinates (LPS); letters left and right.
VIEWS = {
    "from the front": (((1, 0, 0), (0, 0, 1), (0, -1, 0)), "RL"),
    "from behind": (((-1, 0, 0), (0, 0, 1), (0, 1, 0)), "LR"),
}
LAMP = (-0.4, 0.55, 0.73)  # across, up, towards the eye


def distance_figure(
    image: Volume | None, reference: Volume, prediction: Volume, path: str | os.PathLike[str], title: str
) -> None:
    """Writes a PNG: a coronal and an axial slice with both contours, and the surface from the front and from behind.

    The surface is the prediction's, coloured by its signed distance to the reference's in mm (see `ReferenceSurface`):
    red where it reaches beyond, blue where it falls short. A femur of the reference that was missed is grey.

    Args:
        image: the scan; None to leave the slices out.
        reference: label map on the scan's grid.
        prediction: the same.
        path: the PNG to write or replace.
        title: heading.

    Raises:
        ValueError: the grids differ.
    """
    for other in (prediction, image):
        if other is not None and (difference := reference.geometry_difference(other)):
            raise ValueError(f"Expected volumes on one grid. Received: {difference}")
    surfaces = surfaces_of(prediction, femur_masks(prediction, ""), femur_masks(reference, ""), TRIANGLES)
    figure = _figure(image, reference, prediction, surfaces)
    figure.suptitle(title, parse_math=False, fontsize=11)
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png")


def colour_limit_mm(surfaces: Sequence[Surface]) -> float:
    """The least of LIMITS_MM that 98% of all vertices keep."""
    sizes = [np.abs(one.distances_mm) for one in surfaces if one.distances_mm is not None]
    large = float(np.percentile(np.concatenate(sizes), 98)) if sizes else 0.0
    return next((limit for limit in LIMITS_MM if limit >= large), LIMITS_MM[-1])


def _figure(image: Volume | None, reference: Volume, prediction: Volume, surfaces: Sequence[Surface]) -> Figure:
    columns = len(VIEWS) + (0 if image is None else len(TITLES))
    figure = Figure(figsize=(INCHES_HIGH * 1.3 * columns + 1, INCHES_HIGH), dpi=120, layout="constrained")
    axes = figure.subplots(1, columns)
    if image is not None:
        _draw_slices(axes[: len(TITLES)], image, reference, prediction)
        names = {"reference": REFERENCE_COLOUR, "segmentation": PREDICTION_COLOUR}
        lines = [Line2D([], [], color=colour, label=name) for name, colour in names.items()]
        figure.legend(handles=lines, loc="outside lower left", ncols=2, frameon=False)
    norm = Normalize(-colour_limit_mm(surfaces), colour_limit_mm(surfaces))
    views = axes[-len(VIEWS) :]
    for one, (name, (turn, letters)) in zip(views, VIEWS.items(), strict=True):
        _draw_surfaces(one, surfaces, np.array(turn, float), norm)
        one.set_title(name, fontsize=9)
        for place, letter in zip((0.02, 0.98), letters, strict=True):
            one.text(place, 0.5, letter, transform=one.transAxes, ha="center", color="0.4")
    if any(surface.distances_mm is not None for surface in surfaces):
        bar = figure.colorbar(ScalarMappable(norm, COLOURS), ax=list(views), shrink=0.85, pad=0.02)
        bar.set_label("signed distance to the reference, mm")
    return figure


def _draw_slices(axes: Sequence[Axes], image: Volume, reference: Volume, prediction: Volume) -> None:
    grey, spacing_mm = anatomical(image)
    masks = [anatomical(labels)[0] != 0 for labels in (reference, prediction)]
    shown = masks[0] | masks[1]
    box = femur_region(shown, spacing_mm)
    part = windowed(grey[box], grey[box])
    for one, axis in zip(axes, (1, 0), strict=True):
        (index,) = slice_indices(shown[box], axis, 1)
        colours = (REFERENCE_COLOUR, PREDICTION_COLOUR)
        cut = [(mask[box].take(index, axis), colour) for mask, colour in zip(masks, colours, strict=True)]
        draw_slice(one, TITLES[axis], part.take(index, axis), (spacing_mm[1 - axis], spacing_mm[2]), cut)
        one.set_title(TITLES[axis], fontsize=9)


def _draw_surfaces(axes: Axes, surfaces: Sequence[Surface], turn: np.ndarray, norm: Normalize) -> None:
    """All triangles that face the eye, the furthest first, each in the colour of its mean distance, under a lamp."""
    polygons: list[np.ndarray] = []
    colours: list[np.ndarray] = []
    depths: list[np.ndarray] = []
    for surface in surfaces:
        corners = (surface.vertices @ turn.T)[surface.triangles]  # (M, 3, 3): across, up, towards the eye
        normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)
        seen = normals[:, 2] > 0
        light = 0.45 + 0.6 * np.clip(normals[seen] @ np.array(LAMP), 0, None)
        polygons.append(corners[seen, :, :2])
        depths.append(corners[seen, :, 2].mean(axis=1))
        colours.append(np.clip(_plain(surface, norm)[seen] * light[:, None], 0, 1))
    if polygons:
        order = np.argsort(np.concatenate(depths))
        parts: dict[str, Any] = {"facecolors": np.concatenate(colours)[order], "edgecolors": "face", "linewidths": 0.3}
        axes.add_collection(PolyCollection(list(np.concatenate(polygons)[order]), **parts))
    axes.autoscale_view()
    axes.set_aspect("equal")
    axes.set_axis_off()


def _plain(surface: Surface, norm: Normalize) -> np.ndarray:
    """Red, green, blue of each triangle, shape (M, 3), before it is lit."""
    if surface.distances_mm is None:
        return np.tile(MISSED_GREY, (len(surface.triangles), 1))
    return np.asarray(COLOURS(norm(surface.distances_mm[surface.triangles].mean(axis=1))))[:, :3]
