"""HDF5 files that were written by femur3d or by who knows whom: opened, looked through, made smaller."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator

import h5py
import numpy as np

from femur3d.errors import FemurError, InputError
from femur3d.io.atomic import replacing

try:
    import resource
except ModuleNotFoundError:  # Windows
    resource = None  # type: ignore[assignment]

OPENING_CPU_SECONDS = 6  # a hang in HDF5 computes all the time, and a busy machine is no reason to refuse a file
OPENING_SECONDS = 120.0


def open_hdf5(path: str | os.PathLike[str]) -> h5py.File:
    """Opens a file for reading. Raises InputError where it is missing, empty or no HDF5 file."""
    if not os.path.isfile(path):
        raise InputError(f"{path}: no such file.\nCheck the path.")
    try:
        return h5py.File(path, "r")
    except OSError as error:
        if "unable to lock" in str(error):
            raise InputError(
                f"{path}: locked by another process, or on a file system that has no locks.\n"
                "Wait for it, or set HDF5_USE_FILE_LOCKING=FALSE in the environment."
            ) from error
        raise InputError(
            f"{path}: not a readable HDF5 file of {os.path.getsize(path)} bytes ({_first_line(error)}).\n"
            "Copy or make the file again."
        ) from error


def open_in_child(path: str | os.PathLike[str]) -> None:
    """Raises InputError where HDF5 crashes or hangs over a file, found out in a process of its own; for old files.

    What else is wrong with it is left to `open_hdf5` and `reading_hdf5`.
    """
    code = "import sys; from femur3d.io.formats import hdf5; hdf5.look_through(sys.argv[1])"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        [sys.executable, "-c", code, os.fspath(path)],
        env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    ) as child:  # fmt: skip
        try:
            code_of_end = child.wait(timeout=OPENING_SECONDS)
        except subprocess.TimeoutExpired:
            child.kill()
            code_of_end = -1
    if code_of_end < 0:
        raise InputError(f"{path}: damaged, HDF5 cannot open it.\nCopy or make the file again.")


def look_through(path: str) -> None:
    """Reads all names and attributes of a file; where it takes too long, the system ends this process."""
    if resource:
        used = resource.getrusage(resource.RUSAGE_SELF)
        limit = int(used.ru_utime + used.ru_stime) + OPENING_CPU_SECONDS
        resource.setrlimit(resource.RLIMIT_CPU, (limit, limit))
    with h5py.File(path, "r") as file:
        plain_datasets(file, path)
        file.visititems(lambda _, item: list(item.attrs.items()) and None)


@contextlib.contextmanager
def reading_hdf5(path: str | os.PathLike[str]) -> Iterator[None]:
    """Whatever HDF5 and h5py raise over a damaged file in here becomes an InputError that names it."""
    try:
        yield
    except FemurError:
        raise
    except Exception as error:  # RuntimeError, KeyError, OSError, ValueError, … from any call
        raise InputError(f"{path}: damaged ({_first_line(error)}).\nCopy or make the file again.") from error


def check_space(path: str | os.PathLike[str], size: int) -> None:
    """Takes `size` bytes of disk beside `path` and gives them back. Raises OSError where there are not as many.

    To be asked before HDF5 writes: it may crash when it closes a file that the disk did not take (h5py 3.16).
    """
    with tempfile.TemporaryFile(dir=os.path.dirname(os.path.abspath(path))) as file:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, size)


@contextlib.contextmanager
def writing_hdf5(path: str | os.PathLike[str]) -> Iterator[None]:
    """A full disk in here becomes an InputError that names the file: HDF5 raises RuntimeError as well as OSError."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        raise InputError(f"{path}: cannot be written ({_first_line(error)}).\nIs the disk full?") from error


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).partition("\n")[0]


def store_as_half(path: str | os.PathLike[str]) -> None:
    """Rewrites an HDF5 file of ours with every floating-point array as float16.

    Raises:
        ValueError: a number is beyond the range of float16.
    """

    def copy(name: str, item: h5py.Group | h5py.Dataset) -> None:
        if isinstance(item, h5py.Group):
            made = half.require_group(name)
        else:
            with np.errstate(over="ignore"):
                array = item[...].astype(np.float16) if item.dtype.kind == "f" else item[...]
            if array.dtype.kind == "f" and not np.isfinite(array).all():
                raise ValueError(f"{path}: {name} does not fit in float16")
            made = half.create_dataset(name, data=array)
        made.attrs.update(item.attrs)

    with replacing(path) as temporary, h5py.File(path, "r") as full, h5py.File(temporary, "w") as half:
        half.attrs.update(full.attrs)
        full.visititems(copy)


def plain_datasets(file: h5py.File, path: str | os.PathLike[str]) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
    """Shape and dtype of every dataset by its name in the file, without reading any.

    Raises:
        InputError: a soft or external link, external storage or a virtual dataset: something that points elsewhere.
    """
    found: dict[str, tuple[tuple[int, ...], np.dtype]] = {}
    pending, seen = [file["/"]], set()
    while pending:
        group = pending.pop()
        address = h5py.h5o.get_info(group.id).addr
        if address in seen:
            raise InputError(f"{path}: {group.name} is a group that stands elsewhere too.\nExpected a plain tree.")
        seen.add(address)
        for name in group:
            where = f"{group.name.rstrip('/')}/{name}"
            if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                raise InputError(f"{path}: {where} is a link to elsewhere.\nExpected arrays stored in the file itself.")
            item = group[name]
            if isinstance(item, h5py.Group):
                pending.append(item)
            elif isinstance(item, h5py.Dataset):
                if item.is_virtual or item.external:
                    raise InputError(
                        f"{path}: {where} is stored outside the file.\nExpected arrays in the file itself."
                    )
                found[where.lstrip("/")] = (item.shape, item.dtype)
            if len(found) + len(pending) + len(seen) > 100_000:
                raise InputError(f"{path}: more than 100,000 entries.\nExpected a file that femur3d wrote.")
    return found
