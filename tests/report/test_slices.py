"""The slices of a case as a web page gets them."""

from __future__ import annotations

import base64
import io
import zlib

import numpy as np
from PIL import Image

from femur3d.report.slices import THUMBNAIL, packed_stack, stack_of, thumbnail
from femur3d.volume import Volume
from tests.support.result_folders import ellipsoids


def test_labels_of_both_come_back_and_the_axes_are_those_of_the_body():
    """The array runs against z: shown from below to above it is turned."""
    labels, truth = ellipsoids(1, 2), ellipsoids(1)
    turned = [Volume(v.array[::-1], v.spacing_mm, direction=(1, 0, 0, 0, 1, 0, 0, 0, -1)) for v in (labels, truth)]
    stack = stack_of(None, *turned)
    packed = packed_stack(stack)
    both = np.frombuffer(zlib.decompress(base64.b64decode(packed["labels"])), np.uint8).reshape(packed["shape"])
    assert packed["spacing"] == [3.0, 4.0, 2.0]
    assert packed["reference"]
    assert "picture" not in packed
    np.testing.assert_array_equal(np.unique(both), [0, 2, 5])
    np.testing.assert_array_equal(both & 3, labels.array)


def test_picture_holds_every_slice_of_the_thick_axis():
    labels = ellipsoids(1, 2)
    scan = labels.with_array((40 + 100 * (labels.array > 0)).astype(np.int16))
    packed = packed_stack(stack_of(scan, labels, None))
    assert packed["axis"] == 1  # 4 mm
    rows, columns = packed["shape"][0], packed["shape"][2]
    sheet = np.asarray(Image.open(io.BytesIO(base64.b64decode(packed["picture"]))).convert("L"))
    across = packed["across"]
    for index in range(packed["shape"][1]):
        top, left = index // across * rows, index % across * columns
        tile = sheet[top : top + rows, left : left + columns]
        inside = stack_of(scan, labels, None).labels[:, index] > 0
        if inside.any():
            assert tile[inside].mean() > 220
            assert tile[~inside].mean() < 40


def test_fine_scans_are_shown_with_fewer_voxels():
    labels = Volume(np.zeros((40, 40, 40), np.uint8), (0.3, 0.3, 0.3))
    labels.array[10:30, 10:30, 10:30] = 1
    scan = labels.with_array(labels.array.astype(np.float32))
    stack = stack_of(scan, labels, None)
    np.testing.assert_allclose(stack.spacing_mm, 0.9)
    assert stack.labels.shape == stack.grey.shape == (13, 13, 13)
    assert np.count_nonzero(stack.labels) == 7**3  # 20 voxels of 0.3 mm are 6 mm, 7 of 0.9 mm are 6.3 mm


def test_thumbnail_is_small_and_shows_both_sides():
    picture = Image.open(io.BytesIO(thumbnail(stack_of(None, ellipsoids(1, 2), ellipsoids(1, 2)))))
    assert picture.size == THUMBNAIL
    array = np.asarray(picture.convert("RGB")).astype(int)
    blue, orange = array[..., 2] - array[..., 0] > 40, array[..., 0] - array[..., 2] > 40
    assert np.argwhere(blue)[:, 1].mean() > np.argwhere(orange)[:, 1].mean()  # the patient's left on the right
    assert Image.open(io.BytesIO(thumbnail(stack_of(None, ellipsoids(), None)))).size == THUMBNAIL
