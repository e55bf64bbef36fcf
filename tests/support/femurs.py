"""Femurs made of balls and cylinders, whose measures are known in closed form."""

from __future__ import annotations

import numpy as np

from femur3d.evaluation.surface_distance import level_surface
from femur3d.morphometry.surface import Surface
from femur3d.volume import Volume

HEAD_MM, NECK_MM, SHAFT_MM = 24.0, 14.0, 13.0  # radii
NECK_SHAFT_DEG = 125.0
LOW, HIGH = np.array([-30.0, -40.0, -150.0]), np.array([75.0, 40.0, 30.0])


def _tube(points: np.ndarray, start: np.ndarray, end: np.ndarray, radius: float) -> np.ndarray:
    """Signed distance, about, to a cylinder with flat ends."""
    length = np.linalg.norm(end - start)
    axis = (end - start) / length
    along = (points - start) @ axis
    across = np.linalg.norm(points - start - along[..., None] * axis, axis=-1)
    return np.maximum(across - radius, np.maximum(-along, along - length))


def left_femur(
    spacing_mm: float = 1.0, bump: tuple[float, float, float] | None = None, shaft_mm: float = 100.0
) -> Surface:
    """A left femur in LPS: a ball about the origin, a neck to lateral and down, a shaft along z, a trochanter behind.

    Args:
        spacing_mm: of the grid that it is taken from.
        bump: a cam as (hour of the clock, polar angle in degrees, height in mm): a ball of 8 mm that stands out so far.
        shaft_mm: how far the shaft reaches below the neck.
    """
    field = np.pad(-_signed_distance(spacing_mm, bump, shaft_mm), 1, constant_values=-1).astype(np.float32)
    vertices, triangles = level_surface(field, 0.0)
    return Surface((vertices - 1) * spacing_mm + LOW, triangles)


def both_femurs(spacing_mm: float = 5.0, apart_mm: float = 190.0) -> Volume:
    """Label map of that femur, 1, and its mirror image, 2, their heads so far apart; a margin of two voxels around."""
    left = np.pad(_signed_distance(spacing_mm, None, 100.0) < 0, 2).astype(np.uint8)
    width = 2 * round((apart_mm / 2 + HIGH[0]) / spacing_mm) + 3
    array = np.zeros((*left.shape[:2], width), np.uint8)
    array[..., -left.shape[2] :] = left
    array[..., : left.shape[2]] += 2 * left[..., ::-1]
    origin = (-(width - 1) / 2 * spacing_mm, *(LOW[1:] - 2 * spacing_mm).tolist())
    return Volume(array, (spacing_mm,) * 3, origin)


def _signed_distance(spacing_mm: float, bump: tuple[float, float, float] | None, shaft_mm: float) -> np.ndarray:
    """About the distance to the surface in mm, below 0 inside: (z, y, x) from LOW to HIGH."""
    z, y, x = (np.arange(low, high, spacing_mm) for low, high in zip(LOW[::-1], HIGH[::-1], strict=True))
    points = np.stack(np.meshgrid(z, y, x, indexing="ij"), axis=-1)[..., ::-1]
    axis = neck_axis()
    junction = 48 * axis
    shaft = junction + np.array([0, 4, 0])
    parts = [
        np.linalg.norm(points, axis=-1) - HEAD_MM,
        _tube(points, np.zeros(3), junction, NECK_MM),
        _tube(points, shaft, shaft - np.array([0, 0, shaft_mm]), SHAFT_MM),
        np.linalg.norm(points - junction - [2, 6, 0], axis=-1) - 19,
        np.linalg.norm(points - junction - [-10, 12, -22], axis=-1) - 9,
    ]
    if bump:
        hour, polar, height = bump
        parts.append(np.linalg.norm(points - (HEAD_MM + height - 8) * ray(hour, polar), axis=-1) - 8)
    return np.min(parts, axis=0)


def neck_axis() -> np.ndarray:
    """From the head to the neck: lateral (x) and down."""
    angle = np.radians(NECK_SHAFT_DEG)
    return np.array([np.sin(angle), 0.0, np.cos(angle)])


def ray(hour: float, polar_deg: float) -> np.ndarray:
    """Unit vector at an hour of the clock (12 up, 3 to the front) and an angle with the neck's axis."""
    axis, turn, polar = neck_axis(), hour * np.pi / 6, np.radians(polar_deg)
    superior, anterior = np.array([-axis[2], 0, axis[0]]), np.array([0.0, -1.0, 0.0])
    return np.cos(polar) * axis + np.sin(polar) * (np.cos(turn) * superior + np.sin(turn) * anterior)
