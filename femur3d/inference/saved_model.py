"""A trained model as a folder: `config.json` and `model.weights.h5`. Nothing in it can run.

The network is built in code from the configuration; the weights file is checked against it, name by name, before an
array is read.
"""

from __future__ import annotations

import collections
import ctypes
import dataclasses
import functools
import hashlib
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from femur3d.config import Network, Preprocessing
from femur3d.errors import InputError, UsageError
from femur3d.inference.quality_limits import Limit, read_limits
from femur3d.io.atomic import replacing
from femur3d.io.formats.hdf5 import check_space, open_hdf5, plain_datasets, reading_hdf5, store_as_half, writing_hdf5
from femur3d.io.integrity import read_json, write_json
from femur3d.io.settings import Section, current_name, from_dict, to_dict
from femur3d.network.weights import layers_with_weights

if TYPE_CHECKING:  # an engine without it reads models too
    import keras

FORMAT = "femur3d-model-1"
CONFIG, WEIGHTS = "config.json", "model.weights.h5"
CLASSES = ("background", "femur")
MAX_CONFIG_BYTES = 1_000_000
ROOM = 1 << 20  # bytes for HDF5's own
SHIPPED = Path(__file__).parents[1] / "models" / "hip_t1"  # what `infer` and `segment` try first


@dataclasses.dataclass(frozen=True, eq=False)
class TrainedModel:
    """A network and what must travel with it.

    Attributes:
        weights: of every layer by its name, see `network.weights`; float32.
        network_config: its filters.
        preprocessing: orientation, spacing and patch size that it was trained with.
        provenance: where it comes from: experiment, step, dataset, software; free of meaning to the code.
        weights_sha256: hexadecimal digest of the weights file.
        quality: limits of the quality measures, see `quality_limits`; {} where the folder has none.
    """

    weights: dict[str, list[np.ndarray]]
    network_config: Network
    preprocessing: Preprocessing
    provenance: dict[str, Any]
    weights_sha256: str
    quality: dict[str, Limit] = dataclasses.field(default_factory=dict)

    @functools.cached_property
    def network(self) -> keras.Model:
        """The network in Keras."""
        from femur3d.network.unet import build_network

        network = build_network(self.network_config, seed=None)
        for name, arrays in self.weights.items():
            network.get_layer(name).set_weights(arrays)
        return network


def weights_of(network: keras.Model) -> dict[str, list[np.ndarray]]:
    """A Keras network's weights as `TrainedModel` has them."""
    return {layer.name: layer.get_weights() for layer in network.layers if layer.weights}


def save_model(
    folder: Path,
    network: keras.Model,
    network_config: Network,
    preprocessing: Preprocessing,
    provenance: dict[str, Any],
    half: bool = False,
) -> None:
    """Writes the folder beside its place and swaps it in, so that config and weights always belong together.

    With `half` the weights are stored as float16.

    Raises:
        InputError: the disk is full, say.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    new = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        with replacing(new / WEIGHTS) as temporary, writing_hdf5(folder):
            check_space(temporary, sum(weight.nbytes for weight in network.get_weights()) + ROOM)
            network.save_weights(temporary)
            if half:
                store_as_half(temporary)
        config: dict[str, Any] = {
            "format": FORMAT,
            "network": to_dict(network_config),
            "preprocessing": to_dict(preprocessing),
            "classes": CLASSES,
            "sides": "from anatomy in world coordinates",
            "provenance": provenance,
            "weights_sha256": _sha256(new / WEIGHTS),
        }
        config["config_sha256"] = _meaning_sha256(config)
        write_json(new / CONFIG, config)
        new.chmod(0o755)
        _swap(new, folder)
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)
        raise


def _swap(new: Path, folder: Path) -> None:
    """Puts `new` in the place of `folder`, at once where the system can, so that there is a model at every moment."""
    old = folder.with_name(f"{new.name}-old")
    if not folder.exists():
        os.replace(new, folder)
    elif _exchange(new, folder):
        shutil.rmtree(new, ignore_errors=True)
    else:
        os.replace(folder, old)
        try:
            os.replace(new, folder)
        except BaseException:
            os.replace(old, folder)
            raise
        shutil.rmtree(old, ignore_errors=True)


def _exchange(first: Path, second: Path) -> bool:
    """Exchanges two folders in one operation. Returns False where the system or the disk cannot (Linux alone can)."""
    exchange = 2  # RENAME_EXCHANGE of renameat2(2)
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError, TypeError):
        return False
    here = -100  # AT_FDCWD
    return rename(here, os.fsencode(first), here, os.fsencode(second), exchange) == 0


def recover_model(folder: Path) -> None:
    """Puts right what a killed `save_model` left: a model that was taken away is there again, the rest is removed."""
    leftovers = sorted(folder.parent.glob(f".{folder.name}-*"))
    for old in leftovers:
        if old.name.endswith("-old") and not folder.exists():
            new = old.with_name(old.name.removesuffix("-old"))
            os.replace(new if new.exists() else old, folder)
    for leftover in leftovers:
        shutil.rmtree(leftover, ignore_errors=True)


def load_model(folder: Path) -> TrainedModel:
    """Reads the weights once they are seen to be just what the network in `config.json` expects.

    Raises:
        InputError: a missing or damaged file, a checksum that differs, or weights of other names, shapes or types.
    """
    config = read_config(folder)
    network_config = _section(Network, folder, config, "network")
    preprocessing = _section(Preprocessing, folder, config, "preprocessing")
    meaning = _meaning_sha256(config)
    if config.get("config_sha256", meaning) != meaning:
        raise InputError(
            f"{folder / CONFIG}: not what was written: its values do not fit its config_sha256.\n"
            "Expected the file of a training: copy the model folder again."
        )
    limits = read_limits(folder)
    digest = _sha256(folder / WEIGHTS)
    if digest != config["weights_sha256"]:
        raise InputError(
            f"{folder / WEIGHTS}: SHA-256 {digest[:16]}…, but {CONFIG} says {str(config['weights_sha256'])[:16]}….\n"
            "Expected the two files of one training: copy the model folder again."
        )
    with reading_hdf5(folder / WEIGHTS):
        check_weights(folder / WEIGHTS, network_config)
        weights = _read_weights(folder / WEIGHTS, network_config)
    if not all(np.isfinite(w).all() for layer in weights.values() for w in layer):
        raise InputError(f"{folder / WEIGHTS}: weights that are not finite.\nExpected the model of a sound training.")
    return TrainedModel(weights, network_config, preprocessing, config["provenance"], digest, limits)


def _section(kind: type[Section], folder: Path, config: dict[str, Any], name: str) -> Section:
    try:
        return from_dict(kind, config[name], f"{folder / CONFIG}: {name}")
    except UsageError as error:  # of a setting, but here it is a file's
        message = f"{folder / CONFIG}: {name}.{error}"
        raise InputError(f"{message}\nExpected the file of a training: copy the model folder again.") from error


def find_model(name: str) -> Path:
    """The folder of a model: `name` itself, or that of one that comes with femur3d, such as 'hip_t1'."""
    shipped = SHIPPED.parent / name
    return shipped if name.isidentifier() and not Path(name).exists() and shipped.is_dir() else Path(name)


def check_fits(folder: Path, network: Network) -> None:
    """Raises InputError where there is no model in the folder, or one of other filters."""
    found = _section(Network, folder, read_config(folder), "network")
    for name in ("encoder_filters", "decoder_filters"):
        if getattr(found, name) != getattr(network, name):
            raise InputError(
                f"{folder}: its {name} are {getattr(found, name)}, the experiment's {getattr(network, name)}.\n"
                f"Only a model of the same network can be gone on from: --set 'network.{name}={getattr(found, name)}'"
            )


def start_from(folder: Path, network: keras.Model, network_config: Network) -> dict[str, Any]:
    """Gives a network all weights of a trained model; returns which model it was, for the provenance.

    Raises:
        InputError: as `load_model` and `check_fits`.
    """
    check_fits(folder, network_config)
    model = load_model(folder)
    network.set_weights(model.network.get_weights())
    return {"name": folder.name, "weights_sha256": model.weights_sha256, "provenance": model.provenance}


def identity(folder: Path) -> dict[str, Any]:
    """'weights_sha256' and 'provenance' of a model, by its configuration. Raises InputError."""
    return {name: read_config(folder)[name] for name in ("weights_sha256", "provenance")}


def state(folder: Path) -> str:
    """A text that is another one when anything about a model is, its limits included. Raises InputError."""
    return repr((read_config(folder), read_limits(folder)))


def read_config(folder: Path) -> dict[str, Any]:
    """The model's `config.json` as a dict with every expected name. Raises InputError."""
    path = folder / CONFIG
    if not path.is_file() or not (folder / WEIGHTS).is_file():
        raise InputError(f"{folder}: no model here.\nExpected a folder with {CONFIG} and {WEIGHTS}.")
    config = read_json(path, MAX_CONFIG_BYTES, "Expected the file that femur3d.train wrote.")
    config = dict(current_name(*item) for item in config.items()) if isinstance(config, dict) else config
    names = {"format", "network", "preprocessing", "classes", "provenance", "weights_sha256"}
    known = isinstance(config, dict) and config.get("format") == FORMAT and config.get("classes") == list(CLASSES)
    if not known or not names <= set(config):
        found = config.get("format") if isinstance(config, dict) else type(config).__name__
        raise InputError(f"{path}: format {found!r}.\nExpected {FORMAT!r} with {', '.join(sorted(names))}.")
    return config


def check_weights(path: Path, network: Network) -> None:
    """Raises InputError unless the file holds just the network's arrays, of the right shapes, float, in itself."""
    expected = {place: shape for layer in _places(network).values() for place, shape in layer}
    with open_hdf5(path) as file:
        found = {_current_path(name): info for name, info in plain_datasets(file, path).items()}
    for name in sorted(set(expected) ^ set(found)):
        raise InputError(f"{path}: {name} is {'missing' if name in expected else 'unknown'}.\n{_EXPECTED}")
    for name, shape in expected.items():
        if found[name][0] != shape or found[name][1].kind != "f":
            raise InputError(
                f"{path}: {name} is {found[name][1]} {found[name][0]}; expected float {shape}.\n{_EXPECTED}"
            )


_EXPECTED = f"Expected the weights of the network in {CONFIG}."


def _current_path(name: str) -> str:
    """The name of a dataset; deconvolutions were of a class Deconv3D once."""
    return name.replace("/deconv3d", "/conv3d_transpose")


def _places(network: Network) -> dict[str, list[tuple[str, tuple[int, ...]]]]:
    """Of each layer the names of its datasets in Keras's weights file, such as `layers/conv3d_1/vars/0`, and shapes."""
    counts: collections.Counter[str] = collections.Counter()
    found = {}
    for name, (kind, shapes) in layers_with_weights(network).items():
        number = f"_{counts[kind]}" if counts[kind] else ""
        counts[kind] += 1
        found[name] = [(f"layers/{kind}{number}/vars/{i}", shape) for i, shape in enumerate(shapes)]
    return found


def _read_weights(path: Path, network: Network) -> dict[str, list[np.ndarray]]:
    """The weights in a file that `check_weights` has seen to be sound."""
    with open_hdf5(path) as file:
        stored = {_current_path(name): name for name in plain_datasets(file, path)}
        return {
            name: [file[stored[place]][...].astype(np.float32) for place, _ in places]
            for name, places in _places(network).items()
        }


def _meaning_sha256(config: dict[str, Any]) -> str:
    """SHA-256 of what a configuration says, whatever names its fields have; models of earlier versions lack it.

    Of the fields that the file has: one that a later version adds, with a default, leaves the digests of old files.
    """
    content: list[Any] = []
    for kind, name in ((Network, "network"), (Preprocessing, "preprocessing")):
        stated = {current_name(field, None)[0] for field in config[name]}
        values = to_dict(from_dict(kind, config[name]))
        content.append({field: value for field, value in values.items() if field in stated})
    text = json.dumps([*content, config["provenance"]], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
