"""What an accelerator shows and a CPU cannot: speed beside PyTorch, seconds a scan, validation of a trained run.

    KERAS_BACKEND=jax python -m experiments.accelerator.measure --steps 100                  # beside PyTorch
    KERAS_BACKEND=jax python -m experiments.accelerator.measure --model RUN/model [--packed hips.h5 -o validation.npz]

With --steps: updates of the paper's network in bfloat16 on patches that are on the device already, by femur3d on JAX
and by PyTorch (torch.compile, autocast, channels last), in two processes that take turns. With --model: seconds for a
volume of 300×200×100 voxels at stride 32, first with compilation, then without; and the volumes of --packed that
validate, predicted at stride 32 (their label maps into a file, their Dice printed). Needs no TensorFlow or SimpleITK.
"""

from __future__ import annotations

import contextlib
import importlib.util
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags

from benchmarks.benchmark_process import Tasks, machine, start_process
from benchmarks.network import draw_batch, make_experiment, take_turns
from femur3d import cli
from femur3d.config import HEADS, OVERLAP, THRESHOLD, Experiment
from femur3d.data.packed_dataset import PackedDataset
from femur3d.data.patches import make_normalise
from femur3d.errors import UsageError
from femur3d.evaluation.overlap import count_overlap, dice
from femur3d.inference.sliding_window import predict_volume
from femur3d.io.atomic import replacing

FLAGS = flags.FLAGS
VOLUME = (100, 200, 300)  # (z, y, x): the paper's typical scan
BATCH = 8  # patches of a forward pass


def jax_tasks(experiment: Experiment, steps: int) -> Tasks:
    """The process of femur3d: `steps` updates a call."""
    import jax
    import keras

    from femur3d.engines.backend import ENGINE
    from femur3d.network.unet import build_network
    from femur3d.training.optimizer import make_optimizer

    network = build_network(experiment.network, 0, "mixed_bfloat16")
    optimizer = make_optimizer(experiment.training, network)
    train_step = ENGINE.make_train_step(network, optimizer, experiment.loss)
    images, labels = draw_batch(experiment)
    batch = jax.device_put(images[..., np.newaxis]), jax.device_put(labels)

    def updates() -> float:
        for _ in range(steps):
            scalars = train_step(*batch)
        return float(scalars["loss"])

    versions = f"JAX {jax.__version__}, Keras {keras.__version__}, {ENGINE.device_name()}"
    return {"version": lambda: versions, "updates": updates}


def torch_tasks(experiment: Experiment, steps: int) -> Tasks:
    """The process of PyTorch: the same."""
    import torch

    from benchmarks import torch_peer

    device = "cuda" if torch.cuda.is_available() else "cpu"
    layers = torch_peer.build_layers(experiment.network).to(device, memory_format=torch.channels_last_3d).train()
    optimizer = torch_peer.make_optimizer(layers, experiment)
    images, labels = draw_batch(experiment)
    x = torch.from_numpy(images)[:, None].to(device, memory_format=torch.channels_last_3d)
    femur = torch.from_numpy(labels).to(device)

    @torch.compile
    def compute_loss() -> Any:
        with torch.autocast(device, torch.bfloat16):
            logits = torch_peer.compute_logits(layers, x, HEADS)
        return torch_peer.cross_entropy(logits, femur, experiment.loss.head_weights)

    def updates() -> float:
        for _ in range(steps):
            optimizer.zero_grad()
            loss = compute_loss()
            loss.backward()
            optimizer.step()
        return float(loss.detach())

    name = torch.cuda.get_device_name() if device == "cuda" else "CPU"
    return {"version": lambda: f"PyTorch {torch.__version__} on {name}", "updates": updates}


def compare_steps(experiment: Experiment, steps: int) -> None:
    """Prints updates a second, PyTorch's too where it is installed, and the ratio of their times."""
    makers = {"femur3d": jax_tasks, "torch": torch_tasks}
    if importlib.util.find_spec("torch") is None:
        print("PyTorch is not installed: femur3d alone")
        del makers["torch"]
    with contextlib.ExitStack() as stack:
        start = [start_process(name, make, experiment, steps) for name, make in makers.items()]
        processes = [stack.enter_context(process) for process in start]
        timings = take_turns([(process, "updates") for process in processes], 3)
        best = [min(t) / steps for t in timings]
        for process, seconds in zip(processes, best, strict=True):
            print(f"{process.call('version')[0]}: {1 / seconds:.2f} updates/s, {1000 * seconds:.1f} ms each")
        if len(best) > 1:
            print(f"femur3d / PyTorch: {best[0] / best[1]:.2f} of the time")


def time_volume(predict: Callable[[np.ndarray], np.ndarray], patch_size: tuple[int, ...]) -> None:
    """Prints the seconds of two predictions of a volume of the paper's size."""
    volume = np.random.Generator(np.random.PCG64(0)).standard_normal(VOLUME, np.float32)
    for name in ("with compilation", "after it"):
        start = time.perf_counter()
        predict_volume(volume, predict, patch_size, _strides(patch_size), BATCH)
        print(f"{VOLUME[::-1]} voxels, {name}: {time.perf_counter() - start:.2f} s", flush=True)


def predict_validation(
    packed: PackedDataset, predict: Callable[[np.ndarray], np.ndarray], patch_size: tuple[int, ...]
) -> dict[str, np.ndarray]:
    """Foreground of every volume that validates, bool (z, y, x), by case and label value; prints each Dice."""
    normalise = make_normalise(packed.preprocessing["normalisation"])
    found, scores = {}, []
    for number in packed.select("val"):
        image, label = packed.read_volume(number)
        probability, _ = predict_volume(image.array, predict, patch_size, _strides(patch_size), BATCH, normalise)
        entry = packed.entries[number]
        name = f"{entry.case}_{entry.label_value}"
        found[name] = probability > THRESHOLD
        scores.append(dice(count_overlap(label.array == 1, found[name])))
        print(f"{name}: Dice {scores[-1]:.4f}", flush=True)
    print(f"Mean of {len(scores)}: {np.mean(scores):.4f}, before islands and holes are mended")
    return found


def _strides(patch_size: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(round(size * (1 - OVERLAP)) for size in patch_size)


def _with_model(folder: str) -> None:
    from femur3d.engines.backend import ENGINE
    from femur3d.inference.saved_model import load_model

    model = load_model(Path(folder))
    predict, patch_size = ENGINE.make_predict(model.network), model.preprocessing.patch_size
    time_volume(predict, patch_size)
    if FLAGS.packed:
        with PackedDataset(FLAGS.packed) as packed:
            found = predict_validation(packed, predict, patch_size)
        with replacing(FLAGS.output) as temporary, open(temporary, "wb") as file:
            np.savez_compressed(file, **found)  # type: ignore[arg-type]  # NumPy's stub: allow_pickle


def main(argv: Sequence[str]) -> int:
    """One of the two."""
    cli.no_arguments(argv)
    if not FLAGS.steps and not FLAGS.model:
        raise UsageError("Nothing to measure.\nGive --steps N, or --model DIR.")
    print(f"Machine   {machine()}")
    if FLAGS.steps:
        compare_steps(make_experiment(FLAGS.width, FLAGS.patch, 2), FLAGS.steps)
    if FLAGS.model:
        _with_model(FLAGS.model)
    return 0


if __name__ == "__main__":
    flags.DEFINE_integer("steps", 0, "Updates of a timing, beside PyTorch; 0: none.", lower_bound=0)
    flags.DEFINE_string("model", None, "Model of a run: time it on a volume of the paper's size.")
    flags.DEFINE_string("packed", None, "Packed dataset whose volumes that validate are predicted with the model.")
    flags.DEFINE_string("output", "validation.npz", "Where their label maps go.", short_name="o")
    cli.run(main)
