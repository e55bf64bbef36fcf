"""Grey values of a synthetic hip: paints the tissues of `anatomy` over one another, from the skin inwards."""

from __future__ import annotations

import dataclasses

import numpy as np

from femur3d.phantom import anatomy
from femur3d.phantom.patient import BodyShape, FemurShape
from femur3d.phantom.shapes import Grid, along, crop, ellipsoid, smooth_step, sphere, window


@dataclasses.dataclass(frozen=True)
class Contrast:
    """Grey values; by default T1-weighted, fat = 1, near those of a turbo spin echo at 1.5 T."""

    fat: float = 1.0
    skin: float = 0.45
    fascia: float = 0.25
    muscle: float = 0.32
    tendon: float = 0.12
    vessel: float = 0.08
    fluid: float = 0.22
    organ: float = 0.42
    cartilage: float = 0.42
    cortex: float = 0.10
    yellow_marrow: float = 0.74
    red_marrow: float = 0.55
    pelvic_marrow: float = 0.58


T1 = Contrast()
AXIAL_T2 = Contrast(
    muscle=0.22, fluid=1.0, organ=0.6, cartilage=0.5, yellow_marrow=0.5, red_marrow=0.42, pelvic_marrow=0.45
)

GREY = 1 / 3


def random_contrast(rng: np.random.Generator) -> Contrast:
    """Any order of fat, muscle, fluid and marrow; cortex, tendon, fascia and flowing blood stay dark.

    Marrow is about as grey as the body's mean in one of three.
    """
    fat, muscle, fluid, organ, cartilage, yellow = rng.uniform(0.1, 1.0, 6).tolist()
    if rng.random() < GREY:
        yellow = float((fat + muscle) / 2 * rng.uniform(0.8, 1.2))
    red, pelvic = (yellow + rng.uniform(0.2, 0.8, 2) * (muscle - yellow)).tolist()
    marrow = {"yellow_marrow": yellow, "red_marrow": red, "pelvic_marrow": pelvic}
    return Contrast(fat=fat, muscle=muscle, fluid=fluid, organ=organ, cartilage=cartilage, **marrow)


@dataclasses.dataclass(frozen=True)
class Textures:
    """Zero-mean, unit-variance fields on the scan's grid, (z, y, x), float32, times the strength of texture.

    Attributes:
        fibres: streaks along the body, for most muscles.
        oblique: streaks that run down and outwards, for the gluteus maximus.
        trabeculae: speckle of about a millimetre, for marrow.
        patches: clouds of about a centimetre, for marrow and the septa of fat.
        waves: swells of a few centimetres, for the borders of fat and muscle.
    """

    fibres: np.ndarray
    oblique: np.ndarray
    trabeculae: np.ndarray
    patches: np.ndarray
    waves: np.ndarray

    def __getitem__(self, part: tuple[slice, slice, slice]) -> Textures:
        fields = (self.fibres, self.oblique, self.trabeculae, self.patches, self.waves)
        return Textures(*(field[part] for field in fields))


def render(
    grid: Grid, shape: FemurShape, body: BodyShape, textures: Textures, edge_mm: float, contrast: Contrast = T1
) -> np.ndarray:
    """Signal (float32, fat = 1) of a hip at the grid's points, from the skin inwards; edges are `edge_mm` wide."""
    brush = _Brush(np.zeros(textures.fibres.shape, np.float32), edge_mm, contrast)
    _paint_body(brush, grid, body, textures)
    _paint_organs(brush, grid, body, textures)
    _paint_muscles(brush, grid, shape, body, textures)
    _paint_vessels(brush, grid, shape, body)
    low, high = np.array([-105, -75, -110]) * body.scale, np.array([60, 95, 160]) * body.scale
    part = window(grid, low, high)
    if part is not None:
        _paint_pelvis(brush[part], crop(grid, part), shape, body, textures[part])
    part = femur_window(grid, shape)
    if part is not None:
        _paint_femur(brush[part], crop(grid, part), shape, body, textures[part])
    return brush.canvas


@dataclasses.dataclass(frozen=True)
class _Brush:
    """Paints tissues over one another on `canvas`, softly at their edges: the partial volume of a voxel."""

    canvas: np.ndarray
    edge_mm: float
    contrast: Contrast

    def __getitem__(self, part: tuple[slice, slice, slice]) -> _Brush:
        return _Brush(self.canvas[part], self.edge_mm, self.contrast)

    def paint(self, distance: np.ndarray, value: np.ndarray | float, opacity: float = 1.0) -> None:
        """Covers what lies where `distance` (mm) is negative with `value`."""
        self._blend(self._share(distance), value, opacity)

    def draw(
        self, distance: np.ndarray, width_mm: float, value: float, within: np.ndarray, opacity: float = 1.0
    ) -> None:
        """Draws a line of `width_mm` along the zeros of `distance`, where `within` (mm) is negative.

        Lines thinner than a voxel come out paler, as in a scan.
        """
        half = np.float32(width_mm / 2)
        line = self._share(distance - half) - self._share(distance + half)
        self._blend(line * self._share(within), value, opacity)

    def _share(self, distance: np.ndarray) -> np.ndarray:
        """The part of a voxel, 0…1, that lies on the inner side of a surface at `distance` from its centre."""
        return np.clip(np.float32(0.5) - distance * np.float32(1 / self.edge_mm), 0, 1)

    def _blend(self, share: np.ndarray, value: np.ndarray | float, opacity: float) -> None:
        self.canvas[...] += share * np.float32(opacity) * (np.float32(value) - self.canvas)


def _paint_body(brush: _Brush, grid: Grid, body: BodyShape, textures: Textures) -> None:
    distance = anatomy.body_distance(grid, body)
    here = np.clip(textures.waves + textures.patches - np.float32(0.3), 0, 1)  # septa come and go
    septa = here * np.exp(np.square(textures.patches - np.float32(0.4)) * np.float32(-120))
    brush.paint(distance, brush.contrast.skin)
    brush.paint(
        distance + np.float32(2.0), brush.contrast.fat - np.float32(0.14) * septa + np.float32(0.02) * textures.patches
    )
    brush.draw(
        distance + _fat_depth(grid, body, textures), 1.2, brush.contrast.fascia, within=np.float32(-25) - grid[0]
    )


def _fat_depth(grid: Grid, body: BodyShape, textures: Textures) -> np.ndarray:
    """Depth of the fascia under the skin, mm: thinnest at the side, thicker behind and at the groin, wavy."""
    behind = smooth_step(grid[1], 20.0, 90.0)
    medial = smooth_step(grid[0], 40.0, -60.0)
    depth = np.float32(body.fat_mm) * (1 + np.float32(0.6) * behind + np.float32(0.25) * medial) + np.float32(2)
    return depth + np.float32(0.07 * body.fat_mm) * textures.waves


def _paint_organs(brush: _Brush, grid: Grid, body: BodyShape, textures: Textures) -> None:
    midline = -body.head_distance_mm
    cavity = ellipsoid(grid, (midline, 12, 40), (60 * body.scale, 62 * body.scale, 96))
    mesentery = (
        np.float32(0.78 * brush.contrast.fat) + np.float32(0.06) * textures.waves + np.float32(0.09) * textures.patches
    )
    brush.paint(cavity * np.float32(0.1), mesentery)
    organs = (
        ((midline, -14, 12), (40, 28, 24), brush.contrast.fluid),  # bladder
        ((midline, 18, -18), (24, 20, 20), brush.contrast.organ),  # prostate or cervix
        ((midline, 54, -6), (17, 15, 48), brush.contrast.organ),  # rectum
        ((midline, 62, -60), (9, 16, 20), brush.contrast.muscle),  # sphincter
    )
    for centre, radii, value in organs:
        low, high = np.subtract(centre, radii) - 4, np.add(centre, radii) + 4
        part = window(grid, low, high)
        if part is not None:
            distance = ellipsoid(crop(grid, part), centre, radii)
            brush[part].paint(distance, brush.contrast.fascia)
            brush[part].paint(distance + np.float32(2), value)


def _paint_muscles(brush: _Brush, grid: Grid, shape: FemurShape, body: BodyShape, textures: Textures) -> None:
    nearest = np.full(brush.canvas.shape, anatomy.BUNDLE_REACH_MM, np.float32)
    second = nearest.copy()
    for bundle in anatomy.MUSCLES:
        part = anatomy.bundle_window(grid, bundle, shape, body)
        if part is not None:
            distance = anatomy.bundle_distance(crop(grid, part), bundle, shape, body, body.muscle_bulk)
            second[part] = np.minimum(second[part], np.maximum(nearest[part], distance))
            nearest[part] = np.minimum(nearest[part], distance)
    compartment = anatomy.body_distance(grid, body) + _fat_depth(grid, body, textures) + np.float32(1.5)
    swelling = np.float32(10) * smooth_step(grid[0] - np.float32(0.6) * (grid[2] + 45), -70.0, -30.0)
    planes = np.float32(0.9) - np.float32(0.5) * (second - nearest)  # thin fat where two muscles meet
    planes += np.float32(0.5) * textures.patches
    distance = np.maximum(np.maximum(nearest - swelling, planes), compartment)
    fibres = textures.fibres + smooth_step(grid[1], 25.0, 40.0) * (textures.oblique - textures.fibres)
    streaks = np.float32(0.02) * fibres + np.float32(0.16) * np.maximum(fibres - np.float32(1.2), 0)
    brush.paint(distance, np.float32(brush.contrast.muscle) + streaks)


def _paint_vessels(brush: _Brush, grid: Grid, shape: FemurShape, body: BodyShape) -> None:
    for bundle in anatomy.VESSELS:
        part = anatomy.bundle_window(grid, bundle, shape, body)
        if part is not None:
            distance = anatomy.bundle_distance(crop(grid, part), bundle, shape, body)
            brush[part].paint(distance - np.float32(1.6), brush.contrast.fat)
            brush[part].paint(distance, brush.contrast.vessel)


def _paint_pelvis(brush: _Brush, grid: Grid, shape: FemurShape, body: BodyShape, textures: Textures) -> None:
    distance = anatomy.pelvis_distance(grid, shape, body)
    speckle = np.float32(0.04) * textures.trabeculae + np.float32(0.05) * textures.patches
    brush.paint(distance, brush.contrast.cortex)
    brush.paint(distance + np.float32(1.5), brush.contrast.pelvic_marrow + speckle)
    brush.paint(anatomy.labrum_distance(grid, shape, body), brush.contrast.tendon)


def _paint_femur(brush: _Brush, grid: Grid, shape: FemurShape, body: BodyShape, textures: Textures) -> None:
    femur = anatomy.femur_fields(grid, shape)
    _paint_joint(brush, grid, femur.distance, shape, body)
    marrow = (
        np.float32(brush.contrast.yellow_marrow)
        + np.float32(brush.contrast.red_marrow - brush.contrast.yellow_marrow) * femur.red
    )
    marrow += np.float32(0.035) * textures.trabeculae + np.float32(0.04) * textures.patches
    growth_plate = femur.along_neck - np.float32(0.38 * shape.head_radius_mm) + np.float32(0.012) * np.square(grid[1])
    brush.paint(femur.distance, brush.contrast.cortex)
    brush.paint(femur.distance + femur.cortex, marrow)
    brush.draw(growth_plate + 2 * textures.patches, 1.2, 0.35, within=femur.distance + femur.cortex + 1, opacity=0.4)


def _paint_joint(brush: _Brush, grid: Grid, femur: np.ndarray, shape: FemurShape, body: BodyShape) -> None:
    """Capsule about head and neck, fat in the acetabular fossa, cartilage with a dark seam under the cup."""
    from_head = sphere(grid, (0, 0, 0), shape.head_radius_mm + body.joint_space_mm)
    height = along(grid, anatomy.CUP_AXIS * -5.0, anatomy.CUP_AXIS)
    outside = np.maximum(from_head - np.float32(14), -height)
    brush.draw(femur - np.float32(3.4), 1.8, brush.contrast.tendon, within=outside)
    brush.paint(np.maximum(np.maximum(femur - np.float32(2.6), outside), -femur), brush.contrast.muscle, opacity=0.6)
    cup = np.maximum(from_head, height)
    brush.paint(cup, brush.contrast.cartilage)
    brush.draw(femur - np.float32(0.5 * body.joint_space_mm), 0.9, brush.contrast.cortex, within=cup)
    fossa = ellipsoid(grid, (-shape.head_radius_mm - 2, 3.0, -8.0), (5.0, 10.0, 11.0))
    brush.paint(fossa, brush.contrast.fat, opacity=0.6)


def femur_window(grid: Grid, shape: FemurShape) -> tuple[slice, slice, slice] | None:
    """Array slices (z, y, x) outside which there is nothing of the femur and its joint; None where nothing is left."""
    radius = shape.head_radius_mm + 9
    lateral = shape.junction_mm[0] + 45
    return window(grid, (-radius, -70, -np.inf), (lateral, 75, radius + 25))
