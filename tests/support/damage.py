"""Damage to the bytes of a file: as it happens on the way, and as hypothesis thinks of it."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

HEADER_BYTES = 4096
PAGE_BYTES = 4096

CHANGES = st.lists(
    st.tuples(st.sampled_from(["flip", "cut", "insert", "length"]), st.floats(0, 1), st.binary(min_size=1, max_size=6)),
    min_size=1,
    max_size=4,
)


def change(data: bytes, changes: list[tuple[str, float, bytes]]) -> bytes:
    """The bytes with some of them replaced, cut off, inserted, or made a length that is far too large."""
    for kind, where, new in changes:
        at = min(int(where * len(data)), max(len(data) - 1, 0))
        if kind == "flip":
            data = data[:at] + new + data[at + len(new) :]
        elif kind == "cut":
            data = data[:at]
        elif kind == "insert":
            data = data[:at] + new + data[at:]
        else:
            data = data[:at] + b"\xff\xff\xff\xff" + data[at + 4 :]
    return data


def damaged(sound: bytes, number: int) -> bytes:
    """The file with damage `number`, the same one every time: mostly a flipped bit, half of these near the beginning;
    every tenth is cut off, and every tenth has zeros for a page.
    """
    random, data = np.random.default_rng(number), bytearray(sound)
    place = int(random.integers(len(data) if number % 2 else min(len(data), HEADER_BYTES)))
    if number % 10 == 8:
        return bytes(data[:place])
    if number % 10 == 9:
        data[place : place + PAGE_BYTES] = bytes(len(data[place : place + PAGE_BYTES]))
    else:
        data[place] ^= 1 << int(random.integers(8))
    return bytes(data)
