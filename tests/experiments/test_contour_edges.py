"""tools/contour_edges: how evenly contours follow the image."""

import pathlib

import numpy as np
import pytest

from experiments.studies import contour_edges
from femur3d.errors import InputError
from femur3d.evaluation.cases import Case
from femur3d.io.images import write_volume
from femur3d.volume import Volume

RADIUS_MM = 25.0
SPACING = (1.0, 0.8)


def distance_and_angle() -> tuple[np.ndarray, np.ndarray]:
    """Of each pixel of a slice, from a point that lies on no pixel, in mm; and around it."""
    row, column = ((np.arange(n) - n / 2 + 0.3) * mm for n, mm in zip((90, 110), SPACING, strict=True))
    row, column = np.meshgrid(row, column, indexing="ij")
    return np.hypot(row, column), np.arctan2(row, column)


def marrow() -> np.ndarray:
    """A bright disc whose intensity falls steepest at its radius."""
    return (100 + 400 / (1 + np.exp((distance_and_angle()[0] - RADIUS_MM) / 0.7))).astype(np.float32)


@pytest.mark.parametrize("outside_mm", [-1.5, 0.0, 2.0])
def test_edges_lie_where_they_are(outside_mm: float) -> None:
    mask = distance_and_angle()[0] < RADIUS_MM + outside_mm
    found = contour_edges.edge_distances(marrow(), mask, SPACING)
    assert len(found) > 100
    assert np.median(found) == pytest.approx(-outside_mm, abs=0.25)  # a third of a pixel
    assert found.std() < 0.35  # of a disc made of pixels


def test_an_unsteady_contour_scatters_as_much_as_it_sways() -> None:
    distance, angle = distance_and_angle()
    steady = contour_edges.edge_distances(marrow(), distance < RADIUS_MM, SPACING)
    unsteady = contour_edges.edge_distances(marrow(), distance < RADIUS_MM + 1.5 * np.sin(5 * angle), SPACING)
    own = np.sqrt(contour_edges.scatter([unsteady]) ** 2 - contour_edges.scatter([steady]) ** 2)
    assert own == pytest.approx(1.5 / np.sqrt(2), rel=0.15)


def test_without_an_edge_nothing_is_found() -> None:
    mask = distance_and_angle()[0] < RADIUS_MM
    assert not contour_edges.edge_distances(np.full(mask.shape, 100.0), mask, SPACING).size
    assert not contour_edges.edge_distances(600 - marrow(), mask, SPACING).size  # dark inside
    assert np.isnan(contour_edges.scatter([]))


def test_slices_that_differ_by_more_than_contours_are_left_out(tmp_path: pathlib.Path) -> None:
    distance, _ = distance_and_angle()
    disc = distance < RADIUS_MM
    reference = np.stack([disc, disc, disc, disc & False]).astype(np.uint8)
    prediction = reference.copy()
    prediction[1, :, :50] = 0  # half of it is missing
    prediction[3] = disc
    # Slices lie across y of the arrays, as in coronal scans.
    volumes = [np.moveaxis(a, 0, 1) for a in (np.stack([marrow()] * 4), reference, prediction)]
    paths = [tmp_path / name for name in ("scan.nii.gz", "reference.nii.gz", "prediction.nii.gz")]
    for array, path in zip(volumes, paths, strict=True):
        write_volume(Volume(array, (0.8, 5.0, 1.0)), path)
    found = contour_edges.compare(Case("hip", paths[1], paths[2], paths[0]))
    assert found[2] == 2
    assert found[0] == found[1]
    with pytest.raises(InputError, match="no scan of this name"):
        contour_edges.compare(Case("hip", paths[1], paths[2], None))
    table = contour_edges.format_table({"a": (1.5, 1.2, 20), "b": (1.5, 1.2, 10)}, ["$ command"])
    assert table.splitlines()[-2:] == [
        "Mean              30        1.50          1.20",
        "Scatter of the references' own: 0.90 mm",
    ]
    with pytest.raises(InputError, match="No slice"):
        contour_edges.format_table({"a": (np.nan, np.nan, 0)}, ["$ command"])
