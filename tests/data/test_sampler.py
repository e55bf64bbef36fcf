import dataclasses
import itertools

import numpy as np
import pytest

from femur3d.config import Training, Transforms
from femur3d.data.packed_dataset import PackedDataset
from femur3d.data.patches import normalise_patch
from femur3d.data.random_transforms import change_contrast, reference_of
from femur3d.data.sampler import PatchSampler, share
from femur3d.engines.tensorflow_engine import TensorFlowEngine
from femur3d.io.settings import with_settings

SIZE = (16, 16, 16)


@pytest.fixture(scope="module")
def packed(packed_file):
    with PackedDataset(packed_file) as packed:
        yield packed


@pytest.fixture
def sampler(packed, tiny_experiment):
    return PatchSampler(packed, tiny_experiment.training, SIZE)


def with_training(sampler, *settings, experiment):
    training = with_settings(experiment, settings).training
    return PatchSampler(sampler.packed, training, SIZE)


def origins_of(sampler, step):
    """Origin indices (z, y, x) of the patches of a step."""
    return [sampler._origin(sampler.volume_of(step, i), step, i) for i in range(sampler.training.batch_size)]


def test_epoch_visits_every_volume_n_times_in_a_row(sampler):
    assert sampler.steps_per_epoch == 8 * 2
    for epoch in range(3):
        visited = [sampler.volume_of(epoch * 16 + i) for i in range(16)]
        assert visited[::2] == visited[1::2]
        assert sorted(visited[::2]) == sampler.packed.select("train")


def test_shares_of_a_batch():
    assert [list(share(6, 3, part)) for part in range(3)] == [[0, 1], [2, 3], [4, 5]]
    assert list(share(2, 1, 0)) == [0, 1]


@pytest.mark.parametrize("mixed", [False, True])
def test_shares_are_the_patches_of_the_whole_batch_in_order(sampler, tiny_experiment, mixed):
    """Two workers of two replicas each: four patches, and nobody's twice."""
    settings = ("training.batch_size=4", f"training.multi_volume_batches={mixed}")
    whole = with_training(sampler, *settings, experiment=tiny_experiment)
    for step in (0, 5):
        for worker in range(2):
            part = dataclasses.replace(whole, elements=share(4, 2, worker))
            assert part.batch_shape == (2, *SIZE)
            for found, expected in zip(part.batch(step), whole.batch(step), strict=True):
                np.testing.assert_array_equal(found, expected[2 * worker : 2 * worker + 2])
    assert len(np.unique(whole.batch(0)[0], axis=0)) == 4


def test_multi_volume_batches_visit_every_volume_at_every_place(sampler, tiny_experiment):
    settings = (
        "training.multi_volume_batches=True",
        "training.batches_per_volume=1",
        "training.augmentation_probability=0.0",
    )
    mixed = with_training(sampler, *settings, experiment=tiny_experiment)
    orders = [[mixed.volume_of(step, element) for step in range(8)] for element in (0, 1)]
    assert orders[0] != orders[1]
    for order in orders:
        assert sorted(order) == sampler.packed.select("train")
    for step in range(8):
        for element, origin in enumerate(origins_of(mixed, step)):
            image, label = mixed.packed.read_patch(orders[element][step], origin, SIZE)
            np.testing.assert_array_equal(mixed.batch(step)[0][element, ..., 0], normalise_patch(image))
            np.testing.assert_array_equal(mixed.batch(step)[1][element], label)


def test_epochs_are_shuffled_differently(sampler):
    orders = {tuple(sampler.volume_of(epoch * 16 + i) for i in range(16)) for epoch in range(5)}
    assert len(orders) == 5


def test_paper_has_400_steps_an_epoch():
    class TenImagesWithTheirVariants:
        def select(self, split, variants):
            return list(range(10 * len(variants)))

    assert PatchSampler(TenImagesWithTheirVariants(), Training(), (64, 64, 64)).steps_per_epoch == 400


def test_batches_are_a_pure_function_of_seed_and_step(sampler, tiny_experiment):
    forth = [sampler.batch(step) for step in range(5)]
    back = [with_training(sampler, experiment=tiny_experiment).batch(step) for step in reversed(range(5))]
    for (image, label), (image2, label2) in zip(forth, reversed(back), strict=True):
        np.testing.assert_array_equal(image, image2)
        np.testing.assert_array_equal(label, label2)
    other = with_training(sampler, "training.seed=1", experiment=tiny_experiment)
    assert [origins_of(sampler, s) for s in range(5)] != [origins_of(other, s) for s in range(5)]


def test_batch_is_normalised_and_belongs_together(sampler):
    for step in range(6):
        images, labels = sampler.batch(step)
        assert (images.shape, images.dtype) == ((2, *SIZE, 1), np.float32)
        assert (labels.shape, labels.dtype) == ((2, *SIZE), np.uint8)
        np.testing.assert_allclose(images.mean(axis=(1, 2, 3, 4)), 0, atol=1e-5)
        np.testing.assert_allclose(images.std(axis=(1, 2, 3, 4)), 1, atol=1e-4)
        for image, label in zip(images[..., 0], labels, strict=True):  # the ellipsoid is the bright part
            if 0 < label.mean() < 1:
                assert image[label == 1].mean() > image[label == 0].mean() + 1


def test_foreground_probability_centres_patches_on_the_femur(sampler, tiny_experiment):
    def centred(share):
        training = with_settings(tiny_experiment, [f"training.foreground_probability={share}"]).training
        small = PatchSampler(sampler.packed, training, (8, 8, 8))
        return np.mean([small.batch(step)[1][:, 4, 4, 4] for step in range(60)])

    uniform, half, all_of_them = centred(0.0), centred(0.5), centred(1.0)
    assert uniform + 0.05 < half < all_of_them - 0.05


def test_distorted_patches_are_pure_and_still_bright_where_the_femur_is(sampler, tiny_experiment):
    def distorted(share):
        return with_training(sampler, f"training.augmentation_probability={share}", experiment=tiny_experiment)

    for step in range(6):
        (images, labels), again, plain = (distorted(s).batch(step) for s in (1.0, 1.0, 0.0))
        np.testing.assert_array_equal(images, again[0])
        np.testing.assert_array_equal(labels, again[1])
        assert not np.array_equal(images, plain[0])
        assert (images.shape, images.dtype, labels.dtype) == (plain[0].shape, np.float32, np.uint8)
        for image, label in zip(images[..., 0], labels, strict=True):
            if 0 < label.mean() < 1:
                assert image[label == 1].mean() > image[label == 0].mean() + 1


def test_patches_cover_the_whole_volume(sampler, tiny_experiment):
    uniform = with_training(sampler, "training.foreground_probability=0.0", experiment=tiny_experiment)
    starts = np.array(list(itertools.chain(*(origins_of(uniform, s) for s in range(400)))))
    last = np.max([uniform.packed.shape(i) for i in uniform.volumes], axis=0) - SIZE
    np.testing.assert_array_equal(starts.min(0), 0)
    np.testing.assert_array_equal(starts.max(0), last)


def test_stream_gives_the_samplers_batches_from_any_step(sampler):
    for first in (0, 3):
        stream = list(TensorFlowEngine().patch_stream(sampler, first, 6))
        assert len(stream) == 6 - first
        for step, (images, labels) in enumerate(stream, start=first):
            expected = sampler.batch(step)
            np.testing.assert_array_equal(images.numpy(), expected[0])
            np.testing.assert_array_equal(labels.numpy(), expected[1])
            assert images.shape.as_list() == [2, *SIZE, 1]


def test_a_patch_is_transformed_as_its_place_in_its_volume_is(packed, tiny_experiment):
    """Shading is a function of the place in the volume: a patch is the part of the whole volume, shaded as one."""
    drawn = Transforms(patches=1.0, bias=1.0)
    training = dataclasses.replace(tiny_experiment.training, augmentation_probability=0.0)
    sampler = PatchSampler(packed, training, SIZE, drawn)
    numbers = []
    for step in (0, 5, 9):
        number, origin = sampler.volume_of(step, 1), origins_of(sampler, step)[1]
        image, label = packed.read_volume(number)
        spacing = np.asarray(image.spacing_mm[::-1])
        rng = np.random.Generator(np.random.Philox(np.random.SeedSequence(training.seed, spawn_key=(4, step, 1))))
        rng.random()  # whether this patch is changed
        reference = reference_of(image.array, label.array, spacing)
        whole = change_contrast(image.array, label.array, np.zeros(3), spacing, reference, drawn, rng)
        found, _ = sampler._patch(number, origin, step, 1)
        np.testing.assert_allclose(found, whole[tuple(slice(o, o + 16) for o in origin)], atol=1e-3)
        numbers.append(number)
    assert len(set(numbers)) == 3


def test_transforms_are_a_pure_function_of_seed_and_step_and_off_by_default(packed, tiny_experiment):
    off = PatchSampler(packed, tiny_experiment.training, SIZE)
    on = PatchSampler(packed, tiny_experiment.training, SIZE, Transforms(patches=0.5, remap=1.0, narrow_view=0.2))
    again = PatchSampler(packed, tiny_experiment.training, SIZE, Transforms(patches=0.5, remap=1.0, narrow_view=0.2))
    order = [7, 2, 5, 0, 3]
    for step in order:
        again.batch(step)  # what was drawn before does not matter
    same = [np.array_equal(off.batch(step)[0], on.batch(step)[0]) for step in range(8)]
    assert any(same)
    assert not all(same)
    for step in range(8):
        for one, other in zip(on.batch(step), again.batch(step), strict=True):
            np.testing.assert_array_equal(one, other)
