"""How right the measures of a femur are, and how often their error bars hold the truth: on phantoms.

    python -m experiments.studies.morphometry_accuracy -o experiments/results/morphometry_phantom.txt --count 200

Every phantom's head, neck and shaft are known exactly, and its outline about the head's true centre is found by going
along rays until its signed distance changes sign, without a surface. Each is drawn as a label map at 1 mm and as
coronal slices of 0.9×5.2×0.9 mm, at a random place between the voxels. `--raw` keeps one line of JSON a phantom: a run
goes on where an earlier one ended. The least widths in `femur3d/morphometry/error_bars.py` are learnt on the phantoms
of even seeds; the coverage in the table is that of the odd ones.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
from absl import app, flags

from femur3d.io.atomic import replacing
from femur3d.morphometry.alpha import alpha_degrees, polar_degrees
from femur3d.morphometry.axes import LONGEST_MM, START, Neck, Shaft
from femur3d.morphometry.definitions import DEFINITIONS, values
from femur3d.morphometry.error_bars import LEAST, WIDEN, Boundary, spread
from femur3d.morphometry.femur import Femur, find_femur
from femur3d.morphometry.gate import JUNCTION_SLICES_MM
from femur3d.morphometry.implicit_surface import femur_mesh
from femur3d.morphometry.sphere import Sphere
from femur3d.morphometry.surface import PLANES, Frame, Surface, clock_angles, perpendicular
from femur3d.phantom.anatomy import femur_distance
from femur3d.phantom.hip import patient_anatomy
from femur3d.phantom.patient import FemurShape
from femur3d.volume import Volume

FLAGS = flags.FLAGS
SPACINGS_MM = {"1 mm": (1.0, 1.0, 1.0), "5.2 mm": (0.9, 5.2, 0.9)}
LOW_MM, HIGH_MM = np.array([-35.0, -45.0, -130.0]), np.array([85.0, 50.0, 40.0])
BEYOND = 1.7  # head radii: as far as rays go


def true_femur(shape: FemurShape) -> Femur:
    """Head, neck, shaft and outline of a phantom as it was made, in the hip frame of a left femur (LPS)."""
    axis = -shape.neck_axis
    superior = perpendicular(shape.axes[2], axis)
    frame = Frame(np.zeros(3), axis, superior, np.cross(axis, superior))
    radius, turns, polar = shape.head_radius_mm, clock_angles(), np.radians(polar_degrees())
    around = np.cos(turns)[:, None] * frame.superior + np.sin(turns)[:, None] * frame.anterior
    rays = np.cos(polar)[:, None] * axis + np.sin(polar)[:, None] * around[:, None]
    map_mm = reach_mm(shape, np.zeros(3), rays, BEYOND * radius) - radius
    along = np.arange(0.6, 1.9, 0.05) * radius
    widths = np.stack([reach_mm(shape, axis * s, around, BEYOND * radius) for s in along], axis=1)
    areas = 0.5 * np.sin(2 * np.pi / PLANES) * (widths * np.roll(widths, -1, axis=0)).sum(axis=0)
    neck = Neck(frame, [], along, widths, areas, int(areas.argmin()), True)
    head = Sphere(np.zeros(3), radius)
    return Femur("left", 1.0, head, neck, _true_shaft(shape), map_mm, alpha_degrees(map_mm, radius))


def _true_shaft(shape: FemurShape) -> Shaft:
    """The line through the bowed middle of the shaft where `axes.find_shaft` looks for it."""
    proximal, posterior = shape.axes[2], shape.axes[1]
    top = -START * shape.head_radius_mm - shape.junction_mm @ proximal
    low = max(top - LONGEST_MM, LOW_MM[2] + 4 - shape.junction_mm[2])
    heights = np.linspace(low, top, 50)
    bow = heights**2 / (2 * shape.bow_radius_mm)
    middles = shape.junction_mm + heights[:, None] * proximal + bow[:, None] * posterior
    direction = np.linalg.svd(middles - middles.mean(axis=0))[2][0]
    direction *= np.sign(direction @ proximal)
    return Shaft(middles.mean(axis=0), direction, float(top - low), 0.0, 0.0, shape.shaft_diameter_mm)


def reach_mm(shape: FemurShape, start: np.ndarray, rays: np.ndarray, most: float) -> np.ndarray:
    """How far (mm) each ray (…, 3) runs from a point inside before it leaves the femur; `most` where it does not."""
    steps = np.arange(0.4, most, 0.25)
    points = start + rays.reshape(-1, 1, 3) * steps[:, None]
    distances = _distance(shape, points)
    out = distances > 0
    first = np.maximum(out.argmax(axis=1), 1)
    rows = np.arange(len(out))
    before, after = distances[rows, first - 1], distances[rows, first]
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
    """For each spacing: errors of all measures, and the bars below and above before their calibration."""
    shape = patient_anatomy(seed).left
    truth, rng = values(true_femur(shape)), np.random.default_rng(seed)
    found = {}
    for name, spacing in SPACINGS_MM.items():
        mask = label_map(shape, spacing, rng)
        surface = Surface(*femur_mesh(mask))
        femur = find_femur(surface, "left")
        bars = spread(surface, femur, Boundary(np.array(spacing), np.eye(3)))
        tails = np.array([bars.tails(measure) for measure in DEFINITIONS])
        found[name] = {
            "error": (values(femur) - truth).tolist(),
            "low": tails[:, 0].tolist(),
            "high": tails[:, 1].tolist(),
            "centre": float(np.linalg.norm(femur.head.centre_mm)),
            "centre_bar": bars.centre_tail_mm,
            "sided": femur.sidedness,
        }
    return {"seed": seed, **found}


def calibration(rows: list[dict]) -> dict[str, float]:
    """The least half-widths with which 90% of the errors lie within the bars, where the gate lets them be measured."""
    least = {}
    for index, name in enumerate([*DEFINITIONS, "head_centre_mm"]):
        errors, lows, highs = _columns(rows, _measurable(name), index)
        missed = np.where(errors > 0, errors > -lows, -errors > highs)
        least[name] = float(np.quantile(np.where(missed, np.abs(errors), 0.0), 0.90)) if len(errors) else 0.0
    return least


def _measurable(name: str) -> list[str]:
    """The spacings at which the gate lets a measure be."""
    needs = DEFINITIONS[name].needs if name in DEFINITIONS else ()
    return [one for one, mm in SPACINGS_MM.items() if "junction" not in needs or max(mm) <= JUNCTION_SLICES_MM[0]]


def _columns(rows: list[dict], names: list[str], index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Errors, widened low and high bars of one measure, those without a value left out."""
    found = [row[name] for row in rows for name in names]
    if index == len(DEFINITIONS):
        table = [(one["centre"], -one["centre_bar"], one["centre_bar"]) for one in found]
    else:
        table = [(one["error"][index], one["low"][index], one["high"][index]) for one in found]
    array = np.array(table, float) * (1, WIDEN, WIDEN)
    return tuple(array[~np.isnan(array).any(axis=1)].T)


def table(rows: list[dict], command: str) -> str:
    """Bias, spread and coverage of every measure at both spacings."""
    tested = [row for row in rows if row["seed"] % 2]
    head = f"{'':26}" + "".join(
        f"{name + ': bias':>15}{'SD':>9}{'90%':>9}{'bar':>9}{'held':>8}" for name in SPACINGS_MM
    )
    lines = [
        command,
        f"{len(rows)} phantoms; bars calibrated on even seeds, 'held' counted on {len(tested)} odd ones",
        "",
        head,
    ]
    for index, name in enumerate([*DEFINITIONS, "head_centre_mm"]):
        line = f"{name:26}"
        for spacing in SPACINGS_MM:
            errors, _, _ = _columns(rows, [spacing], index)
            found, lows, highs = _columns(tested, [spacing], index)
            low, high = np.maximum(-lows, LEAST.get(name, 0.0)), np.maximum(highs, LEAST.get(name, 0.0))
            held = np.mean((found <= low) & (-found <= high)) if len(found) else np.nan
            most = np.quantile(np.abs(errors), 0.9) if len(errors) else np.nan
            bar = np.mean((low + high) / 2) if len(found) else np.nan
            share = f"{held:.0%}" if spacing in _measurable(name) else "refused"
            line += f"{errors.mean():15.2f}{errors.std():9.2f}{most:9.2f}{bar:9.2f}{share:>8}"
        lines.append(line)
    return "\n".join(lines) + "\n"


def main(_: list[str]) -> None:
    """Measures the phantoms that the raw file lacks, then prints calibration and table."""
    raw = Path(FLAGS.raw)
    rows = [json.loads(line) for line in raw.read_text().splitlines()] if raw.exists() else []
    for seed in range(FLAGS.count):
        if seed not in {row["seed"] for row in rows}:
            rows.append(measured(seed))
            with raw.open("a") as file:
                file.write(json.dumps(rows[-1]) + "\n")
    least = calibration([row for row in rows if row["seed"] % 2 == 0])
    print("LEAST =", json.dumps({key: round(value, 3) for key, value in least.items()}, indent=4))
    text = table(rows, f"python -m experiments.studies.morphometry_accuracy {' '.join(sys.argv[1:])}")
    print(text)
    with replacing(Path(FLAGS.output)) as temporary:
        temporary.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    flags.DEFINE_string("output", None, "the table's file", short_name="o", required=True)
    flags.DEFINE_string("raw", "morphometry_phantom.jsonl", "one line a phantom; goes on where it ends")
    flags.DEFINE_integer("count", 200, "phantoms")
    app.run(main)
