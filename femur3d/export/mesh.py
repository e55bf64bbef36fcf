"""STL and PLY files of a surface in world millimetres."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from femur3d.errors import InputError, UsageError
from femur3d.io.integrity import writing

MESH_EXTENSIONS = (".stl", ".ply")

_OPEN = 0.002  # part of the edges that may have one triangle only
_NOTE = "femur3d surface, millimetres, LPS world coordinates (+x left, +y posterior)"  # 80 bytes at most for STL
_STL_TRIANGLE = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")])
_PLY_TRIANGLE = np.dtype([("count", "u1"), ("corners", "<i4", 3)])


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
    with writing(path) as temporary:
        temporary.write_bytes(content)


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


def read_mesh(path: str | os.PathLike[str]) -> tuple[np.ndarray, np.ndarray]:
    """Vertices (N, 3), float64, and outward triangles (M, 3) of a closed surface in an STL or PLY file.

    Raises:
        InputError: not such a file, unreadable, without triangles, or not closed.
    """
    path = Path(path)
    if path.suffix.lower() not in MESH_EXTENSIONS or not path.is_file():
        raise InputError(f"{path}: no surface file.\nExpected an STL or PLY file.")
    import igl

    try:
        corners, faces = igl.read_triangle_mesh(str(path))
    except Exception as error:  # of many kinds
        raise _not_triangles(path) from error
    if not faces.size or faces.shape[1] != 3 or not np.isfinite(corners).all():
        raise _not_triangles(path)
    vertices, number = np.unique(corners, axis=0, return_inverse=True)  # STL has every corner of its own
    triangles = number.ravel()[faces].astype(np.int64)
    edges = np.concatenate([triangles[:, pair] for pair in ([0, 1], [1, 2], [2, 0])])
    _, counts = np.unique(np.sort(edges, axis=1), axis=0, return_counts=True)
    if (counts == 1).mean() > _OPEN:
        raise InputError(f"{path}: the surface is open.\nClose it (fill its holes): inside and outside must be told.")
    corners = vertices[triangles]
    inside_out = np.einsum("ij,ij->", corners[:, 0], np.cross(corners[:, 1], corners[:, 2])) < 0
    return vertices, triangles[:, ::-1] if inside_out else triangles


def _not_triangles(path: Path) -> InputError:
    return InputError(f"{path}: not a surface of triangles.\nExport it again as STL or PLY.")
