"""Places and sizes of voxels; SimpleITK as the oracle."""

import numpy as np
import pytest
import SimpleITK as sitk

from femur3d.volume import Volume

OBLIQUE = (0.0, -0.6, 0.8, 1.0, 0.0, 0.0, 0.0, 0.8, 0.6)


@pytest.fixture
def volume() -> Volume:
    return Volume(np.zeros((3, 4, 5), np.uint8), (2.0, 5.0, 10.0), (-7.0, 11.0, 13.0), OBLIQUE)


def test_a_voxel_of_2_5_and_10_mm_is_a_tenth_of_a_millilitre(volume: Volume) -> None:
    assert volume.voxel_ml == pytest.approx(0.1, rel=1e-12)


def test_world_positions_are_simpleitks_and_lead_back(volume: Volume) -> None:
    image = sitk.GetImageFromArray(volume.array)
    image.SetSpacing(volume.spacing_mm)
    image.SetOrigin(volume.origin_mm)
    image.SetDirection(OBLIQUE)
    indices = [(0, 0, 0), (2, 1, 4), (1, 3, 2)]  # z, y, x
    world = volume.world_mm(indices)
    expected = [image.TransformIndexToPhysicalPoint(index[::-1]) for index in indices]
    np.testing.assert_allclose(world, expected, atol=1e-9)
    np.testing.assert_allclose(volume.index_zyx(world), indices, atol=1e-9)
