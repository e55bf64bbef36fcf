"""Trains nnU-Net's network (MONAI's DynUNet, PyTorch) for a given time and segments scans with it: a peer for femur3d.

    python -m benchmarks.train_peer --dataset packed.h5 --experiment experiments/hip_t1.py --run runs/peer
                               [--minutes 25] [--scans PATH [PATH ...] -o DIR]

Patches, augmentation and sampling are those of the experiment; preprocessing, sliding window, restoration and
post-processing those of `femur3d.infer --labels sides`. Network, loss, optimiser and learning rate are nnU-Net's, the
rate by the share of the time that is used up. The same command goes on from the last checkpoint; once the time is used
up, it only segments: all scans but those of the cases that it was trained on. Needs `pip install '.[bench]'`.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import pickle
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags

from femur3d import cli
from femur3d.cli import load_experiment
from femur3d.config import Preprocessing
from femur3d.data.packed_dataset import PackedDataset
from femur3d.data.patches import make_normalise
from femur3d.data.preprocessing import prepare_scan, restore, rounded
from femur3d.data.sampler import PatchSampler
from femur3d.errors import InputError, UsageError
from femur3d.inference.postprocessing import label_map
from femur3d.inference.sliding_window import Predict, predict_volume
from femur3d.io.atomic import replacing
from femur3d.io.images import read_scan, write_volume
from femur3d.io.inputs import open_sources
from femur3d.io.read_ahead import read_ahead
from femur3d.io.settings import to_dict, with_settings
from femur3d.training.run_directory import open_run_directory
from femur3d.volume import Volume

FLAGS = flags.FLAGS
OVERLAP = 0.5  # as `infer`

# nnU-Net's constants
RATES = {"sgd": 1e-2, "adam": 1e-3}  # nnUNetTrainer, nnUNetTrainerAdam1en3
POWER, MOMENTUM, WEIGHT_DECAY, CLIP_NORM = 0.9, 0.99, 3e-5, 12.0
SMALLEST = 4  # voxels along an axis at the bottom
ANISOTROPY = 2  # an axis this many times coarser than the finest one waits
MAX_FILTERS = 320
SMOOTH = 1e-5


Stages = list[tuple[int, ...]]


@dataclasses.dataclass(frozen=True)
class Plan:
    """How long is trained, filters of the first stage, and how (a name of RATES)."""

    minutes: float
    filters: int
    optimizer: str


@dataclasses.dataclass
class Peer:
    """The network in training; `plan` is what was asked for, `step` updates were made in `seconds`."""

    plan: Plan
    network: Any
    optimizer: Any
    step: int = 0
    seconds: float = 0.0


def plan_network(spacing_mm: Sequence[float], patch_size: Sequence[int]) -> tuple[Stages, Stages]:
    """Kernels and strides of each stage by nnU-Net's rule (`get_pool_and_conv_props`), from the finest down.

    While an axis (z, y, x) is at least twice as coarse as the finest, it is neither convolved over nor halved.

    Raises:
        UsageError: the patch is too small for three stages, the fewest that DynUNet can have.
    """
    spacing, size = list(spacing_mm), list(patch_size)
    kernel = [1] * len(size)
    kernels, strides = [], [(1,) * len(size)]
    while large := [axis for axis, n in enumerate(size) if n >= 2 * SMALLEST]:
        finest = min(spacing[axis] for axis in large)
        halved = [axis for axis in large if spacing[axis] / finest < ANISOTROPY]
        if len(halved) == 1 and size[halved[0]] < 3 * SMALLEST:
            break
        kernel = [3 if k == 3 or mm / min(spacing) < ANISOTROPY else 1 for k, mm in zip(kernel, spacing, strict=True)]
        kernels.append(tuple(kernel))
        strides.append(tuple(2 if axis in halved else 1 for axis in range(len(size))))
        for axis in halved:
            spacing[axis], size[axis] = spacing[axis] * 2, math.ceil(size[axis] / 2)
    if len(strides) < 3:
        raise UsageError(f"patch_size: expected at least 16 voxels along two axes. Received: {tuple(patch_size)}")
    return [*kernels, (3,) * len(size)], strides


def learning_rate(optimizer: str, share: float) -> float:
    """nnU-Net's polynomial, by the share of the time that is used up instead of that of the updates."""
    return RATES[optimizer] * (1 - share) ** POWER


def supervision_weights(levels: int) -> list[float]:
    """Weights of the decoder's outputs, finest first: halved from level to level, 0 at the coarsest, sum 1."""
    weights = [0.5**level for level in range(levels - 1)]
    return [*(w / sum(weights) for w in weights), 0.0]


def make_peer(preprocessing: Preprocessing, plan: Plan, seed: int) -> Peer:
    """An untrained DynUNet with nnU-Net's topology for these patches, and its optimiser."""
    import torch
    from monai.networks.nets import DynUNet

    torch.manual_seed(seed)
    kernels, strides = plan_network(preprocessing.spacing_mm[::-1], preprocessing.patch_size)
    widths = [min(plan.filters * 2**stage, MAX_FILTERS) for stage in range(len(strides))]
    extra = max(len(strides) - 3, 1)  # all heads but the finest and the one of weight 0; DynUNet wants one at least
    network = DynUNet(3, 1, 2, kernels, strides, strides[1:], widths, deep_supervision=True, deep_supr_num=extra)
    options = {"params": network.parameters(), "lr": RATES[plan.optimizer], "weight_decay": WEIGHT_DECAY}
    if plan.optimizer == "adam":
        return Peer(plan, network, torch.optim.AdamW(**options, amsgrad=True))
    return Peer(plan, network, torch.optim.SGD(**options, momentum=MOMENTUM, nesterov=True))


def all_logits(network: Any, images: Any) -> list[Any]:
    """Logits (batch, 2, z, y, x) of every head at its own resolution, finest first, as in nnU-Net."""
    return [network.output_block(network.skip_layers(images)), *network.heads]  # its `forward` enlarges them all


def head_loss(logits: Any, labels: Any) -> Any:
    """Cross-entropy + 1 - Dice of the femur, patch by patch, as in nnU-Net.

    Args:
        logits: (batch, 2, z, y, x).
        labels: int64 0 or 1, (batch, z·k, y·l, x·m): nearest neighbours are taken.
    """
    import torch

    steps = [n // m for n, m in zip(labels.shape[1:], logits.shape[2:], strict=True)]
    labels = labels[(slice(None), *(slice(step // 2, None, step) for step in steps))]
    femur, axes = logits.softmax(1)[:, 1], (1, 2, 3)
    dice = (2 * (femur * labels).sum(axes) + SMOOTH) / (femur.sum(axes) + labels.sum(axes) + SMOOTH)
    return torch.nn.functional.cross_entropy(logits, labels) + 1 - dice.mean()


def update(peer: Peer, images: np.ndarray, labels: np.ndarray, rate: float) -> float:
    """One update with a sampler's batch, convolutions in bfloat16 (half the time). Returns the loss."""
    import torch

    for group in peer.optimizer.param_groups:
        group["lr"] = rate
    peer.optimizer.zero_grad()
    with torch.autocast("cpu", torch.bfloat16):
        logits = all_logits(peer.network, torch.from_numpy(images[..., 0])[:, None])
    target = torch.from_numpy(labels).long()
    weights = supervision_weights(len(peer.network.strides) - 1)
    loss = sum(w * head_loss(y.float(), target) for w, y in zip(weights, logits, strict=False) if w)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(peer.network.parameters(), CLIP_NORM)
    peer.optimizer.step()
    return float(loss.detach())


def save_peer(peer: Peer, path: Path) -> None:
    """Writes a checkpoint of plain tensors and numbers."""
    import torch

    states = {"network": peer.network.state_dict(), "optimizer": peer.optimizer.state_dict()}
    numbers = {"step": peer.step, "seconds": peer.seconds, "plan": dataclasses.asdict(peer.plan)}
    with replacing(path) as temporary:
        torch.save({**states, **numbers}, temporary)


def restore_peer(peer: Peer, path: Path) -> None:
    """Loads the checkpoint, where there is one. Raises UsageError where its plan is another one."""
    import torch

    if not path.exists():
        return
    try:
        stored = torch.load(path, map_location="cpu", weights_only=True)
        before = Plan(**stored["plan"])
    except (RuntimeError, pickle.UnpicklingError, EOFError, KeyError, TypeError) as error:
        raise InputError(f"{path}: not a checkpoint of this tool.\nStart again with another --run.") from error
    if before != peer.plan:
        raise UsageError(f"{path}: begun with {before}, now {peer.plan}.\nExpected the same; choose another --run.")
    peer.network.load_state_dict(stored["network"])
    peer.optimizer.load_state_dict(stored["optimizer"])
    peer.step, peer.seconds = stored["step"], stored["seconds"]


def batches(sampler: PatchSampler, step: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The batches of step `step` and all after it, each read while the one before is computed on."""
    for batch in read_ahead(sampler.batch, itertools.count(step)):
        yield batch.result()


def train(peer: Peer, sampler: PatchSampler, say: Callable[[str], None], checkpoint: Path) -> None:
    """Trains until the plan's time, that of updates and of waiting for batches, is used up, and saves."""
    training, losses, since, total = sampler.training, list[float](), peer.seconds, 60 * peer.plan.minutes
    peer.network.train()
    stream = batches(sampler, peer.step)
    while peer.seconds < total:
        start = time.perf_counter()
        losses.append(update(peer, *next(stream), learning_rate(peer.plan.optimizer, peer.seconds / total)))
        if not math.isfinite(losses[-1]):
            raise FloatingPointError(f"update {peer.step + 1}: the loss is {losses[-1]}")
        peer.seconds += time.perf_counter() - start
        peer.step += 1
        if peer.step % training.log_every == 0:
            speed, left = len(losses) / (peer.seconds - since), max(total - peer.seconds, 0) / 60
            say(f"Step {peer.step}: loss {np.mean(losses):.4f}, {speed:.2f} steps/s, {left:.1f} min left")
            losses, since = [], peer.seconds
        if peer.step % training.checkpoint_every == 0 or peer.seconds >= total:
            save_peer(peer, checkpoint)


def make_predict(network: Any) -> Predict:
    """P(femur) of patches float32 (batch, z, y, x); computed in float32, as femur3d's own."""
    import torch

    network.eval()
    return torch.inference_mode()(lambda patches: network(torch.from_numpy(patches)[:, None]).softmax(1)[:, 1].numpy())


def segment(scan: Volume, preprocessing: Preprocessing, predict: Predict) -> Volume:
    """The label map of a scan, 1 left and 2 right: `femur3d.inference.segmenter.Segmenter` with another network."""
    grid = rounded(scan)
    prepared = prepare_scan(grid, preprocessing)
    stride = [max(round(n * (1 - OVERLAP)), 1) for n in preprocessing.patch_size]
    normalise = make_normalise(preprocessing.normalisation)
    probability, _ = predict_volume(prepared.array, predict, preprocessing.patch_size, stride, normalise=normalise)
    return label_map(scan.with_array(restore(prepared.with_array(probability), grid).array), labels="sides")


def segment_scans(paths: Sequence[Path], output: Path, known: set[str], run: Callable[[Volume], Volume]) -> None:
    """Writes CASE.nii.gz for every scan but those that are known: the network was trained on them."""
    with open_sources(paths, leave_out=output) as scans:
        for scan in (scan for scan in scans if scan.name not in known):
            start, read = time.perf_counter(), read_scan(scan.path, series=scan.series)
            target = output / f"{scan.name}.nii.gz"
            write_volume(run(read.volume), target, like=read.nifti)
            print(f"  {target} ({time.perf_counter() - start:.1f} s)", flush=True)


def _define_flags() -> None:
    """Not at import: tests use the functions above."""
    flags.DEFINE_string("dataset", None, "file of femur3d.pack; its training split is trained on", required=True)
    flags.DEFINE_string("experiment", None, "experiment file: patches, sampling and augmentation", required=True)
    flags.DEFINE_multi_string("set", [], "section.field=value: change one field of the experiment; repeatable")
    flags.DEFINE_string("run", None, "run directory; an existing one goes on", required=True)
    flags.DEFINE_float("minutes", 25.0, "time for updates, by the clock on the wall", lower_bound=0.001)
    flags.DEFINE_integer("filters", 16, "of the first stage; nnU-Net has 32", 1, MAX_FILTERS)
    flags.DEFINE_enum("optimizer", "sgd", sorted(RATES), "nnU-Net's SGD, or Adam, which its authors provide too")
    flags.DEFINE_multi_string(
        "scans", [], "segmented then, but for training cases: file, folder or zip; more may follow"
    )
    flags.DEFINE_string("output", None, "folder of the label maps", short_name="o")


def main(argv: Sequence[str]) -> int:
    """Trains what time is left for, then segments."""
    paths = [Path(path) for path in [*FLAGS.scans, *argv[1:]]]
    if bool(paths) != bool(FLAGS.output):
        raise UsageError("Expected both --scans and -o, or neither. Received only one of them.")
    experiment = with_settings(load_experiment(FLAGS.experiment), FLAGS.set)
    preprocessing, plan = experiment.preprocessing, Plan(FLAGS.minutes, FLAGS.filters, FLAGS.optimizer)
    with PackedDataset(FLAGS.dataset) as packed:
        if packed.preprocessing != to_dict(preprocessing) or not packed.select("train", experiment.training.variants):
            raise InputError(f"{FLAGS.dataset}: packed for another experiment.\nExpected a file packed with this one.")
        run = open_run_directory(Path(FLAGS.run))
        run.check_experiment(experiment)
        run.write_config(experiment, {}, packed.data)
        checkpoint = run.checkpoints / "peer.pt"
        peer = make_peer(preprocessing, plan, experiment.training.seed)
        restore_peer(peer, checkpoint)
        parameters = sum(p.numel() for p in peer.network.parameters())
        run.say(f"DynUNet, {parameters:,} parameters, {plan}, after {peer.step} updates")
        train(peer, PatchSampler(packed, experiment.training, preprocessing.patch_size), run.say, checkpoint)
        run.say(f"Trained: {peer.step} updates in {peer.seconds / 60:.1f} min, {checkpoint}")
        known = {entry.case for entry in packed.entries if entry.split == "train"}
    if paths:
        predict = make_predict(peer.network)
        segment_scans(paths, Path(FLAGS.output), known, lambda scan: segment(scan, preprocessing, predict))
    return 0


if __name__ == "__main__":
    _define_flags()
    cli.run(main)
