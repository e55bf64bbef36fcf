"""What cases are called: names that are fit for files and differ from each other."""

from __future__ import annotations

import dataclasses
import re
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path

from femur3d.errors import UsageError
from femur3d.io.formats.archives import is_device
from femur3d.io.integrity import printable

_BAD_CHARACTERS = re.compile(r'[<>:"/\\|?*]')  # in the file names of one system or another


@dataclasses.dataclass(frozen=True)
class Wish:
    """What a scan would be called.

    Attributes:
        source: its path as the user knows it.
        name: the last word.
        folders: how many of the folders above it stand in front whatever else there is.
        fixed: whether no more are put in front.
    """

    source: str
    name: str
    folders: int = 0
    fixed: bool = False


def distinct(wishes: Sequence[Wish]) -> list[str]:
    """Names that differ: where two are the same, folders are put in front, one more in every round.

    'P1/t1.nii.gz', 'P2/t1.nii.gz' and 'P2/t2.nii.gz' are called P1_t1, P2_t1 and t2. Raises UsageError where the
    folders are used up.
    """
    words = [[*Path(wish.source).absolute().parts[1:-1], wish.name] for wish in wishes]
    levels = [wish.folders for wish in wishes]  # folders in front of each name
    while True:
        names = [file_name("_".join(w[-1 - level :])) for w, level in zip(words, levels, strict=True)]
        alike = _alike(names)
        if not alike:
            return names
        for group in alike:
            free = [i for i in group if levels[i] < len(words[i]) - 1 and not wishes[i].fixed]
            if not free:
                first, second = (wishes[i] for i in group[:2])
                what = f"{first.source} and {second.source} would both be called {file_name(first.name)!r}"
                advice = "Give every scan once, or segment these two into different folders"
                pattern = "Add a keyword to --name that tells them apart, such as {SeriesNumber}"
                raise UsageError(f"{what}.\n{pattern if first.fixed and second.fixed else advice}.")
            highest = max(levels[i] for i in free)  # 'x_b.nii' keeps its name when 'x/b.nii' comes to x_b
            for i in free:
                levels[i] += levels[i] == highest


def file_name(text: str) -> str:
    """`text` with '_' for what some system refuses in file names; never empty, never '.' or '-' in front."""
    name = _BAD_CHARACTERS.sub("_", printable(text).replace("�", "_")).lstrip(".- ").rstrip(". ") or "scan"
    return f"_{name}" if is_device(name) else name


def _alike(names: Iterable[str]) -> list[list[int]]:
    """Places of equal names, grouped: equal to a file system that knows no upper case and one way to store accents."""
    groups: dict[str, list[int]] = {}
    for place, name in enumerate(names):
        groups.setdefault(unicodedata.normalize("NFC", name).casefold(), []).append(place)
    return [group for group in groups.values() if len(group) > 1]
