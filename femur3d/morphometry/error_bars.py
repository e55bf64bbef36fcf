"""Error bars: the measures again and again on surfaces that might as well be the true one.

Each time the surface is moved along its normals by a smooth random field, by an eighth of a voxel's extent along the
normal (standard deviation), or as far as a probability map leaves the boundary open; and what the definitions leave
open (how much of the head is articular, where the shaft begins, …) is varied. How far the measures then reach is turned
into half widths that were calibrated on phantoms, for cubes of 1 mm and of 2 mm and for slices of 5.2 mm: the 90%
interval is to hold the truth in 85 to 95% of cases (`experiments/studies/morphometry_accuracy.py`).
"""

from __future__ import annotations

import dataclasses

import numpy as np
from scipy import ndimage

from femur3d.morphometry.definitions import DEFINITIONS, values
from femur3d.morphometry.femur import OURS, Choices, Femur, again
from femur3d.morphometry.surface import Surface
from femur3d.volume import Volume

SAMPLES = 20
COVERAGE = 0.90
EDGE_MM = 2.2  # of the surfaces that are moved
AMPLITUDE = 0.25  # standard deviation of the boundary, in half voxels along its normal
REACH_VOXELS = 2.0  # over which the boundary's errors are alike
COMMON = 0.3  # of the amplitude: the same all over the femur
_WAVES = 32
_OPEN_MM = 3.0  # a probability map that leaves the boundary more open than this is taken so

GRIDS_MM = (1.0, 2.0, 5.2)  # longest edge of the voxels that BARS was calibrated in
# By measure and grid: (a, b) of a half width a · reach + b, where reach is how far resampling reaches to that side.
BARS: dict[str, tuple[tuple[float, float], ...]] = {
    "head_radius_mm": ((0.579, 0.0515), (0.315, 0.049), (0.468, 0.1062)),
    "neck_diameter_mm": ((0.171, 0.0302), (0.332, 0.1568), (0.455, 0.2327)),
    "head_neck_offset_mm": ((0.666, 0.1218), (0.395, 0.1493), (0.72, 0.5098)),
    "head_neck_offset_ratio": ((0.626, 0.0024), (0.399, 0.0033), (0.691, 0.0104)),
    "neck_shaft_angle_deg": ((1.176, 0.2269), (0.424, 0.2911), (0.509, 0.2769)),
    "femoral_offset_mm": ((1.439, 0.2614), (0.554, 0.4172), (0.619, 0.3588)),
    "alpha_max_deg": ((0.452, 1.2366), (0.196, 1.2347), (0.66, 10.2813)),
    "alpha_max_hour": ((0.35, 0.1424), (0.146, 0.1792), (0.287, 0.6165)),
    "alpha_anterior_deg": ((1.613, 3.3136), (0.586, 2.5149), (0.865, 5.3145)),
    "alpha_anterosuperior_deg": ((0.653, 1.3816), (0.435, 2.1482), (0.194, 1.387)),
    "cam_height_mm": ((2.156, 0.3909), (1.02, 0.4593), (1.398, 0.6576)),
    "cam_area_mm2": ((2.362, 35.2121), (0.465, 37.3727), (0.572, 46.5503)),
    "cam_volume_mm3": ((1.752, 41.5798), (0.314, 37.0708), (0.646, 60.1976)),
    "head_centre_mm": ((1.063, 0.0811), (0.427, 0.1202), (0.365, 0.0992)),
}


@dataclasses.dataclass(frozen=True, eq=False)
class Boundary:
    """How well the boundary is known.

    Attributes:
        spacing_mm: (3,), of the voxels that it was drawn in, along `axes`.
        axes: 3×3, rows are unit vectors in world LPS.
        probability: P(femur), where known.
    """

    spacing_mm: np.ndarray
    axes: np.ndarray
    probability: Volume | None = None

    def deviation_mm(self, surface: Surface) -> np.ndarray:
        """(V,): standard deviation of the surface's place along its normals."""
        half = np.abs(surface.normals @ self.axes.T) @ self.spacing_mm / 2
        if self.probability is None:
            return AMPLITUDE * half
        map_ = self.probability
        steps = np.gradient(map_.array.astype(np.float32), *map_.spacing_mm[::-1])
        places = map_.index_zyx(surface.vertices).T
        slope = np.sqrt(sum(np.square(ndimage.map_coordinates(s, places, order=1, mode="nearest")) for s in steps))
        # A logistic edge has the slope 1/4w in its middle and the standard deviation 1.81 w.
        return np.hypot(AMPLITUDE * half, np.minimum(0.45 / np.maximum(slope, 1e-6), _OPEN_MM) / 2)


@dataclasses.dataclass(frozen=True, eq=False)
class Spread:
    """The measures on surfaces that might be true, less those on the surface itself.

    Attributes:
        differences: (SAMPLES, M), in the order of DEFINITIONS; NaN where a measure could not be taken.
        centre_mm: (SAMPLES,), how far the head's centre moved.
        grid_mm: longest edge of the voxels that the surface was drawn in.
    """

    differences: np.ndarray
    centre_mm: np.ndarray
    grid_mm: float

    def tails(self, name: str) -> tuple[float, float]:
        """How far the 90% of the differences reach below and above their median; NaN where half of them lack it.

        Their median itself says nothing: noise alone makes a largest angle larger.
        """
        found = self.differences[:, list(DEFINITIONS).index(name)]
        if np.isnan(found).mean() > 0.5:
            return np.nan, np.nan
        low, middle, high = np.nanquantile(found, [(1 - COVERAGE) / 2, 0.5, (1 + COVERAGE) / 2])
        return float(low - middle), float(high - middle)

    def interval(self, name: str, value: float) -> tuple[float, float]:
        """The calibrated 90% interval of a measure."""
        return interval(name, value, self.tails(name), self.grid_mm)

    @property
    def centre_tail_mm(self) -> float:
        """Radius of the ball that holds 90% of the head's centres."""
        return float(np.quantile(self.centre_mm, COVERAGE))

    @property
    def centre_error_mm(self) -> float:
        """The same, calibrated: about the head's centre it holds the true one in 90% of cases."""
        return half_width("head_centre_mm", self.centre_tail_mm, self.grid_mm)


def half_width(name: str, reach: float, grid_mm: float) -> float:
    """The calibrated half width, to one side, of a measure whose resamplings reach so far; linear between the grids."""
    slopes, leasts = zip(*BARS[name], strict=True)
    slope, least = (np.interp(grid_mm, GRIDS_MM, numbers) for numbers in (slopes, leasts))
    return float(slope * reach + least * max(grid_mm / GRIDS_MM[-1], 1.0))


def interval(name: str, value: float, tails: tuple[float, float], grid_mm: float) -> tuple[float, float]:
    """The calibrated 90% interval of a measure.

    Args:
        name: of DEFINITIONS.
        value: as measured.
        tails: of `Spread.tails`.
        grid_mm: longest edge of the voxels.
    """
    low, high = value - half_width(name, -tails[0], grid_mm), value + half_width(name, tails[1], grid_mm)
    return (max(low, 0.0) if name.startswith("cam_") else low), high


def spread(surface: Surface, femur: Femur, boundary: Boundary) -> Spread:
    """Moves the surface SAMPLES times and measures it; the same numbers every time, however the femur lies."""
    coarse = surface.coarse(EDGE_MM)
    deviation = boundary.deviation_mm(coarse)
    plain = again(coarse, femur, OURS)
    first, rng = values(plain), np.random.default_rng(23)
    differences, centres = np.full((SAMPLES, len(first)), np.nan), np.zeros(SAMPLES)
    places = (coarse.vertices - femur.head.centre_mm) @ boundary.axes.T / (REACH_VOXELS * boundary.spacing_mm)
    for sample in range(SAMPLES):
        waves, phases = rng.standard_normal((_WAVES, 3)), rng.uniform(0, 2 * np.pi, _WAVES)
        field = np.cos(places @ waves.T + phases).sum(axis=1) * np.sqrt(2 / _WAVES)
        field = np.sqrt(1 - COMMON**2) * field + COMMON * rng.standard_normal()
        moved = again(coarse.moved(deviation * field), plain, _choices(rng))
        differences[sample] = values(moved) - first
        centres[sample] = np.linalg.norm(moved.head.centre_mm - plain.head.centre_mm)
    return Spread(differences, centres, float(boundary.spacing_mm.max()))


def _choices(rng: np.random.Generator) -> Choices:
    return Choices(
        articular_deg=OURS.articular_deg + rng.uniform(-8, 8),
        narrow=OURS.narrow + rng.uniform(-0.03, 0.06),
        start=OURS.start + rng.uniform(-0.2, 0.2),
        leaves=OURS.leaves + rng.uniform(-0.005, 0.005),
    )
