"""Files that are either whole or absent: written under a temporary name, flushed to disk, then renamed."""

from __future__ import annotations

import contextlib
import glob
import hashlib
import os
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import filelock

from femur3d.errors import FemurError, InputError, UsageError

TEMPORARY = ".writing-"  # how the names of files that are being written begin
SEAL = b"\nSHA-256 of all above: "  # the digest follows, in 64 digits
SEAL_BYTES = len(SEAL) + 64
_MASK = threading.Lock()  # the process's mask of permissions is 0 while it is asked for


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary file that takes the place of `path` when the block ends well, and vanishes when it does not.

    The temporary name lies in the same folder (so that the rename cannot cross file systems), begins with a dot and
    keeps the extensions of `path`, because many writers choose their format by them. The folder is created if needed.

        with replacing("out/scan.nii.gz") as temporary:
            writer.write(temporary)

    Args:
        path: the file to create or replace; a symbolic link is followed, so that its target is replaced.

    Yields:
        The path of an empty file, to be written and closed inside the block.

    Raises:
        OSError: the folder cannot be created or written to, or the block removed the temporary file.
    """
    final = Path(os.path.realpath(path))
    final.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=TEMPORARY, suffix=f"-{final.name}", dir=final.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        temporary.chmod(_mode(final))
        yield temporary
        flush(temporary)
        os.replace(temporary, final)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            error.filename = error.filename or str(final)
        raise
    with contextlib.suppress(OSError):  # some network file systems cannot flush a folder; the file is in place by now
        flush(final.parent)


@contextlib.contextmanager
def naming(path: str | os.PathLike[str]) -> Iterator[None]:
    """An OSError in here names the file, as one of a full disk does not by itself."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or os.fspath(path)
        raise


@contextlib.contextmanager
def writing_alone(path: str | os.PathLike[str]) -> Iterator[None]:
    """Lets one process at a time make a file, and first removes what killed ones left half-written of it.

    Raises:
        UsageError: another process is making it.
    """
    final = Path(os.path.realpath(path))
    final.parent.mkdir(parents=True, exist_ok=True)
    busy = UsageError(f"{path}: another process is writing it.\nChoose another name, or wait.")
    with locked(final.with_name(f".{final.name}.lock"), busy):
        for leftover in final.parent.glob(f"{TEMPORARY}????????-{glob.escape(final.name)}"):
            leftover.unlink(missing_ok=True)
        yield


@contextlib.contextmanager
def locked(path: Path, busy: FemurError, seconds: float = 0.0) -> Iterator[None]:
    """`take_lock` and, after the block, `give_back`. Raises `busy` where another process has it for so long."""
    lock = take_lock(path, seconds)
    if lock is None:
        raise busy
    try:
        yield
    finally:
        give_back(lock)


def take_lock(path: Path, seconds: float = 0.0) -> filelock.FileLock | None:
    """The system's lock on a file, which ends with the process that has it; None where another has it for so long."""
    lock = filelock.FileLock(path)
    try:
        lock.acquire(timeout=seconds)
    except filelock.Timeout:
        return None
    return lock


def give_back(lock: filelock.FileLock) -> None:
    """Ends a lock and removes its file."""
    with contextlib.suppress(OSError):  # Windows removes no file that is open
        Path(lock.lock_file).unlink()  # before the release: who waits for this one notices and makes another
    lock.release()


def _mode(final: Path) -> int:
    """Permission bits of the file to be replaced, or those that an ordinary new file gets (mkstemp gives 0600)."""
    if final.exists():
        return final.stat().st_mode & 0o777
    with _MASK:
        mask = os.umask(0)
        os.umask(mask)
    return 0o666 & ~mask


def flush(path: Path) -> None:
    """Forces a file's bytes, or a folder's entries, to the disk. Folders cannot be opened on Windows: skipped there."""
    if os.name == "nt" and path.is_dir():
        return
    descriptor = os.open(path, os.O_RDWR if path.is_file() else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_leftovers(folder: Path) -> None:
    """Removes what killed processes left half-written in a folder and below; to be called under the folder's lock."""
    for path in folder.rglob(f"{TEMPORARY}*"):
        if path.is_file():
            path.unlink(missing_ok=True)


def seal(path: str | os.PathLike[str]) -> None:
    """Appends the SHA-256 of a file to it. HDF5 and zip files stay what they are with something behind their end."""
    digest = _digest(path, os.path.getsize(path))
    with open(path, "ab") as file:
        file.write(SEAL + digest.encode())


def check_seal(path: str | os.PathLike[str]) -> bool:
    """Whether a file is sealed, and so is just what was written; one of an earlier version is not.

    Raises:
        InputError: it is sealed but was changed since.
    """
    size = os.path.getsize(path)
    if size < SEAL_BYTES:
        return False
    with open(path, "rb") as file:
        file.seek(size - SEAL_BYTES)
        end = file.read()
    if not end.startswith(SEAL):
        return False
    if _digest(path, size - SEAL_BYTES).encode() != end[len(SEAL) :]:
        raise InputError(f"{path}: damaged: not the bytes that were written (SHA-256).\nCopy or make it again.")
    return True


def _digest(path: str | os.PathLike[str], size: int) -> str:
    """SHA-256 of the first `size` bytes, in hexadecimal digits."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while size and (block := file.read(min(size, 2**20))):
            digest.update(block)
            size -= len(block)
    return digest.hexdigest()
