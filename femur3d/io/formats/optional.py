"""Imports without packages that a library would import if they were there, and that are of no use here."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Sequence


@contextlib.contextmanager
def without(packages: Sequence[str]) -> Iterator[None]:
    """Imports in here find no such packages, but for those that have been imported before."""
    hidden = [package for package in packages if package not in sys.modules]
    for package in hidden:
        sys.modules[package] = None  # type: ignore[assignment]  # so Python documents it (reference, 5.3.1)
    try:
        yield
    finally:
        for package in hidden:
            del sys.modules[package]
