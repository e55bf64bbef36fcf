"""Times a training step and a forward pass of the network, against the same layers in PyTorch where it is installed.

    python tools/bench_network.py [--width 1.0] [--patch 64] [--batch 2] [--repeats 3] [--peer torch|none]

Both sides get the same weights, must give the same logits and must have as many parameters. Each lives in a process of
its own, so that no thread pool meets another one, and they take turns: A, B, A, B, ... The peer is eager PyTorch, with
channels first and with channels last (torch.channels_last_3d), each on all cores; the faster one counts. Close other
programs first. `pip install femur3d[bench]` installs the peer.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import multiprocessing
import os
import platform
import signal
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags

from femur3d import cli
from femur3d.config import DOWNSAMPLING, HEADS, Experiment, Network, Preparation, Training
from femur3d.errors import EXIT_INTERNAL, FemurError, UsageError

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
LAYOUTS = ("channels first", "channels last")

Tasks = Mapping[str, Callable[..., Any]]
Weights = dict[str, list[np.ndarray]]  # Keras's layout, by layer


class ContestantError(FemurError):
    """The two sides do not compute the same, or one has died."""

    exit_code = EXIT_INTERNAL


def make_experiment(width: float, patch: int, batch: int) -> Experiment:
    """The paper's experiment with scaled filters. Raises UsageError for a patch or a batch that cannot be."""

    def scaled(filters: Sequence[int]) -> tuple[int, ...]:
        return tuple(max(1, round(width * f)) for f in filters)

    paper = Network()
    return Experiment(
        name="bench",
        preparation=Preparation(patch_size=(patch, patch, patch)),
        network=Network(scaled(paper.encoder_filters), scaled(paper.decoder_filters)),
        training=Training(batch_size=batch),
    )


def draw_batch(experiment: Experiment) -> tuple[np.ndarray, np.ndarray]:
    """Random images, float32 (batch, z, y, x), and labels, uint8 of the same shape; the same for both sides."""
    rng = np.random.Generator(np.random.PCG64(0))
    shape = (experiment.training.batch_size, *experiment.preparation.patch_size)
    return rng.standard_normal(shape, np.float32), rng.integers(0, 2, shape, np.uint8)


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


# ---- femur3d: imported in its own process only -----------------------------------------------------------------------


def femur3d_tasks(experiment: Experiment) -> Tasks:
    """What the process of femur3d answers to; thread settings as in femur3d.train and femur3d.infer."""
    with cli.hushed():
        import tensorflow as tf
    import keras

    from femur3d.network.unet import build_network
    from femur3d.predictor import make_predict

    tf.config.threading.set_inter_op_parallelism_threads(1)
    network = build_network(experiment.network)
    images, _ = draw_batch(experiment)
    predict = make_predict(network)
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

    from femur3d.optimizer import make_optimizer
    from femur3d.train_step import make_train_step

    alphas = dict(zip(HEADS, experiment.loss.head_weights, strict=True))
    train_step = make_train_step(network, make_optimizer(experiment.training, network), alphas, experiment.loss.l2)
    images, labels = draw_batch(experiment)
    batch = tf.constant(images[..., np.newaxis]), tf.constant(labels)
    return lambda: {name: float(value) for name, value in train_step(*batch).items()}


# ---- the peer: the same layers in PyTorch ----------------------------------------------------------------------------

PEER_STAGES = (("conv1a",), ("conv2a",), ("conv3a", "conv3b"), ("conv4a", "conv4b"))
PEER_HEADS = {"lower": ("lower_cls_deconv1", "lower_cls_deconv2"), "mid": ("mid_cls_deconv1",), "upper": ()}


def torch_tasks(experiment: Experiment) -> Tasks:
    """What the process of PyTorch answers to: every task of `TASKS` in both layouts."""
    import torch

    torch.set_num_threads(cores())
    networks = {layout: torch_layers(experiment.network) for layout in LAYOUTS}
    layers = networks["channels first"]
    networks["channels last"].to(memory_format=torch.channels_last_3d)
    tasks: dict[str, Callable[..., Any]] = {
        "version": lambda: f"PyTorch {torch.__version__}",
        "parameters": lambda: sum(p.numel() for p in layers.parameters()),
        "load": lambda weights: [torch_load(network, weights) for network in networks.values()],
        "logits": lambda patch: _torch_all_logits(layers.train(), patch),
    }
    for layout, network in networks.items():
        tasks[f"training step, {layout}"] = _torch_training(network, experiment, layout)
        tasks[f"forward pass, {layout}"] = _torch_forward(network, experiment, layout)
    return tasks


def torch_layers(config: Network) -> Any:
    """The layers, a ModuleDict by the names that they have in femur3d."""
    from torch import nn

    a, b, c, d = config.encoder_filters
    lower, mid, upper = config.decoder_filters
    convs = {"conv1a": (1, a), "conv2a": (a, b), "conv3a": (b, c), "conv3b": (c, c), "conv4a": (c, d), "conv4b": (d, d)}
    for level, skip, width in (("lower", c, lower), ("mid", b, mid), ("upper", a, upper)):
        convs |= {f"{level}_conv_a": (width + skip, width), f"{level}_conv_b": (width, width)}
    deconvs = {"lower_deconv": (d, lower), "mid_deconv": (lower, mid), "upper_deconv": (mid, upper)}
    deconvs |= {"lower_cls_deconv1": (lower, mid), "lower_cls_deconv2": (mid, upper), "mid_cls_deconv1": (mid, upper)}
    heads = {f"{head}_cls": (upper, 2) for head in HEADS}
    layers = nn.ModuleDict({name: nn.Conv3d(*io, 3, padding=1) for name, io in {**convs, **heads}.items()})
    layers.update({name: nn.ConvTranspose3d(*io, 2, stride=2) for name, io in deconvs.items()})
    for name, (_, width) in {**convs, **deconvs}.items():
        layers[f"{name}_bn"] = nn.BatchNorm3d(width, eps=1e-3, momentum=1 - config.bn_momentum)  # Keras's ε
    return layers


def torch_load(layers: Any, weights: Weights) -> int:
    """Copies femur3d's weights: kernels (z, y, x, i, j) → (j, i, z, y, x), which fits both kinds of convolution.

    Returns:
        The number of layers.

    Raises:
        ContestantError: one side has a layer that the other has not.
    """
    import torch

    if set(weights) != set(layers):
        raise ContestantError(f"Only one side has the layers {sorted(set(weights) ^ set(layers))}.")
    for name, arrays in weights.items():
        arrays = [np.transpose(a, (4, 3, 0, 1, 2)) if a.ndim == 5 else a for a in arrays]
        targets = [t for key, t in layers[name].state_dict().items() if key != "num_batches_tracked"]
        for target, array in zip(targets, arrays, strict=True):  # in BN: γ, β, mean, variance on both sides
            target.copy_(torch.tensor(array))
    return len(weights)


def torch_logits(layers: Any, x: Any, heads: Sequence[str]) -> dict[str, Any]:
    """Logits (batch, 2, z, y, x) of some heads; heads that are not named are not computed."""
    import torch

    skips: list[Any] = []
    for names in PEER_STAGES:
        x = torch.nn.functional.max_pool3d(x, 2) if skips else x
        for name in names:
            x = _torch_block(layers, name, x)
        skips.append(x)
    skips.pop()
    logits = {}
    for level in HEADS:
        x = torch.cat([_torch_block(layers, f"{level}_deconv", x), skips.pop()], dim=1)
        x = _torch_block(layers, f"{level}_conv_b", _torch_block(layers, f"{level}_conv_a", x))
        if level in heads:
            logits[level] = _torch_head(layers, level, x)
    return logits


def _torch_block(layers: Any, name: str, x: Any) -> Any:
    return layers[f"{name}_bn"](layers[name](x)).relu_()


def _torch_head(layers: Any, level: str, x: Any) -> Any:
    for name in PEER_HEADS[level]:
        x = _torch_block(layers, name, x)
    return layers[f"{level}_cls"](x)


def _torch_all_logits(layers: Any, patch: np.ndarray) -> dict[str, np.ndarray]:
    """As the task "logits" of femur3d: channels last."""
    import torch

    with torch.no_grad():
        logits = torch_logits(layers, torch.from_numpy(patch)[:, None], HEADS)
    return {head: np.moveaxis(y.numpy(), 1, -1) for head, y in logits.items()}


def _torch_images(images: np.ndarray, layout: str) -> Any:
    import torch

    formats = {"channels first": torch.contiguous_format, "channels last": torch.channels_last_3d}
    return torch.from_numpy(images)[:, None].to(memory_format=formats[layout])


def _torch_training(layers: Any, experiment: Experiment, layout: str) -> Callable[[], float]:
    """SGD on the same loss; λ stands as weight decay of the kernels: the same gradient, and the cheaper way here."""
    import torch

    training, loss = experiment.training, experiment.loss
    kernels = [p for p in layers.parameters() if p.ndim == 5]
    others = [p for p in layers.parameters() if p.ndim != 5]
    groups = [{"params": kernels, "weight_decay": loss.l2}, {"params": others}]
    optimizer = torch.optim.SGD(groups, training.rate, training.momentum)
    images, labels = draw_batch(experiment)
    x, femur = _torch_images(images, layout), torch.from_numpy(labels)

    def step() -> float:
        layers.train()
        optimizer.zero_grad()
        logits = torch_logits(layers, x, HEADS)
        margins = {head: y[:, 1] - y[:, 0] for head, y in logits.items()}
        terms = {h: (torch.nn.functional.softplus(m) - femur.float() * m).mean() for h, m in margins.items()}
        total = sum(alpha * terms[head] for head, alpha in zip(HEADS, loss.head_weights, strict=True))
        total.backward()
        optimizer.step()
        return float(total)

    return step


def _torch_forward(layers: Any, experiment: Experiment, layout: str) -> Callable[[], Sequence[int]]:
    """P(femur) by UpperCls of one patch, NumPy in and out, as femur3d.predictor."""
    import torch

    images, _ = draw_batch(experiment)

    def forward() -> Sequence[int]:
        layers.eval()
        with torch.inference_mode():
            logits = torch_logits(layers, _torch_images(images[:1], layout), ("upper",))["upper"]
            return (logits[:, 1] - logits[:, 0]).sigmoid().numpy().shape

    return forward


# ---- two processes that take turns -----------------------------------------------------------------------------------

MAKERS: dict[str, Callable[[Experiment], Tasks]] = {"femur3d": femur3d_tasks, "torch": torch_tasks}


@dataclasses.dataclass(frozen=True)
class Side:
    """One of the two processes, seen from the parent."""

    name: str
    connection: Connection

    def call(self, task: str, *arguments: Any) -> tuple[Any, float]:
        """The result of a task and the seconds it took, transfer not counted. Raises ContestantError."""
        self.connection.send((task, arguments))
        try:
            return self.connection.recv()
        except EOFError as error:
            raise ContestantError(f"The process of {self.name} died in {task!r}; what it said stands above.") from error


@contextlib.contextmanager
def start_side(name: str, experiment: Experiment) -> Iterator[Side]:
    """Starts the process of 'femur3d' or 'torch' and ends it with the `with` statement."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=serve, args=(there, name, experiment), daemon=True)
    process.start()
    there.close()
    try:
        yield Side(name, here)
    finally:
        process.terminate()
        process.join()


def serve(connection: Connection, name: str, experiment: Experiment) -> None:
    """The process of one side: answers tasks until it is ended."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's
    tasks = MAKERS[name](experiment)
    while True:
        task, arguments = connection.recv()
        start = time.perf_counter()
        result = tasks[task](*arguments)
        connection.send((result, time.perf_counter() - start))


def check_same(mine: Side, peer: Side) -> float:
    """Gives the peer femur3d's weights and returns the largest relative difference of the logits.

    Raises:
        ContestantError: the parameter counts or the logits differ.
    """
    counts = [side.call("parameters")[0] for side in (mine, peer)]
    if counts[0] != counts[1]:
        raise ContestantError(f"femur3d has {counts[0]:,} parameters, the peer {counts[1]:,}.\nExpected the same.")
    peer.call("load", mine.call("weights")[0])
    patch = draw_batch(make_experiment(1, 2 * DOWNSAMPLING, 2))[0]
    ours, theirs = (side.call("logits", patch)[0] for side in (mine, peer))
    difference = max(float(abs(ours[h] - theirs[h]).max() / abs(ours[h]).max()) for h in HEADS)
    if not difference < TOLERANCE:
        raise ContestantError(
            f"The logits differ by {difference:.1e} of the largest.\nExpected {TOLERANCE:.0e} or less."
        )
    return difference


def take_turns(entrants: Sequence[tuple[Side, str]], repeats: int) -> list[list[float]]:
    """Seconds of each (side, task): `repeats` timings a piece, interleaved, after the warm-up."""
    for side, task in entrants:
        for _ in range(WARM_UPS):
            side.call(task)
    seconds: list[list[float]] = [[] for _ in entrants]
    for _ in range(repeats):
        for (side, task), timings in zip(entrants, seconds, strict=True):
            time.sleep(PAUSE_S)
            timings.append(side.call(task)[1])
    return seconds


# ---- the table -------------------------------------------------------------------------------------------------------


def rows(task: str, mine: Side, peer: Side | None, repeats: int) -> Iterator[str]:
    """The lines of one task: each contestant, then the ratio to the faster layout of the peer."""
    entrants = [(mine, task)] + ([(peer, f"{task}, {layout}") for layout in LAYOUTS] if peer else [])
    names = ["femur3d", *(f"PyTorch, {layout}" for layout in LAYOUTS)]
    timings = take_turns(entrants, repeats)
    medians, bests = [statistics.median(t) for t in timings], [min(t) for t in timings]
    for (side, _), name, median, best in zip(entrants, names, medians, bests, strict=False):
        yield f"{task:15}{name:26}{side.call('parameters')[0]:12,}{median:11.3f}{best:11.3f}"
    if peer:
        ratio, best_ratio = (own / min(others) for own, *others in (medians, bests))
        yield f"{task:15}{'femur3d / faster PyTorch':26}{'':12}{ratio:11.2f}{best_ratio:11.2f}"


def machine() -> str:
    """Cores, processor, load and Python of this machine."""
    info = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    names = [line.partition(":")[2].strip() for line in info.splitlines() if line.startswith("model name")]
    load = f"load average {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "load unknown"
    name = (names or [platform.processor() or platform.machine()])[0]
    return f"{cores()} cores, {name}, {load} at the start; Python {platform.python_version()}"


def peer_wanted(flag: str | None) -> bool:
    """Whether PyTorch takes part. Raises UsageError where it is asked for and not installed."""
    installed = importlib.util.find_spec("torch") is not None
    if flag == "torch" and not installed:
        raise UsageError("--peer torch: PyTorch is not installed.\nExpected it from pip install femur3d[bench].")
    if flag is None and not installed:
        print("PyTorch is not installed (pip install femur3d[bench]): femur3d alone.")
    return installed and flag != "none"


def main(argv: Sequence[str]) -> int:
    """Starts the sides, checks that they agree, prints the table."""
    cli.no_arguments(argv)
    experiment = make_experiment(WIDTH.value, PATCH.value, BATCH.value)
    with contextlib.ExitStack() as stack:
        names = ["femur3d", "torch"] if peer_wanted(PEER.value) else ["femur3d"]
        print(f"Machine   {machine()}")
        sides = [stack.enter_context(start_side(name, experiment)) for name in names]
        mine, peer = sides[0], sides[1] if len(sides) > 1 else None
        network = experiment.network
        print(f"Versions  {', '.join(side.call('version')[0] for side in sides)}")
        print(f"Network   filters {network.encoder_filters} and {network.decoder_filters}, patches of {PATCH.value}³")
        if peer:
            print(f"Check     same weights, logits of both differ by {check_same(mine, peer):.0e} of the largest")
        print(f"\n{'task':15}{'contestant':26}{'parameters':>12}{'median s':>11}{'min s':>11}")
        for task in TASKS:
            print(*rows(task, mine, peer, REPEATS.value), sep="\n", flush=True)
    print(f"\nA training step has {BATCH.value} patches; a forward pass has one and stops at UpperCls.")
    print(f"{REPEATS.value} timings each, by turns. Goal: ratios of at most {GOAL} at full width.")
    return 0


if __name__ == "__main__":
    cli.run(main)
