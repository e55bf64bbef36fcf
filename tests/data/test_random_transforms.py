import dataclasses

import numpy as np
import pytest

from femur3d.config import Transforms
from femur3d.data import random_transforms as transforms
from femur3d.data.preprocessing import normalise
from femur3d.data.random_transforms import Voxels
from femur3d.errors import UsageError
from femur3d.volume import Volume

SPACING = np.array([2.0, 2.0, 2.0])
NAMES = [field.name for field in dataclasses.fields(Transforms)]


def generator(seed=0):
    return np.random.Generator(np.random.Philox(seed))


def voxels(shares, femur=None):
    shares = np.asarray(shares, np.float32)
    places = np.zeros((3, shares.size), np.float32)
    return Voxels(shares, np.zeros_like(shares) if femur is None else np.asarray(femur, np.float32), places)


def test_a_curve_maps_what_is_bright_and_leaves_the_dark():
    falling = np.linspace(1, 0, 65)
    shares = np.float32([-0.1, 0.0, 0.06, 0.2, 0.5, 1.0, 1.5])
    np.testing.assert_allclose(transforms.remapped(shares, falling), [-0.1, 0, 0.06, 0.8, 0.5, 0, 0], atol=1e-6)


def test_random_curves_rise_fall_and_turn():
    curves = [transforms.random_curve(generator(seed)) for seed in range(60)]
    for curve in curves:
        assert curve.shape == (65,)
        assert curve.min() >= 0
        assert curve.max() <= 1
    steps = [np.diff(curve) for curve in curves]
    assert any((s >= 0).all() for s in steps)
    assert any((s <= 0).all() for s in steps)
    assert sum((s > 0).any() and (s < 0).any() for s in steps) > 20


def test_marrow_gets_another_mean_and_its_cortex_stays_dark():
    shares = np.float32([0.1, 0.7, 0.9, 0.8, 0.8])
    changed = transforms.new_marrow(shares, np.float32([1, 1, 1, 1, 0]), generator(1))
    rng = generator(1)
    mean, factor = rng.uniform(0.05, 1.0), rng.uniform(0.2, 1.2) * rng.choice([1, 1, -1])
    np.testing.assert_allclose(changed, [0.1, mean - 0.1 * factor, mean + 0.1 * factor, mean, mean], atol=1e-6)


def test_only_the_femur_is_changed_where_only_the_femur_is_drawn():
    given = voxels([0.8, 0.8, 0.8], femur=[0, 0.5, 1])
    outside, half, inside = transforms.remap(given, Transforms(femur=1.0), generator())
    assert outside == np.float32(0.8)
    assert inside != outside
    assert half == pytest.approx((outside + inside) / 2)


def test_fat_suppression_presses_the_bright_mode_below_muscle():
    for seed in range(20):
        shares = np.repeat(np.float32([0, 0.1, 1]), 1000)
        air, muscle, fat = transforms.suppress_fat(shares, generator(seed)).reshape(3, 1000)
        assert not air.any()
        assert np.median(muscle) == np.float32(0.1)
        assert fat.min() >= 0.03 - 1e-6
        assert np.median(fat) <= 0.4 + 1e-6


def test_fat_suppression_speckles_marrow_that_is_about_as_bright_as_where_it_begins():
    grey = np.full(1000, 0.5, np.float32)
    spread = {}
    for seed in range(30):
        spread[generator(seed).uniform(*transforms.FAT)] = np.std(transforms.suppress_fat(grey, generator(seed)))
    assert max(deviation for start, deviation in spread.items() if 0.35 < start < 0.5) > 0.1
    assert max(deviation for start, deviation in spread.items() if start < 0.26 or start > 0.59) < 0.05


def test_bias_is_smooth_and_positive():
    line = np.zeros((3, 100), np.float32)
    line[2] = np.arange(100)  # mm
    factors = transforms.bias_field(line, generator())
    assert (factors > 0).all()
    assert np.ptp(factors) > 0.01
    assert np.abs(np.diff(np.log(factors))).max() < 0.05


def test_bright_air_leaves_the_body():
    before = np.float32([0, 0.5])
    air, body = transforms.lift_air(before, before, generator())
    assert air >= 0.3
    assert body == 0.5


def test_body_statistics_are_those_of_the_normalisation():
    shares = np.repeat(np.float32([0, 0.05, 0.4, 0.8]), 100)
    assert transforms.body_statistics(shares) == (pytest.approx(0.6), pytest.approx(0.2))
    assert transforms.body_statistics(np.zeros(10, np.float32)) == (0, 1)


def test_slices_of_two_voxels_average_pairs_and_are_interpolated():
    matrix = transforms.slice_matrix(8, 2.0, 0.0)
    np.testing.assert_allclose(matrix.sum(axis=1), 1, rtol=1e-6)
    np.testing.assert_allclose(
        matrix[2], [0, 0.25, 0.5, 0.25, 0, 0, 0, 0]
    )  # a slice's centre: its voxel, half of both others
    np.testing.assert_allclose(matrix[3], (matrix[2] + matrix[4]) / 2)
    constant = transforms.thick_slices(np.ones((8, 9, 10), np.float32), SPACING, generator())
    np.testing.assert_allclose(constant, 1, rtol=1e-6)


def test_thick_slices_blur_one_axis_and_thin_ones_nothing():
    point = np.zeros((16, 16, 16), np.float32)
    point[8, 8, 8] = 1
    kept = [transforms.thick_slices(point, np.full(3, 7.0), generator(s)) for s in range(5)]
    assert all((k == point).all() for k in kept)
    for seed in range(5):
        spread = np.argwhere(transforms.thick_slices(point, np.full(3, 0.5), generator(seed)) > 0)
        assert (np.ptp(spread, axis=0) > 0).sum() <= 1


def test_thick_slices_lie_across_the_axis_that_is_drawn():
    image = generator(8).standard_normal((10, 11, 12), np.float32)
    spacing, axes = np.array([0.4, 0.5, 0.6]), set()
    for seed in range(6):
        rng = generator(seed)
        axis, thickness = rng.integers(3), rng.uniform(1, 6)
        matrix = transforms.slice_matrix(image.shape[axis], thickness / spacing[axis], rng.uniform(0, 1))
        expected = np.apply_along_axis(lambda line, matrix=matrix: matrix @ line, axis, image)
        np.testing.assert_allclose(transforms.thick_slices(image, spacing, generator(seed)), expected, atol=1e-5)
        assert np.abs(expected - image).max() > 0.1
        axes.add(int(axis))
    assert axes == {0, 1, 2}


def test_ringing_keeps_the_mean_and_overshoots_at_an_edge():
    edge = np.zeros((16, 16, 16), np.float32)
    edge[4:12, 4:12, 4:12] = 1
    rung = transforms.ring(edge, generator())
    assert rung.mean() == pytest.approx(edge.mean(), rel=1e-5)
    assert rung.max() > 1.02
    assert rung.min() < -0.02


def test_narrow_view_is_dark_and_background_beyond_a_plane():
    image, label = np.ones((8, 8, 8), np.float32), np.ones((8, 8, 8), np.uint8)
    image[0, 0, 0] = -2
    cut, without = transforms.narrow_view(image, label, generator(3))
    assert (cut[without == 0] == -2).all()
    assert 0 < (without == 0).sum() <= 4 * 64
    assert label.all()
    assert (image == 1).sum() == 511


@pytest.fixture
def scan():
    rng = generator(7)
    label = np.zeros((16, 16, 16), np.uint8)
    label[4:12, 4:12, 4:12] = 1
    image = np.where(label, 1.2, -0.4).astype(np.float32) + 0.2 * rng.standard_normal(label.shape, np.float32)
    image[:, :3] = -2  # air
    return image, label


def test_reference_holds_voxels_of_the_volume(scan):
    image, label = scan
    reference = transforms.reference_of(image, label, SPACING)
    at = np.rint(reference.position_mm.T / SPACING + 7.5).astype(int)
    np.testing.assert_array_equal(reference.values, image[tuple(at.T)])
    np.testing.assert_array_equal(reference.femur, label[tuple(at.T)])


def change(scan, seed=0, **probabilities):
    image, label = scan
    reference = transforms.reference_of(image, label, SPACING)
    arguments = (np.zeros(3), SPACING, reference, Transforms(**probabilities))
    return transforms.change_contrast(image, label, *arguments, generator(seed))


def test_nothing_drawn_is_normalisation_by_the_body_alone(scan):
    image, _ = scan
    changed = change(scan)
    body = image[image > -1.9]
    assert np.corrcoef(changed.ravel(), image.ravel())[0, 1] == pytest.approx(1, abs=1e-6)
    np.testing.assert_allclose(changed, (image - body.mean()) / body.std(), atol=0.06)  # the reference is a sample


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"patches", "regions", "narrow_view"}))
def test_every_transform_changes_the_image_repeatably_and_keeps_its_normalisation(scan, name):
    plain, changed = change(scan), change(scan, **{name: 1.0})
    assert changed.dtype == np.float32
    assert np.isfinite(changed).all()
    if name != "resolution" or np.abs(changed - plain).max() > 0:  # slices may be thinner than a voxel
        assert np.abs(changed - plain).max() > 0.01
    np.testing.assert_array_equal(changed, change(scan, **{name: 1.0}))
    if name not in ("resolution", "ringing", "noise", "femur"):  # these come later, or have a soft edge in the patch
        again = normalise(Volume(changed), "body").array
        np.testing.assert_allclose(changed, again, rtol=0.03, atol=0.1)  # the reference is a sample


def test_noise_takes_its_own_part_of_the_deviation(scan):
    """What the body's deviation was it is, however strong the noise: here 0.3 at most, which would make 1.04 of it."""
    body = scan[0] > -1.9
    strong = [change(scan, seed, noise=1.0)[body].std() for seed in range(12)]
    np.testing.assert_allclose(strong, change(scan)[body].std(), rtol=0.02)
    noise = [np.std(change(scan, seed, noise=1.0)[~body]) for seed in range(12)]
    assert max(noise) > 0.25  # some of it is strong


@pytest.mark.parametrize("names", [("remap", "regions"), ("fat_suppression",), ("bias",), ("bright_air",)])
def test_a_patch_is_changed_as_its_place_in_the_whole_volume_is(scan, names, monkeypatch):
    """Wherever it is cut: in millimetres from the volume's centre, and by the statistics of the whole volume."""
    monkeypatch.setattr(transforms, "FAT_GRAIN", 0.0)  # grain is noise, another one each time
    image, label = scan
    spacing, origin, size = np.array([2.0, 3.0, 4.0]), np.array([1, 6, 9]), np.array([8, 6, 4])
    box = tuple(slice(o, o + s) for o, s in zip(origin, size, strict=True))
    reference = transforms.reference_of(image, label, spacing)
    drawn = Transforms(**dict.fromkeys(names, 1.0))
    whole = transforms.change_contrast(image, label, np.zeros(3), spacing, reference, drawn, generator(5))
    centre = (origin + (size - 1) / 2 - 7.5) * spacing
    part = transforms.change_contrast(image[box], label[box], centre, spacing, reference, drawn, generator(5))
    np.testing.assert_allclose(part, whole[box], atol=1e-4)


def test_how_far_inside_the_femur_is_in_millimetres():
    """Beside a flat boundary a Gaussian of 2 mm leaves 0.5 + 0.5·0.399 along voxels of 2 mm, all along 8 mm."""
    spacing = np.array([2.0, 8.0, 2.0])
    for axis, expected in ((0, 0.399), (1, 1.0)):
        label = np.zeros((12, 12, 12), np.uint8)
        np.moveaxis(label, axis, 0)[6:] = 1
        image = np.zeros(label.shape, np.float32)
        reference = transforms.reference_of(image, label, spacing)
        found = transforms._together(image, label, np.zeros(3), spacing, reference)
        femur = np.moveaxis(found.femur[: image.size].reshape(image.shape), axis, 0)
        assert femur[6, 6, 6] == pytest.approx(expected, abs=2e-3)
        assert not femur[:6].any()


def test_probabilities_are_checked():
    with pytest.raises(UsageError, match=r"remap: expected 0 to 1. Received: 1.5"):
        Transforms(remap=1.5)


def test_a_constant_scan_stays_finite():
    image, label = np.zeros((8, 8, 8), np.float32), np.zeros((8, 8, 8), np.uint8)
    everything = dict.fromkeys(NAMES, 1.0)
    assert np.isfinite(change((image, label), **everything)).all()
