"""A closed triangle surface of one femur in world millimetres, and its cuts: what all measures are taken from.

Two kinds of cuts are made: radial half-planes about the neck's axis, in which a clock is read (12 o'clock superior, 3
anterior, on both sides), and planes across an axis.
"""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

PLANES = 36  # half-planes of the clock: every 10°, three an hour


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

    def moved(self, offsets_mm: np.ndarray) -> Surface:
        """The surface with each vertex moved by (V,) millimetres along its normal."""
        moved = Surface(self.vertices + offsets_mm[:, None] * self.normals, self.triangles)
        moved.__dict__["edges"] = self.edges  # the same triangles
        return moved

    def coarse(self, edge_mm: float) -> Surface:
        """About the same surface with edges of about such a length (clusters of vertices become one)."""
        cells = np.floor((self.vertices - self.vertices.min(axis=0)) / edge_mm).astype(np.int64)
        found, cluster, counts = np.unique(cells, axis=0, return_inverse=True, return_counts=True)
        cluster = cluster.ravel()
        sums = [np.bincount(cluster, part, minlength=len(found)) for part in self.vertices.T]
        corners = cluster[self.triangles]
        apart = (corners != np.roll(corners, 1, axis=1)).all(axis=1)
        return Surface(np.stack(sums, axis=1) / counts[:, None], corners[apart])


def bodies(surface: Surface, least_mm3: float) -> list[Surface]:
    """The parts that share no vertex, largest first and turned outwards: the largest, and those of such a volume."""
    size, corners = len(surface.vertices), surface.triangles
    ends = np.concatenate([corners[:, [0, 1]], corners[:, [0, 2]]]).T
    graph = coo_matrix((np.ones(ends.shape[1], bool), tuple(ends)), (size, size))
    part_of = connected_components(graph, directed=False)[1]
    a, b, c = (surface.vertices[corners[:, corner]] - surface.vertices.mean(axis=0) for corner in range(3))
    volumes = np.bincount(part_of[corners[:, 0]], np.einsum("ij,ij->i", a, np.cross(b, c)) / 6)
    found: list[Surface] = []
    for part in np.argsort(-np.abs(volumes), kind="stable"):
        if found and abs(volumes[part]) < least_mm3:
            break
        used = part_of == part
        triangles = (np.cumsum(used) - 1)[corners[used[corners[:, 0]]]]
        found.append(Surface(surface.vertices[used], triangles if volumes[part] > 0 else triangles[:, ::-1]))
    return found


def encloses(surface: Surface, point_mm: np.ndarray) -> bool:
    """Whether a point (3,) lies inside: the triangles' solid angles add up to 4π there, and to 0 outside.

    The solid angle is that of van Oosterom and Strackee 1983 (IEEE Trans Biomed Eng 30:125).
    """
    corners = surface.vertices[surface.triangles] - point_mm  # (T, 3, 3)
    a, b, c = np.moveaxis(corners, 1, 0)
    u, v, w = np.moveaxis(np.linalg.norm(corners, axis=2), 1, 0)
    dots = [np.einsum("ij,ij->i", *pair) for pair in ((a, b), (b, c), (c, a))]
    above = np.einsum("ij,ij->i", a, np.cross(b, c))
    angles = 2 * np.arctan2(above, u * v * w + dots[0] * w + dots[1] * u + dots[2] * v)
    return bool(abs(angles.sum()) > 2 * np.pi)


@dataclasses.dataclass(frozen=True, eq=False)
class Frame:
    """Where the clock hangs: the head's centre and three orthogonal unit vectors (3,), world LPS.

    Attributes:
        centre_mm: of the head.
        axis: from the head to the neck.
        superior: 12 o'clock.
        anterior: 3 o'clock.
    """

    centre_mm: np.ndarray
    axis: np.ndarray
    superior: np.ndarray
    anterior: np.ndarray

    def turned(self, axis: np.ndarray) -> Frame:
        """The frame about another axis, with 12 o'clock as near to the old one as can be."""
        superior = perpendicular(self.superior, axis)
        anterior = np.cross(axis, superior)
        anterior *= np.sign(anterior @ self.anterior)
        return dataclasses.replace(self, axis=axis, superior=superior, anterior=anterior)


def perpendicular(vector: np.ndarray, axis: np.ndarray) -> np.ndarray:
    """Unit vector (3,): the part of a vector across a unit vector."""
    across = vector - (vector @ axis) * axis
    return across / np.linalg.norm(across)


@dataclasses.dataclass(frozen=True, eq=False)
class Contour:
    """Where a half-plane cuts the surface near the axis, unordered.

    Attributes:
        along_mm: (N,), along the axis, 0 at the head's centre, positive towards the neck.
        away_mm: (N,), distance from the axis.
    """

    along_mm: np.ndarray
    away_mm: np.ndarray


def clock_angles() -> np.ndarray:
    """(PLANES,), radians: 0 at 12 o'clock, π/2 at 3 o'clock."""
    return np.arange(PLANES) * (2 * np.pi / PLANES)


def contours(surface: Surface, frame: Frame, reach_mm: float) -> list[Contour]:
    """The contours in all half-planes, by clock angle, within a distance of the head's centre."""
    offsets = surface.vertices - frame.centre_mm
    near = np.linalg.norm(offsets, axis=1) < reach_mm
    edges = surface.edges[near[surface.edges].all(axis=1)]
    along, up, front = (offsets @ axis for axis in (frame.axis, frame.superior, frame.anterior))
    found: list[Contour] = []
    opposite: list[Contour] = []
    for angle in clock_angles()[: PLANES // 2]:
        beside = front * np.cos(angle) - up * np.sin(angle)
        first, second = beside[edges].T
        cut = (first < 0) != (second < 0)
        start, end = edges[cut].T
        share = first[cut] / (first[cut] - second[cut])
        away = front * np.sin(angle) + up * np.cos(angle)
        across = away[start] + share * (away[end] - away[start])
        down = along[start] + share * (along[end] - along[start])
        found.append(Contour(down[across >= 0], across[across >= 0]))
        opposite.append(Contour(down[across < 0], -across[across < 0]))
    return found + opposite


def sections(
    surface: Surface, origin: np.ndarray, normal: np.ndarray, levels: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Areas (mm²) and centroids (n, 3) of the plane sections of a closed surface.

    The sums of the oriented pieces of a section's outline give both, in whatever order they come.
    """
    heights = (surface.vertices - origin) @ normal
    first = np.eye(3)[np.argmin(np.abs(normal))]
    across = np.cross(normal, first)
    across /= np.linalg.norm(across)
    beside = np.cross(normal, across)
    corners = heights[surface.triangles]
    low, high = corners.min(axis=1), corners.max(axis=1)
    areas, middles = np.zeros(len(levels)), np.zeros((len(levels), 3))
    for number, level in enumerate(levels):
        triangles = surface.triangles[(low < level) & (high >= level)]
        pieces = _pieces(surface.vertices, heights - level, triangles)  # (n, 2, 3)
        shift = pieces.mean(axis=(0, 1))
        u, v = (pieces - shift) @ across, (pieces - shift) @ beside
        cross = u[:, 0] * v[:, 1] - u[:, 1] * v[:, 0]
        area = cross.sum() / 2
        areas[number] = abs(area)
        middles[number] = shift + (across * (u.sum(axis=1) * cross).sum() + beside * (v.sum(axis=1) * cross).sum()) / (
            6 * area
        )
    return areas, middles


def _pieces(vertices: np.ndarray, heights: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """(n, 2, 3): the straight pieces in which triangles cross height 0, oriented as the triangles are."""
    above = heights[triangles] >= 0
    odd = np.where(above.sum(axis=1) == 1, above.argmax(axis=1), (~above).argmax(axis=1))  # the corner alone on a side
    rows = np.arange(len(triangles))
    alone, following, before = (triangles[rows, (odd + k) % 3] for k in range(3))
    ends = []
    for other in (following, before):
        share = heights[alone] / (heights[alone] - heights[other])
        ends.append(vertices[alone] + share[:, None] * (vertices[other] - vertices[alone]))
    pieces = np.stack(ends, axis=1)
    flipped = ~above[rows, odd]
    pieces[flipped] = pieces[flipped][:, ::-1]
    return pieces
