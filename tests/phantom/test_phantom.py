"""The synthetic hip: its truth agrees with its parameters, its image with its truth."""

import functools

import numpy as np
import pytest
from scipy import ndimage

from femur3d.phantom.anatomy import MUSCLES, bundle_distance, femur_distance
from femur3d.phantom.hip import LABELS, make_phantom, patient_anatomy
from femur3d.phantom.patient import FemurShape
from femur3d.phantom.shapes import Grid
from femur3d.phantom.tissue import AXIAL_T2, random_contrast
from femur3d.volume import Volume

SIZE = (96, 80, 96)
CLEAN = {"noise": 0.0, "bias": 0.0, "texture": 0.0}


@functools.cache
def clean(seed: int, side: str = "left") -> tuple[Volume, Volume]:
    return make_phantom(seed, SIZE, side, **CLEAN)


def voxels_mm(label: Volume, value: int) -> np.ndarray:
    """World positions (n, 3) of the voxels of a label."""
    return label.world_mm(np.argwhere(label.array == value))


def measured_head(label: Volume, value: int) -> tuple[np.ndarray, float]:
    """Centre (3,) and radius of the largest ball inside the medial 38 mm of a femur: a trochanter can hold one, too."""
    depth = ndimage.distance_transform_edt(label.array == value, sampling=label.spacing_mm[::-1])
    index = np.argwhere(depth > 0)
    lateral = np.abs(label.world_mm(index)[:, 0])
    index = index[lateral < lateral.min() + 38]
    depths = depth[tuple(index.T)]
    deepest = index[depths > depths.max() - 0.5 * min(label.spacing_mm)]
    return label.world_mm(deepest).mean(axis=0), float(depths.max())


def measured_neck_shaft_angle(points: np.ndarray, centre: np.ndarray, radius: float) -> float:
    """Degrees between the neck, seen as a ring about the head, and a line through the lowest 30 mm of the shaft."""
    distance = np.linalg.norm(points - centre, axis=1)
    neck = points[(distance > radius + 3) & (distance < radius + 7)].mean(axis=0) - centre
    low = points[:, 2].min()
    ends = [points[(points[:, 2] >= low + a) & (points[:, 2] < low + a + 10)].mean(axis=0) for a in (0, 20)]
    shaft = ends[0] - ends[1]
    cosine = -neck @ shaft / np.linalg.norm(neck) / np.linalg.norm(shaft)
    return float(np.degrees(np.arccos(cosine)))


def test_same_seed_gives_equal_voxels_and_geometry():
    first, second = (make_phantom(3, (40, 30, 36)) for _ in range(2))
    for mine, theirs in zip(first, second, strict=True):
        np.testing.assert_array_equal(mine.array, theirs.array)
        assert mine.geometry_difference(theirs, tolerance=0) is None


def test_seeds_differ_in_anatomy_and_noise_leaves_the_truth_alone():
    image, label = make_phantom(3, (40, 30, 36))
    other_image, other_label = make_phantom(4, (40, 30, 36))
    noisy_image, noisy_label = make_phantom(3, (40, 30, 36), noise=0.2, bias=0.3)
    assert np.mean(label.array != other_label.array) > 0.005
    assert np.mean(image.array != other_image.array) > 0.5
    assert np.mean(image.array != noisy_image.array) > 0.5
    np.testing.assert_array_equal(label.array, noisy_label.array)


@pytest.mark.parametrize("size", [(33, 21, 17), (64, 64, 64), (12, 50, 9)])
def test_any_size_keeps_the_field_of_view(size):
    image, label = make_phantom(0, size)
    assert image.array.shape == label.array.shape == size[::-1]
    assert image.array.dtype == np.int16
    assert label.array.dtype == np.uint8
    assert image.array.min() >= 0
    assert image.geometry_difference(label, tolerance=0) is None
    np.testing.assert_allclose(np.multiply(image.spacing_mm, size), (220, 170, 180))
    assert label.array.any()


def test_spacing_can_be_given():
    image, _ = make_phantom(0, (50, 40, 30), spacing_mm=(2.0, 2.5, 5.2))
    assert image.spacing_mm == (2.0, 2.5, 5.2)


@pytest.mark.parametrize("seed", range(4))
def test_one_connected_femur_of_plausible_volume(seed):
    _, label = clean(seed)
    assert set(np.unique(label.array)) == {0, 1}
    assert ndimage.label(label.array == 1)[1] == 1
    volume_ml = np.count_nonzero(label.array) * np.prod(label.spacing_mm) / 1000
    assert 100 < volume_ml < 260


def test_both_sides_give_two_femora_either_side_of_the_midline():
    _, label = make_phantom(5, (120, 60, 60), "both", **CLEAN)
    for value, sign in ((1, 1), (2, -1)):
        assert ndimage.label(label.array == value)[1] == 1
        assert (sign * voxels_mm(label, value)[:, 0]).min() > 30


@pytest.mark.parametrize("options", [CLEAN, {}], ids=["clean", "noisy"])
def test_right_hip_is_the_left_one_mirrored_in_world_x(options):
    left, left_label = make_phantom(6, (48, 32, 40), "left", **options)
    right, right_label = make_phantom(6, (48, 32, 40), "right", **options)
    np.testing.assert_array_equal(left.array[:, :, ::-1], right.array)
    np.testing.assert_array_equal(left_label.array[:, :, ::-1] == 1, right_label.array == 2)
    np.testing.assert_allclose(left.world_mm((0, 0, 0)) * (-1, 1, 1), right.world_mm((0, 0, 47)), atol=1e-9)


@pytest.mark.parametrize("side", ["left", "right"])
def test_head_lies_medial_of_the_shaft(side):
    _, label = clean(1, side)
    head, _ = measured_head(label, LABELS[side])
    points = voxels_mm(label, LABELS[side])
    shaft = points[points[:, 2] < points[:, 2].min() + 20].mean(axis=0)
    assert abs(shaft[0]) - abs(head[0]) > 15
    assert head[0] * shaft[0] > 0
    assert (head[0] > 0) == (side == "left")


def left_head_mm(patient):
    """World position (3,), LPS, of the left head's centre."""
    return np.array([patient.body.head_distance_mm, *patient.body.centre_mm])


@pytest.mark.parametrize("seed", range(4))
def test_label_measures_like_its_shape(seed):
    _, label = clean(seed)
    shape = patient_anatomy(seed).left
    centre, radius = measured_head(label, 1)
    np.testing.assert_allclose(centre, left_head_mm(patient_anatomy(seed)), atol=2.5)
    assert radius == pytest.approx(shape.head_radius_mm, abs=2.5)
    angle = measured_neck_shaft_angle(voxels_mm(label, 1), centre, shape.head_radius_mm)
    assert angle == pytest.approx(shape.neck_shaft_angle_deg, abs=5)


def test_neck_axis_has_the_angle_and_version_it_is_given():
    shape = FemurShape(neck_shaft_angle_deg=130, version_deg=20, adduction_deg=0, flexion_deg=0, offset_mm=40)
    lateral, posterior, superior = shape.neck_axis
    assert np.degrees(np.arccos(-superior)) == pytest.approx(130)
    assert np.degrees(np.arctan2(-posterior, -lateral)) == pytest.approx(20)  # the head is medial and anterior
    assert np.hypot(*shape.junction_mm[:2]) == pytest.approx(40)
    np.testing.assert_allclose(shape.axes, np.eye(3), atol=1e-12)


def hip_grid(label: Volume, head_mm: np.ndarray) -> Grid:
    """The hip frame of a left hip on the label's voxels."""
    corners = label.world_mm((0, 0, 0)), label.world_mm(np.subtract(label.array.shape, 1))
    axes = [np.linspace(a, b, n, dtype=np.float32) for a, b, n in zip(*corners, label.array.shape[::-1], strict=True)]
    x, y, z = (axis - np.float32(centre) for axis, centre in zip(axes, head_mm, strict=True))
    return x[None, None, :], y[None, :, None], z[:, None, None]


def test_marrow_is_brighter_than_muscle_and_muscle_than_cortex():
    image, label = clean(2)
    patient = patient_anatomy(2)
    grid = hip_grid(label, left_head_mm(patient))
    femur = femur_distance(grid, patient.left)
    np.testing.assert_array_equal(femur < 0, label.array == 1)
    low = grid[2] < -95
    adductor = next(bundle for bundle in MUSCLES if bundle.end == (12, 18, -150))
    belly = (bundle_distance(grid, adductor, patient.left, patient.body) < -5) & (femur > 5) & low
    marrow = image.array[(femur < -8) & (grid[2] > -20)].mean()
    muscle = image.array[belly].mean()
    cortex = image.array[(femur < -1.5) & (femur > -3.5) & low].mean()
    assert 380 < marrow < 480
    assert 170 < muscle < 240
    assert 30 < cortex < 110
    assert image.array.max() == 600


def test_noise_in_air_is_rician_and_never_negative():
    image, _ = make_phantom(0, (60, 50, 40), noise=0.05, bias=0.0)
    quiet, _ = make_phantom(0, (60, 50, 40), **CLEAN)
    air = image.array[quiet.array == 0]
    assert air.size > 500
    assert air.min() >= 0
    assert air.mean() == pytest.approx(0.05 * 600 * np.sqrt(np.pi / 2), rel=0.05)  # the mean of a Rayleigh variable


def test_partial_volume_softens_the_edge_of_the_head():
    image, label = clean(0)
    edge = ndimage.binary_dilation(label.array == 1) & (label.array == 0)
    assert len(np.unique(image.array[edge])) > 50


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"side": "middle"}, "side"),
        ({"size": (0, 8, 8)}, "size"),
        ({"spacing_mm": (1.0, -1.0, 1.0)}, "spacing"),
        ({"noise": -0.1}, "noise"),
        ({"bias": float("nan")}, "bias"),
    ],
)
def test_senseless_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        make_phantom(0, **arguments)


def test_another_contrast_changes_grey_values_and_no_shape():
    t1, truth = clean(0)
    t2, label = make_phantom(0, SIZE, **CLEAN, contrast=AXIAL_T2)
    np.testing.assert_array_equal(label.array, truth.array)
    fat = t1.array == 600
    assert t2.array[fat].max() in (599, 600)
    deep = ndimage.distance_transform_edt(truth.array > 0, sampling=truth.spacing_mm[::-1]) > 12
    assert (
        245 <= np.median(t2.array[deep]) <= 305 < 325 <= np.median(t1.array[deep])
    )  # 0.42 to 0.5, 0.55 to 0.74 of fat


def test_random_contrasts_keep_cortex_dark():
    contrasts = [random_contrast(np.random.default_rng(seed)) for seed in range(20)]
    assert {c.cortex for c in contrasts} == {0.10}
    assert any(c.yellow_marrow < c.muscle for c in contrasts)
    assert any(c.yellow_marrow > c.muscle for c in contrasts)
    many = [random_contrast(np.random.default_rng(seed)) for seed in range(300)]
    grey = np.mean([abs(c.yellow_marrow / ((c.fat + c.muscle) / 2) - 1) <= 0.2 for c in many])
    by_chance = np.mean([abs(c.cartilage / ((c.fat + c.muscle) / 2) - 1) <= 0.2 for c in many])  # drawn alone
    assert grey == pytest.approx(1 / 3 + 2 / 3 * by_chance, abs=0.06)
    assert all(min(c.muscle, c.yellow_marrow) <= c.red_marrow <= max(c.muscle, c.yellow_marrow) for c in contrasts)
