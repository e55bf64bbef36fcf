"""Times the segmentation of a whole volume against MONAI's sliding_window_inference with PyTorch: network, same tiles.

    python -m benchmarks.inference [--width 1.0] [--size 300,200,100] [--scan PATH] [--model DIR|random]
        [--peer monai|none] [--layouts first,last]

Both sides have the same weights, take the same patches of the same volume at a stride of half a patch, normalise each
and average their probabilities. femur3d then does it once more in its fast mode. Printed are the seconds, the ratios,
how far the label maps (P > 0.5) agree, and femur3d's memory.

The network has the given width and computes what a trained model computes, by default the shipped one (see
wider_network.py), on that model's voxels and patches: the fast mode refines where it has found a femur, so there has to
be a network that finds femurs. The volume is a scan or, without one, the image of a phantom of both hips (synthetic).
With --size it is cut to that, or filled up with its mirror images: for times of a larger volume with as much femur in
it; how far the label maps agree on such bodies says little. With `--model random` the weights are random, the patches
64³ and the phantom fills the volume: the fast mode then is unsure everywhere, its worst case.

Close other programs first. `pip install '.[train,bench]'` installs both sides. With
KERAS_BACKEND=jax femur3d computes with JAX.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib.util
import resource
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags

from benchmarks.benchmark_process import Tasks, cores, machine, scaled_network, start_process
from femur3d import cli
from femur3d.config import Network, Preprocessing
from femur3d.data.patches import make_normalise
from femur3d.errors import UsageError
from femur3d.evaluation.overlap import count_overlap, dice

OVERLAP = 0.5  # of patches: stride 32 for 64³
SIZE = (300, 200, 100)  # voxels along (x, y, z)
SHIPPED = Path(__file__).parents[1] / "femur3d" / "models" / "hip_t1"
RANDOM = "random"
PATCHES = Preprocessing(patch_size=(64, 64, 64))  # of random weights; the phantom then fills the field of view
GOALS = "Goals at full width, 300,200,100: at least 1.6 and 8 times as fast as MONAI; at most 0.01% of voxels differ."


@dataclasses.dataclass(frozen=True)
class Subject:
    """What is segmented, and by which weights.

    Attributes:
        size: voxels along (x, y, z); None: all of the scan or the phantom.
        model: folder of a trained model; None: random weights.
        scan: path of a scan that takes the phantom's place.
    """

    size: tuple[int, int, int] | None
    model: str | None
    scan: str | None


def volume_array(subject: Subject, preprocessing: Preprocessing) -> np.ndarray:
    """The scan or the phantom's image as the network takes it: float32 (z, y, x), normalised."""
    from femur3d.data.preprocessing import normalise, prepare_scan, rounded
    from femur3d.io.images import read_scan
    from femur3d.phantom.hip import FIELD_OF_VIEW_MM, make_phantom

    if subject.model is None:
        return normalise(make_phantom(0, subject.size or SIZE)[0], preprocessing.normalisation).array
    if subject.scan is not None:
        array = prepare_scan(rounded(read_scan(subject.scan).volume), preprocessing).array
    else:
        x, y, z = preprocessing.spacing_mm
        width, depth, height = FIELD_OF_VIEW_MM["both"]
        size = round(width / x), round(depth / y), round(height / z)
        image, _ = make_phantom(0, size, side="both", spacing_mm=(x, y, z))
        array = normalise(image, preprocessing.normalisation).array
    return array if subject.size is None else mirrored(array, subject.size[::-1])


def mirrored(array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The array, cut to `shape`, or filled up with its mirror images at the end of each axis."""
    missing = [(0, max(wanted - size, 0)) for wanted, size in zip(shape, array.shape, strict=True)]
    return np.pad(array, missing, mode="symmetric")[tuple(slice(wanted) for wanted in shape)]


def femur3d_tasks(config: Network, subject: Subject) -> Tasks:
    """What the process of femur3d answers to; thread settings as in femur3d.infer."""
    with cli.starting():  # as femur3d.infer does
        from femur3d.engines.backend import ENGINE
        from femur3d.engines.selection import inference_engine

    import keras

    from benchmarks.wider_network import embed_in_wider_network
    from femur3d.inference.mode import EXACT, FAST, Mode
    from femur3d.inference.saved_model import TrainedModel, load_model, weights_of
    from femur3d.inference.segmenter import Segmenter
    from femur3d.network.unet import build_network

    ENGINE.make_repeatable(training=False)
    keras.ops.matmul(keras.ops.ones((8, 8)), keras.ops.ones((8, 8)))  # wakes it: what it takes when idle is not ours
    idle_mib = _peak_mib()
    trained = load_model(Path(subject.model)) if subject.model else None
    network = embed_in_wider_network(trained.network, config) if trained else build_network(config)
    preprocessing = trained.preprocessing if trained else PATCHES
    patch = preprocessing.patch_size
    model = TrainedModel(weights_of(network), config, preprocessing, {}, "")
    array = functools.cache(lambda: volume_array(subject, preprocessing))  # not before the first tile, which is timed
    segmenter = functools.cache(lambda mode: Segmenter(model, inference_engine(fast=mode is FAST), mode))

    def first_tile(mode: Mode) -> Callable[[], tuple[int, ...]]:
        return lambda: segmenter(mode)._prepared.predict(np.zeros((1, *patch), np.float32)).shape

    return {
        "version": lambda: ", ".join(f"{name} {version}" for name, version in ENGINE.versions.items()),
        "weights": lambda: {layer.name: layer.get_weights() for layer in network.layers if layer.weights},
        "preprocessing": lambda: preprocessing,
        "first tile": first_tile(EXACT),
        "first fast tile": first_tile(FAST),
        "volume": lambda: array().shape,
        "exact": lambda: segmenter(EXACT)._slide(array(), patch, None)[0].probability,
        "fast": lambda: segmenter(FAST)._slide(array(), patch, None)[0].probability,
        "fast engine": lambda: segmenter(FAST)._prepared.versions,
        "memory": lambda: (idle_mib, _peak_mib()),
    }


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def monai_tasks(config: Network, subject: Subject, preprocessing: Preprocessing) -> Tasks:
    """What the process of MONAI answers to: the same in PyTorch's two layouts."""
    with cli.quiet_imports():  # where TensorFlow is installed, MONAI imports it
        import monai
    import torch
    from monai.inferers import sliding_window_inference

    from benchmarks import torch_peer

    torch.set_num_threads(cores())
    networks = {layout: torch_peer.build_layers(config).eval() for layout in torch_peer.FORMATS}
    networks["channels last"].to(memory_format=torch.channels_last_3d)
    volume = torch.from_numpy(volume_array(subject, preprocessing))[None, None]
    normalise, patch = make_normalise(preprocessing.normalisation), preprocessing.patch_size

    def slide(layout: str) -> np.ndarray:
        def predict(windows: Any) -> Any:
            patches = np.stack([normalise(w) for w in windows[:, 0].numpy()])
            x = torch.from_numpy(patches)[:, None].to(memory_format=torch_peer.FORMATS[layout])
            logits = torch_peer.compute_logits(networks[layout], x, ("upper",))["upper"]
            return (logits[:, 1:] - logits[:, :1]).sigmoid()

        with torch.inference_mode():
            return sliding_window_inference(volume, patch, 1, predict, overlap=OVERLAP, mode="constant")[0, 0].numpy()

    tasks: dict[str, Callable[..., Any]] = {
        "version": lambda: f"MONAI {monai.__version__}, PyTorch {torch.__version__}",
        "load": lambda weights: [torch_peer.load_weights(network, weights) for network in networks.values()],
    }
    return tasks | {layout: (lambda layout=layout: slide(layout)) for layout in networks}


def agreement(a: np.ndarray, b: np.ndarray) -> str:
    """Share of voxels that P > 0.5 calls differently, and the Dice of the two."""
    first, second = a > 0.5, b > 0.5
    score = dice(count_overlap(first, second))
    return f"{np.mean(first != second):.4%} of voxels differ, Dice {score:.5f}"


def run(config: Network, subject: Subject, layouts: Sequence[str]) -> None:
    """Starts the processes, lets them work one after the other, and prints."""
    with contextlib.ExitStack() as stack:
        print(f"Machine   {machine()}")
        start = time.perf_counter()
        mine = stack.enter_context(start_process("femur3d", femur3d_tasks, config, subject))
        mine.call("first tile")
        print(f"Start-up  {time.perf_counter() - start:.1f} s to the first tile")
        shape = mine.call("volume")[0]
        exact, seconds = mine.call("exact")
        idle, peak = mine.call("memory")[0]
        print(f"Memory    {peak - idle:,.0f} MiB above an idle {mine.call('version')[0]} ({idle:,.0f} MiB), exact mode")
        preprocessing = mine.call("preprocessing")[0]
        weights = f"the weights of {subject.model}, embedded in a wider network" if subject.model else "random weights"
        print(f"Network   filters {config.encoder_filters} and {config.decoder_filters}, {weights}")
        print(f"Patches   {preprocessing.patch_size} (z, y, x), stride half of that")
        print(f"Volume    {shape} (z, y, x), {subject.scan or 'a phantom (synthetic)'}; {mine.call('version')[0]}")
        print(f"{'femur3d, exact':30}{seconds:10.1f} s", flush=True)
        mine.call("first fast tile")
        fast, fast_seconds = mine.call("fast")
        engine = "".join(f", {name} {version}" for name, version in mine.call("fast engine")[0].items())
        print(
            f"{'femur3d, fast':30}{fast_seconds:10.1f} s   against exact: {agreement(exact, fast)}{engine}", flush=True
        )
        if layouts:
            peer = stack.enter_context(start_process("MONAI", monai_tasks, config, subject, preprocessing))
            peer.call("load", mine.call("weights")[0])
            print(peer.call("version")[0])
        for layout in layouts:
            theirs, their_seconds = peer.call(layout)
            print(f"{f'MONAI, {layout}':30}{their_seconds:10.1f} s   against exact: {agreement(exact, theirs)}")
            ratios = f"{their_seconds / seconds:.2f} times as fast, {their_seconds / fast_seconds:.1f} in its fast mode"
            print(f"{'':30}femur3d is {ratios}", flush=True)
    print(GOALS)


def wanted_layouts(peer: str | None, layouts: Sequence[str]) -> list[str]:
    """PyTorch's layouts to time; none without MONAI. Raises UsageError where it is asked for and not installed."""
    installed = all(importlib.util.find_spec(name) is not None for name in ("torch", "monai"))
    if peer == "monai" and not installed:
        raise UsageError("--peer monai: MONAI is not installed.\nExpected it from pip install '.[bench]'.")
    if peer is None and not installed:
        print("MONAI is not installed (pip install '.[bench]'): femur3d alone.")
    return [f"channels {name}" for name in layouts] if installed and peer != "none" else []


def _define_flags() -> None:
    """Not at import: the processes of the benchmark import this module too."""
    flags.DEFINE_float("width", 1.0, "Filters as a part of the paper's.", lower_bound=1 / 64, upper_bound=4)
    flags.DEFINE_list("size", None, f"Voxels along x,y,z; by default all there are, {SIZE} with random weights.")
    flags.DEFINE_string("model", str(SHIPPED), f"Folder of a model that the network is to compute, or '{RANDOM}'.")
    flags.DEFINE_string("scan", None, "A scan instead of a phantom.")
    flags.DEFINE_enum("peer", None, ["monai", "none"], "By default monai where it is installed.")
    flags.DEFINE_multi_enum(
        "layouts", ["first", "last"], ["first", "last"], "PyTorch's channels: first is its default."
    )


def main(argv: Sequence[str]) -> int:
    """Parses and runs."""
    cli.no_arguments(argv)
    values = flags.FLAGS
    if values.size and (len(values.size) != 3 or not all(word.isdigit() and int(word) >= 8 for word in values.size)):
        raise UsageError(f"--size: received {','.join(values.size)}.\nExpected three numbers of at least 8.")
    model = None if values.model == RANDOM else values.model
    if model is not None and not (Path(model) / "config.json").is_file():
        raise UsageError(f"--model: {model} holds no config.json.\nExpected a folder of a model, or '{RANDOM}'.")
    if values.scan and not (model and Path(values.scan).exists()):
        raise UsageError(f"--scan: received {values.scan}.\nExpected a scan that is there, and a trained --model.")
    x, y, z = (int(word) for word in values.size or SIZE)
    subject = Subject((x, y, z) if values.size else None, model, values.scan)
    run(scaled_network(values.width), subject, wanted_layouts(values.peer, values.layouts))
    return 0


if __name__ == "__main__":
    _define_flags()
    cli.run(main)
