"""Ports C3D's weights into the layout of femur3d's encoder, and proves that the ported layers compute the same.

    python tools/port_c3d.py --weights FILE -o data/c3d_encoder.h5

FILE is conv3d_deepnetA_sport1m_iter_1900000, as its authors published it, or a file of the same format and any width.
Writes HDF5 with conv1a/kernel (z, y, x, in, out), conv1a/bias (out), … conv4b/bias, float32; where they came from
stands in its attributes. The activations of every layer on a random volume are then computed twice, from FILE with
NumPy and from the written file with Keras: where they differ, the command fails and writes nothing.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np
from absl import flags

import femur3d
from femur3d import cli
from femur3d.errors import EXIT_INTERNAL, FemurError, InputError, UsageError
from femur3d.io.atomic import replacing, seal
from tools.c3d.caffe_reader import COLOURS, BlobError, Net, check_convolutions, dimensions, read_net, short

with cli.quiet_imports():
    import keras

    from femur3d.config import MAX_FILTERS, Network
    from femur3d.network.encoder import STAGES
    from femur3d.network.encoder_weights import check_source_is_named, load_encoder_weights
    from femur3d.network.unet import build_network

PUBLISHED_SHA256 = "de192a0b05918bd1ca49b2c2f783f3c62b243df4013b2a73067862f869783d21"
ENCODER = tuple(name for stage in STAGES for name in stage)
# Where each array of the output comes from: layer of the source and number of its blob.
NAME_MAP = {f"{name}/{part}": (name, i) for name in ENCODER for i, part in enumerate(("kernel", "bias"))}
CONVERSION = "(out, in, length, height, width) -> (length, height, width, in, out); conv1a summed over in = R, G, B"
PROOF_SIZE = 16  # three poolings leave 2×2×2 voxels: every tap of every kernel still meets a voxel
TOLERANCE = 1e-4  # of the largest activation of the layer


class ProofError(FemurError):
    """The ported layers do not compute what the source computes."""

    exit_code = EXIT_INTERNAL


@dataclasses.dataclass(frozen=True)
class ProofRow:
    """One line of the proof.

    Attributes:
        name: of the layer.
        shape: of its kernel, (z, y, x, in, out).
        active: share of the layer's inputs that are not zero: a silent input proves nothing.
        largest: activation, absolute, in the independent computation.
        difference: largest one between the two computations, as a part of `largest`.
    """

    name: str
    shape: tuple[int, ...]
    active: float
    largest: float
    difference: float


def port(weights: Path, output: Path) -> list[ProofRow]:
    """Reads the source, writes the encoder's weights to `output` once they are proved, and prints what was done.

    Raises:
        InputError: a source that is not of C3D's format, or a surrogate with an output that is not called so.
        ProofError: the proof failed; nothing was written.
    """
    net = read_source(weights)
    check_source_is_named(output, source_kind(net))
    filters = stage_filters(net)
    _print_layers(net, filters)
    net = dataclasses.replace(net, layers={name: net.layers[name] for name in ENCODER})  # frees the larger part
    with replacing(output) as temporary:
        write_encoder(temporary, net, filters)
        seal(temporary)
        rows = prove(temporary, net, filters)
        _print_proof(rows)
        _check_proof(rows)
    print(f"{output}: encoder weights from {weights.name} ({source_kind(net)})")
    return rows


def read_source(path: Path) -> Net:
    """The network of a weight file, its encoder's layers checked. Raises InputError."""
    try:
        net = read_net(path)
        check_convolutions(net, ENCODER)
    except BlobError as error:
        raise InputError(str(error)) from error
    return net


def stage_filters(net: Net) -> tuple[int, ...]:
    """Filters of the encoder's stages, as in the file. Raises InputError where one stage has several widths."""
    for stage in STAGES:
        widths = [len(net.layers[name].blobs[0]) for name in stage]
        if len(set(widths)) > 1 or max(widths) > MAX_FILTERS:
            raise InputError(
                f"{net.path}: {', '.join(stage)} have {', '.join(map(str, widths))} filters.\n"
                f"Expected one width in a stage, at most {MAX_FILTERS}; "
                f"C3D's stages have {_listed(Network().encoder_filters)}."
            )
    return tuple(len(net.layers[stage[0]].blobs[0]) for stage in STAGES)


def to_keras(net: Net, target: str) -> np.ndarray:
    """The one conversion from Caffe's layout to Keras's.

    A kernel (out, in, length, height, width) becomes (length, height, width, in, out): both apply it as
    cross-correlation, so nothing is flipped, and length, height, width are z, y, x. The first kernel is summed over its
    three colours **(ours)**: an MR voxel is grey, R = G = B. A bias becomes (out,).

    Args:
        net: the source.
        target: a key of NAME_MAP, e.g. 'conv1a/kernel'.

    Returns:
        float32, the source's bits except for the sum.
    """
    name, number = NAME_MAP[target]
    array = net.layers[name].blobs[number]
    if number == 1:
        return array.reshape(-1)
    if name == ENCODER[0]:
        array = array.sum(axis=1, keepdims=True, dtype=np.float32)
    return np.ascontiguousarray(array.transpose(2, 3, 4, 1, 0))


def source_kind(net: Net) -> str:
    """'c3d' for the published file, 'surrogate' for one that says so itself, otherwise 'unknown'."""
    if net.sha256 == PUBLISHED_SHA256:
        return "c3d"
    return "surrogate" if net.name.startswith("surrogate") else "unknown"


def write_encoder(path: str | os.PathLike[str], net: Net, filters: Sequence[int]) -> None:
    """Writes every array of NAME_MAP and, as attributes, where they came from."""
    with h5py.File(path, "w") as file:
        for target in NAME_MAP:
            file.create_dataset(target, data=to_keras(net, target), dtype=np.float32)
        file.attrs.update(
            source_file=net.path.name.encode("utf-8", "replace").decode(),
            source_sha256=net.sha256,
            source_size=net.size,
            source_network=net.name,
            source_kind=source_kind(net),
            encoder_filters=list(filters),
            mapping=json.dumps({target: f"{name} blob {i}" for target, (name, i) in NAME_MAP.items()}),
            conversion=CONVERSION,
            femur3d_version=femur3d.__version__,
        )


def prove(ported: str | os.PathLike[str], net: Net, filters: Sequence[int]) -> list[ProofRow]:
    """Compares all layers of the ported file with the source's, on one random grey volume. Raises InputError.

    Both sides chain convolution, ReLU and pooling as the encoder does; batch normalisation, which C3D has not, is
    left out.
    """
    with keras.device("cpu:0"):  # a GPU may round to TF32, which is coarser than the tolerance
        network = build_network(Network(encoder_filters=tuple(filters), decoder_filters=(1, 1, 1)))
        load_encoder_weights(ported, network)
        volume = np.random.default_rng(0).standard_normal((PROOF_SIZE,) * 3)
        found = encoder_activations(network, volume.astype(np.float32))
    expected = source_activations(net, volume.astype(np.float32))
    return [_row(network, name, *expected[name], found[name]) for name in ENCODER]


def encoder_activations(network: keras.Model, volume: np.ndarray) -> dict[str, np.ndarray]:
    """Outputs (z, y, x, out) of the encoder's convolutions by name, from Keras's layers, for a volume (z, y, x)."""
    x, found = volume[None, ..., None], {}
    for stage, names in enumerate(STAGES):
        if stage:
            x = network.get_layer(f"pool{stage}")(x)
        for name in names:
            x = network.get_layer(name)(x)
            found[name] = np.asarray(x)[0]
            x = network.get_layer(f"{name}_relu")(x)
    return found


def source_activations(net: Net, volume: np.ndarray) -> dict[str, tuple[np.ndarray, float]]:
    """The same from the source's blobs, in NumPy and float64, fed with three equal colours.

    Returns:
        By name: output (z, y, x, out), and the share of the layer's inputs that are not zero.
    """
    x = np.stack([volume.astype(np.float64)] * COLOURS)
    found: dict[str, tuple[np.ndarray, float]] = {}
    for stage, names in enumerate(STAGES):
        if stage:
            x = max_pool(x)
        for name in names:
            active = np.count_nonzero(x) / x.size
            x = correlate(x, *net.layers[name].blobs)
            found[name] = np.moveaxis(x, 0, -1), active
            x = np.maximum(x, 0)
    return found


def correlate(x: np.ndarray, kernel: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """Cross-correlation with zero padding, tap by tap: (in, z, y, x) and (out, in, 3, 3, 3) → (out, z, y, x)."""
    nz, ny, nx = x.shape[1:]
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (1, 1)))
    total = np.broadcast_to(bias.reshape(-1, 1, 1, 1), (len(kernel), nz, ny, nx)).astype(np.float64)
    for k, j, i in np.ndindex(3, 3, 3):
        tap = kernel[:, :, k, j, i].astype(np.float64)
        total += np.tensordot(tap, padded[:, k : k + nz, j : j + ny, i : i + nx], axes=1)
    return total


def max_pool(x: np.ndarray) -> np.ndarray:
    """2×2×2, stride 2: (channels, z, y, x) → (channels, z/2, y/2, x/2)."""
    c, nz, ny, nx = x.shape
    return x.reshape(c, nz // 2, 2, ny // 2, 2, nx // 2, 2).max(axis=(2, 4, 6))


def _row(network: keras.Model, name: str, expected: np.ndarray, active: float, found: np.ndarray) -> ProofRow:
    largest, difference = float(np.abs(expected).max()), float(np.abs(found - expected).max())
    relative = difference / largest if largest else difference
    return ProofRow(name, tuple(network.get_layer(name).kernel.shape), active, largest, relative)


def _check_proof(rows: Sequence[ProofRow]) -> None:
    wrong = [row.name for row in rows if not row.difference <= TOLERANCE]  # `not`: NaN is wrong too
    if wrong:
        raise ProofError(
            f"The ported {', '.join(wrong)} compute something else than the source: nothing was written.\n"
            f"Expected differences of at most {TOLERANCE:g} of the largest activation; please report this."
        )


def _print_layers(net: Net, filters: Sequence[int]) -> None:
    print(f"{net.path}: network {short(net.name)}, {net.size:,} bytes, SHA-256 {net.sha256} ({source_kind(net)})")
    for name, layer in net.layers.items():
        print(f"  {name:8} {dimensions(layer.blobs[0].shape):18} {'ported' if name in ENCODER else 'skipped'}")
    if tuple(filters) != Network().encoder_filters:
        print(f"  not C3D's width: fits network.encoder_filters=({_listed(filters)}) only")


def _print_proof(rows: Sequence[ProofRow]) -> None:
    print("Proof, NumPy from the source against Keras from the port:")
    print(f"  {'layer':8} {'kernel':18} {'active inputs':>13} {'largest output':>15} {'difference':>11}")
    for row in rows:
        shape = dimensions(row.shape)
        print(f"  {row.name:8} {shape:18} {row.active:13.1%} {row.largest:15.6g} {row.difference:11.1e}")


def _listed(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers))


def check_paths(weights: str | None, output: str | None) -> tuple[Path, Path]:
    """The file to read and the one to write. Raises UsageError where one is not given or would destroy something."""
    if not weights or not output:
        raise UsageError(f"Received --weights {weights} -o {output}.\nExpected a file to read and a file to write.")
    if os.path.isdir(output) or os.path.realpath(output) == os.path.realpath(weights):
        raise UsageError(f"-o: {output} is a folder or the weight file itself.\nExpected another file to write.")
    return Path(weights), Path(output)


def define_flags() -> None:
    """Not at import: other tools use the functions above, and have flags of the same names."""
    flags.DEFINE_string("weights", None, "C3D's weight file, or one of the same format.")
    flags.DEFINE_string("output", None, "HDF5 file to write.", short_name="o")


def main(argv: Sequence[str]) -> int:
    """Checks the flags and ports."""
    cli.no_arguments(argv)
    weights, output = check_paths(flags.FLAGS.weights, flags.FLAGS.output)
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"  # the proof runs on the CPU: no need to wake a GPU
    port(weights, output)
    return 0


if __name__ == "__main__":
    define_flags()
    cli.run(main)
