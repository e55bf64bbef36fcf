"""The alpha angle around the clock, and the cam: where the bone leaves the head's sphere on its way to the neck.

Nötzli et al. 2002 (J Bone Joint Surg Br 84:556) measure the alpha angle in one oblique axial plane: between the neck's
axis and the line from the head's centre to the place where the outline first is farther from the centre than the
radius. Here it is read in every radial plane about the neck's axis, as Kang et al. 2013 (Int J CARS 8:967) and Harris
et al. 2014 (Eur J Radiol 83:788) map the head-neck junction. 12 o'clock is superior, 3 o'clock anterior, on both sides.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from femur3d.morphometry.axes import Neck
from femur3d.morphometry.sphere import Sphere
from femur3d.morphometry.surface import PLANES, Contour

LEAVES = 0.03  # of the radius: what is farther out has left the sphere **(ours)**
STAYS_DEG = 10.0  # for so long at least: a ridge of less than 4 mm along the outline has not **(ours)**
MOST_BACK_DEG = 3.0  # from there back to the sphere itself
FROM_DEG, TO_DEG = 100.0, 20.0  # where along an outline it is looked for, from the articular surface to the neck
CAM_DEG = 55.0  # a larger alpha angle is a cam's (Nötzli et al. 2002 and after)
STEP_DEG = 1.0
_BEYOND = 1.7  # radii; what is farther from the centre is a trochanter


def polar_degrees() -> np.ndarray:
    """(N,): angles with the neck's axis, from the articular surface down to the neck."""
    return np.arange(FROM_DEG, TO_DEG - STEP_DEG / 2, -STEP_DEG)


def heights(neck: Neck, head: Sphere) -> np.ndarray:
    """How far the surface stands out of the head's sphere: (PLANES, N), mm, by clock and polar angle."""
    return np.stack([_heights(line, head.radius_mm) for line in neck.contours])


def _heights(line: Contour, radius: float) -> np.ndarray:
    distances = np.hypot(line.along_mm, line.away_mm)
    near = distances < _BEYOND * radius
    angles = np.degrees(np.arctan2(line.away_mm[near], line.along_mm[near]))
    order = np.argsort(angles)
    if len(order) < 2:
        return np.full(len(polar_degrees()), np.nan)
    return np.interp(polar_degrees(), angles[order], distances[near][order], left=np.nan, right=np.nan) - radius


def alpha_degrees(heights_mm: np.ndarray, radius_mm: float, leaves: float = LEAVES) -> np.ndarray:
    """The alpha angle in every half-plane: (PLANES,), degrees; NaN where the outline does not leave the sphere.

    An outline of voxels strays from the best sphere by some tenths of a millimetre. So the first place is looked for
    from which on 10° are farther out by 3% of the radius, and from it a line parallel to the neck's axis goes back to
    the sphere, by 3° at most. On a ball with a cylinder as its neck this is asin(cylinder's radius / ball's radius),
    as it should be.

    Args:
        heights_mm: of `heights`.
        radius_mm: of the head.
        leaves: the 3%.
    """
    return np.array([_alpha(row, radius_mm, leaves) for row in heights_mm])


def _alpha(row: np.ndarray, radius: float, leaves: float) -> float:
    angles, level = polar_degrees(), leaves * radius
    out = np.flatnonzero((row > level) & _stays(~(row <= level)))
    if not out.size:
        return np.nan
    first = int(out[0])
    if first == 0 or not np.isfinite(row[first - 1]):
        return float(angles[first])
    share = (level - row[first - 1]) / (row[first] - row[first - 1])
    left = angles[first - 1] - share * STEP_DEG
    touching = np.degrees(np.arcsin(min((1 + leaves) * np.sin(np.radians(left)), 1.0)))
    return float(min(touching if left < 90 else left, left + MOST_BACK_DEG))


def _stays(out: np.ndarray) -> np.ndarray:
    """(N,): from where on an outline is out over STAYS_DEG on its way to the neck, or as far as it is known."""
    steps = round(STAYS_DEG / STEP_DEG)
    ahead = np.concatenate([out, np.ones(steps, bool)])
    return np.asarray(np.lib.stride_tricks.sliding_window_view(ahead, steps + 1).all(axis=1))


@dataclasses.dataclass(frozen=True)
class Cam:
    """What stands out of the continuation of the head's sphere where a normal femur does not, beyond 55°.

    Attributes:
        height_mm: the most.
        area_mm2: of the sphere under it.
        volume_mm3: between it and the sphere.
    """

    height_mm: float
    area_mm2: float
    volume_mm3: float


def cam(heights_mm: np.ndarray, radius_mm: float) -> Cam:
    """The cam on the map of `heights`; all 0 where nothing stands out by 3% of the radius."""
    angles = np.radians(polar_degrees())
    region = (heights_mm > LEAVES * radius_mm) & (polar_degrees() > CAM_DEG)
    solid = np.sin(angles) * np.radians(STEP_DEG) * (2 * np.pi / PLANES)
    height = np.where(region, heights_mm, 0.0)
    volume = ((radius_mm + height) ** 3 - radius_mm**3) / 3 * solid
    return Cam(float(height.max()), float((region * solid).sum() * radius_mm**2), float(volume.sum()))
