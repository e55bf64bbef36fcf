"""The synthetic patient: sizes and angles of femora and body, drawn within anatomical ranges.

Points and vectors are given in the *hip frame*, in which left and right look the same: millimetres from the centre of
the femoral head, axes (lateral, posterior, superior).
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np

REFERENCE_HEAD_RADIUS_MM = 23.0  # the tables below are drawn for a hip of this size and scaled with it


@dataclasses.dataclass(frozen=True)
class FemurShape:
    """Size and posture of one proximal femur; millimetres and degrees.

    Attributes:
        head_diameter_mm: 40…54; 46.1 ± 4.8 in Noble et al. 1988 (Clin Orthop 235:148).
        neck_shaft_angle_deg: 115…140; 124.7 ± 7.4 there. Below 120 is varus, above 135 valgus.
        version_deg: -5…30, positive with the head anterior (anteversion); adults about 10 to 15.
        offset_mm: head centre to shaft axis, 32…56; 43.0 ± 6.8 in Noble et al. 1988.
        neck_ratio: narrowest supero-inferior neck width as a part of the head diameter, 0.62…0.74.
        shaft_diameter_mm: mediolateral, below the lesser trochanter, 25…34.
        cortex_mm: cortical thickness of the shaft, 4…7.5; the head has about 1.
        bow_radius_mm: radius of the anterior bow, 800…1600 (about 1200 in adults).
        adduction_deg: slope of the shaft towards the knee's midline, 3…9 (5 to 7 when standing).
        flexion_deg: slope of the shaft to the front, -4…6.
        cam_height_mm: bump on the anterosuperior head-neck junction; 0 in most, else 2…5.
        fovea_depth_mm: dimple of the ligament of the head, 1.5…3.
    """

    head_diameter_mm: float = 46.0
    neck_shaft_angle_deg: float = 126.0
    version_deg: float = 12.0
    offset_mm: float = 43.0
    neck_ratio: float = 0.68
    shaft_diameter_mm: float = 29.0
    cortex_mm: float = 6.0
    bow_radius_mm: float = 1200.0
    adduction_deg: float = 6.0
    flexion_deg: float = 1.0
    cam_height_mm: float = 0.0
    fovea_depth_mm: float = 2.0

    @property
    def head_radius_mm(self) -> float:
        """Radius of the head's sphere."""
        return self.head_diameter_mm / 2

    @property
    def neck_length_mm(self) -> float:
        """Head centre to the crossing of neck and shaft axes."""
        return self.offset_mm / math.sin(math.radians(self.neck_shaft_angle_deg))

    @property
    def axes(self) -> np.ndarray:
        """3×3, float64: rows are the femur's lateral, posterior and proximal axes in the hip frame."""
        adduction, flexion = math.radians(self.adduction_deg), math.radians(self.flexion_deg)
        proximal = np.array([math.sin(adduction), math.sin(flexion), 1.0])
        proximal /= np.linalg.norm(proximal)
        posterior = np.cross(proximal, [1.0, 0.0, 0.0])
        posterior /= np.linalg.norm(posterior)
        return np.stack([np.cross(posterior, proximal), posterior, proximal])

    @property
    def neck_axis(self) -> np.ndarray:
        """Unit vector (3,) in the hip frame from the shaft axis to the head centre."""
        angle, version = math.radians(self.neck_shaft_angle_deg), math.radians(self.version_deg)
        in_femur = [-math.sin(angle) * math.cos(version), -math.sin(angle) * math.sin(version), -math.cos(angle)]
        return np.asarray(in_femur) @ self.axes

    @property
    def junction_mm(self) -> np.ndarray:
        """Where neck and shaft axes cross, (3,), hip frame."""
        return -self.neck_length_mm * self.neck_axis


@dataclasses.dataclass(frozen=True)
class BodyShape:
    """What surrounds the femora; millimetres.

    Attributes:
        head_distance_mm: midline to head centre, 82…98.
        centre_mm: (posterior, superior) position of the head centres in the world, within ±6.
        half_width_mm, half_depth_mm: outline of the trunk at the hips, skin to skin, halved.
        fat_mm: subcutaneous fat at the side of the hip, 8…35; it is thicker behind.
        joint_space_mm: cartilage of both sides and the gap, 2.8…4.5.
        muscle_bulk: 0.85…1.12, multiplies every muscle's radius.
        scale: size of pelvis and muscles against the tables of this module.
    """

    head_distance_mm: float = 90.0
    centre_mm: tuple[float, float] = (0.0, 0.0)
    half_width_mm: float = 178.0
    half_depth_mm: float = 105.0
    fat_mm: float = 18.0
    joint_space_mm: float = 3.5
    muscle_bulk: float = 1.0
    scale: float = 1.0


@dataclasses.dataclass(frozen=True)
class Anatomy:
    """One patient: two femora that resemble each other and the body around them."""

    left: FemurShape
    right: FemurShape
    body: BodyShape


def _clipped_normal(rng: np.random.Generator, low: float, high: float) -> float:
    """A normal draw centred between the limits, which are at two standard deviations, clipped to them."""
    return float(np.clip(rng.normal((low + high) / 2, (high - low) / 4), low, high))


def sample_femur(rng: np.random.Generator) -> FemurShape:
    """A femur within the ranges of `FemurShape`; size-dependent lengths follow the head's diameter."""
    diameter = _clipped_normal(rng, 40.0, 54.0)
    size = diameter / 47.0
    cam = float(rng.uniform(2.0, 5.0)) if rng.random() < 0.3 else 0.0
    return FemurShape(
        head_diameter_mm=diameter,
        neck_shaft_angle_deg=_clipped_normal(rng, 115.0, 140.0),
        version_deg=_clipped_normal(rng, -5.0, 30.0),
        offset_mm=float(np.clip(size * _clipped_normal(rng, 37.0, 51.0), 32.0, 56.0)),
        neck_ratio=_clipped_normal(rng, 0.62, 0.74),
        shaft_diameter_mm=float(np.clip(size * _clipped_normal(rng, 27.0, 32.0), 25.0, 34.0)),
        cortex_mm=_clipped_normal(rng, 4.0, 7.5),
        bow_radius_mm=_clipped_normal(rng, 800.0, 1600.0),
        adduction_deg=_clipped_normal(rng, 3.0, 9.0),
        flexion_deg=_clipped_normal(rng, -4.0, 6.0),
        cam_height_mm=cam,
        fovea_depth_mm=_clipped_normal(rng, 1.5, 3.0),
    )


def _other_side(rng: np.random.Generator, shape: FemurShape) -> FemurShape:
    """The contralateral femur: the same person, a per cent or two of size and a few degrees of posture away."""
    return dataclasses.replace(
        shape,
        head_diameter_mm=float(np.clip(shape.head_diameter_mm * rng.normal(1.0, 0.01), 40.0, 54.0)),
        neck_shaft_angle_deg=float(np.clip(shape.neck_shaft_angle_deg + rng.normal(0.0, 2.0), 115.0, 140.0)),
        version_deg=float(np.clip(shape.version_deg + rng.normal(0.0, 4.0), -5.0, 30.0)),
        offset_mm=float(np.clip(shape.offset_mm * rng.normal(1.0, 0.02), 32.0, 56.0)),
        adduction_deg=float(np.clip(shape.adduction_deg + rng.normal(0.0, 1.5), 3.0, 9.0)),
        flexion_deg=float(np.clip(shape.flexion_deg + rng.normal(0.0, 1.5), -4.0, 6.0)),
    )


def sample_anatomy(rng: np.random.Generator) -> Anatomy:
    """A patient. Only the generator's state decides."""
    left = sample_femur(rng)
    scale = left.head_radius_mm / REFERENCE_HEAD_RADIUS_MM
    fat = _clipped_normal(rng, 8.0, 35.0)
    body = BodyShape(
        head_distance_mm=float(np.clip(90.0 * scale**0.5 + rng.normal(0.0, 2.0), 82.0, 98.0)),
        centre_mm=(_clipped_normal(rng, -6.0, 6.0), _clipped_normal(rng, -6.0, 6.0)),
        half_width_mm=90.0 + 70.0 * scale + fat,
        half_depth_mm=78.0 * scale + 1.2 * fat,
        fat_mm=fat,
        joint_space_mm=_clipped_normal(rng, 2.8, 4.5),
        muscle_bulk=_clipped_normal(rng, 0.85, 1.12),
        scale=scale,
    )
    return Anatomy(left, _other_side(rng, left), body)
