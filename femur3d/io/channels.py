"""Further channels of a case, by nnU-Net's names: CASE_0001 beside CASE_0000, the same patient in another contrast."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from femur3d.io.images import scan_extension
from femur3d.io.integrity import quiet_itk

_CHANNEL = re.compile(r"(?P<case>.+)_(?P<number>\d{4})")
_TOLERANCE = 1e-3  # mm, and direction cosines


def numbered(path: Path) -> tuple[str, int | None]:
    """The case of a scan file and the number of its channel by its name; None where the name has none."""
    stem = path.name.removesuffix(scan_extension(path))
    found = _CHANNEL.fullmatch(stem) if scan_extension(path) else None
    return (found["case"], int(found["number"])) if found else (stem, None)


def further_channels(paths: Iterable[Path]) -> dict[Path, Path]:
    """Of some scan files those that are a channel after _0000, each with the file of _0000.

    Scans that are merely numbered (scan_0000, scan_0001, … of as many patients) lie on grids of their own, the channels
    of a case on one.
    """
    numbers = {path: numbered(path) for path in paths}
    first = {(path.parent, case): path for path, (case, number) in numbers.items() if number == 0}
    found = {}
    for path, (case, number) in numbers.items():
        other = first.get((path.parent, case))
        if number and other and _on_one_grid(path, other):
            found[path] = other
    return found


def _on_one_grid(path: Path, other: Path) -> bool:
    one, two = _grid(path), _grid(other)
    return bool(one) and len(one) == len(two) and np.allclose(one, two, rtol=0, atol=_TOLERANCE)


def _grid(path: Path) -> list[float]:
    """Size, spacing, origin and direction as the header gives them; empty where it cannot be read."""
    reader = sitk.ImageFileReader()
    try:
        with quiet_itk():
            reader.SetFileName(str(path))
            reader.ReadImageInformation()
    except (RuntimeError, UnicodeError):
        return []
    return [*reader.GetSize(), *reader.GetSpacing(), *reader.GetOrigin(), *reader.GetDirection()]
