"""A closed triangle surface of one femur in world millimetres: what all measures are taken from."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np

FEWEST_TRIANGLES = 200


@dataclasses.dataclass(frozen=True, eq=False)
class Surface:
    """A triangle mesh.

    Attributes:
        vertices: (V, 3), float64, world millimetres (LPS).
        triangles: (T, 3), int64, indices of vertices, counter-clockwise seen from outside.
    """

    vertices: np.ndarray
    triangles: np.ndarray

    @functools.cached_property
    def triangle_normals(self) -> np.ndarray:
        """(T, 3): outward normals whose length is twice the triangle's area in mm²."""
        a, b, c = (self.vertices[self.triangles[:, corner]] for corner in range(3))
        return np.cross(b - a, c - a)

    @functools.cached_property
    def areas(self) -> np.ndarray:
        """(V,), mm²: the part of the surface that each vertex stands for, a third of its triangles."""
        third = np.linalg.norm(self.triangle_normals, axis=1) / 6
        return np.bincount(self.triangles.ravel(), np.repeat(third, 3), minlength=len(self.vertices))

    @functools.cached_property
    def normals(self) -> np.ndarray:
        """(V, 3): outward unit normals of the vertices, the means over their triangles by area."""
        flat = self.triangles.ravel()
        sums = [np.bincount(flat, np.repeat(part, 3), minlength=len(self.vertices)) for part in self.triangle_normals.T]
        normals = np.stack(sums, axis=1)
        return normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)

    @functools.cached_property
    def edges(self) -> np.ndarray:
        """(E, 2): every edge of a closed surface once, from the lower to the higher index."""
        pairs = np.concatenate([self.triangles[:, [0, 1]], self.triangles[:, [1, 2]], self.triangles[:, [2, 0]]])
        return pairs[pairs[:, 0] < pairs[:, 1]]

    @property
    def volume_mm3(self) -> float:
        """Signed volume: negative where the triangles are turned inside out."""
        return float(np.einsum("ij,ij->", self.vertices[self.triangles[:, 0]], self.triangle_normals) / 6)

    def moved(self, offsets_mm: np.ndarray) -> Surface:
        """The surface with each vertex moved by (V,) millimetres along its normal."""
        moved = Surface(self.vertices + offsets_mm[:, None] * self.normals, self.triangles)
        moved.__dict__["edges"] = self.edges  # the same triangles
        return moved
