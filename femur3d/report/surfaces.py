"""Surfaces of a case that are light enough for a web page, and their signed distance to the reference (Fig. 2)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import igl
import numpy as np
from scipy import ndimage

from femur3d.evaluation.surface_distance import point_distances
from femur3d.morphometry.implicit_surface import field_mesh, implicit_surface
from femur3d.report.slices import packed_bytes
from femur3d.volume import Volume

TRIANGLES = 4000  # of a femur on a page
UNIT_MM = 0.01  # of what is stored: int16 reaches 327 mm from the middle
COARSE = 48  # voxels along the shortest axis of a field, from which every second one is enough
MIN_VOXELS = 8  # a speck has no smooth surface


@dataclasses.dataclass(frozen=True, eq=False)
class Surface:
    """The surface of one femur.

    Attributes:
        side: 'left', 'right' or 'femur'; 'missed' for one of the reference where nothing was predicted.
        vertices: shape (N, 3), float64, world millimetres (LPS).
        triangles: shape (M, 3), counter-clockwise seen from outside.
        distances_mm: signed distance of each vertex to the reference's surface, shape (N,), positive where the
            prediction reaches beyond it; None without reference.
    """

    side: str
    vertices: np.ndarray
    triangles: np.ndarray
    distances_mm: np.ndarray | None = None


class ReferenceSurface:
    """The smooth surface of all femurs of a reference, made as that of a prediction: equal masks are 0 mm apart.

    Both are smooth, so a difference is one of shape and not of the stairs of thick slices. The metrics of Table 1 are
    taken between the surfaces of the voxels and differ a little.
    """

    def __init__(self, label_map: Volume, masks: Mapping[str, np.ndarray]) -> None:
        self._fields = [implicit_surface(label_map.with_array(mask)) for mask in masks.values()]
        meshes = [field_mesh(field) for field in self._fields]
        first = np.cumsum([0, *(len(vertices) for vertices, _ in meshes)])
        self._vertices = np.concatenate([vertices for vertices, _ in meshes])
        self._triangles = np.concatenate([mesh[1] + start for mesh, start in zip(meshes, first, strict=False)])

    def signed_distances_mm(self, points_mm: np.ndarray) -> np.ndarray:
        """Of world points, shape (N, 3): positive outside of the reference, negative within."""
        inside = np.zeros(len(points_mm), bool)
        for field in self._fields:
            at = field.index_zyx(points_mm).T
            inside |= ndimage.map_coordinates(field.array, at, order=1, mode="constant", cval=-1.0) > 0
        return np.where(inside, -1, 1) * point_distances(points_mm, self._vertices, self._triangles)


def surfaces_of(
    label_map: Volume,
    masks: Mapping[str, np.ndarray],
    reference: Mapping[str, np.ndarray] | None = None,
    triangles: int = TRIANGLES,
) -> list[Surface]:
    """The surface of each femur, with its distances where there is a reference, and of each that was missed.

    Args:
        label_map: for its grid.
        masks: of the prediction, by side, bool (z, y, x).
        reference: the same of the reference; None for none.
        triangles: how many a femur has at most, about.
    """
    masks, truth = _large(masks), _large(reference or {})
    surface = ReferenceSurface(label_map, truth) if truth else None
    found = []
    for side, mask in masks.items():
        vertices, faces = _light(label_map.with_array(mask), triangles)
        distances_mm = None if surface is None else surface.signed_distances_mm(vertices)
        found.append(Surface(side, vertices, faces, distances_mm))
    predicted = np.any(list(masks.values()), axis=0) if masks else np.zeros(label_map.array.shape, bool)
    missed = [mask for mask in truth.values() if not (mask & predicted).any()]
    return found + [Surface("missed", *_light(label_map.with_array(mask), triangles)) for mask in missed]


def _light(mask: Volume, triangles: int) -> tuple[np.ndarray, np.ndarray]:
    """A mask's surface of so many triangles, from every second value of its field, which is smooth over more."""
    field = implicit_surface(mask)
    border = float(field.array[0, 0, 0])
    if min(field.array.shape) > COARSE:
        coarse = np.pad(field.array[1:-1:2, 1:-1:2, 1:-1:2], 1, constant_values=border)
        x, y, z = (2 * mm for mm in field.spacing_mm)
        origin_x, origin_y, origin_z = field.world_mm([-1.0, -1.0, -1.0]).tolist()
        field = Volume(coarse, (x, y, z), (origin_x, origin_y, origin_z), field.direction)
    return decimated(*field_mesh(field), triangles)


def decimated(vertices_mm: np.ndarray, triangles: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """A mesh with about `count` triangles, the volume kept, by quadric error (Garland and Heckbert 1997).

    Args:
        vertices_mm: shape (N, 3).
        triangles: shape (M, 3), indices of vertices; returned as they are where there are few enough.
    """
    if len(triangles) <= count:
        return vertices_mm, triangles
    mesh = np.asfortranarray(vertices_mm), np.asfortranarray(triangles, np.int32)
    vertices, corners, *_ = igl.qslim(*mesh, count)
    return np.ascontiguousarray(vertices), np.ascontiguousarray(corners)


def _large(masks: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {side: mask for side, mask in masks.items() if np.count_nonzero(mask) >= MIN_VOXELS}


def packed_surfaces(surfaces: list[Surface]) -> list[dict[str, Any]]:
    """Surfaces as JSON can hold them: positions about their common middle and distances in UNIT_MM, corners by number.

    `data` is packed little-endian bytes: positions int16 (N, 3), distances int16 (N,) where there are any, corners
    uint16 (M, 3).
    """
    if not surfaces:
        return []
    everything = np.concatenate([surface.vertices for surface in surfaces])
    middle = (everything.min(axis=0) + everything.max(axis=0)) / 2
    return [_packed(surface, middle) for surface in surfaces]


def _packed(surface: Surface, middle: np.ndarray) -> dict[str, Any]:
    parts = [_int16(surface.vertices - middle)]
    if surface.distances_mm is not None:
        parts.append(_int16(surface.distances_mm))
    parts.append(surface.triangles.astype("<u2").tobytes())
    return {
        "side": surface.side,
        "vertices": len(surface.vertices),
        "triangles": len(surface.triangles),
        "distances": surface.distances_mm is not None,
        "data": packed_bytes(np.frombuffer(b"".join(parts), np.uint8)),
    }


def _int16(values_mm: np.ndarray) -> bytes:
    limit = np.iinfo(np.int16).max
    return np.clip(np.round(values_mm / UNIT_MM), -limit, limit).astype("<i2").tobytes()
