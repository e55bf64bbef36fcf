"""One picture of a segmented case: slices through the femoral heads with contours, and the surfaces."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from scipy import ndimage

from femur3d.export.contour_figure import anatomical
from femur3d.export.implicit_surface import smooth_field
from femur3d.export.segments import Labels, segments_of
from femur3d.export.shading import shaded_front
from femur3d.io.atomic import replacing
from femur3d.volume import Volume, bounding_box

MARGIN_MM = 20.0  # around each femur
HEAD_DEPTH_MM = 35.0  # the centre of a head lies less than this below the femur's top: 19 to 25 mm in 24 real femurs
SECOND_PART = 0.2  # with one label for both femurs: a component of this share of the largest one is the other femur
SCALE_BAR_MM = 20.0
PIXELS_PER_MM, WIDEST_PIXELS = 2.4, 2000.0
GAP_MM, HEADING_MM, CAPTION_MM = 4.0, 14.0, 18.0  # between panels, above all, above each row

_AXES = {"axial": (0, 1, 2), "coronal": (1, 0, 2), "sagittal": (2, 0, 1)}  # array axes: fixed, down or up, across
_LETTERS = {  # on the left, on the right, above, below
    "axial": "RLAP",
    "coronal": "RLSI",
    "sagittal": "APSI",
    "surface from the front": "RLSI",
    "surface from behind": "LRSI",
}

Range = tuple[float, float]
Colour = tuple[float, float, float]
_WHITE = (1.0, 1.0, 1.0)
_DPI = 100
_RIM = [withStroke(linewidth=2, foreground="black")]  # of letters: they lie on bright fat, too


@dataclasses.dataclass(frozen=True, eq=False)
class Femur:
    """One femur of a preview: what to call it, its colour (red, green, blue, 0 to 1) and its bool mask."""

    name: str
    colour: Colour
    mask: Volume

    @property
    def caption(self) -> str:
        millilitres = np.count_nonzero(self.mask.array) * float(np.prod(self.mask.spacing_mm)) / 1000
        return f"{self.name} {millilitres:.1f} ml"


@dataclasses.dataclass(frozen=True, eq=False)
class _Panel:
    """One picture.

    Attributes:
        view: key of _LETTERS.
        picture: grey, 0 to 1, shape (rows, columns), or red, green, blue, opacity, shape (rows, columns, 4).
        spacing_mm: along (rows, columns); the first voxel's centre is at 0 mm.
        rows_mm, columns_mm: what is shown of it.
        outlines: masks of the picture's shape, and their colours.
        cross_mm: row and column along which the other two slices lie.
    """

    view: str
    picture: np.ndarray
    spacing_mm: Range
    rows_mm: Range
    columns_mm: Range
    outlines: Sequence[tuple[np.ndarray, Colour]] = ()
    cross_mm: Range | None = None

    @property
    def size_mm(self) -> Range:
        """Width and height."""
        return self.columns_mm[1] - self.columns_mm[0], self.rows_mm[1] - self.rows_mm[0]


def preview_figure(
    scan: Volume,
    label_map: Volume,
    path: str | os.PathLike[str],
    *,
    title: str | None = None,
    labels: Labels | None = None,
) -> None:
    """Writes a PNG to see at a glance whether a segmentation is right.

    A row for each femur, the patient's right one first: axial, coronal and sagittal slices through the centre of its
    head (see `head_centre`) with the contours of the label map, then its surface (see smooth_field.py) from the front
    and from behind. Everything has one scale; thin lines show where the other two slices lie. Radiological convention,
    whatever the order of the array; oblique grids are shown along their own axes.

    Args:
        scan: axes (z, y, x), on any grid.
        label_map: integers on the scan's grid; 0 is background. Where it is empty, slices through the middle are shown.
        path: the PNG to write or replace.
        title: name of the case; None for the file's name without '_preview'.
        labels: 'femur' (1 is any femur), 'sides' (1 left, 2 right); None for what the values suggest.

    Raises:
        ValueError: the label map does not lie on the scan's grid, or holds values without a meaning.
    """
    if difference := scan.geometry_difference(label_map):
        raise ValueError(f"Expected a label map on the scan's grid. Received: {difference}")
    femurs = femurs_of(label_map, labels or ("sides" if label_map.array.max() > 1 else "femur"))
    rows = [_slices(scan, femurs, femur) + _surfaces(femur) for femur in femurs] or [_slices(scan, [], None)]
    captions = [(femur.caption, femur.colour) for femur in femurs] or [("no femur found", _WHITE)]
    case = title or Path(path).stem.removesuffix("_preview")
    figure = _figure(f"{case}: {', '.join(text for text, _ in captions)}", rows, captions)
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", facecolor="black")


def femurs_of(label_map: Volume, labels: Labels) -> list[Femur]:
    """The femurs of a label map, from the patient's right to left; both femurs of a common label are told apart.

    Raises:
        ValueError: the label map holds values without a meaning.
    """
    found = []
    for segment in segments_of(label_map, labels):
        mask = label_map.array == segment.value
        two = _components(mask) if segment.side is None else []
        parts = two if len(two) == 2 else [mask]
        found += [Femur(segment.name, segment.colour, label_map.with_array(part)) for part in parts]
    found.sort(key=lambda femur: femur.mask.world_mm(np.argwhere(femur.mask.array).mean(axis=0))[0])
    if labels == "femur" and len(found) == 2:
        names = ("Femur on the right", "Femur on the left")
        found = [dataclasses.replace(femur, name=name) for femur, name in zip(found, names, strict=True)]
    return found


def head_centre(femur: np.ndarray, spacing_mm: tuple[float, float, float]) -> tuple[int, int, int]:
    """Index (z, y, x) of the centre of the femoral head: of the largest ball inside the top of the femur.

    Within HEAD_DEPTH_MM of its upper end the head is the thickest part of a femur. The region about the trochanters
    would hold a ball almost as large, but further down. Holes are filled first: one voxel would halve the ball.

    Args:
        femur: bool, not empty, in one piece; axis 0 from inferior to superior.
        spacing_mm: along (z, y, x).
    """
    box = bounding_box(femur)
    assert box is not None
    solid = np.pad(ndimage.binary_fill_holes(femur[box]), 1)
    distance_mm = ndimage.distance_transform_edt(solid, sampling=spacing_mm)[1:-1, 1:-1, 1:-1]
    low = max(len(distance_mm) - int(np.ceil(HEAD_DEPTH_MM / spacing_mm[0])), 0)
    place = np.unravel_index(int(distance_mm[low:].argmax()), distance_mm[low:].shape)
    z, y, x = (int(i) + axis.start for i, axis in zip(place, box, strict=True))
    return z + low, y, x


def _components(mask: np.ndarray) -> list[np.ndarray]:
    """The largest component of a mask, and the second one where it is large enough to be another femur."""
    numbers, _ = ndimage.label(mask)
    sizes = np.bincount(numbers.ravel())[1:]
    return [numbers == i + 1 for i in np.argsort(-sizes)[:2] if sizes[i] >= SECOND_PART * sizes.max()]


def _slices(scan: Volume, femurs: Sequence[Femur], shown: Femur | None) -> list[_Panel]:
    """Axial, coronal and sagittal slices through the head of one femur (None: the middle), with all outlines."""
    grey, spacing_mm = anatomical(scan)
    centre, region = _view(shown, spacing_mm) if shown else _middle(grey.shape)
    ranges = [((s.start - 0.5) * mm, (s.stop - 0.5) * mm) for s, mm in zip(region, spacing_mm, strict=True)]
    low, high = np.percentile(grey[region], (1, 99.5))
    grey = np.clip((grey - low) / max(high - low, 1e-9), 0, 1)
    outlines = [(anatomical(femur.mask)[0], femur.colour) for femur in femurs]
    panels = []
    for view, (fixed, rows, columns) in _AXES.items():
        index = centre[fixed]
        panels.append(
            _Panel(
                view,
                grey.take(index, fixed),
                (spacing_mm[rows], spacing_mm[columns]),
                ranges[rows],
                ranges[columns],
                [(outline.take(index, fixed), colour) for outline, colour in outlines],
                (centre[rows] * spacing_mm[rows], centre[columns] * spacing_mm[columns]),
            )
        )
    return panels


def _view(femur: Femur, spacing_mm: tuple[float, float, float]) -> tuple[tuple[int, int, int], tuple[slice, ...]]:
    """Centre of the head, and the box to show; specks far from the femur do not widen it."""
    main = _components(anatomical(femur.mask)[0])[0]
    region = bounding_box(main, [int(np.ceil(MARGIN_MM / mm)) for mm in spacing_mm])
    assert region is not None
    return head_centre(main, spacing_mm), region


def _middle(shape: tuple[int, ...]) -> tuple[tuple[int, int, int], tuple[slice, ...]]:
    z, y, x = (n // 2 for n in shape)
    return (z, y, x), tuple(slice(0, n) for n in shape)


def _surfaces(femur: Femur) -> list[_Panel]:
    """The surface from the front and from behind, at half the voxel size of the field: smooth edges."""
    field, spacing_mm = anatomical(smooth_field(femur.mask))
    fine = _halved(_halved(field, 0), 2)
    fine_mm = (spacing_mm[0] / 2, spacing_mm[1], spacing_mm[2] / 2)
    panels = []
    for view, seen in (("surface from the front", fine), ("surface from behind", fine[:, ::-1, ::-1])):
        picture = shaded_front(seen, fine_mm, femur.colour)
        rows_mm, columns_mm = (
            (float(hits[0] * mm - MARGIN_MM), float(hits[-1] * mm + MARGIN_MM))
            for hits, mm in ((np.flatnonzero(picture[..., 3].any(axis=1 - a)), fine_mm[2 * a]) for a in (0, 1))
        )
        panels.append(_Panel(view, picture, (fine_mm[0], fine_mm[2]), rows_mm, columns_mm))
    return panels


def _halved(field: np.ndarray, axis: int) -> np.ndarray:
    """The field at half the voxel size along an axis, by linear interpolation."""
    field = np.moveaxis(field, axis, 0)
    fine = np.empty((2 * len(field) - 1, *field.shape[1:]), field.dtype)
    fine[::2] = field
    fine[1::2] = (field[1:] + field[:-1]) / 2
    return np.moveaxis(fine, 0, axis)


def _aligned(rows: Sequence[Sequence[_Panel]]) -> list[list[_Panel]]:
    """All panels of a column as wide as the widest, all of a row as high as the highest: they show more around."""
    widths = [max(panel.size_mm[0] for panel in column) for column in zip(*rows, strict=True)]
    heights = [max(panel.size_mm[1] for panel in row) for row in rows]
    return [
        [
            dataclasses.replace(
                panel, columns_mm=_widened(panel.columns_mm, width), rows_mm=_widened(panel.rows_mm, height)
            )
            for panel, width in zip(row, widths, strict=True)
        ]
        for row, height in zip(rows, heights, strict=True)
    ]


def _widened(span: Range, length: float) -> Range:
    middle = (span[0] + span[1]) / 2
    return middle - length / 2, middle + length / 2


def _figure(heading: str, rows: Sequence[Sequence[_Panel]], captions: Sequence[tuple[str, Colour]]) -> Figure:
    """All panels on one scale, in rows with captions."""
    rows = _aligned(rows)
    wide = sum(panel.size_mm[0] + GAP_MM for panel in rows[0]) + GAP_MM
    tall = sum(row[0].size_mm[1] + CAPTION_MM + GAP_MM for row in rows) + HEADING_MM
    scale = min(PIXELS_PER_MM, WIDEST_PIXELS / wide) / _DPI
    figure = Figure(figsize=(wide * scale, tall * scale), dpi=_DPI)
    FigureCanvasAgg(figure)
    style: dict[str, Any] = {"va": "center", "parse_math": False}  # a case may be called $x$
    figure.text(0.5, 1 - 0.5 * HEADING_MM / tall, heading, color="white", fontsize=14, ha="center", **style)
    top = tall - HEADING_MM
    for row, (caption, colour) in zip(rows, captions, strict=True):
        figure.text(GAP_MM / wide, (top - 0.3 * CAPTION_MM) / tall, caption, color=colour, fontsize=12, **style)
        top -= CAPTION_MM + row[0].size_mm[1]
        left = GAP_MM
        for panel in row:
            width, height = panel.size_mm
            axes = figure.add_axes((left / wide, top / tall, width / wide, height / tall))
            axes.set_title(panel.view, color="0.75", fontsize=10, pad=3)
            _draw(axes, panel)
            left += width + GAP_MM
        top -= GAP_MM
    return figure


def _draw(axes: Axes, panel: _Panel) -> None:
    rows, columns = (np.arange(-1, n + 1) * mm for n, mm in zip(panel.picture.shape[:2], panel.spacing_mm, strict=True))
    edges = (*_edges(columns), *_edges(rows))
    axes.imshow(panel.picture, "gray", vmin=0, vmax=1, origin="lower", extent=edges, interpolation="bilinear")
    for mask, colour in panel.outlines:
        if mask.any():
            axes.contour(columns, rows, np.pad(mask, 1).astype(float), levels=[0.5], colors=[colour], linewidths=1.3)
    if panel.cross_mm is not None:
        axes.axhline(panel.cross_mm[0], color="white", linewidth=0.5, alpha=0.4)
        axes.axvline(panel.cross_mm[1], color="white", linewidth=0.5, alpha=0.4)
    axes.set_aspect("auto")
    axes.set_xlim(*panel.columns_mm)
    axes.set_ylim(*(panel.rows_mm[::-1] if panel.view == "axial" else panel.rows_mm))  # front up; else head up
    axes.set_axis_off()
    _letters(axes, panel)


def _edges(centres: np.ndarray) -> Range:
    """Where the picture ends, of voxel centres with one more at each end."""
    return float(centres[:2].mean()), float(centres[-2:].mean())


def _letters(axes: Axes, panel: _Panel) -> None:
    """What is at each side of the picture, and a scale bar."""
    wide, tall = panel.size_mm
    places = ((4, tall / 2), (wide - 4, tall / 2), (wide / 2, tall - 4), (wide / 2, 4))
    letters = [*zip(_LETTERS[panel.view], places, ["yellow"] * 4, strict=True)]
    letters.append((f"{SCALE_BAR_MM:g} mm", (wide - 5 - SCALE_BAR_MM / 2, 8), "white"))
    for text, (x, y), colour in letters:
        place = (x / wide, y / tall)
        axes.text(*place, text, transform=axes.transAxes, color=colour, ha="center", va="center", path_effects=_RIM)
    bar = ((wide - 5 - SCALE_BAR_MM) / wide, (wide - 5) / wide)
    axes.plot(bar, [4 / tall] * 2, transform=axes.transAxes, color="white", linewidth=2, solid_capstyle="butt")
