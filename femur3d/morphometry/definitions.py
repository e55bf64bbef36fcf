"""What is measured on a femur: one function a measure, with its definition and where it comes from."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np

from femur3d.morphometry.alpha import cam
from femur3d.morphometry.femur import Femur
from femur3d.morphometry.surface import PLANES

_THREE = PLANES // 4  # the half-plane of 3 o'clock


@dataclasses.dataclass(frozen=True)
class Definition:
    """A measure.

    Attributes:
        unit: 'mm', 'deg', … ; '1' for a ratio.
        needs: the parts of the femur that it is taken from, of 'head', 'neck', 'shaft', 'junction' (of head
            and neck) and 'clock'.
        of: its value, NaN where there is none.
    """

    unit: str
    needs: tuple[str, ...]
    of: Callable[[Femur], float]


def head_radius(femur: Femur) -> float:
    """Radius of the sphere that fits the articular surface best, see `sphere.fit_head`."""
    return femur.head.radius_mm


def neck_diameter(femur: Femur) -> float:
    """Diameter of the circle with the area of the narrowest section across the neck's axis."""
    return float(2 * np.sqrt(np.nanmin(femur.neck.areas_mm2) / np.pi)) if femur.neck.is_bounded else np.nan


def head_neck_offset(femur: Femur) -> float:
    """How far the head stands out before the neck in front (Eijer et al. 2001, Hip Int 11:37).

    Radius of the head less the neck's own extent to 3 o'clock from its axis, in the narrowest section.
    """
    neck = femur.neck
    return float(femur.head.radius_mm - neck.widths_mm[_THREE, neck.narrowest]) if neck.is_bounded else np.nan


def head_neck_ratio(femur: Femur) -> float:
    """The head-neck offset in front as a part of the head's diameter (Eijer et al. 2001)."""
    return head_neck_offset(femur) / (2 * femur.head.radius_mm)


def neck_shaft_angle(femur: Femur) -> float:
    """Angle between the axes of neck and proximal shaft in space, 180° for a straight femur."""
    if femur.shaft is None:
        return np.nan
    return float(np.degrees(np.arccos(np.clip(femur.frame.axis @ femur.shaft.direction, -1, 1))))


def femoral_offset(femur: Femur) -> float:
    """Distance from the head's centre to the proximal shaft's axis."""
    if femur.shaft is None:
        return np.nan
    return float(np.linalg.norm(np.cross(femur.head.centre_mm - femur.shaft.point_mm, femur.shaft.direction)))


def alpha_max(femur: Femur) -> float:
    """The largest alpha angle in front and above, from 11 to 5 o'clock, see `alpha.alpha_degrees`."""
    front = _front(femur)
    return float(np.nanmax(front)) if np.isfinite(front).any() else np.nan


def alpha_max_hour(femur: Femur) -> float:
    """Where the alpha angle is largest from 11 to 5 o'clock: its hour; 12 is superior, 3 anterior, on both sides.

    Between the half-planes it is the top of the parabola through the largest angle and its neighbours.
    """
    front = _front(femur)
    if not np.isfinite(front).any():
        return np.nan
    largest = int(np.nanargmax(front))
    before, top, after = femur.alpha_deg[_FRONT[largest] + np.array([-1, 0, 1])]
    bend = before - 2 * top + after
    shift = np.clip((before - after) / (2 * bend), -0.5, 0.5) if bend < 0 else 0.0
    return float(_HOURS[largest] + shift * 12 / PLANES)


def alpha_anterior(femur: Femur) -> float:
    """Alpha angle at 3 o'clock, the plane of Nötzli et al. 2002: the mean over 20° of the clock."""
    return float(np.mean(femur.alpha_deg[_THREE - 1 : _THREE + 2]))


def alpha_anterosuperior(femur: Femur) -> float:
    """Alpha angle at 1:30, half-way between superior and anterior, where cams are."""
    return float(np.mean(femur.alpha_deg[[_THREE // 2, _THREE // 2 + 1]]))


def cam_height(femur: Femur) -> float:
    """The most that bone stands out of the head's sphere beyond 55° from the neck's axis, see `alpha.cam`."""
    return cam(femur.heights_mm, femur.head.radius_mm).height_mm


def cam_area(femur: Femur) -> float:
    """Area of the head's sphere under the cam."""
    return cam(femur.heights_mm, femur.head.radius_mm).area_mm2


def cam_volume(femur: Femur) -> float:
    """Volume between the cam and the head's sphere."""
    return cam(femur.heights_mm, femur.head.radius_mm).volume_mm3


_FRONT = np.arange(-PLANES // 12, 5 * PLANES // 12 + 1)  # half-planes from 11 to 5 o'clock
_HOURS = _FRONT * 12 / PLANES  # -1 is 11 o'clock


def _front(femur: Femur) -> np.ndarray:
    return femur.alpha_deg[_FRONT]


DEFINITIONS = {
    "head_radius_mm": Definition("mm", ("head",), head_radius),
    "neck_diameter_mm": Definition("mm", ("head", "neck"), neck_diameter),
    "head_neck_offset_mm": Definition("mm", ("head", "neck", "junction", "clock"), head_neck_offset),
    "head_neck_offset_ratio": Definition("1", ("head", "neck", "junction", "clock"), head_neck_ratio),
    "neck_shaft_angle_deg": Definition("deg", ("head", "neck", "shaft"), neck_shaft_angle),
    "femoral_offset_mm": Definition("mm", ("head", "shaft"), femoral_offset),
    "alpha_max_deg": Definition("deg", ("head", "neck", "junction", "clock"), alpha_max),
    "alpha_max_hour": Definition("h", ("head", "neck", "junction", "clock"), alpha_max_hour),
    "alpha_anterior_deg": Definition("deg", ("head", "neck", "junction", "clock"), alpha_anterior),
    "alpha_anterosuperior_deg": Definition("deg", ("head", "neck", "junction", "clock"), alpha_anterosuperior),
    "cam_height_mm": Definition("mm", ("head", "neck", "junction"), cam_height),
    "cam_area_mm2": Definition("mm2", ("head", "neck", "junction"), cam_area),
    "cam_volume_mm3": Definition("mm3", ("head", "neck", "junction"), cam_volume),
}


def values(femur: Femur) -> np.ndarray:
    """(M,): the measures in the order of DEFINITIONS."""
    return np.array([definition.of(femur) for definition in DEFINITIONS.values()])
