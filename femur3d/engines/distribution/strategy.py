"""Training on one device or on several: what computes, where it writes, and which loop, by the name of a strategy.

`one` is what trains in the rest of femur3d, as it is. With the others every update is one of the same patches.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from femur3d.engines.distribution.cluster import Cluster, read_cluster
from femur3d.errors import UsageError

if TYPE_CHECKING:
    from femur3d.config import Experiment
    from femur3d.data.packed_dataset import PackedDataset
    from femur3d.engines.keras_engine import KerasEngine
    from femur3d.training.run_directory import RunDirectory
    from femur3d.training.trainer import Trainer

ONE, MIRRORED, MULTIWORKER = NAMES = ("one", "mirrored", "multiworker")


@dataclasses.dataclass(frozen=True)
class Strategy:
    """How a training is spread.

    Attributes:
        engine: computes the updates.
        open_run: the run directory of a path, see `open_run_directory`.
        make_trainer: the loop of this process.
    """

    engine: KerasEngine
    open_run: Callable[[Path], RunDirectory]
    make_trainer: Callable[[Experiment, PackedDataset, RunDirectory], Trainer]


def check_environment(name: str, synchronized: bool = True) -> None:
    """Raises UsageError where a strategy lacks what it needs, or is given what it has no use for.

    Needs no TensorFlow. Arguments as of `make_strategy`.
    """
    if name == ONE and not synchronized:
        raise UsageError(
            "--nosynchronized_batch_norm: one device has nothing to synchronise.\n"
            "Leave it out, or give --strategy mirrored or multiworker."
        )
    if name == MULTIWORKER:
        read_cluster(os.environ.get("TF_CONFIG", ""))


def make_strategy(name: str, engine: KerasEngine, batch_size: int, synchronized: bool = True) -> Strategy:
    """Sets up a strategy; before anything is computed. `multiworker` waits for all workers to come.

    Args:
        name: one of NAMES.
        engine: of this process; made repeatable.
        batch_size: patches of all replicas together.
        synchronized: whether batch normalisation takes its statistics over all replicas.

    Raises:
        UsageError: there are no devices for it, the batch cannot be shared, or the engine has no such strategy.
    """
    if name == ONE:
        return _one_process(engine)
    if engine.name == "jax":
        return _jax(name, batch_size, synchronized)
    return _mirrored(batch_size, synchronized) if name == MIRRORED else _multiworker(batch_size, synchronized)


def _one_process(engine: KerasEngine, scope: Callable[[], Any] = contextlib.nullcontext) -> Strategy:
    from femur3d.training.run_directory import open_run_directory
    from femur3d.training.trainer import Trainer

    def make_trainer(experiment: Experiment, packed: PackedDataset, run: RunDirectory) -> Trainer:
        with scope():
            return Trainer(experiment, packed, run, engine)

    return Strategy(engine, open_run_directory, make_trainer)


def _mirrored(batch_size: int, synchronized: bool) -> Strategy:
    import tensorflow as tf

    from femur3d.engines.distribution.tensorflow_replicas import TensorFlowReplicas

    devices = [device.name for device in tf.config.list_logical_devices("GPU")]
    devices = devices or [device.name for device in tf.config.list_logical_devices("CPU")]
    _check_share(batch_size, len(devices))
    engine = TensorFlowReplicas(tf.distribute.MirroredStrategy(devices), Cluster(("localhost",), 0), synchronized)
    return _one_process(engine, engine.scope)


def _multiworker(batch_size: int, synchronized: bool) -> Strategy:
    import tensorflow as tf

    from femur3d.engines.distribution.tensorflow_replicas import TensorFlowReplicas
    from femur3d.engines.distribution.workers import Chief, Follower, ReadOnlyRun
    from femur3d.training.run_directory import open_run_directory

    cluster = read_cluster(os.environ.get("TF_CONFIG", ""))
    gpus = len(tf.config.list_physical_devices("GPU"))
    _check_share(batch_size, len(cluster.workers) * max(gpus, 1))
    print(f"Worker {cluster.index} of {len(cluster.workers)} waits for all: {', '.join(cluster.workers)}", flush=True)
    with _ending_at_signals():
        try:
            strategy = tf.distribute.MultiWorkerMirroredStrategy()
        except (tf.errors.OpError, RuntimeError) as error:
            line = str(getattr(error, "message", error)).strip().partition("\n")[0]
            raise UsageError(
                f"The workers did not come together ({line}).\nExpected the same command on every machine of "
                f"TF_CONFIG, and {cluster.workers[cluster.index]} to be this one's, with a port that is free and open."
            ) from error
    engine = TensorFlowReplicas(strategy, cluster, synchronized)

    def make_trainer(experiment: Experiment, packed: PackedDataset, run: RunDirectory) -> Trainer:
        with engine.scope():
            return (Follower if cluster.index else Chief)(experiment, packed, run, engine)

    return Strategy(engine, ReadOnlyRun if cluster.index else open_run_directory, make_trainer)


def _jax(name: str, batch_size: int, synchronized: bool) -> Strategy:
    import keras

    from femur3d.engines.distribution.jax_replicas import JaxReplicas

    if name == MULTIWORKER:
        raise UsageError(
            "--strategy multiworker: not with JAX.\nTrain with KERAS_BACKEND=tensorflow, or --strategy mirrored."
        )
    if not synchronized:
        raise UsageError(
            "--nosynchronized_batch_norm: not with JAX, which normalises over the whole batch.\n"
            "Leave it out, or train with KERAS_BACKEND=tensorflow."
        )
    _check_share(batch_size, len(keras.distribution.list_devices()))
    return _one_process(JaxReplicas())


def _check_share(batch_size: int, replicas: int) -> None:
    """Raises UsageError where there is one device only, or the batch cannot be shared among them equally."""
    if replicas == 1:
        raise UsageError(
            "--strategy mirrored: there is one device only.\nExpected two GPUs or more in this machine; leave it out."
        )
    if batch_size % replicas:
        raise UsageError(
            f"{replicas} replicas cannot have equal shares of a batch of {batch_size}.\n"
            f"Expected training.batch_size to be a multiple of {replicas}."
        )


@contextlib.contextmanager
def _ending_at_signals() -> Iterator[None]:
    """Has Ctrl-C and SIGTERM end the process at once, while TensorFlow waits and Python cannot answer."""
    kept = {number: signal.signal(number, signal.SIG_DFL) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)
