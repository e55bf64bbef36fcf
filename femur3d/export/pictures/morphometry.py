"""A picture of what was measured on a femur: radial planes with their alpha angles, and the map of the cam."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from femur3d.io.atomic import replacing
from femur3d.morphometry.alpha import STEP_DEG, polar_degrees
from femur3d.morphometry.gate import NOT
from femur3d.morphometry.measure import Morphometry
from femur3d.morphometry.surface import PLANES, clock_angles

HOURS = (12, 1, 2, 3, 4, 6)  # of the radial planes that are shown
MAP_MM = 4.0  # colours of the map end here


def morphometry_figure(femurs: Sequence[Morphometry], path: str | os.PathLike[str], title: str) -> None:
    """Writes a PNG with a row of pictures for each femur, and its measures with error bars and gates below them.

    Radial planes have the neck's axis horizontally, the head to the left: outline, the head's circle, the axis, and
    where the gate allows it the ray at the alpha angle. The map shows how far the surface is above (red) or below the
    head's sphere, by hour of the clock and angle with the neck's axis, and the same on the femur, seen from the front.

    Args:
        femurs: one or two.
        path: the PNG to write or replace.
        title: name of the case.
    """
    rows = max(len(femurs), 1)
    figure = Figure(figsize=(19, 6.2 * rows), layout="constrained")
    figure.suptitle(f"{title}: for research only", x=0.01, ha="left", parse_math=False)
    for part, one in zip(figure.subfigures(rows, 1, squeeze=False)[:, 0], femurs, strict=False):
        pictures, words = part.subfigures(2, 1, height_ratios=(1, 0.95))
        axes = pictures.subplots(1, len(HOURS) + 2, width_ratios=(1,) * len(HOURS) + (1.3, 1.0))
        for hour, place in zip(HOURS, axes, strict=False):
            _radial(place, one, hour)
        _map(pictures, axes[-2], one)
        _front(axes[-1], one)
        words.text(0.01, 0.97, str(one), va="top", family="monospace", fontsize=7.5)
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=90)


def _allowed(one: Morphometry) -> bool:
    return one.measures["alpha_max_deg"].verdict.level != NOT


def _radial(place: Axes, one: Morphometry, hour: int) -> None:
    femur, plane = one.femur, hour * PLANES // 12 % PLANES
    radius = femur.head.radius_mm
    for index, sign in ((plane, 1), ((plane + PLANES // 2) % PLANES, -1)):
        line = femur.neck.contours[index]
        place.plot(line.along_mm, sign * line.away_mm, ".", color="0.35", markersize=1.5)
    turn = np.linspace(0, 2 * np.pi, 200)
    place.plot(radius * np.cos(turn), radius * np.sin(turn), color="tab:blue", linewidth=0.8)
    place.plot([-radius, 2 * radius], [0, 0], color="0.6", linewidth=0.6)
    label = f"{hour} o'clock"
    alpha = femur.alpha_deg[plane]
    if _allowed(one) and np.isfinite(alpha):
        angle = np.radians(alpha)
        reach = 1.5 * radius
        place.plot([0, reach * np.cos(angle)], [0, reach * np.sin(angle)], color="tab:red", linewidth=1)
        label += f": α {alpha:.0f}°"
    place.set(title=label, xlim=(-1.2 * radius, 2.2 * radius), ylim=(-1.6 * radius, 1.6 * radius), aspect="equal")
    place.set_xticks([])
    place.set_yticks([])


def _map(figure: Figure, place: Axes, one: Morphometry) -> None:
    if not _allowed(one):
        place.text(0.5, 0.5, "alpha angle and cam:\nnot measurable", ha="center", transform=place.transAxes)
        place.set_axis_off()
        return
    heights = np.roll(one.femur.heights_mm, PLANES // 4, axis=0).T  # from 9 o'clock over 12 to 9
    hour, degrees = 6 / PLANES, STEP_DEG / 2  # of half a cell: its middle stands at its hour and angle
    extent = (-3 - hour, 9 - hour, float(polar_degrees()[-1]) - degrees, float(polar_degrees()[0]) + degrees)
    image = place.imshow(heights, extent=extent, aspect="auto", cmap="RdBu_r", vmin=-MAP_MM, vmax=MAP_MM)
    hours = np.arange(-3, 9)
    alpha = np.roll(one.femur.alpha_deg, PLANES // 4)
    place.plot(clock_angles() * 6 / np.pi - 3, alpha, color="black", linewidth=1)
    place.set_xticks(hours, [str(hour % 12 or 12) for hour in hours.tolist()])
    place.set(xlabel="hour", ylabel="angle with the neck's axis, °", title="mm over the sphere; line: α")
    figure.colorbar(image, ax=place)


def _front(place: Axes, one: Morphometry) -> None:
    """The femur from the front, in its own frame, coloured by the height over the head's sphere near the head."""
    surface, frame, head = one.surface, one.femur.frame, one.femur.head
    offsets = surface.vertices - frame.centre_mm
    facing = surface.normals @ frame.anterior > 0
    across, up = offsets @ frame.axis, offsets @ frame.superior
    heights = np.linalg.norm(offsets, axis=1) - head.radius_mm
    near = (np.abs(heights) < 1.2 * head.radius_mm) & (across < 1.1 * head.radius_mm)
    order = np.argsort(offsets[facing] @ frame.anterior)
    grey = np.where(near, np.clip(heights, -MAP_MM, MAP_MM), np.nan)[facing][order]
    place.scatter(across[facing][order], up[facing][order], c="0.85", s=0.4)
    if _allowed(one):
        place.scatter(across[facing][order], up[facing][order], c=grey, s=0.4, cmap="RdBu_r", vmin=-MAP_MM, vmax=MAP_MM)
    place.set(title=f"{one.side} femur, from the front", aspect="equal")
    place.set_axis_off()
