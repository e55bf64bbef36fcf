"""Times equation (1) with its gradient for three heads: as it is written, and as training computes it.

    python -m benchmarks.loss [--patch 64] [--batch 2] [--repeats 10]

Both are compiled as in training and take turns. Times are the processor's, all cores added up, so that other programs
disturb them less; `python -m benchmarks.network` has the time of a whole update.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from absl import flags

from femur3d import cli
from femur3d.config import HEADS

PATCH = flags.DEFINE_integer("patch", 64, "Edge of a patch in voxels.", lower_bound=8)
BATCH = flags.DEFINE_integer("batch", 2, "Patches of an update.", lower_bound=1)
REPEATS = flags.DEFINE_integer("repeats", 10, "Timings of each, after two that do not count.", lower_bound=1)
WARM_UPS = 2


def main(argv: Sequence[str]) -> int:
    """Prints a line for each form."""
    cli.no_arguments(argv)
    with cli.quiet_imports():
        import tensorflow as tf

        from femur3d.training.losses import softmax_cross_entropy, voxel_cross_entropy
    rng, shape = np.random.default_rng(0), (BATCH.value, *(PATCH.value,) * 3)
    labels = tf.constant(rng.integers(0, 2, shape, np.uint8))
    logits = [tf.constant(rng.standard_normal((*shape, 2), np.float32)) for _ in HEADS]

    def with_gradient(loss: Callable[[Any, Any], Any]) -> Callable[[], Any]:
        @tf.function
        def step() -> Any:
            with tf.GradientTape() as tape:
                tape.watch(logits)
                total = sum(loss(labels, head) for head in logits)
            return tape.gradient(total, logits)

        return step

    forms = {loss.__name__: with_gradient(loss) for loss in (softmax_cross_entropy, voxel_cross_entropy)}
    seconds: dict[str, list[float]] = {name: [] for name in forms}
    for _ in range(WARM_UPS + REPEATS.value):
        for name, step in forms.items():
            start = time.process_time()
            step()
            seconds[name].append(time.process_time() - start)
    for name, times in seconds.items():
        print(f"{name:<24}{statistics.median(times[WARM_UPS:]):8.3f} s")
    return 0


if __name__ == "__main__":
    cli.run(main)
