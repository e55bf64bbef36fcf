import itertools

import numpy as np
import pytest

from femur3d.config import IGNORED
from femur3d.data.augmentation import VARIANTS, Distortion, distort, random_distortion, variant

ARRAY = np.arange(2 * 3 * 3).reshape(2, 3, 3)


def test_eight_different_variants():
    seen = {variant(ARRAY, v).tobytes() for v in VARIANTS}
    assert len(VARIANTS) == len(seen) == 8


def test_variants_by_hand():
    plane = np.array([[[1, 2], [3, 4]]])  # y down, x to the right
    expected = {
        0: [[1, 2], [3, 4]], 1: [[2, 4], [1, 3]], 2: [[4, 3], [2, 1]], 3: [[3, 1], [4, 2]],
        4: [[3, 4], [1, 2]], 5: [[1, 3], [2, 4]], 6: [[2, 1], [4, 3]], 7: [[4, 2], [3, 1]],
    }  # fmt: skip
    for number, rows in expected.items():
        np.testing.assert_array_equal(variant(plane, number)[0], rows)


def test_z_stays_and_mirror_flips_x():
    np.testing.assert_array_equal(variant(ARRAY, 6), ARRAY[:, :, ::-1])
    for v in VARIANTS:
        for plane in range(2):
            assert set(variant(ARRAY, v)[plane].ravel()) == set(ARRAY[plane].ravel())


def test_variants_form_a_group():
    known = {variant(ARRAY, v).tobytes() for v in VARIANTS}
    for a, b in itertools.product(VARIANTS, repeat=2):
        assert variant(variant(ARRAY, a), b).tobytes() in known


def test_quarter_turns_swap_the_axes_of_an_oblong_array():
    assert variant(np.zeros((2, 3, 5)), 1).shape == (2, 5, 3)


def test_unknown_variant():
    with pytest.raises(ValueError, match="Received: 8"):
        variant(ARRAY, 8)


IDENTITY = Distortion(np.eye(3), 1.0)


def test_identity_distortion_gives_the_patch_itself():
    rng = np.random.default_rng(0)
    image, label = rng.normal(size=(12, 12, 12)), rng.random((12, 12, 12)) < 0.5
    centre = np.array([2, 3, 4]) + (8 - 1) / 2
    patch, mask = distort(image, label, centre, (8, 8, 8), IDENTITY)
    box = (slice(2, 10), slice(3, 11), slice(4, 12))
    np.testing.assert_allclose(patch, image[box], atol=1e-6)
    np.testing.assert_array_equal(mask, label[box])


def test_voxels_that_count_for_nothing_are_distorted_with_the_others():
    label = np.zeros((6, 6, 6), np.uint8)
    label[1:3], label[4:] = 1, IGNORED
    twice = Distortion(np.diag([1.0, 1.0, 0.5]))
    for distortion in (IDENTITY, twice):
        _, found = distort(label.astype(float), label, np.full(3, 2.5), (6, 6, 6), distortion)
        np.testing.assert_array_equal(found, label)  # which is the same everywhere along x


def test_distortion_scales_about_the_centre_and_keeps_image_and_label_together():
    z, y, x = np.ogrid[-16:17, -16:17, -16:17]
    ball = z**2 + y**2 + x**2 <= 8**2
    half = Distortion(np.eye(3) * 2.0, 1.0)  # a step of one voxel in the patch is one of two in the volume
    patch, mask = distort(ball.astype(np.float32), ball, np.full(3, 16.0), (15, 15, 15), half)
    z, y, x = np.ogrid[-7:8, -7:8, -7:8]
    np.testing.assert_array_equal(mask, z**2 + y**2 + x**2 <= 4**2)
    np.testing.assert_array_equal(patch > 0.5, mask)


def test_random_distortions_are_rotations_and_scales_in_millimetres():
    spacing = (1.5, 2.6, 1.0)
    voxel = np.diag(spacing[::-1])
    for seed in range(50):
        distortion = random_distortion(np.random.default_rng(seed), spacing)
        stretch = np.linalg.svd(voxel @ distortion.matrix @ np.linalg.inv(voxel), compute_uv=False)
        assert stretch.max() <= 1.15 + 1e-9
        assert stretch.min() >= 1 / 1.15 - 1e-9
        assert np.linalg.det(distortion.matrix) > 0
        assert 1 / 1.5 <= distortion.gamma <= 1.5


def test_thick_slices_are_turned_out_of_their_plane_and_scaled_across_it_by_less():
    spacing = (1.5, 6.0, 1.5)
    voxel = np.diag(spacing[::-1])
    for seed in range(50):
        matrix = random_distortion(np.random.default_rng(seed), spacing).matrix
        in_mm = voxel @ matrix @ np.linalg.inv(voxel)
        assert 1.15**-0.25 - 0.01 <= np.linalg.norm(in_mm[:, 1]) <= 1.15**0.25 + 1e-9  # y, the thick axis
        assert abs(in_mm[1, 1]) / np.linalg.norm(in_mm[:, 1]) >= np.cos(np.deg2rad(12 / 4 * 1.5))


def test_marrow_stretch_and_shift_stay_within_their_limits():
    drawn = [random_distortion(np.random.default_rng(seed), (1.5, 5.2, 1.5)) for seed in range(400)]
    marrow = np.array([d.marrow_contrast for d in drawn])
    changed = marrow.any(axis=1)
    assert 0.4 < changed.mean() < 0.6
    assert 0.5 <= np.exp(marrow[changed, 0]).min() < np.exp(marrow[changed, 0]).max() <= 1.2
    assert np.abs(marrow[:, 1:]).max() <= 0.25
    assert all(1 / 1.25 <= d.stretch <= 1.25 and -0.3 <= d.shift <= 0.3 for d in drawn)
    np.testing.assert_allclose(drawn[0].smoothing, (2 / 1.5, 2 / 5.2, 2 / 1.5))


def test_marrow_changes_deep_inside_the_femur_and_nothing_outside():
    z, y, x = np.ogrid[:24, :24, :24]
    ball = (z - 11.5) ** 2 + (y - 11.5) ** 2 + (x - 11.5) ** 2 <= 9**2
    image = np.where(ball, 3.0, 1.0)
    image[0, 0, 0] = 0.0  # what it is multiplied above
    args = (image, ball, np.full(3, 11.5), (24, 24, 24))
    darker = Distortion(np.eye(3), marrow_contrast=(np.log(0.5), 0.0, 0.0, 0.1), smoothing=(1.0, 1.0, 1.0))
    (plain, mask), (dark, same) = distort(*args, IDENTITY), distort(*args, darker)
    np.testing.assert_array_equal(mask, same)
    np.testing.assert_array_equal(dark[mask == 0], plain[mask == 0])
    np.testing.assert_allclose(dark[12, 12, 8:16], 3 * 0.5 * np.exp(0.1 * np.linspace(-1, 1, 24)[8:16]), rtol=1e-4)
    assert (dark <= plain).all()
    assert plain[12, 12, 20] - dark[12, 12, 20] < 0.5 * (plain[12, 12, 12] - dark[12, 12, 12])  # the cortex, by less


def test_stretch_and_shift_are_of_all_intensities():
    image = np.random.default_rng(0).normal(size=(8, 8, 8))
    args = (image, image > 0, np.full(3, 3.5), (8, 8, 8))
    plain, _ = distort(*args, IDENTITY)
    moved, _ = distort(*args, Distortion(np.eye(3), stretch=1.2, shift=0.3))
    np.testing.assert_allclose(moved, 1.2 * plain + 0.3 * plain.std(), rtol=1e-5, atol=1e-5)


def test_blur_and_noise_come_to_half_of_the_patches_each_within_their_limits():
    drawn = [random_distortion(np.random.default_rng(seed), (1.5, 5.2, 1.5)) for seed in range(400)]
    blur, noise = np.array([d.blur for d in drawn]), np.array([d.noise for d in drawn])
    np.testing.assert_allclose(blur @ np.diag((1.5, 5.2, 1.5)), blur[:, :1] * 1.5 @ np.ones((1, 3)))  # equal in mm
    assert blur[:, 0].max() <= 1.5 / 1.5
    assert noise.max() <= 0.2
    for values in (blur[:, 0], noise):
        assert 0.4 < np.mean(values > 0) < 0.6


def test_bias_field_is_the_exponential_of_its_polynomial():
    image = 7 + np.arange(5.0 * 5 * 5).reshape(5, 5, 5)
    plain, _ = distort(image, image > 0, np.full(3, 2.0), (5, 5, 5), IDENTITY)
    coefficients = (0.1, 0, 0, 0, 0.2, 0, 0, 0, -0.3)  # z, yy, yx
    biased, _ = distort(image, image > 0, np.full(3, 2.0), (5, 5, 5), Distortion(np.eye(3), bias=coefficients))
    z, y, x = np.meshgrid(*[np.linspace(-1, 1, 5)] * 3, indexing="ij")
    field = np.exp(0.1 * z + 0.2 * y * y - 0.3 * y * x)
    np.testing.assert_allclose(biased, 7 + (plain - 7) * field, rtol=1e-5)  # shades what is above the darkest


def test_noise_is_a_part_of_the_deviation_and_a_function_of_its_seed():
    image = np.random.default_rng(0).normal(size=(24, 24, 24))
    args = (image, image > 0, np.full(3, 11.5), (24, 24, 24))
    plain, again, other = (
        distort(*args, Distortion(np.eye(3), noise=0.2, noise_seed=seed))[0] - distort(*args, IDENTITY)[0]
        for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(plain, again)
    assert abs(np.corrcoef(plain.ravel(), other.ravel())[0, 1]) < 0.05
    assert plain.std() == pytest.approx(0.2 * distort(*args, IDENTITY)[0].std(), rel=0.05)


def test_blur_is_a_gaussian():
    image = np.zeros((9, 9, 9))
    image[4, 4, 4] = 1
    blurred, _ = distort(image, image > 0, np.full(3, 4.0), (9, 9, 9), Distortion(np.eye(3), blur=(1.0, 0.0, 1.0)))
    assert blurred[4, 4, 5] / blurred[4, 4, 4] == pytest.approx(np.exp(-0.5), rel=1e-3)
    assert blurred[5, 4, 4] / blurred[4, 4, 4] == pytest.approx(np.exp(-0.5), rel=1e-3)
    assert not blurred[:, [3, 5]].any()


def test_reach_is_far_enough():
    """What is sampled from the part that `reach` asks for is what the whole volume gives."""
    rng = np.random.default_rng(0)
    image, label = rng.normal(size=(40, 40, 40)), rng.random((40, 40, 40)) < 0.5
    for seed in range(20):
        distortion = random_distortion(np.random.default_rng(seed), (1.0, 2.0, 1.0))
        centre, reach = np.full(3, 19.5), np.array(distortion.reach((16, 16, 16)))
        start, stop = 19 - reach, 20 + reach + 1
        box = tuple(slice(a, b) for a, b in zip(start, stop, strict=True))
        distortion = Distortion(distortion.matrix, distortion.gamma, distortion.bias)  # the rest knows the whole patch
        whole = distort(image, label, centre, (16, 16, 16), distortion)
        part = distort(image[box], label[box], centre - start, (16, 16, 16), distortion)
        for a, b in zip(whole, part, strict=True):
            np.testing.assert_allclose(a, b, atol=1e-5)


def test_gamma_bends_the_intensities_between_their_extremes():
    image = np.linspace(10, 20, 8**3).reshape(8, 8, 8)
    patch, _ = distort(image, image > 0, np.full(3, 3.5), (8, 8, 8), Distortion(np.eye(3), 1.5))
    np.testing.assert_allclose(patch, 10 + 10 * ((image - 10) / 10) ** 1.5, atol=1e-5)


def test_distortion_at_the_border_repeats_it():
    patch, mask = distort(np.ones((4, 4, 4)), np.ones((4, 4, 4)), np.zeros(3), (8, 8, 8), IDENTITY)
    assert mask.all()
    assert (patch == 1).all()
