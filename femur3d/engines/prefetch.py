"""The stream of training batches without tf.data: a thread reads ahead of the network while it computes."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from femur3d.data.sampler import PatchSampler

PREFETCH = 4  # batches


def patch_stream(sampler: PatchSampler, first_step: int, steps: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The batches of steps `first_step` … `steps - 1`, in order; the same in every run (see `sampler`).

    What a batch raises is raised in its turn. Closing the stream (as Python does with one that is dropped) ends the
    thread.

    Yields:
        images: float32 (batch, z, y, x, 1).
        labels: uint8 (batch, z, y, x).
    """
    left = iter(range(first_step, steps))
    pool = ThreadPoolExecutor(1, thread_name_prefix="patches")
    try:
        ahead = [pool.submit(sampler.batch, step) for step in itertools.islice(left, PREFETCH)]
        while ahead:
            yield ahead.pop(0).result()
            ahead += [pool.submit(sampler.batch, step) for step in itertools.islice(left, 1)]
    finally:
        pool.shutdown(cancel_futures=True)
