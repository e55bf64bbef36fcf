"""Times the way of the patches from the packed file to the training step.

    python -m benchmarks.pipeline [--packed FILE.h5] [--seconds 10]

Three questions: how many patches a second one core draws, which layout of the file is the fastest for random crops
(the reason for that of femur3d/data/packed_dataset.py), and which share of a training step waits for patches.
Without --packed a synthetic file is written to a temporary folder: the eight variants of one phantom. Close other
programs first.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from absl import flags

from benchmarks.benchmark_process import machine, scaled_network
from femur3d import cli
from femur3d.config import Loss, Preprocessing, Training
from femur3d.data.augmentation import VARIANTS, variant
from femur3d.data.packed_dataset import Entry, PackedDataset, create_packed_file
from femur3d.data.patches import random_origin
from femur3d.data.sampler import PatchSampler
from femur3d.errors import InputError, UsageError
from femur3d.io.settings import from_dict, to_dict
from femur3d.phantom.hip import make_phantom

PACKED = flags.DEFINE_string("packed", None, "A file of python -m femur3d.pack; without it, a synthetic one.")
SECONDS = flags.DEFINE_float("seconds", 10.0, "For each of the first two questions.", lower_bound=0.01)
SIZE = flags.DEFINE_list("size", ["300", "200", "100"], "Voxels of the synthetic volumes along x,y,z.")
PATCH = flags.DEFINE_integer("patch", 64, "Edge of a patch of the synthetic file; a packed file has its own.")
WIDTH = flags.DEFINE_float(
    "width", 0.25, "Filters of the trained network as a part of the paper's.", lower_bound=1 / 64
)
STEPS = flags.DEFINE_integer("steps", 40, "Training steps that are timed.", lower_bound=1)

GOAL_RATE = 300  # patches/s
GOAL_WAITING = 0.02
WARM_UP_STEPS = 3

# h5py's options; `chunks` is the edge of a cube.
LAYOUTS: Mapping[str, Mapping[str, Any]] = {
    "contiguous": {},
    "chunks 64³": {"chunks": 64},
    "chunks 32³": {"chunks": 32},
    "chunks 32³, lzf": {"chunks": 32, "compression": "lzf"},
    "chunks 32³, gzip": {"chunks": 32, "compression": "gzip"},
}


@contextlib.contextmanager
def one_core() -> Iterator[str]:
    """Keeps this thread on one core where the system can do so; yields what was done, in words."""
    if not hasattr(os, "sched_setaffinity"):
        yield "not bound to a core"
        return
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(allowed)})
    try:
        yield "on one core"
    finally:
        os.sched_setaffinity(0, allowed)


# ---- data ------------------------------------------------------------------------------------------------------------


def write_synthetic(path: Path, size: Sequence[str], patch: int) -> str:
    """Packs the eight variants of a phantom. Returns a description; raises UsageError for a size that cannot be."""
    preprocessing = Preprocessing(patch_size=(patch, patch, patch))
    try:
        x, y, z = (int(word) for word in size)
        if min(x, y, z) < patch:
            raise ValueError
    except ValueError:
        raise UsageError(
            f"--size: received {','.join(size)}.\nExpected three numbers of at least {patch}, as in 300,200,100."
        ) from None
    image, label = make_phantom(0, (x, y, z))
    scaled = (image.array - image.array.mean()) / image.array.std()
    with create_packed_file(path, "synthetic", to_dict(preprocessing)) as writer:
        for number in VARIANTS:
            entry = Entry("phantom", 1, number, "train", "synthetic")
            writer.add(entry, variant(scaled, number), variant(label.array, number), image)
    return f"synthetic, {len(VARIANTS)} volumes of {x}×{y}×{z} voxels (a phantom and its variants)"


def open_sampler(packed: PackedDataset, path: Path) -> PatchSampler:
    """The paper's sampling from the training volumes. Raises InputError where there are none, or too small ones."""
    preprocessing = from_dict(Preprocessing, packed.preprocessing)
    sampler = PatchSampler(packed, Training(), preprocessing.patch_size)
    shapes = [packed.shape(number) for number in sampler.volumes]
    if not shapes or np.any(np.min(shapes, axis=0) < preprocessing.patch_size):
        raise InputError(f"{path}: no training volume, or one smaller than a patch of {preprocessing.patch_size}.")
    return sampler


# ---- (a) patches a second --------------------------------------------------------------------------------------------


def patches_per_second(sampler: PatchSampler, seconds: float) -> float:
    """Patches a second of `PatchSampler.batch`, once every volume has been read and lies in the page cache."""
    for number in sampler.volumes:
        sampler.packed.read_volume(number)
    sampler.batch(0)
    start, step = time.perf_counter(), 0
    while (elapsed := time.perf_counter() - start) < seconds:
        sampler.batch(step)
        step += 1
    return step * sampler.training.batch_size / elapsed


# ---- (b) layouts -----------------------------------------------------------------------------------------------------


def write_layouts(folder: Path, image: np.ndarray, label: np.ndarray) -> dict[str, Path]:
    """One file a layout, each with the same float16 image and uint8 label."""
    paths = {}
    for number, (name, options) in enumerate(LAYOUTS.items()):
        paths[name] = folder / f"layout_{number}.h5"
        edge = options.get("chunks")
        chunks = tuple(min(edge, n) for n in image.shape) if edge else None
        with h5py.File(paths[name], "w") as file:
            for key, array in (("image", image), ("label", label)):
                file.create_dataset(key, data=array, **{**options, "chunks": chunks})
    return paths


def time_layouts(paths: Mapping[str, Path], patch_size: Sequence[int], seconds: float) -> dict[str, float]:
    """Median milliseconds to read a random patch, image and label, by layout; the layouts take turns."""
    timings: dict[str, list[float]] = {name: [] for name in paths}
    with contextlib.ExitStack() as stack:
        files = {name: stack.enter_context(h5py.File(path, "r")) for name, path in paths.items()}
        start, draw = time.perf_counter(), 0
        while draw < 3 or time.perf_counter() - start < seconds:
            for name, file in files.items():
                timings[name].append(1000 * _read_seconds(file, patch_size, draw))
            draw += 1
    return {name: statistics.median(values[1:]) for name, values in timings.items()}  # the first one warms up


def _read_seconds(file: h5py.File, patch_size: Sequence[int], draw: int) -> float:
    image, label = file["image"], file["label"]
    origin = random_origin(image.shape, patch_size, 0, (draw,))
    box = tuple(slice(o, o + n) for o, n in zip(origin, patch_size, strict=True))
    start = time.perf_counter()
    _ = image[box], label[box]
    return time.perf_counter() - start


def layout_rows(sampler: PatchSampler, folder: Path, seconds: float) -> Iterator[str]:
    """The table of layouts, measured on the first training volume."""
    image, label = sampler.packed.read_volume(sampler.volumes[0])
    paths = write_layouts(folder, image.array.astype(np.float16), label.array)
    timings = time_layouts(paths, sampler.patch_size, seconds)
    yield f"{'layout':20}{'ms a patch':>12}{'file, MB':>12}"
    for name, milliseconds in timings.items():
        yield f"{name:20}{milliseconds:12.2f}{paths[name].stat().st_size / 1e6:12.1f}"


# ---- (c) waiting -----------------------------------------------------------------------------------------------------


def waiting_share(sampler: PatchSampler, width: float, steps: int) -> tuple[float, float]:
    """Share of the time that training waits for `patch_stream`, and seconds a step; as the trainer measures it.

    TensorFlow is imported here: its threads must not start while the process is bound to one core.
    """
    with cli.quiet_imports():
        import tensorflow as tf

    from femur3d.engines.tensorflow_engine import TensorFlowEngine

    tf.config.threading.set_inter_op_parallelism_threads(1)  # as in femur3d.train
    train_step = _quick_train_step(sampler.training, width)
    batches = iter(TensorFlowEngine().patch_stream(sampler, 0, WARM_UP_STEPS + steps))
    for _ in range(WARM_UP_STEPS):
        train_step(*next(batches))
    waited, start = 0.0, time.perf_counter()
    for _ in range(steps):
        wait_start = time.perf_counter()
        images, labels = next(batches)
        waited += time.perf_counter() - wait_start
        _ = {name: float(value) for name, value in train_step(images, labels).items()}
    seconds = time.perf_counter() - start
    return waited / seconds, seconds / steps


def _quick_train_step(training: Training, width: float) -> Any:
    from femur3d.engines.backend import ENGINE
    from femur3d.network.unet import build_network
    from femur3d.training.optimizer import make_optimizer

    network = build_network(scaled_network(width))
    return ENGINE.make_train_step(network, make_optimizer(training, network), Loss())


# ---- output ----------------------------------------------------------------------------------------------------------


def report(sampler: PatchSampler, folder: Path) -> None:
    """Measures and prints the three answers."""
    z, y, x = sampler.patch_size
    with one_core() as bound:
        rate = patches_per_second(sampler, SECONDS.value)
        print(f"\nsampler, {bound}: {rate:.0f} patches/s of {z}×{y}×{x} (goal: at least {GOAL_RATE})\n", flush=True)
        print(*layout_rows(sampler, folder, SECONDS.value), sep="\n", flush=True)
    share, seconds = waiting_share(sampler, WIDTH.value, STEPS.value)
    print(f"\nwaiting for patches: {share:.2%} of {STEPS.value} training steps of {seconds:.3f} s", end=" ")
    print(f"at {WIDTH.value:g} of the filters (goal: less than {GOAL_WAITING:.0%})")


def main(argv: Sequence[str]) -> int:
    """Finds or writes the packed file and reports on it."""
    cli.no_arguments(argv)
    with tempfile.TemporaryDirectory(prefix="femur3d_bench_") as temporary:
        folder = Path(temporary)
        path = Path(PACKED.value) if PACKED.value else folder / "synthetic.h5"
        what = str(path) if PACKED.value else write_synthetic(path, SIZE.value, PATCH.value)
        with PackedDataset(path) as packed:
            sampler = open_sampler(packed, path)
            print(f"Machine   {machine()}\nVersions  h5py {h5py.__version__}, HDF5 {h5py.version.hdf5_version}")
            print(f"Data      {what}; {len(sampler.volumes)} training volumes", flush=True)
            report(sampler, folder)
    return 0


if __name__ == "__main__":
    cli.run(main)
