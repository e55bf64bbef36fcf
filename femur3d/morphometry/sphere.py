"""The sphere of the femoral head: found by votes along the normals, fitted by reweighted least squares.

The head is by far the most spherical part of a femur. Every piece of the surface votes for the places that lie one
radius inwards of it; the votes of the head meet in its centre. Then the geometric distance to the sphere is made least
over the articular part, the side away from the neck, with Tukey's weights, which leave out the fovea, osteophytes and
a cam.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from scipy import ndimage

from femur3d.morphometry.surface import Surface

RADII_MM = (15.0, 35.0)  # heads of adults have 19 to 30 mm
ARTICULAR_DEG = 80.0  # (ours) angle from the neck's axis above which the surface counts as articular
_BIN_MM = 2.0
_VOTERS = 12_000  # vertices that vote, at most
_TUKEY = 4.685  # for 95% efficiency with normal residuals (Holland and Welsch 1977)
_LEAST_SCALE_MM = 0.15
_FEWEST = 30  # vertices to fit a sphere to
_COSINE = 0.8  # between the normal and the radius of what may belong to the head


@dataclasses.dataclass(frozen=True, eq=False)
class Sphere:
    """The head.

    Attributes:
        centre_mm: (3,), world LPS.
        radius_mm: of the best sphere.
        residual_mm: root mean square distance of what was fitted from it, weighted.
        coverage: solid angle that was fitted, as a part of the whole sphere.
    """

    centre_mm: np.ndarray
    radius_mm: float
    residual_mm: float = 0.0
    coverage: float = 0.0


def find_head(surface: Surface) -> Sphere | None:
    """A first guess: where most normals meet, and the distance at which most of the surface faces it; None: nowhere."""
    step = max(len(surface.vertices) // _VOTERS, 1)
    points, normals, areas = (a[::step] for a in (surface.vertices, surface.normals, surface.areas))
    radii = np.arange(*RADII_MM, _BIN_MM / 2)
    low = points.min(axis=0)
    places = ((points[:, None] - radii[:, None] * normals[:, None] - low) / _BIN_MM).round().astype(int)
    shape = np.ptp(points, axis=0) // _BIN_MM + 2
    inside = ((places >= 0) & (places < shape)).all(axis=2)
    flat = np.ravel_multi_index(places[inside].T, shape.astype(int))
    weights = np.broadcast_to(areas[:, None], inside.shape)[inside]
    votes = np.bincount(flat, weights, minlength=int(shape.prod())).reshape(shape.astype(int))
    votes = ndimage.gaussian_filter(votes, 1.5)
    if not votes.any():
        return None
    centre = low + _BIN_MM * np.array(np.unravel_index(votes.argmax(), votes.shape))
    return Sphere(centre, _facing_radius(surface, centre))


def _facing_radius(surface: Surface, centre: np.ndarray) -> float:
    """The distance (mm) at which most solid angle of the surface faces a point."""
    offsets = surface.vertices - centre
    distances = np.linalg.norm(offsets, axis=1)
    facing = np.einsum("ij,ij->i", offsets, surface.normals) > 0.95 * distances
    near = facing & (distances > RADII_MM[0] - 3) & (distances < RADII_MM[1] + 3)
    edges = np.arange(RADII_MM[0] - 3, RADII_MM[1] + 3.1, 0.5)
    counts, _ = np.histogram(distances[near], edges, weights=(surface.areas / distances**2)[near])
    return float(edges[ndimage.gaussian_filter1d(counts, 2.0).argmax()] + 0.25)


def fit_head(
    surface: Surface, start: Sphere, neck_axis: np.ndarray | None = None, articular_deg: float = ARTICULAR_DEG
) -> Sphere | None:
    """The sphere from which the articular surface differs least; None where too little of it is near.

    Args:
        surface: of the femur.
        start: a few millimetres off at most.
        neck_axis: unit vector (3,) from the head to the neck; None where it is not known yet: all that is near is used.
        articular_deg: angle with the neck's axis from which on the surface is articular.
    """
    centre, radius, scale = start.centre_mm, start.radius_mm, 0.06 * start.radius_mm
    part = np.linalg.norm(surface.vertices - centre, axis=1) < 1.4 * radius
    vertices, normals, areas = surface.vertices[part], surface.normals[part], surface.areas[part]
    for _ in range(50):
        offsets = vertices - centre
        distances = np.linalg.norm(offsets, axis=1)
        residuals = distances - radius
        directions = offsets / np.maximum(distances, 1e-9)[:, None]
        weights = np.where(np.einsum("ij,ij->i", directions, normals) > _COSINE, areas, 0.0)
        if neck_axis is not None:
            weights[directions @ neck_axis > np.cos(np.radians(articular_deg))] = 0
        robust = np.square(np.maximum(1 - np.square(residuals / (_TUKEY * scale)), 0))
        used = (weights > 0) & (robust > 0)
        w, r = (weights * robust)[used], residuals[used]
        if used.sum() < _FEWEST:
            return None
        jacobian = np.concatenate([directions[used], np.ones((len(r), 1))], axis=1)
        step = np.linalg.lstsq(jacobian * np.sqrt(w)[:, None], r * np.sqrt(w), rcond=None)[0]
        centre, radius = centre + step[:3], radius + step[3]
        near = (weights > 0) & (np.abs(residuals) < 0.15 * radius)
        scale = max(1.4826 * _weighted_median(np.abs(residuals[near]), weights[near]), _LEAST_SCALE_MM)
        if np.abs(step).max() < 1e-3:
            break
    residual = float(np.sqrt(np.average(np.square(r), weights=w)))
    coverage = float((weights[used] / np.square(distances[used])).sum() / (4 * np.pi))
    return Sphere(centre, float(radius), residual, coverage)


def _weighted_median(values: np.ndarray, weights: np.ndarray) -> float:
    order = np.argsort(values)
    sums = np.cumsum(weights[order])
    return float(values[order[np.searchsorted(sums, sums[-1] / 2)]])
