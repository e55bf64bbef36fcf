"""Damage to the bytes of a file, as hypothesis thinks of it."""

from __future__ import annotations

from hypothesis import strategies as st

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
