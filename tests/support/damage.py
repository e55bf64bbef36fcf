"""What happens to files on their way: flipped bits, ends cut off, pages of zeros."""

import numpy as np

HEADER_BYTES = 4096
PAGE_BYTES = 4096


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
