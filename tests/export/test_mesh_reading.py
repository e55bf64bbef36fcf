"""STL and PLY files of every kind are read, and what holds less than its header says is refused."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

from femur3d.errors import InputError
from femur3d.export.mesh import read_mesh
from tests.support.shapes import signed_volume

CORNERS = np.array([[0, 0, 0], [3, 0, 0], [0, 3, 0], [0, 0, 3]], float)
TRIANGLES = np.array([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]])
FACETS = "".join(
    "facet normal 0 0 0\nouter loop\n"
    + "".join(f"vertex {x} {y:e} {z}\n" for x, y, z in triangle)
    + "endloop\nendfacet\n"
    for triangle in CORNERS[TRIANGLES]
)


def binary_stl(header: bytes, count: int = 4) -> bytes:
    return (
        header.ljust(80)
        + struct.pack("<I", count)
        + b"".join(struct.pack("<12fH", 0, 0, 0, *triangle.ravel(), 0) for triangle in CORNERS[TRIANGLES])
    )


def ply(order: str, counts: tuple[object, object] = (4, 4), size: int = 3) -> bytes:
    """With a column and an element that say nothing about the surface; `size`: how many corners are announced."""
    head = [f"ply\nformat {order} 1.0", "comment element vertex 9", "element colour 1", "property uchar red"]
    head += [f"element vertex {counts[0]}", *(f"property double {axis}" for axis in "xyz"), "property uchar quality"]
    head += [f"element face {counts[1]}", "property list uint int vertex_indices", "end_header\n"]
    if order == "ascii":
        rows = ["255", *(f"{x} {y} {z} 7" for x, y, z in CORNERS), *(f"{size} {a} {b} {c}" for a, b, c in TRIANGLES)]
        return ("\n".join(head) + "\n".join(rows)).encode()
    mark = ">" if "big" in order else "<"
    vertices = b"".join(struct.pack(f"{mark}3dB", *corner, 7) for corner in CORNERS)
    faces = b"".join(struct.pack(f"{mark}I3i", size, *triangle) for triangle in TRIANGLES)
    return "\n".join(head).encode() + b"\xff" + vertices + faces


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.stl", f"solid x\n{FACETS}endsolid x\n".encode()),
        ("a.stl", binary_stl(b"made by hand")),
        ("a.stl", binary_stl(b"solid though it is binary")),
        ("a.PLY", ply("ascii")),
        ("a.ply", ply("ascii").replace(b"\n", b"\r\n")),
        ("a.ply", ply("binary_little_endian")),
        ("a.ply", ply("binary_big_endian")),
    ],
)
def test_surfaces_as_programs_write_them(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    vertices, triangles = read_mesh(tmp_path / name)
    assert signed_volume(vertices, triangles) == pytest.approx(27 / 6)
    assert sorted(vertices.tolist()) == sorted(CORNERS.tolist())


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.ply", ply("ascii", (4_000_000_000, 4))),
        ("a.ply", ply("binary_little_endian", (4, 4_000_000_000))),
        ("a.ply", ply("binary_little_endian", (4, -1))),
        ("a.ply", ply("binary_little_endian", ("\xb2", 4))),
        ("a.ply", ply("binary_little_endian", size=4_000_000_000)),
        ("a.ply", ply("ascii", size=4)),
        ("a.ply", ply("ascii", (3, 4))),
        ("a.ply", ply("binary_big_endian")[:-1]),
        ("a.ply", b""),
        ("a.stl", binary_stl(b"x", 4_000_000_000)),
        ("a.stl", binary_stl(b"solid x", 4_000_000_000)),
        ("a.stl", b"solid x\nvertex 0 0\n"),
        ("a.stl", b""),
    ],
)
def test_files_that_hold_less_than_they_say(tmp_path: Path, name: str, content: bytes) -> None:
    """Some of them end the process, hang it or fill the memory when igl reads them."""
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match="not a surface of triangles"):
        read_mesh(tmp_path / name)
