"""A shaded picture of a surface, cast from its field: NumPy only, where VTK's renderer would want OpenGL."""

from __future__ import annotations

import numpy as np

LIGHT = (0.45, -0.75, -0.5)  # (z, y, x) towards the lamp: above, in front of and to the left of the picture
AMBIENT, DIFFUSE, SHINE = 0.3, 0.8, 0.25
DEPTH_CUE = 0.35  # how much darker the furthest part of the surface is than the nearest
SHARPNESS = 20.0  # exponent of the highlight


def shaded_front(
    field: np.ndarray, spacing_mm: tuple[float, float, float], colour: tuple[float, float, float]
) -> np.ndarray:
    """The zero surface of a field as seen along array axis 1, from its index 0, without perspective.

    For each ray the first crossing is found between two voxels; the field's gradient there is the normal.

    Args:
        field: float, axes (z, y, x), positive inside and negative at its border.
        spacing_mm: along (z, y, x).
        colour: red, green, blue, 0 to 1.

    Returns:
        Picture, float32, shape (z, x, 4): red, green, blue, opacity (0 where a ray meets nothing).
    """
    inside = field > 0
    after = inside.argmax(axis=1)
    hit = inside.any(axis=1)
    z, x = np.nonzero(hit)
    y = after[z, x]
    share = field[z, y, x] / (field[z, y, x] - field[z, y - 1, x])  # of the step back from the first voxel inside
    depth_mm = (y - share) * spacing_mm[1]
    normals = -(1 - share) * _gradients(field, z, y, x, spacing_mm) - share * _gradients(field, z, y - 1, x, spacing_mm)
    normals /= np.maximum(np.linalg.norm(normals, axis=0), 1e-9)
    picture = np.zeros((*hit.shape, 4), np.float32)
    picture[hit, :3] = _lit(normals, depth_mm, colour)
    picture[hit, 3] = 1
    return picture


def _gradients(
    field: np.ndarray, z: np.ndarray, y: np.ndarray, x: np.ndarray, spacing_mm: tuple[float, float, float]
) -> np.ndarray:
    """Central differences at some voxels, shape (3, N), along (z, y, x), per mm; at the border they repeat the edge."""
    parts = []
    for axis, mm in enumerate(spacing_mm):
        last = field.shape[axis] - 1
        up, down = [z, y, x], [z, y, x]
        up[axis], down[axis] = np.minimum(up[axis] + 1, last), np.maximum(down[axis] - 1, 0)
        parts.append((field[tuple(up)] - field[tuple(down)]) / (2 * mm))
    return np.stack(parts)


def _lit(normals: np.ndarray, depth_mm: np.ndarray, colour: tuple[float, float, float]) -> np.ndarray:
    """Colours, shape (N, 3), of surface points: ambient, diffuse and a little gloss, darker with depth."""
    light = np.array(LIGHT) / np.linalg.norm(LIGHT)
    half_way = light + np.array((0.0, -1.0, 0.0))  # between the lamp and the eye
    half_way /= np.linalg.norm(half_way)
    brightness = AMBIENT + DIFFUSE * np.clip(light @ normals, 0, None)
    nearness = 1 - (depth_mm - depth_mm.min()) / max(float(np.ptp(depth_mm)), 1.0)
    brightness *= 1 - DEPTH_CUE * (1 - nearness)
    gloss = SHINE * np.clip(half_way @ normals, 0, None) ** SHARPNESS
    return np.clip(brightness[:, None] * np.array(colour) + gloss[:, None], 0, 1)
