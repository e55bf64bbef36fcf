"""Surface distances against analytic answers, a brute force in NumPy, and SimpleITK's distance maps."""

from __future__ import annotations

import math

import numpy as np
import pytest
import SimpleITK as sitk

from femur3d.evaluation.surface_distance import (
    DirectedDistances,
    SurfaceDistances,
    mesh_from_mask,
    point_areas,
    point_distances,
    surface_distances,
)
from femur3d.volume import Volume
from tests.support.shapes import ball, rotation, signed_volume


def box(shape, start, stop) -> Volume:
    array = np.zeros(shape, bool)
    array[tuple(slice(a, b) for a, b in zip(start, stop, strict=True))] = True
    return Volume(array)


def brute_force(points: np.ndarray, vertices: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """Distance of each point to each triangle (its plane where the foot lies inside, else its edges); the least."""
    a, b, c = (vertices[triangles[:, corner]][None] for corner in range(3))
    p = points[:, None]

    def to_edge(start, stop):
        edge = stop - start
        t = np.clip(np.sum((p - start) * edge, -1) / np.sum(edge * edge, -1), 0, 1)
        return np.linalg.norm(p - start - t[..., None] * edge, axis=-1)

    normal = np.cross(b - a, c - a)
    height = np.sum((p - a) * normal, -1) / np.linalg.norm(normal, axis=-1)
    edges = ((a, b), (b, c), (c, a))
    inside = np.all([np.sum(np.cross(stop - start, p - start) * normal, -1) >= 0 for start, stop in edges], axis=0)
    distance = np.where(inside, np.abs(height), np.inf)
    return np.minimum(distance, np.min([to_edge(*edge) for edge in edges], axis=0)).min(axis=1)


METRICS = ("mean_mm", "std_mm", "hausdorff_mm", "hd95_mm", "vertex_mean_mm")


def sampled(mesh, other, points_per_mm2: float, generator: np.random.Generator) -> np.ndarray:
    """Distances to another mesh from points scattered evenly over a mesh: an independent integral over the surface."""
    corners = mesh[0][mesh[1]]
    areas = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1) / 2
    chosen = generator.choice(len(areas), int(points_per_mm2 * areas.sum()), p=areas / areas.sum())
    weights = generator.dirichlet((1, 1, 1), len(chosen))
    return point_distances(np.einsum("nk,nkx->nx", weights, corners[chosen]), *other)


def test_metrics_derived_from_the_directed_distances() -> None:
    """Two vertices and a centre one way, a vertex and a centre the other way."""
    forward = DirectedDistances(np.array([0.0, 6.0, 3.0]), np.array([1.0, 1.0, 8.0]), vertices=2)
    backward = DirectedDistances(np.array([1.0, 2.0]), np.array([2.0, 18.0]), vertices=1)
    distances = SurfaceDistances(forward, backward)
    mean = (0 + 6 + 24 + 2 + 36) / 30
    assert distances.mean_mm == pytest.approx(mean)
    variance = (
        1 * (0 - mean) ** 2 + (6 - mean) ** 2 + 8 * (3 - mean) ** 2 + 2 * (1 - mean) ** 2 + 18 * (2 - mean) ** 2
    ) / 30
    assert distances.std_mm == pytest.approx(math.sqrt(variance))
    assert distances.hausdorff_mm == 6
    assert distances.vertex_mean_mm == pytest.approx((0 + 6 + 1) / 3)
    assert distances.hd95_mm == 6  # 9 of 10 mm² are within 3 mm
    for name in METRICS:
        assert getattr(SurfaceDistances(backward, forward), name) == pytest.approx(getattr(distances, name))


def test_percentile_is_one_of_area() -> None:
    one = DirectedDistances(np.array([4.0, 1.0, 2.0, 3.0]), np.array([1.0, 10.0, 60.0, 29.0]), vertices=4)
    assert [one.percentile_mm(percent) for percent in (0, 10, 11, 70, 71, 99, 99.5, 100)] == [1, 1, 2, 2, 3, 3, 4, 4]


def test_points_stand_for_the_whole_area_and_integrate_squares_exactly() -> None:
    """A triangle of 3 mm² with corners (0,0), (2,0), (0,3): ∫x² is base³·height/12, ∫xy base²·height²/24."""
    vertices, triangles = np.array([[0.0, 0, 0], [2, 0, 0], [0, 3, 0]]), np.array([[0, 1, 2]])
    areas = point_areas(vertices, triangles)
    assert areas == pytest.approx([0.25, 0.25, 0.25, 2.25])
    x, y = np.concatenate([vertices, vertices.mean(axis=0, keepdims=True)]).T[:2]
    assert areas @ x**2 == pytest.approx(2 * 3 * 2**2 / 12)
    assert areas @ (x * y) == pytest.approx(2**2 * 3**2 / 24)
    mesh = mesh_from_mask(ball(12, (0.5, 0.5, 0.5)))
    assert point_areas(*mesh).sum() == pytest.approx(4 * math.pi * 12**2, rel=0.1)  # a stair-stepped sphere has more


def test_mean_of_a_block_that_is_one_slice_too_high_is_that_of_the_surfaces() -> None:
    """Worked out by hand for sharp edges: 40×40×60 mm against 40×40×65 mm, slices of 5 mm.

    From the reference only its top is off, by min(r, 5) mm at a distance r from the nearest side.
    From the prediction the top is 5 mm off, and the sides rise from 0 to 5 mm over the last slice.
    """
    shape, spacing = (17, 60, 60), (1.0, 1.0, 5.0)
    low, high = (Volume(box(shape, (2, 10, 10), (end, 50, 50)).array, spacing) for end in (14, 15))
    distances = surface_distances(low, high)
    edge, height, step = 40.0, 60.0, 5.0
    top = step * (edge - 2 * step) ** 2 + 4 * (edge * step**2 / 2 - 2 * step**3 / 3)
    integral = top + step * edge**2 + 4 * edge * step**2 / 2
    area = (2 * edge**2 + 4 * edge * height) + (2 * edge**2 + 4 * edge * (height + step))
    assert distances.mean_mm == pytest.approx(integral / area, rel=0.03)  # 0.62 mm
    assert distances.vertex_mean_mm != pytest.approx(integral / area, rel=0.3)  # the sides have few vertices


@pytest.mark.parametrize("thickness_mm", [1.0, 3.0, 5.2])
def test_metrics_are_those_of_points_scattered_over_the_surfaces(thickness_mm) -> None:
    spacing = (0.9, 0.9, thickness_mm)
    one, two = ball(12, spacing), ball(11, spacing, centre_mm=(2, -1, 1.5))
    distances = surface_distances(one, two)
    meshes, generator = (mesh_from_mask(one), mesh_from_mask(two)), np.random.default_rng(0)
    directed = [sampled(*pair, 20, generator) for pair in (meshes, meshes[::-1])]
    pooled = np.concatenate(directed)
    assert distances.mean_mm == pytest.approx(pooled.mean(), rel=0.015)
    assert distances.std_mm == pytest.approx(pooled.std(), rel=0.03)
    assert distances.hd95_mm == pytest.approx(max(np.percentile(d, 95) for d in directed), rel=0.03)
    assert distances.hausdorff_mm == pytest.approx(pooled.max(), rel=0.03)


def test_one_voxel_becomes_an_octahedron_in_world_millimetres() -> None:
    volume = box((3, 4, 5), (1, 2, 3), (2, 3, 4))
    volume = Volume(volume.array, (2.0, 3.0, 4.0), (10.0, 20.0, 30.0))
    vertices, triangles = mesh_from_mask(volume)
    centre = np.array([10 + 3 * 2, 20 + 2 * 3, 30 + 1 * 4])
    expected = centre + np.array([(-1, 0, 0), (1, 0, 0), (0, -1.5, 0), (0, 1.5, 0), (0, 0, -2), (0, 0, 2)])
    assert sorted(vertices.tolist()) == sorted(expected.tolist())
    assert triangles.shape == (8, 3)
    assert signed_volume(vertices, triangles) == pytest.approx(2 * 3 * 4 / 6)


def test_triangles_face_outwards_on_left_handed_grids_as_well() -> None:
    volume = ball(6)
    mirrored = Volume(volume.array, direction=(1.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0, 1.0))
    sizes = [signed_volume(*mesh_from_mask(v)) for v in (volume, mirrored)]
    assert sizes[0] == pytest.approx(4 / 3 * math.pi * 6**3, rel=0.03)
    assert sizes[1] == pytest.approx(sizes[0])


def test_masks_at_the_border_are_closed() -> None:
    vertices, triangles = mesh_from_mask(Volume(np.ones((3, 4, 5), bool)))
    edges = np.sort(np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]]), axis=1)
    assert set(np.unique(edges, axis=0, return_counts=True)[1].tolist()) == {2}
    assert vertices.min(axis=0).tolist() == [-0.5] * 3
    assert vertices.max(axis=0).tolist() == [4.5, 3.5, 2.5]
    inner = surface_distances(box((9, 9, 9), (3, 3, 3), (6, 6, 6)), box((9, 9, 9), (4, 3, 3), (7, 6, 6)))
    border = surface_distances(box((9, 9, 9), (0, 0, 0), (3, 3, 3)), box((9, 9, 9), (1, 0, 0), (4, 3, 3)))
    assert border.mean_mm == pytest.approx(inner.mean_mm)


def test_a_shifted_cube_has_the_exact_distance() -> None:
    """By 2 voxels of 1.5 mm along x: the faces across x are 3 mm apart, the side faces lie in each other's plane."""
    shape, spacing = (12, 12, 20), (1.5, 1.0, 0.5)
    one, two = (Volume(box(shape, (2, 2, x), (10, 10, x + 8)).array, spacing) for x in (4, 6))
    distances = surface_distances(one, two)
    assert distances.hausdorff_mm == pytest.approx(3.0)
    assert distances.hd95_mm == pytest.approx(3.0)
    vertices, _ = mesh_from_mask(one)
    left = vertices[:, 0] == (4 - 0.5) * 1.5
    assert left.sum() == 8 * 8
    at_vertices = distances.reference_to_prediction.distances_mm[: len(vertices)]
    assert at_vertices[left] == pytest.approx(3.0)
    in_plane = vertices[:, 0] >= 6 * 1.5
    right = vertices[:, 0] == (12 - 0.5) * 1.5
    assert at_vertices[in_plane & ~right] == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize("spacing_mm", [(0.5, 0.5, 0.5), (1.0, 1.0, 1.0), (0.8, 0.8, 2.0)])
def test_concentric_spheres(spacing_mm) -> None:
    """The mean comes out below 4 mm by part of a voxel: the nearest point of a stair-stepped sphere is on its steps."""
    distances = surface_distances(ball(13, spacing_mm), ball(9, spacing_mm))
    coarsest = max(spacing_mm)
    assert 4.0 - 0.25 * coarsest < distances.mean_mm < 4.0
    assert distances.std_mm < 0.35 * coarsest
    assert 4.0 <= distances.hausdorff_mm < 4.0 + coarsest


def test_identical_masks_have_distance_zero() -> None:
    volume = ball(8, (0.9, 0.9, 2.0))
    distances = surface_distances(volume, volume)
    assert distances.hausdorff_mm == pytest.approx(0.0, abs=1e-9)
    assert distances.std_mm == pytest.approx(0.0, abs=1e-9)


def test_oblique_grids_give_the_same_distances() -> None:
    one, two = ball(10, (0.9, 0.9, 2.5)), ball(8, (0.9, 0.9, 2.5), centre_mm=(3, -2, 1))
    turned = tuple(rotation((1, 2, -3), 35).ravel())
    oblique = [Volume(v.array, v.spacing_mm, (120.0, -45.0, 300.0), turned) for v in (one, two)]
    expected, received = surface_distances(one, two), surface_distances(*oblique)
    for name in METRICS:
        assert getattr(received, name) == pytest.approx(getattr(expected, name), abs=1e-6)


def test_symmetric_under_swapping() -> None:
    one, two = ball(10, (0.9, 0.9, 2.5)), ball(6, (0.9, 0.9, 2.5), centre_mm=(5, 0, 0))
    forward, backward = surface_distances(one, two), surface_distances(two, one)
    there, back = forward.reference_to_prediction, backward.prediction_to_reference
    assert np.array_equal(there.distances_mm, back.distances_mm)
    for name in METRICS:
        assert getattr(forward, name) == pytest.approx(getattr(backward, name))


def test_empty_masks_are_infinitely_far() -> None:
    full = ball(5)
    empty = full.with_array(np.zeros_like(full.array))
    assert mesh_from_mask(empty)[0].shape == mesh_from_mask(empty)[1].shape == (0, 3)
    for pair in ((full, empty), (empty, full), (empty, empty)):
        distances = surface_distances(*pair)
        assert [getattr(distances, name) for name in METRICS] == [math.inf] * 5


def test_against_brute_force_point_to_triangle() -> None:
    """Random blobs, and a mesh far away from the points, on an oblique grid."""
    generator = np.random.default_rng(0)
    direction = tuple(rotation((3, 1, 2), 50).ravel())
    near, far = np.zeros((6, 7, 40), bool), np.zeros((6, 7, 40), bool)
    near[1:5, 1:6, 1:6] = generator.random((4, 5, 5)) < 0.5
    far[1:5, 1:6, 2:7] = generator.random((4, 5, 5)) < 0.5
    for shift in (0, 32):
        volumes = [Volume(a, (0.9, 1.1, 4.0), (5.0, -70.0, 30.0), direction) for a in (near, np.roll(far, shift, 2))]
        mesh, other = (mesh_from_mask(v) for v in volumes)
        assert point_distances(mesh[0], *other) == pytest.approx(brute_force(mesh[0], *other), abs=1e-9)


def test_against_distance_maps_of_simpleitk() -> None:
    """The map holds, at voxel centres, the distance to the centres of the border voxels.

    A vertex lies half a voxel edge from a centre, the surface at most half a voxel diagonal from the border's centres.
    """
    spacing = (1.0, 1.0, 1.5)
    one, two = ball(11, spacing), ball(8, spacing, centre_mm=(2, 1, -2))
    image = sitk.GetImageFromArray(two.array.astype(np.uint8))
    image.SetSpacing(spacing)
    distance_map = np.abs(sitk.GetArrayFromImage(sitk.SignedMaurerDistanceMap(image, True, False, True)))
    index = np.round((mesh_from_mask(one)[0] - one.origin_mm) / spacing).astype(int)[:, ::-1]
    expected = distance_map[tuple(index.T)]
    directed = surface_distances(one, two).reference_to_prediction
    received = directed.distances_mm[: directed.vertices]
    assert np.abs(received - expected).max() < (max(spacing) + np.linalg.norm(spacing)) / 2
    assert np.abs(received - expected).mean() < max(spacing) / 2


def test_what_is_no_pair_of_masks_is_refused() -> None:
    volume = ball(5)
    with pytest.raises(ValueError, match="spacing_mm"):
        surface_distances(volume, Volume(volume.array, (2.0, 1.0, 1.0), volume.origin_mm))
    with pytest.raises(ValueError, match="uint8"):
        mesh_from_mask(volume.with_array(volume.array.astype(np.uint8)))
