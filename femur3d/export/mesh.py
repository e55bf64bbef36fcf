"""A smooth surface mesh of a femur in world millimetres, and its STL and PLY files."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from femur3d.errors import InputError, UsageError
from femur3d.evaluation.surface_distance import level_surface
from femur3d.export.implicit_surface import implicit_surface
from femur3d.io.atomic import replacing
from femur3d.volume import Volume

MESH_EXTENSIONS = (".stl", ".ply")

_NOTE = "femur3d surface, millimetres, LPS world coordinates (+x left, +y posterior)"  # 80 bytes at most for STL
_STL_TRIANGLE = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")])
_PLY_TRIANGLE = np.dtype([("count", "u1"), ("corners", "<i4", 3)])


def femur_mesh(label: Volume, probability: Volume | None = None) -> tuple[np.ndarray, np.ndarray]:
    """The smooth, closed surface of a mask (see implicit_surface.py).

    It stays within half a voxel of the mask's boundary (half the voxel's extent along the surface's normal: 0.5 mm to
    2.6 mm for voxels of 0.9×0.9×5.2 mm), and encloses the mask's volume to about 0.5% for anything as large as a femur.
    A mask at the border of the field of view is closed there by a flat cap.

    Args:
        label: bool mask, axes (z, y, x).
        probability: P(femur) on the same grid, where known: the surface is then that of P = 0.5 within the mask.

    Returns:
        vertices, shape (N, 3), float64, world millimetres (LPS), and triangles, shape (M, 3), int64, indices of
        vertices in counter-clockwise order seen from outside.

    Raises:
        ValueError: the mask is not bool, or the grids differ.
        InputError: the mask is empty.
    """
    field = implicit_surface(label, probability)
    vertices_xyz, triangles = level_surface(field.array.astype(np.float32, copy=False), 0.0)
    if np.linalg.det(field.affine[:3, :3]) < 0:  # a left-handed grid mirrors the mesh: turn the triangles back
        triangles = triangles[:, ::-1]
    return field.world_mm(vertices_xyz[:, ::-1]), np.ascontiguousarray(triangles)


def write_mesh(vertices_mm: np.ndarray, triangles: np.ndarray, path: str | os.PathLike[str]) -> None:
    """Writes a mesh as binary STL or PLY, float32, whole or not at all.

    Args:
        vertices_mm: shape (N, 3), world millimetres (LPS); written as they are, the file's header says so.
        triangles: shape (M, 3), indices of vertices, counter-clockwise seen from outside.
        path: ends with .stl or .ply; its folder is created if needed.

    Raises:
        UsageError: another extension.
        InputError: the file cannot be written there.
    """
    path = Path(path)
    if path.suffix not in MESH_EXTENSIONS:
        known = " or ".join(MESH_EXTENSIONS)
        raise UsageError(f"{path}: not a name that a surface can be written to.\nUse one that ends with {known}.")
    content = (_stl if path.suffix == ".stl" else _ply)(vertices_mm.astype("<f4"), triangles)
    try:
        with replacing(path) as temporary:
            temporary.write_bytes(content)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise InputError(f"{path}: cannot be written ({reason}).\nCheck permissions and free space.") from error


def _stl(vertices: np.ndarray, triangles: np.ndarray) -> bytes:
    """80 bytes of header (it must not begin with 'solid', as text STL does), the number of triangles, 50 bytes each."""
    records = np.zeros(len(triangles), _STL_TRIANGLE)
    records["corners"] = vertices[triangles]
    a, b, c = (records["corners"][:, corner].astype(np.float64) for corner in range(3))
    normals = np.cross(b - a, c - a)
    records["normal"] = normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-30)
    return _NOTE.encode("ascii").ljust(80) + np.uint32(len(triangles)).astype("<u4").tobytes() + records.tobytes()


def _ply(vertices: np.ndarray, triangles: np.ndarray) -> bytes:
    records = np.zeros(len(triangles), _PLY_TRIANGLE)
    records["count"], records["corners"] = 3, triangles
    header = (
        f"ply\nformat binary_little_endian 1.0\ncomment {_NOTE}\nelement vertex {len(vertices)}\n"
        "property float x\nproperty float y\nproperty float z\n"
        f"element face {len(triangles)}\nproperty list uchar int vertex_indices\nend_header\n"
    )
    return header.encode("ascii") + vertices.tobytes() + records.tobytes()
