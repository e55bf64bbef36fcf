"""Balls, meshes and volumes on turned grids, whose measures are known."""

from __future__ import annotations

import math

import numpy as np

from femur3d.volume import Volume


def rotation(axis: tuple[float, float, float], degrees: float) -> np.ndarray:
    """3×3 rotation matrix (Rodrigues)."""
    x, y, z = np.asarray(axis) / np.linalg.norm(axis)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    angle = math.radians(degrees)
    return np.eye(3) + math.sin(angle) * cross + (1 - math.cos(angle)) * cross @ cross


def ball(radius_mm: float, spacing_mm=(1.0, 1.0, 1.0), half_mm=16.0, centre_mm=(0.0, 0.0, 0.0)) -> Volume:
    """A ball in a cubic field of view around the world's origin."""
    shape = [int(2 * half_mm / s) + 1 for s in spacing_mm[::-1]]
    volume = Volume(np.zeros(shape, bool), spacing_mm, (-half_mm, -half_mm, -half_mm))
    points = volume.world_mm(np.stack(np.indices(shape), -1))
    return volume.with_array(np.linalg.norm(points - centre_mm, axis=-1) <= radius_mm)


def signed_volume(vertices: np.ndarray, triangles: np.ndarray) -> float:
    a, b, c = (vertices[triangles[:, corner]] for corner in range(3))
    return float(np.einsum("ij,ij->", a, np.cross(b, c)) / 6)


SHAPE_LPS, SPACING_LPS = (6, 5, 4), (1.0, 2.0, 3.0)


def oriented(array_sar: np.ndarray, order: tuple[int, ...], signs: tuple[int, ...]) -> Volume:
    """The volume of an array with axes (S, P, L), stored with index axis a along ±world axis order[a]."""
    direction = np.zeros((3, 3))
    for axis, (world, sign) in enumerate(zip(order, signs, strict=True)):
        direction[world, axis] = sign
    array = array_sar.transpose([2 - world for world in order[::-1]])
    array = array[tuple(slice(None, None, sign) for sign in signs[::-1])]
    spacing = tuple(SPACING_LPS[world] for world in order)
    return Volume(array, spacing, (0.0, 0.0, 0.0), tuple(direction.ravel()))  # type: ignore[arg-type]
