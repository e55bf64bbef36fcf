"""The segmenter with a stand-in for the network: bright voxels are femur."""

import dataclasses

import numpy as np
import pytest

from femur3d.config import Network, Preprocessing
from femur3d.inference.quality_limits import Limit
from femur3d.inference.saved_model import TrainedModel
from femur3d.inference.segmenter import Segmenter
from femur3d.volume import Volume
from tests.support.ellipsoids import scan_and_label
from tests.support.stand_in_engine import StandInEngine

PREPROCESSING = Preprocessing(spacing_mm=(5.0, 5.0, 5.0), patch_size=(16, 16, 16))
LIMITS = {"missing_femurs": Limit(0.0, 0.25, 0.5)}
MODEL = TrainedModel({}, Network(), PREPROCESSING, {}, "", LIMITS)
PLAIN, _ = scan_and_label()  # 40 columns of 5 mm from right to left
# With four more between the femurs, which lie in columns 5 to 15 and 28 to 38.
SCAN = dataclasses.replace(PLAIN, array=np.insert(PLAIN.array, [20] * 4, PLAIN.array[:, :, 16:20], axis=2))
VOLUMES_ML = {20: [260.0], 30: [40.0, 260.0], 44: [260.0, 260.0]}  # by columns; an ellipsoid has 264 ml


@pytest.fixture(scope="module")
def segmenter():
    return Segmenter(MODEL, StandInEngine(lambda patches: (patches > 0).astype(np.float32)))


def padded(scan: Volume, columns: int, rows: int = 0) -> Volume:
    """With empty columns at the patient's left, and empty rows in front: a rectangle that was made a square."""
    array = np.pad(scan.array, ((0, 0), (rows, 0), (0, columns)))
    return dataclasses.replace(scan, array=array, origin_mm=tuple(scan.world_mm((0, -rows, 0))))


@pytest.mark.parametrize("columns", [slice(0, 20), slice(0, 30), slice(0, 44)])  # one hip; an edge of the other; both
def test_empty_columns_and_rows_around_a_scan_change_neither_its_femurs_nor_its_flags(segmenter, columns):
    """Neither how wide the field of view is, nor where it cuts a femur."""
    scan = dataclasses.replace(SCAN, array=np.ascontiguousarray(SCAN.array[:, :, columns]))
    bare, more = segmenter(scan), segmenter(wide := padded(scan, 40, rows=7))
    assert more.labels.geometry_difference(wide) is more.probability.geometry_difference(wide) is None
    width = scan.array.shape[2]
    for name in ("labels", "probability"):
        whole = getattr(more, name).array
        np.testing.assert_array_equal(whole[:, 7:, :width], getattr(bare, name).array)
        assert not whole[:, :7].any()
        assert not whole[:, :, width:].any()
    assert more.quality == bare.quality
    assert bare.quality["missing_femurs"].level == "green"
    assert [round(ml, -1) for ml in bare.volumes_ml.values()] == VOLUMES_ML[columns.stop]


def test_a_scan_whose_slices_have_one_value_each_is_segmented_in_its_place(segmenter):
    """Stripes: nothing around it is empty, although no slice across them has two values."""
    array = np.zeros((20, 20, 20), np.float32)
    array[:, :, 4:9] = 1
    found = segmenter(Volume(array, (5.0, 5.0, 5.0), (10.0, 20.0, 30.0))).labels.array
    np.testing.assert_array_equal(found > 0, array > 0)
