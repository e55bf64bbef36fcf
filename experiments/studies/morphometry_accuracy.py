"""How right the measures of a femur are, and how often their error bars hold the truth: on phantoms.

    python -m experiments.studies.morphometry_accuracy --first 10000 --count 250 --calibrate
    python -m experiments.studies.morphometry_accuracy --first 20000 --count 200 -o morphometry_phantom.txt

Every phantom's head, neck and shaft are known exactly, and its outline about the head's true centre is found by going
along rays until its signed distance changes sign, without a surface. Each is drawn as a label map at 1 mm and as
coronal slices of 0.9×5.2×0.9 mm, at a random place between the voxels. `--raw` keeps one line of JSON a phantom: a run
goes on where an earlier one ended. The first command prints `femur3d.morphometry.error_bars.BARS`; the second makes the
table, on phantoms that the first has not seen.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from absl import app, flags

from femur3d.io.atomic import replacing
from femur3d.morphometry.alpha import alpha_degrees, polar_degrees
from femur3d.morphometry.axes import LONGEST_MM, START, Neck, Shaft, section_areas
from femur3d.morphometry.definitions import DEFINITIONS, values
from femur3d.morphometry.error_bars import COVERAGE, Boundary, half_width, interval, spread
from femur3d.morphometry.femur import Femur, find_femur
from femur3d.morphometry.gate import LEVELS, NOT, judge, of_bar
from femur3d.morphometry.implicit_surface import femur_mesh
from femur3d.morphometry.sphere import Sphere
from femur3d.morphometry.surface import Frame, Surface, clock_angles, perpendicular
from femur3d.phantom.anatomy import femur_distance
from femur3d.phantom.hip import patient_anatomy
from femur3d.phantom.patient import FemurShape
from femur3d.volume import Volume

FLAGS = flags.FLAGS
SPACINGS_MM = {1.0: (1.0, 1.0, 1.0), 2.0: (2.0, 2.0, 2.0), 5.2: (0.9, 5.2, 0.9)}
MEASURES = [*DEFINITIONS, "head_centre_mm"]
LOW_MM, HIGH_MM = np.array([-35.0, -45.0, -130.0]), np.array([85.0, 50.0, 40.0])
BEYOND = 1.7  # head radii: as far as rays go
BELOW_TROCHANTER_MM = -40.0  # where neck's and shaft's axes cross is 0


def true_femur(shape: FemurShape) -> Femur:
    """Head, neck, shaft and outline of a phantom as it was made, in the hip frame of a left femur (LPS)."""
    axis, shaft = -shape.neck_axis, _true_shaft(shape)
    superior = perpendicular(shaft.direction, axis)
    frame = Frame(np.zeros(3), axis, superior, np.cross(axis, superior))
    radius, turns, polar = shape.head_radius_mm, clock_angles(), np.radians(polar_degrees())
    around = np.cos(turns)[:, None] * frame.superior + np.sin(turns)[:, None] * frame.anterior
    rays = np.cos(polar)[:, None] * axis + np.sin(polar)[:, None] * around[:, None]
    map_mm = reach_mm(shape, np.zeros(3), rays, BEYOND * radius) - radius
    along = np.arange(0.6, 1.9, 0.05) * radius
    widths = np.stack([reach_mm(shape, axis * s, around, BEYOND * radius) for s in along], axis=1)
    areas = section_areas(widths)
    neck = Neck(frame, [], along, widths, areas, int(areas.argmin()), True)
    head = Sphere(np.zeros(3), radius)
    return Femur("left", 1.0, head, neck, shaft, -LOW_MM[2], map_mm, alpha_degrees(map_mm, radius))


def _true_shaft(shape: FemurShape) -> Shaft:
    """The line through the bowed middle of the shaft where `axes.find_shaft` looks for it, below the trochanter."""
    proximal, posterior = shape.axes[2], shape.axes[1]
    top = min(-START * shape.head_radius_mm - shape.junction_mm @ proximal, BELOW_TROCHANTER_MM)
    low = max(top - LONGEST_MM, LOW_MM[2] + 4 - shape.junction_mm[2])
    heights = np.linspace(low, top, 50)
    bow = heights**2 / (2 * shape.bow_radius_mm)
    middles = shape.junction_mm + heights[:, None] * proximal + bow[:, None] * posterior
    direction = np.linalg.svd(middles - middles.mean(axis=0))[2][0]
    direction *= np.sign(direction @ proximal)
    return Shaft(middles.mean(axis=0), direction, float(top - low), 0.0, 0.0)


def reach_mm(shape: FemurShape, start: np.ndarray, rays: np.ndarray, most: float) -> np.ndarray:
    """How far (mm) each ray (…, 3) runs from a point inside before it leaves the femur; `most` where it does not."""
    steps = np.arange(0.4, most, 0.25)
    points = start + rays.reshape(-1, 1, 3) * steps[:, None]
    distances = _distance(shape, points)
    out = distances > 0
    first = np.maximum(out.argmax(axis=1), 1)
    rows = np.arange(len(out))
    before, after = distances[rows, first - 1], distances[rows, first]
    with np.errstate(divide="ignore", invalid="ignore"):  # of rays that do not leave
        found = np.where(out.any(axis=1), steps[first - 1] + 0.25 * before / (before - after), most)
    return found.reshape(rays.shape[:-1])


def _distance(shape: FemurShape, points: np.ndarray) -> np.ndarray:
    lateral, posterior, superior = np.moveaxis(points.astype(np.float32), -1, 0)
    return femur_distance((lateral[None], posterior[None], superior[None]), shape)[0]


def label_map(shape: FemurShape, spacing_mm: tuple[float, float, float], rng: np.random.Generator) -> Volume:
    """The phantom's mask on a grid that lies anywhere."""
    axes = [
        np.arange(low + spacing * rng.random(), high, spacing)
        for low, high, spacing in zip(LOW_MM, HIGH_MM, spacing_mm, strict=True)
    ]
    x, y, z = (axis.astype(np.float32) for axis in axes)
    inside = femur_distance((x[None, None], y[None, :, None], z[:, None, None]), shape) < 0
    return Volume(inside, spacing_mm, (float(x[0]), float(y[0]), float(z[0])))


def measured(seed: int) -> dict:
    """For each spacing: truth, values, how far resampling reaches, and the gate's level of every part."""
    shape = patient_anatomy(seed).left
    truth, rng = values(true_femur(shape)), np.random.default_rng(seed)
    found: dict = {"seed": seed}
    for grid_mm, spacing in SPACINGS_MM.items():
        surface = Surface(*femur_mesh(label_map(shape, spacing, rng)))
        femur = find_femur(surface, "left")
        bars = spread(surface, femur, Boundary(np.array(spacing), np.eye(3)))
        found[str(grid_mm)] = {
            "truth": [*truth, 0.0],
            "value": [*values(femur), float(np.linalg.norm(femur.head.centre_mm))],
            "tails": [*(bars.tails(name) for name in DEFINITIONS), (-np.inf, bars.centre_tail_mm)],
            "parts": {part: verdict.level for part, verdict in judge(femur, grid_mm, side_is_given=True).items()},
        }
    return found


@dataclasses.dataclass(frozen=True, eq=False)
class Column:
    """One measure of all phantoms at one spacing; (N,) each.

    Attributes:
        errors: value less truth.
        toward: how far resampling reaches from the value to the truth's side.
        held: whether the interval holds the truth.
        bars: mean half width of the intervals.
        levels: of the gate.
    """

    errors: np.ndarray
    toward: np.ndarray
    held: np.ndarray
    bars: np.ndarray
    levels: np.ndarray

    def of(self, chosen: np.ndarray) -> Column:
        """The chosen phantoms."""
        return Column(*(getattr(self, field.name)[chosen] for field in dataclasses.fields(self)))


def column(rows: list[dict], name: str, grid_mm: float) -> Column:
    """Every phantom; of a cam's measures those without one, in truth and as measured, are left out."""
    index, definition = MEASURES.index(name), DEFINITIONS.get(name, DEFINITIONS["head_radius_mm"])
    found = []
    for one in (row[str(grid_mm)] for row in rows):
        truth, value, tails = (one[key][index] for key in ("truth", "value", "tails"))
        if name.startswith("cam_") and not truth and not value:
            continue
        low, high = interval(name, value, tails, grid_mm) if name in DEFINITIONS else _ball(value, tails[1], grid_mm)
        levels = [*(one["parts"][part] for part in definition.needs), of_bar(value, low, high, definition.unit).level]
        toward = tails[1] if name not in DEFINITIONS or truth > value else -tails[0]
        found.append((value - truth, toward, low <= truth <= high, (high - low) / 2, max(map(LEVELS.index, levels))))
    return Column(*np.array(found, float).reshape(-1, 5).T)


def _ball(value: float, reach: float, grid_mm: float) -> tuple[float, float]:
    """The head's centre is off by `value`, never less than 0: an interval that holds 0 holds the truth."""
    radius = half_width("head_centre_mm", reach, grid_mm)
    return value - radius, value + radius


def calibrated(rows: list[dict]) -> dict[str, list[tuple[float, float]]]:
    """BARS: by measure and spacing (a, b), so that a · reach + b is no less than 90% of the errors.

    b is a times the median reach: half of an ordinary width follows the femur at hand, the other half is the same for
    all. What the gate refuses however wide the bars are is left out, unless that is everything.
    """
    return {name: [_line(column(rows, name, grid_mm)) for grid_mm in SPACINGS_MM] for name in MEASURES}


def _line(found: Column) -> tuple[float, float]:
    found = found.of(np.isfinite(found.errors) & np.isfinite(found.toward))
    if (found.levels < LEVELS.index(NOT)).any():
        found = found.of(found.levels < LEVELS.index(NOT))
    if not len(found.errors):
        return 1.0, 0.0
    typical = float(np.median(found.toward))
    slope = float(np.quantile(np.abs(found.errors) / (found.toward + typical), COVERAGE, method="higher"))
    return round(slope, 3), round(slope * typical, 4)


def table(rows: list[dict], command: str) -> str:
    """Bias, spread and coverage of every measure at both spacings, of what the gate does not refuse."""
    columns = f"{'bias':>9}{'SD':>8}{'90%':>8}{'bar':>8}{'held':>7}{'of':>5}{'refused':>9}"
    lines = [
        command,
        f"{len(rows)} phantoms, seeds {rows[0]['seed']} to {rows[-1]['seed']}; the bars were calibrated on others",
        "",
        f"{'':26}" + "".join(f"{f'{grid_mm:g} mm':>{len(columns)}}" for grid_mm in SPACINGS_MM),
        f"{'':26}" + columns * len(SPACINGS_MM),
    ]
    for name in MEASURES:
        lines.append(f"{name:26}" + "".join(_cells(column(rows, name, grid_mm)) for grid_mm in SPACINGS_MM))
    return "\n".join(lines) + "\n"


def _cells(found: Column) -> str:
    refused = found.levels == LEVELS.index(NOT)
    kept = found.of(~refused)
    if not len(kept.errors):
        return f"{'':8}-{'':7}-{'':7}-{'':7}-{'':6}-{0:5}{refused.sum():9}"
    numbers = (kept.errors.mean(), kept.errors.std(), np.quantile(np.abs(kept.errors), 0.9), kept.bars.mean())
    digits = 3 if max(map(abs, numbers)) < 0.1 else 2
    text = "".join(f"{number:{width}.{digits}f}" for number, width in zip(numbers, (9, 8, 8, 8), strict=True))
    return f"{text}{kept.held.mean():7.1%}{len(kept.errors):5}{refused.sum():9}"


def read_rows(path: Path) -> list[dict[str, Any]]:
    """What was measured before; a line that was cut off is passed over."""
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        with contextlib.suppress(ValueError):
            rows.append(json.loads(line))
    return rows


def main(_: list[str]) -> None:
    """Measures the phantoms that the raw file lacks, then prints BARS or the table."""
    raw, seeds = Path(FLAGS.raw), range(FLAGS.first, FLAGS.first + FLAGS.count)
    rows = read_rows(raw)
    for seed in sorted({*seeds} - {row["seed"] for row in rows}):
        rows.append(measured(seed))
        with raw.open("a") as file:
            file.write("\n" + json.dumps(rows[-1]))  # never on a line that was cut off
    rows = sorted((row for row in rows if row["seed"] in seeds), key=lambda row: row["seed"])
    if FLAGS.calibrate:
        print("BARS =", json.dumps(calibrated(rows)))
    text = table(rows, f"python -m experiments.studies.morphometry_accuracy {' '.join(sys.argv[1:])}")
    print(text)
    if FLAGS.output:
        with replacing(Path(FLAGS.output)) as temporary:
            temporary.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    flags.DEFINE_string("output", None, "the table's file", short_name="o")
    flags.DEFINE_string("raw", "morphometry_phantom.jsonl", "one line a phantom; goes on where it ends")
    flags.DEFINE_integer("first", 20000, "seed of the first phantom")
    flags.DEFINE_integer("count", 200, "phantoms")
    flags.DEFINE_bool("calibrate", False, "print the error bars' calibration")
    app.run(main)
