"""STL and PLY files of a surface in world millimetres.

They are not read by igl 2.6: it makes room for as many vertices as a header says, and damaged files end the process.
"""

from __future__ import annotations

import itertools
import os
import re
from pathlib import Path

import numpy as np
from numpy.lib.recfunctions import structured_to_unstructured

from femur3d.errors import InputError, UsageError
from femur3d.io.integrity import read_bytes, whole_number, writing

MESH_EXTENSIONS = (".stl", ".ply")

_OPEN = 0.002  # part of the edges that may have one triangle only, or two that do not agree
_NOTE = "femur3d surface, millimetres, LPS world coordinates (+x left, +y posterior)"  # 80 bytes at most for STL
_STL_TRIANGLE = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")])
_PLY_TRIANGLE = np.dtype([("count", "u1"), ("corners", "<i4", 3)])
_TEXT = "="
_PLY_ORDERS = {"ascii": _TEXT, "binary_little_endian": "<", "binary_big_endian": ">"}
_PLY_TYPES = {
    "char": "i1", "uchar": "u1", "short": "i2", "ushort": "u2", "int": "i4", "uint": "u4", "float": "f4",
    "double": "f8", "int8": "i1", "uint8": "u1", "int16": "i2", "uint16": "u2", "int32": "i4", "uint32": "u4",
    "float32": "f4", "float64": "f8",
}  # fmt: skip


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
        InputError: not such a file, unreadable, without triangles, not closed, or not orientable as it is.
    """
    path = Path(path)
    if path.suffix.lower() not in MESH_EXTENSIONS or not path.is_file():
        raise InputError(f"{path}: no surface file.\nExpected an STL or PLY file.")
    content = read_bytes(path)
    try:
        corners, faces = (_stl_surface if path.suffix.lower() == ".stl" else _ply_surface)(content)
    except Exception as error:  # of many kinds
        raise _not_triangles(path) from error
    if not faces.size or faces.min() < 0 or faces.max() >= len(corners) or not np.isfinite(corners).all():
        raise _not_triangles(path)
    vertices, number = np.unique(corners, axis=0, return_inverse=True)  # STL has every corner of its own
    triangles = number.ravel()[faces].astype(np.int64)
    edges = np.concatenate([triangles[:, pair] for pair in ([0, 1], [1, 2], [2, 0])])
    _, edge, counts = np.unique(np.sort(edges, axis=1), axis=0, return_inverse=True, return_counts=True)
    if (counts == 1).mean() > _OPEN:
        raise InputError(f"{path}: the surface is open.\nClose it (fill its holes): inside and outside must be told.")
    there_and_back = np.bincount(edge.ravel(), np.sign(edges[:, 1] - edges[:, 0]))  # 0 between neighbours that agree
    if (there_and_back != 0).mean() > _OPEN:
        raise InputError(
            f"{path}: its triangles face different ways.\nMake its normals consistent and export it again."
        )
    corners = vertices[triangles]
    inside_out = np.einsum("ij,ij->", corners[:, 0], np.cross(corners[:, 1], corners[:, 2])) < 0
    return vertices, triangles[:, ::-1] if inside_out else triangles


def _stl_surface(content: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Corners (3M, 3) and triangles (M, 3) of an STL file; some binary ones begin as text does."""
    count = int.from_bytes(content[80:84], "little")
    if content.lstrip().startswith(b"solid") and len(content) != 84 + count * _STL_TRIANGLE.itemsize:
        corners = np.array(re.findall(rb"vertex\s+(\S+)\s+(\S+)\s+(\S+)", content), np.float64)
    else:
        corners = np.frombuffer(content, _STL_TRIANGLE, count, 84)["corners"].reshape(-1, 3).astype(np.float64)
    return corners, np.arange(len(corners)).reshape(-1, 3)


def _ply_surface(content: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Vertices (N, 3) and triangles (M, 3) of a PLY file, in which every list is one of three."""
    header, _, body = content.partition(b"\nend_header")
    lines = [words for line in header.decode("latin-1").splitlines() if (words := line.split())]
    order = _PLY_ORDERS[next(words[1] for words in lines if words[0] == "format")]
    rest, tables = body.partition(b"\n")[2], dict[str, dict[str, np.ndarray]]()
    for at, words in enumerate(lines):
        if words[0] == "element" and not {"vertex", "face"} <= tables.keys():
            properties = itertools.takewhile(lambda words: words[0] != "element", lines[at + 1 :])
            columns = [column for words in properties if words[0] == "property" for column in _ply_columns(words)]
            rows, rest = _ply_rows(rest, whole_number(words[2]), [order + kind for _, kind in columns])
            tables[words[1]] = {name: column for (name, _), column in zip(columns, rows.T, strict=True)}
    if any((table["corners"] != 3).any() for table in tables.values() if "corners" in table):
        raise ValueError("polygons that are no triangles")
    vertices, triangles = (tables[name] for name in ("vertex", "face"))
    corners = np.stack([triangles[f"corner {i}"] for i in range(3)], axis=1)
    return np.stack([vertices[axis] for axis in "xyz"], axis=1), corners.astype(np.int64)


def _ply_columns(words: list[str]) -> list[tuple[str, str]]:
    """Names and types of the columns of a property: one, or those of a list of three."""
    kinds = [_PLY_TYPES[word] for word in words[1:-1] if word != "list"]
    if words[1] != "list":
        return [(words[-1], kinds[0])]
    return [("corners", kinds[0]), *((f"corner {i}", kinds[1]) for i in range(3))]


def _ply_rows(data: bytes, count: int, kinds: list[str]) -> tuple[np.ndarray, bytes]:
    """Numbers (count, columns), and the bytes behind them. ValueError where there are fewer."""
    if count < 0:
        raise ValueError("no number of rows")
    if kinds[0].startswith(_TEXT):
        words = data.split(None, count * len(kinds))
        rows = np.array(words[: count * len(kinds)], np.float64).reshape(count, len(kinds))
        return rows, b"".join(words[count * len(kinds) :])
    dtype = np.dtype([("", kind) for kind in kinds])
    return structured_to_unstructured(np.frombuffer(data, dtype, count), np.float64), data[count * dtype.itemsize :]


def _not_triangles(path: Path) -> InputError:
    return InputError(f"{path}: not a surface of triangles.\nExport it again as STL or PLY.")
