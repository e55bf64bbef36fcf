"""The PyTorch peer: nnU-Net's plan and schedule by hand, its loss, its checkpoints, and one training that segments."""

import dataclasses
import itertools
import os
import subprocess
import sys

import numpy as np
import pytest

from benchmarks import train_peer
from femur3d.cli import load_experiment
from femur3d.config import Preprocessing
from femur3d.data.packing import pack_dataset
from femur3d.errors import InputError, UsageError
from femur3d.io.images import read_volume
from tests.support.ellipsoids import ellipsoid_case, write_dataset


@pytest.fixture
def torch():
    """PyTorch on one thread: several wait for each other, for long on a busy machine."""
    found = pytest.importorskip("torch", reason="PyTorch is not installed: pip install '.[bench]'")
    pytest.importorskip("monai", reason="MONAI is not installed: pip install '.[bench]'")
    before = found.get_num_threads()
    found.set_num_threads(1)
    yield found
    found.set_num_threads(before)


# Plan and schedule


def test_thick_slices_are_neither_convolved_over_nor_halved_until_the_others_are_as_coarse():
    kernels, strides = train_peer.plan_network((1.5, 5.2, 1.5), (64, 32, 64))
    # 1.5×5.2×1.5 mm → 3×5.2×3 (y less than twice as coarse from here on) → 6×10.4×6 → 12×20.8×12 → 24×41.6×24
    assert kernels == [(3, 1, 3), (3, 3, 3), (3, 3, 3), (3, 3, 3), (3, 3, 3)]
    # 64×32×64 voxels → 32×32×32 → 16³ → 8³ → 4³, the smallest
    assert strides == [(1, 1, 1), (2, 1, 2), (2, 2, 2), (2, 2, 2), (2, 2, 2)]


def test_cubes_are_halved_along_all_axes():
    kernels, strides = train_peer.plan_network((2.0, 2.0, 2.0), (16, 16, 16))
    assert kernels == [(3, 3, 3)] * 3
    assert strides == [(1, 1, 1), (2, 2, 2), (2, 2, 2)]  # 16 → 8 → 4


def test_an_axis_left_alone_is_not_halved_below_three_times_the_smallest():
    # 8×16×16 is halved once, 4×8×8 twice (y and x), then nothing is large enough
    assert train_peer.plan_network((1.0, 1.0, 1.0), (8, 16, 16))[1] == [(1, 1, 1), (2, 2, 2), (1, 2, 2)]
    # y alone is left: 8 voxels of it are too few, 16 are enough
    assert train_peer.plan_network((1.0, 1.0, 1.0), (4, 16, 32))[1] == [(1, 1, 1), (1, 2, 2), (1, 2, 2)]
    assert train_peer.plan_network((1.0, 1.0, 1.0), (4, 16, 64))[1] == [(1, 1, 1), (1, 2, 2), (1, 2, 2), (1, 1, 2)]


def test_a_patch_too_small_for_three_stages_is_refused():
    with pytest.raises(UsageError, match="patch_size"):
        train_peer.plan_network((1.0, 1.0, 1.0), (8, 8, 8))


def test_learning_rate_falls_with_the_time_used_up():
    assert train_peer.learning_rate("sgd", 0.0) == 0.01
    assert train_peer.learning_rate("adam", 0.0) == 0.001
    assert train_peer.learning_rate("sgd", 0.5) == pytest.approx(0.01 * 0.5358867)  # ½^0.9
    assert train_peer.learning_rate("sgd", 0.999) == pytest.approx(0.01 * 0.001995262)


def test_supervision_weights_are_halved_and_the_coarsest_is_left_out():
    assert train_peer.supervision_weights(4) == pytest.approx([4 / 7, 2 / 7, 1 / 7, 0])
    assert train_peer.supervision_weights(2) == [1, 0]


# Batches and segmentation


def test_batches_come_in_order_from_the_step_that_training_goes_on_from():
    class Sampler:
        def batch(self, step):
            return step, -step

    stream = train_peer.batches(Sampler(), 7)
    assert list(itertools.islice(stream, 3)) == [(7, -7), (8, -8), (9, -9)]


@pytest.mark.parametrize("normalisation", ["patch", "body"])
def test_segmentation_is_that_of_infer_but_for_the_network(tiny_experiment, normalisation):
    """The Segmenter and the peer, both with brightness for a network: the same label map, voxel for voxel."""
    from femur3d.inference.saved_model import TrainedModel
    from femur3d.inference.segmenter import Segmenter
    from tests.support.stand_in_engine import StandInEngine

    preprocessing = Preprocessing(spacing_mm=(5.0, 2.5, 1.7), patch_size=(16, 16, 16), normalisation=normalisation)
    narrow, reference = ellipsoid_case()
    scan = dataclasses.replace(narrow, spacing_mm=(6.0, 2.0, 2.0))  # the ellipsoids lie 114 mm apart: two femurs

    def bright(patches):
        return 1 / (1 + np.exp(-np.asarray(patches, np.float32)))

    segmenter = Segmenter(TrainedModel({}, tiny_experiment.network, preprocessing, {}, ""), StandInEngine(bright))
    expected = segmenter(scan, labels="sides").labels
    found = train_peer.segment(scan, preprocessing, bright)
    np.testing.assert_array_equal(found.array, expected.array)
    assert not found.geometry_difference(scan, 1e-9)
    assert set(np.unique(found.array)) == {0, 1, 2}
    assert (found.array == reference.array).mean() > 0.95


# Network and loss


def test_loss_is_cross_entropy_and_dice_on_the_nearest_labels(torch):
    labels = torch.zeros((1, 4, 2, 2), dtype=torch.int64)
    labels[:, 1, :, 1] = 1  # of the coarse voxels (z = 0, 1), whose nearest are z = 1, 3 and x = 1: the first is femur
    logits = torch.zeros((1, 2, 2, 2, 1))
    loss = train_peer.head_loss(logits, labels)
    # P = ½ in 4 voxels, 2 of them femur: Dice = 2·1 / (2 + 2) = ½
    assert float(loss) == pytest.approx(np.log(2) + 0.5, abs=1e-5)
    logits[:, 1, 0], logits[:, 1, 1] = 20, -20
    assert float(train_peer.head_loss(logits, labels)) == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_heads_have_the_resolutions_of_the_decoder_and_updates_lower_the_loss(torch, optimizer):
    preprocessing = Preprocessing(spacing_mm=(1.5, 5.2, 1.5), patch_size=(32, 16, 32))
    peer = train_peer.make_peer(preprocessing, train_peer.Plan(1.0, 4, optimizer), seed=0)
    x = torch.zeros((1, 1, 32, 16, 32))
    shapes = [tuple(y.shape) for y in train_peer.all_logits(peer.network, x)]
    assert shapes == [(1, 2, 32, 16, 32), (1, 2, 16, 16, 16)]
    images = np.random.default_rng(0).normal(size=(2, 32, 16, 32, 1)).astype(np.float32)
    labels = (images[..., 0] > 1).astype(np.uint8)
    losses = [train_peer.update(peer, images, labels, 0.01) for _ in range(12)]
    assert losses[-1] < losses[0] - 0.1
    predict = train_peer.make_predict(peer.network)
    assert predict(images[..., 0]).shape == (2, 32, 16, 32)


def test_a_checkpoint_brings_back_network_and_momentum(torch, tmp_path):
    preprocessing, plan = Preprocessing(patch_size=(16, 16, 16)), train_peer.Plan(1.0, 2, "sgd")
    images = np.random.default_rng(0).normal(size=(2, 16, 16, 16, 1)).astype(np.float32)
    labels = (images[..., 0] > 1).astype(np.uint8)
    one, other = (train_peer.make_peer(preprocessing, plan, seed) for seed in (0, 1))
    train_peer.update(one, images, labels, 0.01)
    one.step, one.seconds = 1, 2.5
    train_peer.save_peer(one, tmp_path / "peer.pt")
    train_peer.restore_peer(other, tmp_path / "peer.pt")
    assert (other.step, other.seconds) == (1, 2.5)
    next_losses = [[train_peer.update(peer, images, labels, 0.01) for _ in range(2)] for peer in (one, other)]
    assert next_losses[0] == pytest.approx(next_losses[1], rel=1e-5)
    other.plan = dataclasses.replace(plan, minutes=2.0)
    with pytest.raises(UsageError, match="begun with"):
        train_peer.restore_peer(other, tmp_path / "peer.pt")
    (tmp_path / "peer.pt").write_bytes(b"not a checkpoint")
    with pytest.raises(InputError, match="not a checkpoint"):
        train_peer.restore_peer(other, tmp_path / "peer.pt")


# As a user runs it


EXPERIMENT = """
from femur3d.config import Experiment, Preprocessing, Training
def get_config():
    return Experiment(
        "tiny",
        preprocessing=Preprocessing(spacing_mm=(2.0, 2.0, 2.0), margin_mm=6.0, patch_size=(16, 16, 16)),
        training=Training(foreground_probability=0.5, augmentation_probability=0.5, variants=(0, 6), log_every=1,
                          checkpoint_every=40),
    )
"""


def peer_command(folder, *flags):
    words = ["--dataset", folder / "packed.h5", "--experiment", folder / "tiny.py", "--run", folder / "run", *flags]
    command = [sys.executable, "-m", "benchmarks.train_peer", *words]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [str(w) for w in command], capture_output=True, encoding="utf-8", check=False, env=environment
    )


@pytest.fixture(scope="module")
def packed_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("peer")
    write_dataset(folder / "data", cases=3, validation=1)
    (folder / "tiny.py").write_text(EXPERIMENT)
    pack_dataset(folder / "data", folder / "packed.h5", load_experiment(folder / "tiny.py"), lambda _: None)
    return folder


@pytest.mark.slow
def test_training_uses_up_its_time_and_then_segments_what_was_held_out(torch, packed_folder):
    scans, out = packed_folder / "data" / "imagesTr", packed_folder / "out"
    flags = ["--minutes", "0.1", "--filters", "4", "--scans", scans, "-o", out]
    done = peer_command(packed_folder, *flags)
    assert done.returncode == 0, done.stderr
    assert "Step 1: loss " in done.stdout
    stored = torch.load(packed_folder / "run" / "checkpoints" / "peer.pt", weights_only=True)
    assert f"Trained: {stored['step']} updates" in done.stdout
    assert 6 <= stored["seconds"] < 60
    # What was written is what the stored network says
    preprocessing = load_experiment(packed_folder / "tiny.py").preprocessing
    peer = train_peer.make_peer(preprocessing, train_peer.Plan(**stored["plan"]), seed=1)
    peer.network.load_state_dict(stored["network"])
    expected = train_peer.segment(
        read_volume(scans / "case_2_0000.nii.gz"), preprocessing, train_peer.make_predict(peer.network)
    )
    assert [path.name for path in out.iterdir()] == ["case_2.nii.gz"]
    found = read_volume(out / "case_2.nii.gz")
    assert (found.array != expected.array).mean() < 1e-3
    assert not found.geometry_difference(read_volume(scans / "case_2_0000.nii.gz"), 1e-4)
    # Once the time is used up, the same command only segments; another one is refused
    (out / "case_2.nii.gz").unlink()
    again = peer_command(packed_folder, *flags)
    assert again.returncode == 0, again.stderr
    assert "Step" not in again.stdout
    np.testing.assert_array_equal(read_volume(out / "case_2.nii.gz").array, found.array)
    longer = peer_command(packed_folder, *flags, "--minutes", "5")
    assert longer.returncode == 2
    assert "begun with" in longer.stderr


def test_mistakes_are_told_in_two_lines(packed_folder):
    no_output = peer_command(packed_folder, "--scans", packed_folder / "data" / "imagesTr")
    assert no_output.returncode == 2
    assert "-o" in no_output.stderr
    other = peer_command(packed_folder, "--set", "preprocessing.spacing_mm=(1.0,1.0,1.0)")
    assert other.returncode == 3
    assert "packed.h5" in other.stderr
    assert "Traceback" not in no_output.stderr + other.stderr
