"""Checkpoints: all weights, the optimiser's state and the step in one file that no other backend or version minds.

A checkpoint is an uncompressed .npz of plain arrays (nothing in it can run), written to a temporary name and renamed,
with its SHA-256 behind its end;
the newest two are kept, and a damaged newest one is passed over for the one before, and goes with the next that is
written.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np

from femur3d.errors import InputError
from femur3d.io.atomic import check_seal, replacing, seal

KEPT = 2


def _state(network: keras.Model, optimizer: keras.optimizers.Optimizer) -> Iterator[tuple[str, Any]]:
    """Every variable with a name that is the same in every process that builds this network first."""
    yield from ((f"network/{v.path}", v) for v in network.variables)
    yield from ((f"optimizer/{i:04d}", v) for i, v in enumerate(optimizer.variables))


def save_checkpoint(folder: Path, step: int, network: keras.Model, optimizer: keras.optimizers.Optimizer) -> Path:
    """Writes `step_00001234.npz` and removes all but it and the one before. Returns its path."""
    path = folder / f"step_{step:08d}.npz"
    arrays = {name: keras.ops.convert_to_numpy(variable) for name, variable in _state(network, optimizer)}
    with replacing(path) as temporary:
        np.savez(temporary, step=np.int64(step), **arrays)
        seal(temporary)
    found = checkpoints(folder)
    kept = found[: found.index(path) + 1][-KEPT:]  # a later one was passed over: damaged
    for other in set(found) - set(kept):
        other.unlink()
    return path


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoints of a folder, oldest first."""
    return sorted(p for p in folder.glob("step_*.npz") if re.fullmatch(r"step_\d{8,}\.npz", p.name))


def restore_latest(
    folder: Path, network: keras.Model, optimizer: keras.optimizers.Optimizer, say: Callable[[str], None] = print
) -> int:
    """Loads the newest sound checkpoint into the network and the built optimiser.

    Args:
        say: told of a damaged one that is passed over.

    Returns:
        Its step; 0 where there is none.

    Raises:
        InputError: there are checkpoints but none is sound, or one does not fit this network.
    """
    found = checkpoints(folder)
    for path in reversed(found):
        try:
            arrays = _read(path)
            step = int(arrays["step"])
        except (MemoryError, PermissionError):  # it may be sound
            raise
        except Exception:  # zipfile and NumPy raise anything over a damaged file, NotImplementedError for one
            say(f"{path}: damaged; what came after the checkpoint before is computed again")
            continue
        _assign(arrays, network, optimizer, path)
        return step
    if found:
        raise InputError(f"{found[-1]}: damaged, and no older checkpoint is sound.\nStart again with another --run.")
    return 0


def _read(path: Path) -> dict[str, np.ndarray]:
    check_seal(path)
    with np.load(path, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


def _assign(
    arrays: dict[str, np.ndarray], network: keras.Model, optimizer: keras.optimizers.Optimizer, path: Path
) -> None:
    state = dict(_state(network, optimizer))
    for name, variable in state.items():
        found = arrays[name].shape if name in arrays else "nothing"
        if found != tuple(variable.shape):
            raise InputError(f"{path}: does not fit this experiment.\nExpected {name} {variable.shape}; found {found}.")
    for name, variable in state.items():
        variable.assign(arrays[name])
