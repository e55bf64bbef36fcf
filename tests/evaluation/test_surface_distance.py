"""Surface distances against analytic answers, a brute force in NumPy, and SimpleITK's distance maps."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest
import SimpleITK as sitk

from femur3d.evaluation.surface_distance import SurfaceDistances, mesh_from_mask, point_distances, surface_distances
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


def test_metrics_derived_from_the_directed_arrays() -> None:
    forward, backward = np.arange(101.0), np.array([0.0, 200.0])
    distances = SurfaceDistances(forward, backward)
    assert distances.mean_mm == pytest.approx((5050 + 200) / 103)
    assert distances.std_mm == pytest.approx(np.std([*range(101), 0, 200]))
    assert distances.hausdorff_mm == 200
    assert distances.hd95_mm == pytest.approx(190)  # 0.95·200 of the backward array; 95 of the forward one
    assert SurfaceDistances(backward, forward).hd95_mm == distances.hd95_mm


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
    assert distances.reference_to_prediction_mm[left] == pytest.approx(3.0)
    in_plane = vertices[:, 0] >= 6 * 1.5
    right = vertices[:, 0] == (12 - 0.5) * 1.5
    assert distances.reference_to_prediction_mm[in_plane & ~right] == pytest.approx(0.0, abs=1e-9)


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
    for name in ("mean_mm", "std_mm", "hausdorff_mm", "hd95_mm"):
        assert getattr(received, name) == pytest.approx(getattr(expected, name), abs=1e-6)


def test_symmetric_under_swapping() -> None:
    one, two = ball(10, (0.9, 0.9, 2.5)), ball(6, (0.9, 0.9, 2.5), centre_mm=(5, 0, 0))
    forward, backward = surface_distances(one, two), surface_distances(two, one)
    assert np.array_equal(forward.reference_to_prediction_mm, backward.prediction_to_reference_mm)
    for name in ("mean_mm", "std_mm", "hausdorff_mm", "hd95_mm"):
        assert getattr(forward, name) == pytest.approx(getattr(backward, name))


def test_empty_masks_are_infinitely_far() -> None:
    full = ball(5)
    empty = full.with_array(np.zeros_like(full.array))
    assert mesh_from_mask(empty)[0].shape == mesh_from_mask(empty)[1].shape == (0, 3)
    for pair in ((full, empty), (empty, full), (empty, empty)):
        distances = surface_distances(*pair)
        values = (distances.mean_mm, distances.std_mm, distances.hausdorff_mm, distances.hd95_mm)
        assert values == (math.inf,) * 4


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
    received = surface_distances(one, two).reference_to_prediction_mm
    assert np.abs(received - expected).max() < (max(spacing) + np.linalg.norm(spacing)) / 2
    assert np.abs(received - expected).mean() < max(spacing) / 2


def test_what_is_no_pair_of_masks_is_refused() -> None:
    volume = ball(5)
    with pytest.raises(ValueError, match="spacing_mm"):
        surface_distances(volume, Volume(volume.array, (2.0, 1.0, 1.0), volume.origin_mm))
    with pytest.raises(ValueError, match="uint8"):
        mesh_from_mask(volume.with_array(volume.array.astype(np.uint8)))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_no_rendering_library_is_loaded() -> None:
    code = "import femur3d.evaluation.surface_distance; print(open('/proc/self/maps').read())"
    maps = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=True).stdout
    assert "libvtkFiltersCore" in maps
    assert "libGL" not in maps
    assert "libvtkRendering" not in maps
