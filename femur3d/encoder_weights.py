"""Loads ported C3D kernels and biases into the encoder (section 2.2, "partial transfer")."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import keras

from femur3d.errors import InputError
from femur3d.hdf5 import open_hdf5, plain_datasets
from femur3d.network.encoder import STAGES


def check_encoder_weights(path: str | os.PathLike[str]) -> None:
    """Raises InputError, with the way out, where there is no such file."""
    if not os.path.isfile(path):
        raise InputError(
            f"{path}: no C3D encoder weights here, and transfer starts from them.\nExpected HDF5 with conv1a/kernel, "
            "conv1a/bias, … ported from C3D; the port is not in this version yet: run experiments/scratch.py instead."
        )


def load_encoder_weights(path: str | os.PathLike[str], network: keras.Model) -> list[str]:
    """Copies kernel and bias of conv1a … conv4b into the network.

    Args:
        path: HDF5 with `NAME/kernel` (z, y, x, in, out) and `NAME/bias` (out), float.
        network: one whose encoder has C3D's widths.

    Returns:
        The names of the layers that were filled.

    Raises:
        InputError: a missing or damaged file, or arrays that do not fit the network.
    """
    check_encoder_weights(path)
    names = [name for stage in STAGES for name in stage]
    with open_hdf5(path) as file:
        found = plain_datasets(file, path)
        for name in names:
            for part, expected in (("kernel", network.get_layer(name).kernel), ("bias", network.get_layer(name).bias)):
                shape = found[f"{name}/{part}"][0] if f"{name}/{part}" in found else "nothing"
                if shape != tuple(expected.shape):
                    raise InputError(
                        f"{path}: {name}/{part} is {shape}, but the network's is {tuple(expected.shape)}.\n"
                        "Expected C3D's widths: network.encoder_filters=(64, 128, 256, 512)."
                    )
        for name in names:
            network.get_layer(name).kernel.assign(file[f"{name}/kernel"][...])
            network.get_layer(name).bias.assign(file[f"{name}/bias"][...])
    return names


def file_sha256(path: str | os.PathLike[str]) -> str:
    """Hexadecimal SHA-256 of a file."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()
