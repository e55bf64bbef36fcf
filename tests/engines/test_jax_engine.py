import threading

import numpy as np
import pytest

from femur3d.data.packed_dataset import PackedDataset
from femur3d.data.sampler import PatchSampler
from femur3d.engines.jax_engine import PREFETCH, JaxEngine
from femur3d.engines.tensorflow_engine import TensorFlowEngine

patch_stream = JaxEngine().patch_stream


class Counting:
    """Stands for a sampler: the batch of a step is the step itself; step `bad` cannot be read."""

    def __init__(self, bad=None):
        self.bad, self.read, self.threads = bad, [], set()

    def batch(self, step):
        self.read.append(step)
        self.threads.add(threading.current_thread())
        if step == self.bad:
            raise OSError(f"step {step}")
        return step


def test_steps_come_in_order_and_end():
    sampler = Counting()
    assert list(patch_stream(sampler, 3, 20)) == list(range(3, 20)) == sampler.read
    assert list(patch_stream(sampler, 5, 5)) == []
    (thread,) = sampler.threads
    assert thread is not threading.current_thread()
    assert not thread.is_alive()


def test_it_reads_ahead_but_not_far():
    sampler = Counting()
    stream = patch_stream(sampler, 0, 100)
    assert [next(stream) for _ in range(10)] == list(range(10))
    stream.close()
    assert 10 <= len(sampler.read) <= 10 + PREFETCH


def test_error_comes_in_its_turn_and_ends_the_thread():
    sampler, seen = Counting(bad=4), []
    with pytest.raises(OSError, match="step 4"):
        seen.extend(patch_stream(sampler, 0, 100))
    stream = patch_stream(sampler, 0, 100)
    assert [next(stream) for _ in range(4)] == [0, 1, 2, 3]
    with pytest.raises(OSError, match="step 4"):
        next(stream)
    assert not any(thread.is_alive() for thread in sampler.threads)


def test_early_stop_ends_the_thread():
    sampler = Counting()
    stream = patch_stream(sampler, 0, 100)
    next(stream)
    del stream
    assert not any(thread.is_alive() for thread in sampler.threads)


def test_same_batches_as_tensorflow(tiny_experiment, packed_file):
    with PackedDataset(packed_file) as packed:
        sampler = PatchSampler(packed, tiny_experiment.training, tiny_experiment.preprocessing.patch_size)
        for found, expected in zip(
            patch_stream(sampler, 1, 4), TensorFlowEngine().patch_stream(sampler, 1, 4), strict=True
        ):
            for a, b in zip(found, expected, strict=True):
                np.testing.assert_array_equal(a, b)
                assert a.dtype == b.numpy().dtype
