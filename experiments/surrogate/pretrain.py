"""Trains a stand-in for C3D on procedural video clips: a *surrogate*, for machines that cannot reach C3D's file.

    python -m experiments.surrogate.pretrain -o data/surrogate_weights [--width 0.25] [--steps 1500] [--seed 0]

The network has C3D's layers (8 convolutions, 5 poolings, 3 inner products), `--width` times as wide; it learns to tell
the ten kinds of motion of `motion_clips.py`. The file has the format of C3D's own Caffe, so it goes through the same
port and proof: `python tools/port_c3d.py --weights data/surrogate_weights -o data/surrogate_encoder.h5`. Its network is
called `surrogate-…`, and so is every file and table that it gets into. Stop it and the same command goes on.
"""

from __future__ import annotations

import functools
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from absl import flags
from tqdm import tqdm

import femur3d
from experiments.surrogate.motion_clips import KINDS, make_clip
from femur3d import cli
from femur3d.config import Network
from femur3d.errors import UsageError
from femur3d.io.atomic import replacing
from femur3d.io.integrity import write_json
from femur3d.io.read_ahead import read_ahead
from tools.c3d.caffe_reader import CONVOLUTION3D, INNER_PRODUCT, write_net

with cli.quiet_imports():
    import keras

    from femur3d.engines.folding import all_folded
    from femur3d.inference.saved_model import weights_of
    from femur3d.network.keras_blocks import KerasBlocks
    from femur3d.training.checkpoint import restore_latest, save_checkpoint

FILTERS = (64, 128, 256, 512, 512)  # C3D's five stages
CONVOLUTIONS = (("conv1a",), ("conv2a",), ("conv3a", "conv3b"), ("conv4a", "conv4b"), ("conv5a", "conv5b"))
INNER_PRODUCTS = ("fc6-1", "fc7-1", "fc8-1")
HIDDEN = 4096  # outputs of fc6-1 and fc7-1
FRAMES, SIZE = 16, 48  # C3D has 16 frames of 112×112
BATCH = 16
RATE = 1e-3
HELD_OUT = 512  # clips of another seed, for the accuracy
CHECKPOINT_EVERY = 100


def build_classifier(width: float, clip_shape: Sequence[int], classes: int, seed: int) -> keras.Model:
    """C3D as a Keras model: (batch, frames, y, x, 3) → logits (batch, classes); `width` scales all but `classes`.

    As in C3D the first pooling keeps all frames, and the features are flattened with the channels first, which is the
    order of Caffe's fc6-1. C3D has no batch normalisation; here it stands behind each convolution, since without it
    three of four trainings stayed at chance, and `caffe_layers` folds it away.
    """
    blocks = KerasBlocks(Network(initialisation="he"), seed)
    inputs = x = keras.Input(tuple(clip_shape), name="clip")
    for stage, names in enumerate(CONVOLUTIONS):
        for name in names:
            x = blocks.conv(x, scaled(FILTERS[stage], width), name)
        x = keras.layers.MaxPooling3D(2 if stage else (1, 2, 2), padding="same", name=f"pool{stage + 1}")(x)
    x = keras.layers.Flatten()(keras.layers.Permute((4, 1, 2, 3))(x))
    for number, name in enumerate(INNER_PRODUCTS[:2]):
        units, kernels = scaled(HIDDEN, width), blocks.kernel_initializer(name)
        x = keras.layers.Dense(units, "relu", kernel_initializer=kernels, name=name.replace("-", "_"))(x)
        x = keras.layers.Dropout(0.5, seed=seed + number)(x)
    kernels = keras.initializers.GlorotUniform(seed=seed)
    logits = keras.layers.Dense(classes, kernel_initializer=kernels, name=INNER_PRODUCTS[2].replace("-", "_"))(x)
    return keras.Model(inputs, logits, name="surrogate")


def scaled(count: int, width: float) -> int:
    """`width` times a number of C3D's, at least one."""
    return max(1, round(count * width))


def clip_batches(seed: int, first: int, last: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Batches number `first` to `last` - 1: clips (batch, frames, y, x, 3) and kinds (batch); made while others train.

    A batch depends on `seed` and its number only, so that a training that was stopped goes on as if it had not been.
    """
    for batch in read_ahead(functools.partial(_batch, seed), range(first, last)):
        yield batch.result()


def _batch(seed: int, number: int) -> tuple[np.ndarray, np.ndarray]:
    clips, kinds = zip(*(make_clip(seed, number * BATCH + i, FRAMES, SIZE) for i in range(BATCH)), strict=True)
    return np.stack(clips), np.array(kinds)


def train(model: keras.Model, folder: Path, steps: int, seed: int) -> None:
    """Trains to `steps` updates (Adam, cosine to zero) from the newest checkpoint in `folder`."""
    schedule = keras.optimizers.schedules.CosineDecay(RATE, steps)
    optimizer = keras.optimizers.Adam(schedule, global_clipnorm=1.0)
    model.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    optimizer.build(model.trainable_variables)
    done = restore_latest(folder, model, optimizer)
    with tqdm(total=steps, initial=done, unit="step", desc="surrogate", disable=None) as bar:
        for step, (clips, kinds) in enumerate(clip_batches(seed, done, steps), start=done + 1):
            logs = model.train_on_batch(clips, kinds, return_dict=True)
            bar.update()
            if step % CHECKPOINT_EVERY == 0 or step == steps:
                save_checkpoint(folder, step, model, optimizer)
                line = f"Step {step}: loss {logs['loss']:.3f}, accuracy {logs['accuracy']:.3f} in its batch"
                bar.write(line) if not bar.disable else print(line, flush=True)


def accuracy(model: keras.Model, seed: int) -> float:
    """Share of HELD_OUT clips of another seed that are classified correctly."""
    batches = clip_batches(seed, 0, HELD_OUT // BATCH)
    right = sum(int((model.predict_on_batch(clips).argmax(1) == kinds).sum()) for clips, kinds in batches)
    return right / HELD_OUT


def caffe_layers(model: keras.Model) -> dict[str, tuple[int, np.ndarray, np.ndarray]]:
    """Type, kernel and bias of every layer of C3D, in its order and in Caffe's layout of five dimensions."""
    folded, layers = all_folded(weights_of(model), Network().bn_epsilon), {}
    for name in (*(n for stage in CONVOLUTIONS for n in stage), *INNER_PRODUCTS):
        kernel, bias = folded[name.replace("-", "_")]
        convolution = kernel.ndim == 5
        stored = kernel.transpose(4, 3, 0, 1, 2) if convolution else kernel.T[None, None, None]
        layers[name] = (CONVOLUTION3D if convolution else INNER_PRODUCT, stored, bias[None, None, None, None])
    return layers


def write_report(path: Path, values: Mapping[str, object]) -> None:
    """What the surrogate was trained on and how well it does it, as JSON beside the weights."""
    write_json(path, values)


def check_output(output: str | None) -> Path:
    """The file to write. Raises UsageError for none, a folder, or a name that does not say what it is."""
    if not output or os.path.isdir(output) or "surrogate" not in os.path.basename(output):
        raise UsageError(
            f"-o: received {output}.\nExpected a file whose name says `surrogate`, as in data/surrogate_weights: "
            "nobody shall take these weights for C3D's."
        )
    return Path(output)


def _define_flags() -> None:
    """Not at import: tests use the functions above."""
    flags.DEFINE_string("output", None, "Weight file to write, in the format of C3D's own Caffe.", short_name="o")
    flags.DEFINE_float("width", 1.0, "Filters as a part of C3D's.", lower_bound=1 / 64, upper_bound=1)
    flags.DEFINE_integer("steps", 1500, f"Updates of {BATCH} clips.", lower_bound=1)
    flags.DEFINE_integer("seed", 0, "Of the clips and of the initial weights.", lower_bound=0)


def main(argv: Sequence[str]) -> int:
    """Trains, measures on clips that it has not seen, writes the weights and FILE.json."""
    cli.no_arguments(argv)
    values = flags.FLAGS
    output = check_output(values.output)
    name = f"surrogate-motion{len(KINDS)}-width{values.width:g}-steps{values.steps}-seed{values.seed}"
    folder = output.with_name(f"{output.name}.{name}.checkpoints")
    model = build_classifier(values.width, (FRAMES, SIZE, SIZE, 3), len(KINDS), values.seed)
    print(f"{name}: {model.count_params():,} parameters, {values.steps:,} updates of {BATCH} clips", flush=True)
    train(model, folder, values.steps, values.seed)
    share = accuracy(model, values.seed + 1)
    with replacing(output) as temporary:
        write_net(temporary, name, caffe_layers(model))
    write_report(
        output.with_name(f"{output.name}.json"),
        {
            "network": name,
            "what": "a surrogate of C3D, trained on procedural clips; not C3D's weights",
            "kinds": KINDS,
            "clip": [FRAMES, SIZE, SIZE, 3],
            "held_out_clips": HELD_OUT,
            "held_out_accuracy": share,
            "femur3d": femur3d.__version__,
        },
    )
    shutil.rmtree(folder)
    print(f"Accuracy on {HELD_OUT} held-out clips: {share:.3f} (chance: {1 / len(KINDS):.3f})")
    print(f"{output}: surrogate weights in the format of C3D's Caffe")
    return 0


if __name__ == "__main__":
    _define_flags()
    cli.run(main)
