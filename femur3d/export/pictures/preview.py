"""One picture of a segmented case: slices through the head, the neck and the shaft with contours, and the surfaces."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from femur3d.evaluation.contour_figure import RIM, draw_slice, windowed
from femur3d.export.pictures.landmarks import extent_in, head_centre, neck_plane, sample_plane, shaft_axis
from femur3d.export.pictures.shading import shaded_front
from femur3d.export.segments import Labels, segments_of
from femur3d.inference.postprocessing import keep_femurs
from femur3d.io.atomic import replacing
from femur3d.morphometry.implicit_surface import implicit_surface
from femur3d.volume import Volume, anatomical, bounding_box

MARGIN_MM = 20.0  # around each femur
SCALE_BAR_MM = 20.0
PIXELS_PER_MM, WIDEST_PIXELS = 2.4, 2600.0
GAP_MM, HEADING_MM, CAPTION_MM = 4.0, 14.0, 18.0  # between panels, above all, above each row

_AXES = {"axial": (0, 1, 2), "coronal": (1, 0, 2), "sagittal": (2, 0, 1)}  # array axes: fixed, down or up, across

Range = tuple[float, float]
Colour = tuple[float, float, float]
_WHITE = (1.0, 1.0, 1.0)
_DPI = 100


@dataclasses.dataclass(frozen=True, eq=False)
class Femur:
    """One femur of a preview: what to call it, its colour (red, green, blue, 0 to 1) and its bool mask."""

    name: str
    colour: Colour
    mask: Volume

    @property
    def caption(self) -> str:
        return f"{self.name} {np.count_nonzero(self.mask.array) * self.mask.voxel_ml:.1f} ml"


@dataclasses.dataclass(frozen=True, eq=False)
class _Panel:
    """One picture.

    Attributes:
        title: of the picture.
        view: of `draw_slice`.
        picture: grey, 0 to 1, shape (rows, columns), or red, green, blue, opacity, shape (rows, columns, 4).
        spacing_mm: along (rows, columns); the first voxel's centre is at 0 mm.
        rows_mm, columns_mm: what is shown of it.
        outlines: masks of the picture's shape, and their colours.
        cross_mm: row and column along which the other two slices lie.
    """

    title: str
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
    scan: Volume, label_map: Volume, path: str | os.PathLike[str], *, title: str, labels: Labels
) -> None:
    """Writes a PNG to see at a glance whether a segmentation is right.

    A row for each femur, the patient's right one first, with the contours of the label map: axial, coronal and sagittal
    slices through the centre of its head (see `head_centre`), an oblique slice along its neck and shaft (see
    `neck_plane`), and an axial one through the shaft; then its surface (see implicit_surface.py) from the front and
    from behind. Everything has one scale; thin lines show where the slices cut each other. Radiological convention,
    whatever the order of the array; oblique grids are shown along their own axes.

    Args:
        scan: axes (z, y, x), on any grid.
        label_map: integers on the scan's grid; 0 is background. Where it is empty, slices through the middle are shown.
        path: the PNG to write or replace.
        title: name of the case.
        labels: 'femur' (1 is any femur) or 'sides' (1 left, 2 right).

    Raises:
        ValueError: the label map does not lie on the scan's grid, or holds values without a meaning.
    """
    if difference := scan.geometry_difference(label_map):
        raise ValueError(f"Expected a label map on the scan's grid. Received: {difference}")
    femurs = femurs_of(label_map, labels)
    rows = [_slices(scan, femurs, femur) + _surfaces(femur) for femur in femurs] or [_slices(scan, [], None)]
    captions = [(femur.caption, femur.colour) for femur in femurs] or [("no femur found", _WHITE)]
    figure = _figure(f"{title}: {', '.join(text for text, _ in captions)}", rows, captions)
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", facecolor="black", pil_kwargs={"compress_level": 3})


def femurs_of(label_map: Volume, labels: Labels) -> list[Femur]:
    """The femurs of a label map, from the patient's right to left; both femurs of a common label are separated.

    Raises:
        ValueError: the label map holds values without a meaning.
    """
    found = []
    for segment in segments_of(label_map, labels):
        mask = label_map.array == segment.value
        two = keep_femurs(label_map.with_array(mask)) if segment.side is None else []
        parts = two if len(two) == 2 else [mask]
        found += [Femur(segment.name, segment.colour, label_map.with_array(part)) for part in parts]
    found.sort(key=lambda femur: femur.mask.world_mm(np.argwhere(femur.mask.array).mean(axis=0))[0])
    if labels == "femur" and len(found) == 2:
        names = ("Femur on the right", "Femur on the left")
        found = [dataclasses.replace(femur, name=name) for femur, name in zip(found, names, strict=True)]
    return found


def _slices(scan: Volume, femurs: Sequence[Femur], shown: Femur | None) -> list[_Panel]:
    """Slices through one femur, or through the middle of the scan where that is None, with all outlines."""
    grey, spacing_mm = anatomical(scan)
    if shown is None:
        region = tuple(slice(0, n) for n in grey.shape)
        centre = tuple(n // 2 for n in grey.shape)
        return _orthogonal(_Scene(windowed(grey, grey), spacing_mm, [], region), centre)
    main = anatomical(shown.mask.with_array(keep_femurs(shown.mask)[0]))[0]  # specks do not widen the picture
    found = bounding_box(main, [int(np.ceil(MARGIN_MM / mm)) for mm in spacing_mm])
    assert found is not None
    outlines = [(anatomical(femur.mask)[0], femur.colour) for femur in femurs]
    scene = _Scene(windowed(grey, grey[found]), spacing_mm, outlines, found)
    shaft_z = round(float(shaft_axis(main, spacing_mm).point[0]) / spacing_mm[0])
    return [*_orthogonal(scene, head_centre(main, spacing_mm)), _neck(scene, main), _shaft(scene, shaft_z)]


@dataclasses.dataclass(frozen=True, eq=False)
class _Scene:
    """A scan to be cut, all of it turned by `anatomical`.

    Attributes:
        grey: 0 to 1, (z, y, x).
        spacing_mm: along (z, y, x).
        outlines: masks and their colours.
        region: what is to be shown of it.
    """

    grey: np.ndarray
    spacing_mm: tuple[float, float, float]
    outlines: Sequence[tuple[np.ndarray, Colour]]
    region: tuple[slice, ...]

    def cut(self, view: str, index: int, title: str, cross_mm: Range | None = None) -> _Panel:
        """The slice at an index of the axis that a view fixes."""
        fixed, rows, columns = _AXES[view]
        ranges = [
            ((s.start - 0.5) * mm, (s.stop - 0.5) * mm) for s, mm in zip(self.region, self.spacing_mm, strict=True)
        ]
        return _Panel(
            title,
            view,
            self.grey.take(index, fixed),
            (self.spacing_mm[rows], self.spacing_mm[columns]),
            ranges[rows],
            ranges[columns],
            [(mask.take(index, fixed), colour) for mask, colour in self.outlines],
            cross_mm,
        )


def _orthogonal(scene: _Scene, centre: Sequence[int]) -> list[_Panel]:
    """Axial, coronal and sagittal slices through a voxel (z, y, x)."""
    places_mm = np.multiply(centre, scene.spacing_mm).tolist()
    return [
        scene.cut(view, centre[fixed], view, (places_mm[rows], places_mm[columns]))
        for view, (fixed, rows, columns) in _AXES.items()
    ]


def _shaft(scene: _Scene, z: int) -> _Panel:
    return scene.cut("axial", z, "axial, shaft")


def _neck(scene: _Scene, femur: np.ndarray) -> _Panel:
    """The oblique slice along the neck and the shaft; thin lines along the shaft and at the height of the head."""
    plane = neck_plane(femur, scene.spacing_mm)
    rows, columns = ((low - MARGIN_MM, high + MARGIN_MM) for low, high in extent_in(plane, femur, scene.spacing_mm))
    step_mm = min(scene.spacing_mm)
    head_mm = np.multiply(head_centre(femur, scene.spacing_mm), scene.spacing_mm) - plane.origin

    def sampled(array: np.ndarray) -> np.ndarray:
        return sample_plane(array, scene.spacing_mm, plane, rows, columns, step_mm)

    return _Panel(
        "along neck and shaft",
        "coronal",
        sampled(scene.grey),
        (step_mm, step_mm),
        (0.0, rows[1] - rows[0]),
        (0.0, columns[1] - columns[0]),
        [(sampled(mask), colour) for mask, colour in scene.outlines],
        (float(head_mm @ plane.up) - rows[0], -columns[0]),
    )


def _surfaces(femur: Femur) -> list[_Panel]:
    """The surface from the front and from behind, at half the voxel size of the field: smooth edges."""
    field, spacing_mm = anatomical(implicit_surface(femur.mask))
    fine = _halved(_halved(field, 0), 2)
    fine_mm = (spacing_mm[0] / 2, spacing_mm[1], spacing_mm[2] / 2)
    panels = []
    for view, seen in (("surface from the front", fine), ("surface from behind", fine[:, ::-1, ::-1])):
        picture = shaded_front(seen, fine_mm, femur.colour)
        rows_mm, columns_mm = (
            (float(hits[0] * mm - MARGIN_MM), float(hits[-1] * mm + MARGIN_MM))
            for hits, mm in ((np.flatnonzero(picture[..., 3].any(axis=1 - a)), fine_mm[2 * a]) for a in (0, 1))
        )
        panels.append(_Panel(view, view, picture, (fine_mm[0], fine_mm[2]), rows_mm, columns_mm))
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
            axes.set_title(panel.title, y=1.0, color="0.75", fontsize=10, pad=3)  # y: no search for a free place
            _draw(axes, panel)
            left += width + GAP_MM
        top -= GAP_MM
    return figure


def _draw(axes: Axes, panel: _Panel) -> None:
    draw_slice(axes, panel.view, panel.picture, panel.spacing_mm, panel.outlines, linewidth=1.3)
    if panel.cross_mm is not None:
        axes.axhline(panel.cross_mm[0], color="white", linewidth=0.5, alpha=0.4)
        axes.axvline(panel.cross_mm[1], color="white", linewidth=0.5, alpha=0.4)
    axes.set_aspect("auto")
    axes.set_xlim(*panel.columns_mm)
    axes.set_ylim(*(panel.rows_mm[::-1] if axes.yaxis_inverted() else panel.rows_mm))
    _scale_bar(axes, panel)


def _scale_bar(axes: Axes, panel: _Panel) -> None:
    wide, tall = panel.size_mm
    ends = ((wide - 5 - SCALE_BAR_MM) / wide, (wide - 5) / wide)
    axes.plot(ends, [4 / tall] * 2, transform=axes.transAxes, color="white", linewidth=2, solid_capstyle="butt")
    place = ((ends[0] + ends[1]) / 2, 8 / tall)
    style: dict[str, Any] = {"color": "white", "ha": "center", "va": "center", "path_effects": RIM}
    axes.text(*place, f"{SCALE_BAR_MM:g} mm", transform=axes.transAxes, **style)
