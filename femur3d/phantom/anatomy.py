"""Signed distances (mm, negative inside) to the parts of a hip: femur, pelvis, muscles, vessels, skin.

Each part is written once, for the hip frame of `patient`: a left hip reads world x as lateral, a right one
minus world x.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from femur3d.phantom.patient import REFERENCE_HEAD_RADIUS_MM, BodyShape, FemurShape
from femur3d.phantom.shapes import (
    Grid,
    along,
    cone,
    ellipsoid,
    elliptic,
    smooth_step,
    smooth_union,
    sphere,
    squared_distance,
    window,
)

# ---- femur -----------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class FemurFields:
    """What the contrast needs to know about the femur; all (nz, ny, nx), float32.

    Attributes:
        distance: signed distance to the outer surface, mm.
        cortex: thickness of the cortex, mm.
        red: share of red marrow, 0…1.
        along_neck: mm from the head centre towards the shaft along the neck's axis.
    """

    distance: np.ndarray
    cortex: np.ndarray
    red: np.ndarray
    along_neck: np.ndarray


def _neck(grid: Grid, shape: FemurShape, along_neck: np.ndarray) -> np.ndarray:
    """The neck: an elliptic tube, narrowest halfway, higher than deep, open towards head and trochanter."""
    down = -shape.neck_axis
    anterior = -shape.axes[1] - np.dot(-shape.axes[1], down) * down
    anterior /= np.linalg.norm(anterior)
    across = along(grid, (0, 0, 0), np.cross(down, anterior))
    depth = along(grid, (0, 0, 0), anterior)
    length = shape.neck_length_mm
    flare = np.square((along_neck - np.float32(0.5 * length)) * np.float32(1 / length))
    height = np.float32(shape.neck_ratio * shape.head_radius_mm) * (1 + np.float32(1.1) * flare)
    tube = elliptic(across, depth, height, np.float32(0.84) * height)
    return np.maximum(tube, np.maximum(-along_neck, along_neck - np.float32(length)))


def _shaft(grid: Grid, shape: FemurShape, proximal: np.ndarray) -> np.ndarray:
    """The shaft: an elliptic tube about a bowed axis that flares under the trochanters."""
    axes, origin = shape.axes, shape.junction_mm
    bow = np.square(np.minimum(proximal, 0)) * np.float32(0.5 / shape.bow_radius_mm)
    flare = smooth_step(proximal, -62.0, -4.0)
    lateral = along(grid, origin, axes[0]) - np.float32(1.5) * flare
    posterior = along(grid, origin, axes[1]) - bow
    half = np.float32(shape.shaft_diameter_mm / 2)
    tube = elliptic(lateral, posterior, half * (1 + np.float32(0.30) * flare), half * (1 + np.float32(0.22) * flare))
    return np.maximum(tube, proximal - np.float32(6))


def _trochanters(grid: Grid, shape: FemurShape, distance: np.ndarray) -> np.ndarray:
    """Joins the greater trochanter (a body and a hooked tip) and the lesser one to `distance`."""
    axes, size = shape.axes, shape.head_radius_mm / REFERENCE_HEAD_RADIUS_MM
    rise = float(shape.neck_length_mm * -math.cos(math.radians(shape.neck_shaft_angle_deg)))
    parts = (
        ((8.0, 3.0, 0.45 * rise - 6.0), (13.5, 17.0, 21.0), 9.0),
        ((8.0, 9.0, 0.72 * rise), (10.0, 14.5, 14.0), 9.0),
        ((-12.0, 10.0, -27.0), (7.0, 7.5, 12.0), 8.0),
    )
    for centre, radii, blend in parts:
        world = shape.junction_mm + size * np.asarray(centre) @ axes
        part = ellipsoid(grid, world, [size * r for r in radii], axes)
        distance = smooth_union(distance, part, blend)
    return distance


def _head(grid: Grid, shape: FemurShape, distance: np.ndarray) -> np.ndarray:
    """Joins the head and a cam to `distance` and takes the fovea out."""
    radius, axis = shape.head_radius_mm, shape.neck_axis
    distance = smooth_union(distance, sphere(grid, (0, 0, 0), radius), 5.0)
    if shape.cam_height_mm > 0:
        up = np.array([0.0, -0.75, 0.66]) - np.dot([0.0, -0.75, 0.66], axis) * axis
        centre = 0.72 * radius * up / np.linalg.norm(up) - 0.55 * radius * axis
        distance = smooth_union(distance, sphere(grid, centre, 0.2 * radius + shape.cam_height_mm), 6.0)
    pit = np.array([-0.93, 0.22, -0.18])
    pit *= (radius + 6.0 - shape.fovea_depth_mm) / np.linalg.norm(pit)
    return -smooth_union(-distance, sphere(grid, pit, 6.0), 2.5)


def femur_distance(grid: Grid, shape: FemurShape) -> np.ndarray:
    """Signed distance (mm, first order) to the femur's outer surface, shape (nz, ny, nx)."""
    proximal = along(grid, shape.junction_mm, shape.axes[2])
    along_neck = along(grid, (0, 0, 0), -shape.neck_axis)
    distance = smooth_union(_shaft(grid, shape, proximal), _neck(grid, shape, along_neck), 12.0)
    return _head(grid, shape, _trochanters(grid, shape, distance))


def femur_fields(grid: Grid, shape: FemurShape) -> FemurFields:
    """Distance, cortex and marrow of the femur.

    The cortex is about a millimetre at the head, thickens under the trochanters and in the calcar (the medial arch of
    the neck). Red marrow stays longest in the neck and between the trochanters.
    """
    proximal = along(grid, shape.junction_mm, shape.axes[2])
    thin = 1.1
    cortex = np.float32(thin) + np.float32(shape.cortex_mm - thin) * smooth_step(proximal, -8.0, -85.0)
    calcar = shape.junction_mm + np.array([-0.62, 0.0, -0.5]) * shape.head_radius_mm
    cortex += np.float32(2.2) * np.exp(-squared_distance(grid, calcar) * np.float32(1 / 350))
    patch = ellipsoid(grid, tuple(0.72 * shape.junction_mm + [0, 0, -4.0]), (24.0, 14.0, 20.0))
    return FemurFields(
        distance=femur_distance(grid, shape),
        cortex=cortex,
        red=smooth_step(patch, 6.0, -12.0),
        along_neck=along(grid, (0, 0, 0), -shape.neck_axis),
    )


# ---- pelvis ----------------------------------------------------------------------------------------------------------

CUP_AXIS = np.array([0.70, -0.24, -0.67]) / np.linalg.norm([0.70, -0.24, -0.67])
"""Normal of the acetabular opening: inclination about 45°, anteversion about 15°."""

_PELVIC_BARS: tuple[tuple[tuple[float, ...], tuple[float, ...], tuple[float, float], tuple[float, ...] | None], ...] = (
    ((-7, 4, 28), (-12, 10, 66), (19, 14), (0, 1.5, 0)),  # body of the ilium
    ((-12, 10, 62), (18, -4, 135), (10, 7), (0, 5.0, 0)),  # wing
    ((-22, 32, 50), (-46, 62, 85), (13, 13), (0, 0, 1.6)),  # towards the sacroiliac joint
    ((-18, -22, 4), (-84, -48, -28), (10, 8), None),  # superior ramus of the pubis
    ((-84, -46, -24), (-82, -40, -50), (9, 8), (0, 1.5, 0)),  # body of the pubis
    ((-82, -38, -52), (-40, 22, -70), (6, 7), None),  # inferior ramus
    ((-20, 26, -8), (-26, 34, -62), (14, 15), (0, 1.25, 0)),  # ischium and its tuberosity
)


def socket_distance(grid: Grid, shape: FemurShape, body: BodyShape) -> np.ndarray:
    """Signed distance to the ball that head, cartilage and joint space fill together."""
    return sphere(grid, (0, 0, 0), shape.head_radius_mm + body.joint_space_mm)


def pelvis_distance(grid: Grid, shape: FemurShape, body: BodyShape) -> np.ndarray:
    """Signed distance to the hip bone: a cup about the head, ilium, pubis and ischium, minus the socket."""
    outer = sphere(grid, (-3.0, 1.0, 2.5), shape.head_radius_mm + body.joint_space_mm + 4.5)
    cup = np.maximum(outer, along(grid, CUP_AXIS * -5.0, CUP_AXIS))
    distance = cup
    for start, end, radii, wide in _PELVIC_BARS:
        ends = tuple(np.multiply(body.scale, point) for point in (start, end))
        bar = cone(grid, (ends[0], ends[1]), [body.scale * r for r in radii], wide)
        distance = smooth_union(distance, bar, 10.0)
    opening = np.maximum(
        sphere(grid, CUP_AXIS * 20.0, shape.head_radius_mm + 13.0), -along(grid, CUP_AXIS * -5.0, CUP_AXIS)
    )
    distance = np.maximum(distance, -opening)
    distance = np.maximum(distance, np.float32(3.0 - body.head_distance_mm) - grid[0])  # the symphysis
    return np.maximum(distance, -socket_distance(grid, shape, body))


def labrum_distance(grid: Grid, shape: FemurShape, body: BodyShape) -> np.ndarray:
    """Signed distance to the fibrous ring on the rim of the cup."""
    height = along(grid, CUP_AXIS * -3.0, CUP_AXIS)
    squared = squared_distance(grid, (0, 0, 0)) - np.square(height - np.float32(3.0))
    rim = math.sqrt((shape.head_radius_mm + body.joint_space_mm + 2.0) ** 2 - 9.0)
    return np.hypot(np.sqrt(np.maximum(squared, 0)) - np.float32(rim), height) - np.float32(2.6)


# ---- soft tissue -----------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Bundle:
    """A muscle or vessel: ends (mm, hip frame), radii, stretch of its section, whether it ends on the femur."""

    start: tuple[float, float, float]
    end: tuple[float, float, float]
    radii: tuple[float, float]
    wide: tuple[float, float, float] | None = None
    inserts: bool = False


MUSCLES = (
    Bundle((34, 12, 112), (63, 6, 8), (20, 10), (0, 2.4, 0), True),  # gluteus medius
    Bundle((14, 0, 76), (50, -6, 13), (13, 9), (0, 2.2, 0), True),  # gluteus minimus
    Bundle((-55, 80, 75), (58, 42, -50), (24, 15), (0, 0.6, 2.3)),  # gluteus maximus
    Bundle((-40, 72, 10), (40, 58, -62), (22, 12), (0, 0.5, 1.6)),  # gluteus maximus, lower part
    Bundle((42, -42, 80), (66, -20, -50), (13, 9), (0, 1.5, 0)),  # tensor fasciae latae
    Bundle((22, -58, 62), (-14, -58, -130), (9, 10), (1.5, 0, 0)),  # sartorius
    Bundle((12, -42, 26), (30, -58, -140), (9, 19), (1.3, 0, 0)),  # rectus femoris
    Bundle((-14, -22, 115), (-4, -38, 8), (19, 13), (1.3, 0, 0)),  # iliopsoas above the joint
    Bundle((-4, -38, 8), (26, 8, -46), (13, 6), None, True),  # iliopsoas to the lesser trochanter
    Bundle((66, -8, -28), (62, -10, -150), (9, 24), (0, 1.7, 0), True),  # vastus lateralis
    Bundle((38, -26, -42), (32, -30, -150), (9, 20), (1.5, 0, 0), True),  # vastus intermedius and medialis
    Bundle((-56, -42, -18), (22, 2, -64), (11, 7), (0, 0, 1.6), True),  # pectineus
    Bundle((-74, -38, -48), (8, -10, -150), (13, 22), (0, 0.5, 1.2)),  # adductor longus and brevis
    Bundle((-46, 10, -66), (12, 18, -150), (18, 30), (0, 1.2, 0)),  # adductor magnus
    Bundle((-80, -20, -56), (-54, 2, -150), (6, 9), (0, 2.0, 0)),  # gracilis
    Bundle((-24, 44, -62), (8, 60, -160), (11, 22), (1.2, 0, 0)),  # hamstrings
    Bundle((-31, 14, 36), (-39, 6, -42), (4, 7), (0, 2.8, 0)),  # obturator internus
    Bundle((-56, -20, -44), (36, 18, -10), (12, 5), (0, 0, 1.3), True),  # obturator externus
    Bundle((-20, 30, -42), (46, 22, -26), (9, 8), (0, 0, 1.9), True),  # quadratus femoris
    Bundle((-58, 66, 52), (50, 16, 12), (13, 5), None, True),  # piriformis
)

VESSELS = (
    Bundle((-48, -24, 90), (-16, -56, 14), (4.5, 4.2)),  # external iliac artery
    Bundle((-16, -56, 14), (-10, -46, -140), (4.2, 3.6)),  # femoral artery
    Bundle((-58, -20, 90), (-27, -54, 14), (5.5, 5.2)),  # external iliac vein
    Bundle((-27, -54, 14), (-18, -40, -140), (5.2, 4.2)),  # femoral vein
    Bundle((-12, -46, -24), (14, -26, -130), (2.6, 2.2)),  # deep femoral artery
)

BUNDLE_REACH_MM = 12.0  # how far around a bundle its distance is worked out
_REFERENCE_JUNCTION_MM = FemurShape().junction_mm


def bundle_distance(grid: Grid, bundle: Bundle, shape: FemurShape, body: BodyShape, bulk: float = 1.0) -> np.ndarray:
    """Signed distance to a muscle or vessel of this patient."""
    ends = _bundle_ends(bundle, shape, body)
    return cone(grid, ends, [body.scale * bulk * r for r in bundle.radii], bundle.wide)


def _bundle_ends(bundle: Bundle, shape: FemurShape, body: BodyShape) -> tuple[np.ndarray, np.ndarray]:
    start, end = body.scale * np.asarray(bundle.start), body.scale * np.asarray(bundle.end)
    if bundle.inserts:
        end = end + shape.junction_mm - body.scale * _REFERENCE_JUNCTION_MM
    return start, end


def bundle_window(grid: Grid, bundle: Bundle, shape: FemurShape, body: BodyShape) -> tuple[slice, slice, slice] | None:
    """Array slices (z, y, x) outside which the bundle is farther than BUNDLE_REACH_MM; None where nothing is left."""
    ends = _bundle_ends(bundle, shape, body)
    stretch = 1.0 if bundle.wide is None else float(np.linalg.norm(bundle.wide))
    reach = (max(bundle.radii) * body.scale * 1.15 + BUNDLE_REACH_MM) * stretch
    return window(grid, np.minimum(*ends) - reach, np.maximum(*ends) + reach)


def body_distance(grid: Grid, body: BodyShape) -> np.ndarray:
    """Signed distance (rough away from the skin) to the body: a trunk that parts into two thighs."""
    across = grid[0] + np.float32(body.head_distance_mm)
    depth, height = grid[1] - np.float32(12), grid[2]
    taper = 1 - np.float32(0.0006) * np.abs(height + 25)
    radial = (across / np.float32(body.half_width_mm)) ** 4 + (depth / np.float32(body.half_depth_mm)) ** 4
    trunk = (np.sqrt(np.sqrt(radial)) - taper) * np.float32(body.half_depth_mm)
    trunk = np.maximum(trunk, np.float32(-88.0 * body.scale) - height)
    half = np.float32(0.5 * body.half_width_mm - 2.5)
    thigh = np.hypot(across - half - 3, np.float32(0.9) * depth) - half * taper
    return smooth_union(trunk, thigh, 22.0)
