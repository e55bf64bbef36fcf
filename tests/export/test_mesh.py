"""Smooth surfaces against analytic shapes and a phantom's exact one, on every kind of grid; and their files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage
from vtkmodules.util.numpy_support import vtk_to_numpy
from vtkmodules.vtkIOGeometry import vtkSTLReader
from vtkmodules.vtkIOPLY import vtkPLYReader

from femur3d.errors import InputError, UsageError
from femur3d.evaluation.surface_distance import mesh_from_mask, point_distances
from femur3d.export.mesh import write_mesh
from femur3d.morphometry.implicit_surface import _smoothed, femur_mesh, implicit_surface
from femur3d.phantom.anatomy import femur_distance
from femur3d.phantom.hip import patient_anatomy
from femur3d.volume import Volume
from tests.support.shapes import ball, rotation, signed_volume

THICK = (0.9, 0.9, 5.2)  # mm, as the real hips have it
DIRECTIONS = {
    "axial": np.eye(3),
    "coronal": np.array([[1, 0, 0], [0, 0, 1], [0, -1, 0]], float),
    "oblique": rotation((1, 2, -3), 35),
    "left-handed": np.diag([1.0, -1.0, 1.0]),
}


def turned(volume: Volume, direction: np.ndarray) -> Volume:
    """The volume rotated or mirrored about the world's origin, shape and all."""
    origin = direction @ np.array(volume.origin_mm)
    return Volume(volume.array, volume.spacing_mm, tuple(origin), tuple(direction.ravel()))


def edges(triangles: np.ndarray) -> np.ndarray:
    """Directed edges, shape (3 M, 2)."""
    return np.concatenate([triangles[:, pair] for pair in ([0, 1], [1, 2], [2, 0])])


def is_closed(triangles: np.ndarray) -> bool:
    """Every edge is used once in each direction: no hole, and all triangles turned the same way."""
    forward, counts = np.unique(edges(triangles), axis=0, return_counts=True)
    backward = np.unique(edges(triangles)[:, ::-1], axis=0)
    return counts.max() == 1 and np.array_equal(forward, backward)


def face_normals(vertices: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    a, b, c = (vertices[triangles[:, corner]] for corner in range(3))
    normals = np.cross(b - a, c - a)
    return normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)


def bend(vertices: np.ndarray, triangles: np.ndarray) -> float:
    """Root mean square of the angles between neighbouring faces, in degrees: large on stairs."""
    normals = face_normals(vertices, triangles)
    undirected = np.sort(edges(triangles), axis=1)
    order = np.lexsort(undirected.T)
    one, other = (order[start::2] % len(triangles) for start in (0, 1))
    cosines = np.clip(np.sum(normals[one] * normals[other], axis=1), -1, 1)
    return float(np.sqrt(np.mean(np.degrees(np.arccos(cosines)) ** 2)))


def voxel_faces(mask: Volume) -> tuple[np.ndarray, np.ndarray]:
    """The mask's boundary itself: the faces between an inside and an outside voxel, as triangles."""
    padded, corners = np.pad(mask.array, 1), []
    for axis in range(3):
        for step in (1, -1):
            centres = np.argwhere(padded & ~np.roll(padded, -step, axis)) - 1.0
            centres[:, axis] += step / 2
            first, second = (np.eye(3)[other] / 2 for other in range(3) if other != axis)
            corners.append(centres[:, None] + [-first - second, first - second, first + second, second - first])
    quads = np.arange(4 * sum(map(len, corners))).reshape(-1, 4)
    return mask.world_mm(np.concatenate(corners).reshape(-1, 3)), np.concatenate([quads[:, :3], quads[:, [0, 2, 3]]])


def beyond_half_a_voxel(mask: Volume, vertices: np.ndarray, triangles: np.ndarray, count: int = 800) -> float:
    """Mean over vertices of how much further than half a voxel they lie from the mask's boundary, in mm.

    Half a voxel is half the voxel's extent along the surface's normal there.
    """
    normals = np.zeros_like(vertices)
    for corner in range(3):
        np.add.at(normals, triangles[:, corner], face_normals(vertices, triangles))
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    some = np.random.default_rng(0).permutation(len(vertices))[:count]
    half_voxel = np.abs(normals[some] @ mask.affine[:3, :3]).sum(axis=1) / 2
    distances = point_distances(vertices[some], *voxel_faces(mask))
    return float(np.maximum(distances - half_voxel, 0).mean())


@pytest.mark.parametrize("direction", DIRECTIONS.values(), ids=DIRECTIONS)
@pytest.mark.parametrize(("spacing_mm", "mean_mm", "most_mm"), [((1.0,) * 3, 0.1, 0.5), (THICK, 0.2, 1.2)])
def test_a_ball_becomes_a_ball(spacing_mm, mean_mm, most_mm, direction) -> None:
    """Marching cubes of the mask is off by 0.23 mm on average (1 mm voxels) and 0.66 mm (thick slices)."""
    mask = turned(ball(20, spacing_mm, 27.0), direction)
    vertices, triangles = femur_mesh(mask)
    off = np.abs(np.linalg.norm(vertices, axis=1) - 20)
    assert off.mean() < mean_mm
    assert off.max() < most_mm
    assert is_closed(triangles)
    voxels_mm3 = mask.array.sum() * np.prod(spacing_mm)
    assert signed_volume(vertices, triangles) == pytest.approx(voxels_mm3, rel=0.005)
    assert (np.sum(face_normals(vertices, triangles) * vertices[triangles[:, 0]], axis=1) > 0).all()


@pytest.mark.parametrize("spacing_mm", [(1.0,) * 3, THICK], ids=["cubes", "thick"])
def test_neighbouring_faces_bend_little(spacing_mm) -> None:
    """On a sphere of radius 20 mm meshed at 1 mm neighbouring faces stand 1-2° to each other."""
    mask = ball(20, spacing_mm, 27.0)
    assert bend(*femur_mesh(mask)) < 3.0
    assert bend(*mesh_from_mask(mask)) > 20.0


def test_the_bend_of_a_cube_is_known() -> None:
    """Its 12 edges bend by 90°, the 6 diagonals of its faces not at all."""
    vertices, triangles = voxel_faces(Volume(np.ones((1, 1, 1), bool)))
    unique, index = np.unique(vertices, axis=0, return_inverse=True)
    assert len(unique) == 8
    assert bend(unique, index.reshape(-1)[triangles]) == pytest.approx(90 * np.sqrt(12 / 18))


def test_an_ellipsoid_does_not_shrink_at_its_tips() -> None:
    radii = np.array([12.0, 16.0, 30.0])
    grid = ball(1, (1.0, 1.0, 2.0), 36.0)
    points = grid.world_mm(np.stack(np.indices(grid.array.shape), -1))
    mask = grid.with_array(((points / radii) ** 2).sum(-1) <= 1)
    vertices, _ = femur_mesh(mask)
    assert vertices.max(axis=0) == pytest.approx(radii, abs=0.6)
    assert vertices.min(axis=0) == pytest.approx(-radii, abs=0.6)


def phantom_femur(spacing_mm: tuple[float, float, float]) -> Volume:
    """Signed distance (mm, negative inside) to the left femur of a phantom."""
    patient = patient_anatomy(0)
    extent, centre = np.array((110.0, 80.0, 120.0)), np.array((100.0, 0.0, -30.0))
    size = (extent / spacing_mm).astype(int)
    first = centre - np.array(spacing_mm) * (size - 1) / 2
    x, y, z = (o + s * np.arange(n, dtype=np.float32) for o, s, n in zip(first, spacing_mm, size, strict=True))
    lateral, posterior, superior = x - patient.body.head_distance_mm, y - patient.body.centre_mm[0], z
    grid = (lateral[None, None], posterior[None, :, None], (superior - patient.body.centre_mm[1])[:, None, None])
    distance = np.broadcast_to(femur_distance(grid, patient.left), size[::-1])
    return Volume(np.array(distance), spacing_mm, tuple(first))


@pytest.fixture(scope="module")
def exact_femur() -> Volume:
    return phantom_femur((2.0, 2.0, 2.0))


def off_the_femur(exact: Volume, vertices: np.ndarray) -> np.ndarray:
    """Distances of vertices to the exact femur; the ones at the cut through the shaft are left out."""
    kept = vertices[vertices[:, 2] > exact.origin_mm[2] + 8]
    index = (kept - exact.origin_mm) @ np.linalg.inv(exact.affine[:3, :3]).T
    return np.abs(ndimage.map_coordinates(exact.array, index.T[::-1], order=1))


def test_a_femur_of_thick_slices(exact_femur: Volume) -> None:
    """Coronal slices of 5.2 mm; the shaft is cut by the field of view."""
    field = phantom_femur((0.9, 5.2, 0.9))
    mask = field.with_array(field.array < 0)
    assert mask.array[0].any()
    vertices, triangles = femur_mesh(mask)
    assert is_closed(triangles)
    assert signed_volume(vertices, triangles) == pytest.approx(mask.array.sum() * 0.9 * 5.2 * 0.9, rel=0.005)
    assert beyond_half_a_voxel(mask, vertices, triangles) < 0.01
    stairs = mesh_from_mask(mask)
    assert bend(vertices, triangles) < 4.0 < bend(*stairs) / 5
    assert off_the_femur(exact_femur, vertices).mean() < 0.3
    assert off_the_femur(exact_femur, stairs[0]).mean() > 0.7


def test_half_a_voxel_is_kept_from_the_boundary() -> None:
    mask = ball(20, THICK, 27.0)
    assert beyond_half_a_voxel(mask, *femur_mesh(mask)) < 0.01
    vertices, triangles = mesh_from_mask(mask)
    assert beyond_half_a_voxel(mask, vertices, triangles) == 0
    assert beyond_half_a_voxel(mask, vertices * 1.2, triangles) > 1.0  # 4 mm off, half a voxel is 0.5 to 2.6 mm


def test_a_probability_map_places_the_surface_between_the_voxels(exact_femur: Volume) -> None:
    field = phantom_femur((2.0, 4.0, 2.0))
    probability = field.with_array((1 / (1 + np.exp(np.clip(field.array / 0.8, -50, 50)))).astype(np.float32))
    mask = field.with_array(probability.array > 0.5)
    with_map, without = femur_mesh(mask, probability), femur_mesh(mask)
    assert is_closed(with_map[1])
    assert off_the_femur(exact_femur, with_map[0]).mean() < 0.8 * off_the_femur(exact_femur, without[0]).mean()
    assert beyond_half_a_voxel(mask, *with_map) < 0.01


def test_the_mask_is_right_where_the_probability_contradicts_it() -> None:
    """P = 0.9 all over, as of another structure that was removed beside a femur, and 0.1 in a hole that was filled."""
    mask = ball(12, (1.0,) * 3, 18.0)
    wrong = mask.with_array(np.where(ball(4, (1.0,) * 3, 18.0).array, 0.1, 0.9).astype(np.float32))
    vertices, triangles = femur_mesh(mask, wrong)
    assert is_closed(triangles)
    off = np.linalg.norm(vertices, axis=1) - 12
    assert np.abs(off).max() < 1.0
    assert signed_volume(vertices, triangles) == pytest.approx(mask.array.sum(), rel=0.02)


def test_masks_at_the_border_are_closed_by_a_flat_cap() -> None:
    whole = ball(16, (1.0, 1.0, 2.0), 22.0)
    half = Volume(whole.array[: len(whole.array) // 2], whole.spacing_mm, whole.origin_mm)  # z to -1 mm or so
    border = half.world_mm((half.array.shape[0] - 0.5, 0, 0))[2]
    vertices, triangles = femur_mesh(half)
    assert is_closed(triangles)
    assert vertices[:, 2].max() == pytest.approx(border, abs=0.5)
    assert signed_volume(vertices, triangles) == pytest.approx(half.array.sum() * 2.0, rel=0.015)


def test_a_single_voxel_and_two_femurs_are_closed_as_well() -> None:
    array = np.zeros((4, 5, 6), bool)
    array[0, 2, 5] = True
    assert is_closed(femur_mesh(Volume(array, THICK))[1])
    one = ball(6, (1.0,) * 3, 10.0).array
    vertices, triangles = femur_mesh(Volume(np.concatenate([one, one], axis=2)))
    assert is_closed(triangles)
    assert signed_volume(vertices, triangles) == pytest.approx(2 * one.sum(), rel=0.02)
    middle = one.shape[2] - 0.5
    assert (vertices[:, 0] > middle).mean() == pytest.approx(0.5, abs=0.01)
    assert np.abs(vertices[:, 0] - middle).min() > 2


def test_the_field_keeps_the_grids_orientation_and_divides_its_voxels() -> None:
    mask = turned(ball(8, THICK, 14.0), DIRECTIONS["oblique"])
    field = implicit_surface(mask)
    assert field.direction == mask.direction
    assert field.array.dtype == np.float32
    np.testing.assert_allclose(np.divide(mask.spacing_mm, field.spacing_mm), (1, 1, 6))
    ijk = np.linalg.solve(field.affine, np.append(mask.world_mm((1, 2, 3)), 1))[:3]
    np.testing.assert_allclose(ijk, np.round(ijk), atol=1e-6)
    border = np.ones(field.array.shape, bool)
    border[1:-1, 1:-1, 1:-1] = False
    assert (field.array[border] < 0).all()
    assert np.abs(field.array).min() > 0.01  # mm: or triangles about a voxel centre would have no area


def test_what_has_no_surface_is_refused() -> None:
    mask = ball(5)
    with pytest.raises(InputError, match="no femur") as caught:
        femur_mesh(mask.with_array(np.zeros_like(mask.array)))
    assert len(str(caught.value).splitlines()) == 2
    with pytest.raises(ValueError, match="uint8"):
        femur_mesh(mask.with_array(mask.array.astype(np.uint8)))
    with pytest.raises(ValueError, match="spacing_mm"):
        femur_mesh(mask, Volume(mask.array.astype(np.float32), (2.0, 1.0, 1.0), mask.origin_mm))


@pytest.mark.parametrize("reader", [vtkSTLReader, vtkPLYReader], ids=["stl", "ply"])
def test_another_program_reads_the_same_surface(tmp_path: Path, reader: type, request) -> None:
    extension = request.node.callspec.id
    vertices, triangles = femur_mesh(turned(ball(8, (1.0, 1.0, 3.0), 14.0), DIRECTIONS["oblique"]))
    path = tmp_path / "deeper" / f"femur.{extension}"
    write_mesh(vertices + 300, triangles, path)
    source = reader()
    source.SetFileName(str(path))
    source.Update()
    mesh = source.GetOutput()
    points = vtk_to_numpy(mesh.GetPoints().GetData()).astype(float)
    corners = vtk_to_numpy(mesh.GetPolys().GetConnectivityArray()).reshape(-1, 3)
    np.testing.assert_allclose(points[corners], vertices[triangles] + 300, atol=1e-4)
    assert signed_volume(points - 300, corners) == pytest.approx(signed_volume(vertices, triangles), rel=1e-4)


def test_stl_bytes_by_hand(tmp_path: Path) -> None:
    vertices = np.array([(0, 0, 0), (2, 0, 0), (0, 3, 0), (0, 0, 4)], float)
    write_mesh(vertices, np.array([(0, 2, 1), (0, 1, 3)]), tmp_path / "two.stl")
    data = (tmp_path / "two.stl").read_bytes()
    assert len(data) == 80 + 4 + 2 * 50
    header = data[:80].decode("ascii")
    assert not header.startswith("solid")
    assert "LPS" in header
    assert "millimetres" in header
    assert int.from_bytes(data[80:84], "little") == 2
    first = np.frombuffer(data[84:132], "<f4").reshape(4, 3)
    assert first.tolist() == [[0, 0, -1], [0, 0, 0], [0, 3, 0], [2, 0, 0]]
    assert data[132:134] == b"\0\0"


def test_ply_header_says_units_and_axes(tmp_path: Path) -> None:
    write_mesh(np.eye(3), np.array([(0, 1, 2)]), tmp_path / "one.ply")
    header, body = (tmp_path / "one.ply").read_bytes().split(b"end_header\n")
    assert header.startswith(b"ply\nformat binary_little_endian 1.0\ncomment femur3d surface, millimetres, LPS")
    assert len(body) == 3 * 12 + 13


def test_mesh_files_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    mesh = np.eye(3), np.array([(0, 1, 2)])
    for path, kind, word in (("a.obj", UsageError, ".stl or .ply"), ("file/a.stl", InputError, "cannot be written")):
        with pytest.raises(kind, match=word) as caught:
            write_mesh(*mesh, tmp_path / path)
        assert str(caught.value).startswith(str(tmp_path / path))
        assert len(str(caught.value).splitlines()) == 2
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("spacing_mm", [(1.0, 1.0, 1.0), (2.0, 1.0, 2.0)])
def test_smoothing_leaves_curvature_and_short_waists(spacing_mm):
    """A Gaussian of variance v makes x⁴ + 6v·x² + 3v² of x⁴; one less its double's leaves -6v², 96 and more here."""
    axes = np.ogrid[-40:41, -40:41, -40:41]
    for axis, step in zip(axes, spacing_mm, strict=True):
        quartic = np.broadcast_to((axis * step) ** 4.0, (81, 81, 81))
        smooth = _smoothed(quartic, np.array(spacing_mm))
        middle = (slice(36, 45),) * 3
        np.testing.assert_allclose(smooth[middle], quartic[middle], atol=6 * max(spacing_mm) ** 4)
