"""Loads ported C3D kernels and biases into the encoder (section 2.2, "partial transfer")."""

from __future__ import annotations

import os

import keras
import numpy as np

from femur3d.errors import InputError
from femur3d.io.atomic import check_seal
from femur3d.io.formats.hdf5 import open_hdf5, open_in_child, plain_datasets, reading_hdf5
from femur3d.network.encoder import STAGES


def check_encoder_weights(path: str | os.PathLike[str]) -> None:
    """Raises InputError, with the way out, where there is no such file."""
    if not os.path.isfile(path):
        raise InputError(
            f"{path}: no C3D encoder weights here, and this experiment starts from them.\n"
            "Run `make c3d` (320 MB), or get C3D's weight file by hand and port it: "
            "python tools/port_c3d.py --weights FILE -o data/c3d_encoder.h5"
        )


def check_source_is_named(path: str | os.PathLike[str], kind: str) -> None:
    """Raises InputError where surrogate weights lie in a file whose name does not say so.

    Whoever trains with a surrogate has to ask for it by name: nobody shall take it for C3D.
    """
    if kind == "surrogate" and "surrogate" not in os.path.basename(path):
        raise InputError(
            f"{path}: these are weights of a surrogate, not of C3D, and the file's name does not say so.\n"
            "Expected `surrogate` in the name, as in data/surrogate_encoder.h5."
        )


def load_encoder_weights(path: str | os.PathLike[str], network: keras.Model) -> list[str]:
    """Copies kernel and bias of conv1a … conv4b into the network.

    Args:
        path: HDF5 with `NAME/kernel` (z, y, x, in, out) and `NAME/bias` (out), float.
        network: one whose encoder has C3D's widths.

    Returns:
        The names of the layers that were filled.

    Raises:
        InputError: a missing or damaged file, one of a surrogate that is not called so, or arrays that are not finite
            or do not fit the network.
    """
    check_encoder_weights(path)
    if not check_seal(path):
        open_in_child(path)
    check_source_is_named(path, encoder_provenance(path)["source_kind"])
    names = [name for stage in STAGES for name in stage]
    with reading_hdf5(path), open_hdf5(path) as file:
        found = plain_datasets(file, path)
        for name in names:
            for part, expected in (("kernel", network.get_layer(name).kernel), ("bias", network.get_layer(name).bias)):
                shape = found[f"{name}/{part}"][0] if f"{name}/{part}" in found else "nothing"
                if shape != tuple(expected.shape):
                    raise InputError(
                        f"{path}: {name}/{part} is {shape}, but the network's is {tuple(expected.shape)}.\n"
                        "Expected C3D's widths: network.encoder_filters=(64, 128, 256, 512)."
                    )
        arrays = {place: file[place][...] for name in names for place in (f"{name}/kernel", f"{name}/bias")}
        for place, array in arrays.items():
            if not (np.abs(array) <= np.finfo(np.float32).max).all():  # a training would end at its first update
                raise InputError(f"{path}: {place} holds NaN or infinity.\nCopy or make the file again.")
    for name in names:
        network.get_layer(name).kernel.assign(arrays[f"{name}/kernel"])
        network.get_layer(name).bias.assign(arrays[f"{name}/bias"])
    return names


def encoder_provenance(path: str | os.PathLike[str]) -> dict[str, str]:
    """Where ported weights come from, as `tools/c3d/port.py` wrote it: `source_kind`, `source_sha256`, `source_file`.

    `source_kind` is 'c3d', 'surrogate' or 'unknown'; what a file does not say is 'unknown' too.
    """
    with reading_hdf5(path), open_hdf5(path) as file:
        return {name: str(file.attrs.get(name, "unknown")) for name in ("source_kind", "source_sha256", "source_file")}
