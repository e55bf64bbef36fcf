"""Where the picture of the measures shows what."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from femur3d.export.pictures import morphometry
from femur3d.morphometry.alpha import polar_degrees
from femur3d.morphometry.gate import Verdict
from femur3d.morphometry.surface import PLANES


def test_cells_of_the_map_stand_at_their_hour_and_angle() -> None:
    """One cell stands out: at 12 o'clock and the third angle, where the line has its peak."""
    heights = np.zeros((PLANES, len(polar_degrees())))
    heights[0, 2] = 3.0
    femur = SimpleNamespace(heights_mm=heights, alpha_deg=np.where(np.arange(PLANES) == 0, 90.0, 40.0))
    one: Any = SimpleNamespace(femur=femur, measures={"alpha_max_deg": SimpleNamespace(verdict=Verdict("measurable"))})
    figure = Figure()
    axes = figure.subplots()
    morphometry._map(figure, axes, one)
    (image,), (line,) = axes.images, axes.lines
    left, right, bottom, top = image.get_extent()
    shown = np.asarray(image.get_array())
    row, column = np.unravel_index(shown.argmax(), shown.shape)
    assert np.isclose(left + (column + 0.5) * (right - left) / shown.shape[1], 0)  # where the tick says 12
    assert np.isclose(top + (row + 0.5) * (bottom - top) / shown.shape[0], polar_degrees()[2])
    assert line.get_xdata()[np.argmax(line.get_ydata())] == 0
    assert [
        text.get_text() for tick, text in zip(axes.get_xticks(), axes.get_xticklabels(), strict=True) if not tick
    ] == ["12"]
