"""Which process segments which case, where several write to one folder: a case is one's alone, and none is lost.

A claim is a lock of the operating system on a hidden file, `.CASE.claim`: it ends with the process that holds it, in
whatever way that ends, so that what a killed one has left is free at once. Machines that share a folder see each
other's claims where their file system has locks (NFS 4, Lustre with `flock`, SMB).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

import filelock

from femur3d.errors import UsageError
from femur3d.export.case_files import Case
from femur3d.io.atomic import give_back, take_lock
from femur3d.io.inputs import Scan

State = tuple[int, int, int] | None


def take(case: Case) -> filelock.FileLock | None:
    """The claim to a case, to be handed to `io.atomic.give_back`; None where another process has it."""
    return take_lock(_claim_file(case))


def tidy(cases: Iterable[Case]) -> None:
    """Removes the claims' files that killed processes have left."""
    for case in cases:
        if _claim_file(case).exists() and (lock := take(case)):
            give_back(lock)


def state(case: Case) -> State:
    """Tells whether CASE.json is still the same file as before; None where there is none."""
    try:
        found = case.json.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino, found.st_size


def part_of(scans: list[Scan], part: str) -> list[Scan]:
    """The scans of a part, 'k/n'; all of them for ''. Raises UsageError where it is no part."""
    if not part:
        return scans
    number, count = parse_part(part)
    return [scan for scan in scans if is_in_part(scan.name, number, count)]


def parse_part(part: str) -> tuple[int, int]:
    """'2/8' → (2, 8). Raises UsageError where it is no part."""
    number, _, count = part.partition("/")
    if number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count):
        return int(number), int(count)
    raise UsageError(f"--part {part}: not a part.\nExpected k/n with 1 ≤ k ≤ n, such as 2/8.")


def is_in_part(name: str, number: int, count: int) -> bool:
    """Whether a case belongs to a part, from 1, of so many: by its name alone, so that added scans move no other."""
    digest = hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()
    return int.from_bytes(digest[:8], "big") % count == number - 1


def _claim_file(case: Case) -> Path:
    return case.folder / f".{case.name}.claim"
