"""Times a training step and a forward pass of the network, against the same layers in PyTorch where it is installed.

    python -m benchmarks.network [--width 1.0] [--patch 64] [--batch 2] [--repeats 3] [--peer torch|none]

Both sides get the same weights, must give the same logits and must have as many parameters. Each lives in a process of
its own, so that no thread pool meets another one, and they take turns: A, B, A, B, ... The peer is eager PyTorch, with
channels first (its default) and with channels last (torch.channels_last_3d), each on all cores. Close other programs
first. `pip install '.[bench]'` installs the peer.
"""

from __future__ import annotations

import contextlib
import importlib.util
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from absl import flags

from benchmarks.benchmark_process import (
    BenchmarkError,
    BenchmarkProcess,
    Tasks,
    cores,
    machine,
    scaled_network,
    start_process,
)
from femur3d import cli
from femur3d.config import DOWNSAMPLING, HEADS, Experiment, Preprocessing, Training
from femur3d.errors import UsageError

WIDTH = flags.DEFINE_float("width", 1.0, "Filters as a part of the paper's.", lower_bound=1 / 64, upper_bound=4)
PATCH = flags.DEFINE_integer("patch", 64, "Edge of a patch in voxels, a multiple of 8.")
BATCH = flags.DEFINE_integer("batch", 2, "Patches of a training step; a forward pass has one.")
REPEATS = flags.DEFINE_integer("repeats", 3, "Timings of each, after two that do not count.", lower_bound=1)
PEER = flags.DEFINE_enum("peer", None, ["torch", "none"], "By default torch where it is installed.")

GOAL = 0.7  # of the ratios at full width
WARM_UPS = 2  # the first call builds a graph and fills caches
PAUSE_S = 0.3  # lets the threads of the process that was just measured go to sleep
TOLERANCE = 1e-3  # of the logits, as a part of the largest
TASKS = ("training step", "forward pass")
LAYOUTS = ("channels first", "channels last")  # as torch_peer knows them


def make_experiment(width: float, patch: int, batch: int) -> Experiment:
    """The paper's experiment with scaled filters. Raises UsageError for a patch or a batch that cannot be."""
    return Experiment(
        name="bench",
        preprocessing=Preprocessing(patch_size=(patch, patch, patch)),
        network=scaled_network(width, "normal"),
        training=Training(batch_size=batch),
    )


def draw_batch(experiment: Experiment) -> tuple[np.ndarray, np.ndarray]:
    """Random images, float32 (batch, z, y, x), and labels, uint8 of the same shape; the same for both libraries."""
    rng = np.random.Generator(np.random.PCG64(0))
    shape = (experiment.training.batch_size, *experiment.preprocessing.patch_size)
    return rng.standard_normal(shape, np.float32), rng.integers(0, 2, shape, np.uint8)


# ---- femur3d: imported in its own process only -----------------------------------------------------------------------


def femur3d_tasks(experiment: Experiment) -> Tasks:
    """What the process of femur3d answers to; thread settings as in femur3d.train and femur3d.infer."""
    with cli.quiet_imports():
        import tensorflow as tf
    import keras

    from femur3d.engines.backend import ENGINE
    from femur3d.inference.mode import EXACT
    from femur3d.inference.saved_model import TrainedModel, weights_of
    from femur3d.network.unet import build_network

    tf.config.threading.set_inter_op_parallelism_threads(1)
    network = build_network(experiment.network)
    images, _ = draw_batch(experiment)
    model = TrainedModel(weights_of(network), experiment.network, experiment.preprocessing, {}, "")
    predict = ENGINE.prepare(model, EXACT).predict
    return {
        "version": lambda: f"TensorFlow {tf.__version__}, Keras {keras.__version__}",
        "parameters": lambda: sum(int(np.prod(v.shape)) for v in network.trainable_variables),
        "weights": lambda: {layer.name: layer.get_weights() for layer in network.layers if layer.weights},
        "logits": lambda patch: {h: y.numpy() for h, y in network(patch[..., np.newaxis], training=True).items()},
        "training step": _femur3d_training(network, experiment),
        "forward pass": lambda: predict(images[:1]).shape,
    }


def _femur3d_training(network: Any, experiment: Experiment) -> Callable[[], dict[str, float]]:
    import tensorflow as tf

    from femur3d.engines.backend import ENGINE
    from femur3d.training.optimizer import make_optimizer

    optimizer = make_optimizer(experiment.training, network)
    train_step = ENGINE.make_train_step(network, optimizer, experiment.loss)
    images, labels = draw_batch(experiment)
    batch = tf.constant(images[..., np.newaxis]), tf.constant(labels)
    return lambda: {name: float(value) for name, value in train_step(*batch).items()}


def torch_tasks(experiment: Experiment) -> Tasks:
    """What the process of PyTorch answers to: every task of `TASKS` in both layouts."""
    import torch

    from benchmarks import torch_peer

    torch.set_num_threads(cores())
    images, labels = draw_batch(experiment)
    networks = {layout: torch_peer.build_layers(experiment.network) for layout in LAYOUTS}
    layers = networks["channels first"]
    networks["channels last"].to(memory_format=torch.channels_last_3d)
    tasks: dict[str, Callable[..., Any]] = {
        "version": lambda: f"PyTorch {torch.__version__}",
        "parameters": lambda: sum(p.numel() for p in layers.parameters()),
        "load": lambda weights: [torch_peer.load_weights(network, weights) for network in networks.values()],
        "logits": lambda patch: torch_peer.all_logits(layers.train(), patch),
    }
    for layout, network in networks.items():
        tasks[f"training step, {layout}"] = torch_peer.training_step(network, experiment, images, labels, layout)
        tasks[f"forward pass, {layout}"] = torch_peer.forward_pass(network, images[:1], layout)
    return tasks


# ---- two processes that take turns -----------------------------------------------------------------------------------

MAKERS: dict[str, Callable[[Experiment], Tasks]] = {"femur3d": femur3d_tasks, "torch": torch_tasks}


def check_same(mine: BenchmarkProcess, peer: BenchmarkProcess) -> float:
    """Gives the peer femur3d's weights and returns the largest relative difference of the logits.

    Raises:
        BenchmarkError: the parameter counts or the logits differ.
    """
    counts = [process.call("parameters")[0] for process in (mine, peer)]
    if counts[0] != counts[1]:
        raise BenchmarkError(f"femur3d has {counts[0]:,} parameters, the peer {counts[1]:,}.\nExpected the same.")
    peer.call("load", mine.call("weights")[0])
    patch = draw_batch(make_experiment(1, 2 * DOWNSAMPLING, 2))[0]
    ours, theirs = (process.call("logits", patch)[0] for process in (mine, peer))
    difference = max(float(abs(ours[h] - theirs[h]).max() / abs(ours[h]).max()) for h in HEADS)
    if not difference < TOLERANCE:
        raise BenchmarkError(
            f"The logits differ by {difference:.1e} of the largest.\nExpected {TOLERANCE:.0e} or less."
        )
    return difference


def take_turns(timed: Sequence[tuple[BenchmarkProcess, str]], repeats: int) -> list[list[float]]:
    """Seconds of each (process, task): `repeats` timings a piece, interleaved, after the warm-up."""
    for process, task in timed:
        for _ in range(WARM_UPS):
            process.call(task)
    seconds: list[list[float]] = [[] for _ in timed]
    for _ in range(repeats):
        for (process, task), timings in zip(timed, seconds, strict=True):
            time.sleep(PAUSE_S)
            timings.append(process.call(task)[1])
    return seconds


# ---- the table -------------------------------------------------------------------------------------------------------


def rows(task: str, mine: BenchmarkProcess, peer: BenchmarkProcess | None, repeats: int) -> Iterator[str]:
    """The lines of one task: femur3d and the peer, then the ratio to each layout of the peer."""
    timed = [(mine, task)] + ([(peer, f"{task}, {layout}") for layout in LAYOUTS] if peer else [])
    names = ["femur3d", *(f"PyTorch, {layout}" for layout in LAYOUTS)]
    timings = take_turns(timed, repeats)
    medians, bests = [statistics.median(t) for t in timings], [min(t) for t in timings]
    for (process, _), name, median, best in zip(timed, names, medians, bests, strict=False):
        yield f"{task:15}{name:34}{process.call('parameters')[0]:12,}{median:11.3f}{best:11.3f}"
    if peer:
        for i, name in enumerate(names[1:], start=1):
            ratio, best_ratio = medians[0] / medians[i], bests[0] / bests[i]
            yield f"{task:15}{f'femur3d / {name}':34}{'':12}{ratio:11.2f}{best_ratio:11.2f}"


def peer_wanted(flag: str | None) -> bool:
    """Whether PyTorch takes part. Raises UsageError where it is asked for and not installed."""
    installed = importlib.util.find_spec("torch") is not None
    if flag == "torch" and not installed:
        raise UsageError("--peer torch: PyTorch is not installed.\nExpected it from pip install '.[bench]'.")
    if flag is None and not installed:
        print("PyTorch is not installed (pip install '.[bench]'): femur3d alone.")
    return installed and flag != "none"


def main(argv: Sequence[str]) -> int:
    """Starts the processes, checks that they agree, and prints the table."""
    cli.no_arguments(argv)
    experiment = make_experiment(WIDTH.value, PATCH.value, BATCH.value)
    with contextlib.ExitStack() as stack:
        names = ["femur3d", "torch"] if peer_wanted(PEER.value) else ["femur3d"]
        print(f"Machine   {machine()}")
        processes = [stack.enter_context(start_process(name, MAKERS[name], experiment)) for name in names]
        mine, peer = processes[0], processes[1] if len(processes) > 1 else None
        network = experiment.network
        print(f"Versions  {', '.join(process.call('version')[0] for process in processes)}")
        print(f"Network   filters {network.encoder_filters} and {network.decoder_filters}, patches of {PATCH.value}³")
        if peer:
            print(f"Check     same weights, logits of both differ by {check_same(mine, peer):.0e} of the largest")
        print(f"\n{'task':15}{'library':34}{'parameters':>12}{'median s':>11}{'min s':>11}")
        for task in TASKS:
            print(*rows(task, mine, peer, REPEATS.value), sep="\n", flush=True)
    print(f"\nA training step has {BATCH.value} patches; a forward pass has one and stops at UpperCls.")
    print(f"{REPEATS.value} timings each, by turns. Goal: ratios of at most {GOAL} at full width.")
    return 0


if __name__ == "__main__":
    cli.run(main)
