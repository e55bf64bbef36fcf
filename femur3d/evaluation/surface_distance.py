"""Surface meshes of masks, and the distances between two of them in millimetres.

A mask becomes a closed triangle mesh by marching cubes at 0.5, so that the surface runs half-way between the centres of
an inside and an outside voxel. From each vertex of one mesh the distance to the nearest point (not the nearest vertex)
of the other mesh is taken. Vertices count alike, whatever the area around them (ours: the paper names no weighting).

Only single VTK modules are imported: `import vtk` would load its rendering libraries, which want OpenGL.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
from vtkmodules.util.numpy_support import numpy_to_vtk, numpy_to_vtkIdTypeArray, vtk_to_numpy
from vtkmodules.vtkCommonCore import reference as vtk_reference
from vtkmodules.vtkCommonCore import vtkPoints
from vtkmodules.vtkCommonDataModel import vtkCellArray, vtkGenericCell, vtkImageData, vtkPolyData, vtkStaticCellLocator
from vtkmodules.vtkFiltersCore import vtkFlyingEdges3D

from femur3d.volume import Volume, bounding_box


@dataclasses.dataclass(frozen=True, eq=False)
class SurfaceDistances:
    """Both directed distances, computed once; the metrics are derived from them.

    Where the reference, the prediction or both are empty there is no distance, and every metric is inf: never NaN and
    never 0, so that a failure cannot drop out of an average or improve it.

    Attributes:
        reference_to_prediction_mm: for each vertex of the reference mesh the distance to the prediction's surface,
            shape (N,), float64; N = 0 for an empty reference, all inf for an empty prediction.
        prediction_to_reference_mm: the other way round, shape (M,).
    """

    reference_to_prediction_mm: np.ndarray
    prediction_to_reference_mm: np.ndarray

    @property
    def pooled_mm(self) -> np.ndarray:
        """Both directions in one array, shape (N + M,): symmetric under swapping up to the order."""
        return np.concatenate([self.reference_to_prediction_mm, self.prediction_to_reference_mm])

    @property
    def is_defined(self) -> bool:
        """Whether both masks have a surface."""
        return self.reference_to_prediction_mm.size > 0 and self.prediction_to_reference_mm.size > 0

    @property
    def mean_mm(self) -> float:
        """Average surface distance: the mean of both directions pooled."""
        return float(self.pooled_mm.mean()) if self.is_defined else math.inf

    @property
    def std_mm(self) -> float:
        """Standard deviation (divisor n) of both directions pooled."""
        return float(self.pooled_mm.std()) if self.is_defined else math.inf

    @property
    def hausdorff_mm(self) -> float:
        """Symmetric Hausdorff distance: the largest of all distances."""
        return float(self.pooled_mm.max()) if self.is_defined else math.inf

    @property
    def hd95_mm(self) -> float:
        """The 95th percentile (interpolated) of each directed array, and the larger of the two."""
        if not self.is_defined:
            return math.inf
        directed = (self.reference_to_prediction_mm, self.prediction_to_reference_mm)
        return max(float(np.percentile(distances, 95)) for distances in directed)


def surface_distances(reference: Volume, prediction: Volume) -> SurfaceDistances:
    """Distances between the surfaces of two masks, both ways.

    Args:
        reference: bool mask, axes (z, y, x), on any grid (anisotropic, oblique).
        prediction: bool mask on the same grid.

    Raises:
        ValueError: the grids differ, or an array is not bool.
    """
    difference = reference.geometry_difference(prediction)
    if difference is not None:
        raise ValueError(f"Expected masks on one grid. Received: {difference}")
    mesh_r, mesh_p = mesh_from_mask(reference), mesh_from_mask(prediction)
    return SurfaceDistances(point_distances(mesh_r[0], *mesh_p), point_distances(mesh_p[0], *mesh_r))


def mesh_from_mask(mask: Volume) -> tuple[np.ndarray, np.ndarray]:
    """The closed surface of a mask by marching cubes at 0.5.

    The mask is cut to its bounding box and padded by one empty voxel, so that it is fast and that a femur at the border
    of the field of view is closed there as well.

    Args:
        mask: bool, axes (z, y, x).

    Returns:
        vertices, shape (N, 3), float64, world millimetres (LPS), and triangles, shape (M, 3), int64, indices of
        vertices in counter-clockwise order seen from outside. Both have no rows for an empty mask.

    Raises:
        ValueError: the array is not bool.
    """
    if mask.array.dtype != bool:
        raise ValueError(f"Expected a bool mask. Received: {mask.array.dtype}")
    box = bounding_box(mask.array)
    if box is None:
        return np.zeros((0, 3)), np.zeros((0, 3), np.int64)
    vertices_xyz, triangles = level_surface(np.pad(mask.array[box], 1).astype(np.uint8), 0.5)
    first_zyx = [axis.start - 1 for axis in box]
    if np.linalg.det(mask.affine[:3, :3]) < 0:  # a left-handed grid mirrors the mesh: turn the triangles back
        triangles = triangles[:, ::-1]
    return mask.world_mm(vertices_xyz[:, ::-1] + first_zyx), np.ascontiguousarray(triangles)


def point_distances(points_mm: np.ndarray, vertices_mm: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """Distance from each point to the nearest point of a mesh.

    One call of the cell locator for each point: a third faster than VTK's vtkDistancePolyDataFilter and
    vtkImplicitPolyDataDistance, which find the sign as well.

    Args:
        points_mm: shape (N, 3).
        vertices_mm: shape (V, 3).
        triangles: shape (M, 3), indices of vertices.

    Returns:
        shape (N,), float64, millimetres; all inf where the mesh has no triangles.
    """
    distances_squared = np.full(len(points_mm), np.inf)
    if len(triangles) == 0:
        return distances_squared
    locator = vtkStaticCellLocator()
    locator.SetDataSet(_poly_data(vertices_mm, triangles))
    locator.BuildLocator()
    nearest, cell = [0.0, 0.0, 0.0], vtkGenericCell()
    out: tuple[Any, Any, Any] = (vtk_reference(0), vtk_reference(0), vtk_reference(0.0))  # cell, part, squared distance
    for index, point in enumerate(points_mm.tolist()):
        locator.FindClosestPoint(point, nearest, cell, *out)
        distances_squared[index] = out[2]
    return np.sqrt(distances_squared)


def level_surface(array: np.ndarray, level: float) -> tuple[np.ndarray, np.ndarray]:
    """Vertices (N, 3), (x, y, z) in voxels, and triangles (M, 3) where `array` (z, y, x; uint8, float32) is `level`."""
    image = vtkImageData()
    image.SetDimensions(*array.shape[::-1])
    scalars = np.ascontiguousarray(array).ravel()  # has to live until Update
    image.GetPointData().SetScalars(numpy_to_vtk(scalars))
    surface = vtkFlyingEdges3D()
    surface.SetInputData(image)
    surface.SetValue(0, level)
    surface.ComputeNormalsOff()
    surface.ComputeGradientsOff()
    surface.ComputeScalarsOff()
    surface.Update()
    mesh = surface.GetOutput()
    vertices = vtk_to_numpy(mesh.GetPoints().GetData()).astype(np.float64)
    return vertices, vtk_to_numpy(mesh.GetPolys().GetConnectivityArray()).astype(np.int64).reshape(-1, 3)


def _poly_data(vertices_mm: np.ndarray, triangles: np.ndarray) -> vtkPolyData:
    """A VTK mesh with float64 points: float32 would round world coordinates to about 1e-5 mm."""
    points, cells, mesh = vtkPoints(), vtkCellArray(), vtkPolyData()
    points.SetData(numpy_to_vtk(np.ascontiguousarray(vertices_mm, np.float64), deep=True))
    cells.SetData(3, numpy_to_vtkIdTypeArray(np.ascontiguousarray(triangles, np.int64).ravel(), deep=True))
    mesh.SetPoints(points)
    mesh.SetPolys(cells)
    return mesh
