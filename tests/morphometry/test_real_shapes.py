"""Four femurs from CT as surfaces, and a CT of both hips: the same numbers however they lie and are drawn."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import numpy as np
import pytest

from femur3d.export.mesh import read_mesh
from femur3d.morphometry.femur import Femur, find_femur
from femur3d.morphometry.implicit_surface import femur_mesh
from femur3d.morphometry.surface import Surface
from femur3d.volume import Volume
from tests.support.shapes import rotation

pytestmark = pytest.mark.slow
NAMES = ("m3_lfemur", "m3_rfemur", "m4_lfemur", "m4_rfemur")


@pytest.fixture(scope="module", params=NAMES)
def surface(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Surface:
    """A femur of the folder femur_shapes beside FEMUR3D_HIPS."""
    hips = os.environ.get("FEMUR3D_HIPS", "")
    packed = Path(hips).parent / "femur_shapes" / f"{request.param}_mm.stl.gz"
    if not hips or not packed.is_file():
        pytest.skip(f"real shapes: set FEMUR3D_HIPS to a folder beside femur_shapes (received {hips!r})")
    path = tmp_path_factory.mktemp("shapes") / f"{request.param}.stl"
    path.write_bytes(gzip.decompress(packed.read_bytes()))
    return Surface(*read_mesh(path))


def assert_alike(one: Femur, other: Femur, turn: np.ndarray, shift: np.ndarray) -> None:
    """Within 0.3 mm and 1°, after the first was moved."""
    assert np.linalg.norm(turn @ one.head.centre_mm + shift - other.head.centre_mm) < 0.3
    assert abs(one.head.radius_mm - other.head.radius_mm) < 0.3
    assert one.shaft is not None
    assert other.shaft is not None
    for first, second in ((one.frame.axis, other.frame.axis), (one.shaft.direction, other.shaft.direction)):
        assert np.degrees(np.arccos(np.clip(turn @ first @ second, -1, 1))) < 1.0


def test_turned_and_mirrored(surface: Surface) -> None:
    first, shift = find_femur(surface), np.array([40.0, -300.0, 77.0])
    for mirror in (1, -1):
        turn = rotation((3, 1, -2), 200.0) * [mirror, 1, 1]
        second = find_femur(Surface(surface.vertices @ turn.T + shift, surface.triangles[:, ::mirror]))
        assert_alike(first, second, turn, shift)
        assert (second.side == first.side) == (mirror == 1)
        assert np.nanmedian(np.abs(first.alpha_deg - second.alpha_deg)) < 1.0


def test_another_mesh(surface: Surface) -> None:
    assert_alike(find_femur(surface), find_femur(surface.coarse(2.0)), np.eye(3), np.zeros(3))


def test_drawn_in_voxels(surface: Surface) -> None:
    assert_alike(find_femur(surface), find_femur(Surface(*femur_mesh(voxels(surface, 1.0)))), np.eye(3), np.zeros(3))


def voxels(surface: Surface, spacing_mm: float) -> Volume:
    """The mask of a surface's inside."""
    from vtkmodules.util.numpy_support import numpy_to_vtk, numpy_to_vtkIdTypeArray, vtk_to_numpy
    from vtkmodules.vtkCommonCore import vtkPoints
    from vtkmodules.vtkCommonDataModel import vtkCellArray, vtkPolyData
    from vtkmodules.vtkImagingStencil import vtkImageStencilToImage, vtkPolyDataToImageStencil

    low = surface.vertices.min(axis=0) - 3
    size = np.ceil((np.ptp(surface.vertices, axis=0) + 6) / spacing_mm).astype(int)
    points, cells, mesh = vtkPoints(), vtkCellArray(), vtkPolyData()
    points.SetData(numpy_to_vtk(surface.vertices, deep=True))
    cells.SetData(3, numpy_to_vtkIdTypeArray(surface.triangles.ravel(), deep=True))
    mesh.SetPoints(points)
    mesh.SetPolys(cells)
    stencil = vtkPolyDataToImageStencil()
    stencil.SetInputData(mesh)
    stencil.SetOutputSpacing(*[spacing_mm] * 3)
    stencil.SetOutputOrigin(*low)
    stencil.SetOutputWholeExtent(0, size[0] - 1, 0, size[1] - 1, 0, size[2] - 1)
    image = vtkImageStencilToImage()
    image.SetInputConnection(stencil.GetOutputPort())
    image.SetInsideValue(1)
    image.SetOutsideValue(0)
    image.SetOutputScalarTypeToUnsignedChar()
    image.Update()
    inside = vtk_to_numpy(image.GetOutput().GetPointData().GetScalars()).reshape(size[::-1]) > 0
    return Volume(inside, (spacing_mm,) * 3, tuple(low.tolist()))
