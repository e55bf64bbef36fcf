"""TensorFlow on several devices, of one machine or of many: `tf.distribute` with the update of the whole batch.

Every device holds a replica: all weights, and an equal share of each batch. An update is that of one device with the
whole batch, but for rounding: the means and sums of the loss are taken over the voxels of all replicas, so that λ·ψ
counts once; the gradient is the mean of theirs; it is clipped and applied once it is whole.
"""

from __future__ import annotations

import contextlib
import dataclasses
import zlib
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from femur3d.config import Loss
from femur3d.data.sampler import PatchSampler, share
from femur3d.engines.distribution.cluster import Cluster
from femur3d.engines.layers.fused_batch_norm import with_fused_batch_norm
from femur3d.engines.layers.matmul_deconv import with_matmul_deconv
from femur3d.engines.tensorflow_engine import TensorFlowEngine
from femur3d.errors import EXIT_INTERNAL, FemurError, UsageError
from femur3d.training.losses import total_loss
from femur3d.training.train_step import TrainStep

# What TensorFlow raises where another process is gone; which of them depends on what it was waiting for.
LOST = (
    tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.CancelledError, tf.errors.InternalError,
    tf.errors.FailedPreconditionError, tf.errors.DeadlineExceededError, tf.errors.UnknownError,
)  # fmt: skip


class WorkerLostError(FemurError):
    """Another process of this training is gone."""

    exit_code = EXIT_INTERNAL


class TensorFlowReplicas(TensorFlowEngine):
    """See `KerasEngine`; network and optimiser have to be made in `scope`.

    Args:
        strategy: `MirroredStrategy`, or `MultiWorkerMirroredStrategy` of the cluster.
        cluster: the processes; all take the same part in it.
        synchronized: whether batch normalisation takes its statistics over all replicas. Otherwise each replica
            normalises by its own patches, and the moving statistics are the mean of theirs.
    """

    def __init__(self, strategy: tf.distribute.Strategy, cluster: Cluster, synchronized: bool) -> None:
        self._strategy, self._cluster, self._synchronized = strategy, cluster, synchronized
        self._here = strategy.num_replicas_in_sync // len(cluster.workers)

    def device_name(self) -> str:
        """See `KerasEngine.device_name`."""
        where = f"{self._here} here, worker {self._cluster.index} of {len(self._cluster.workers)}: "
        own = "synchronised" if self._synchronized else "of each by itself"
        return (
            f"{self._strategy.num_replicas_in_sync} replicas ({where if len(self._cluster.workers) > 1 else ''}"
            f"{super().device_name()}), batch normalisation {own}"
        )

    @contextlib.contextmanager
    def scope(self) -> Iterator[None]:
        """Has the variables that are made in it copied to every replica."""
        with self._naming_lost_workers(), self._strategy.scope():
            yield

    def patch_stream(self, sampler: PatchSampler, first_step: int, steps: int) -> tf.data.Dataset:
        """See `KerasEngine.patch_stream`; of every batch only the patches of this process."""
        drawn = (sampler.packed.data, sampler.training, sampler.patch_size, sampler.transforms, first_step, steps)
        self._check_alike("data, settings or steps", repr(drawn).encode())
        mine = share(sampler.training.batch_size, len(self._cluster.workers), self._cluster.index)
        return super().patch_stream(dataclasses.replace(sampler, elements=mine), first_step, steps)

    def make_train_step(self, network: keras.Model, optimizer: keras.optimizers.Optimizer, loss: Loss) -> TrainStep:
        """See `train_step.make_train_step`; takes the patches of this process, returns scalars of the whole batch."""
        state = [keras.ops.convert_to_numpy(v) for v in (*network.variables, *optimizer.variables)]
        self._check_alike("weights", b"".join(array.tobytes() for array in state))
        for layer in network.layers:
            if isinstance(layer, keras.layers.BatchNormalization):
                layer.synchronized = self._synchronized
        faster = with_matmul_deconv(network)
        model = faster if self._synchronized else with_fused_batch_norm(faster)
        variables, statistics = network.trainable_variables, network.non_trainable_variables

        def one_replica(images: tf.Tensor, labels: tf.Tensor) -> tuple[dict[str, tf.Tensor], list[tf.Tensor]]:
            images, labels = self._own_share(images), self._own_share(labels)
            with tf.GradientTape() as tape:
                logits = model(images, training=True)
                terms = total_loss(labels, logits, variables, loss, _OverReplicas)
            gradients = tape.gradient(terms["loss"], [v.value for v in variables])
            if not self._synchronized:
                for moving, mean in zip(statistics, _mean([tf.identity(v.value) for v in statistics]), strict=True):
                    moving.assign(mean)
            return terms, _mean(gradients)

        @tf.function(autograph=False)
        def update(images: tf.Tensor, labels: tf.Tensor) -> dict[str, tf.Tensor]:
            terms, gradients = self._one_of_equals(self._strategy.run(one_replica, (images, labels)))
            norm = tf.linalg.global_norm(gradients)
            scalars = {**terms, "learning_rate": optimizer.learning_rate, "gradient_norm": norm}
            optimizer.apply(gradients, variables)  # out here it clips the whole gradient, and adds up nothing
            return scalars

        def train_step(images: tf.Tensor, labels: tf.Tensor) -> dict[str, tf.Tensor]:
            with self._naming_lost_workers():
                return update(images, labels)

        return train_step

    def _own_share(self, batch: tf.Tensor) -> tf.Tensor:
        """Of the patches of this process those of this replica; see `data.sampler.share`."""
        shares = tf.reshape(batch, (self._here, -1, *batch.shape[1:]))
        return shares[_replica().replica_id_in_sync_group % self._here]

    def is_any(self, flag: bool) -> bool:
        """Whether the flag is set in any process. All have to ask, and each waits for the others."""
        return any(self._numbers_of_all(float(flag)))

    def _numbers_of_all(self, number: float) -> list[float]:
        """A number (float32) of every process, in their order."""
        own = np.zeros(len(self._cluster.workers), np.float32)
        own[self._cluster.index] = number / self._here
        with self._naming_lost_workers():
            return self._sum(tf.constant(own)).numpy().tolist()

    @tf.function(autograph=False)
    def _sum(self, numbers: tf.Tensor) -> tf.Tensor:
        return self._one_of_equals(
            self._strategy.run(lambda n: _replica().all_reduce("SUM", tf.identity(n)), (numbers,))
        )

    def _one_of_equals(self, values: Any) -> Any:
        """What all replicas of this process have alike, as it is on the first of them."""
        return tf.nest.map_structure(lambda value: self._strategy.experimental_local_results(value)[0], values)

    def _check_alike(self, what: str, content: bytes) -> None:
        """Raises UsageError where processes do not begin with the same."""
        if len(self._cluster.workers) == 1:
            return
        digests = self._numbers_of_all(zlib.crc32(content) & 0xFFFFFF)  # as many bits as float32 holds
        other = next((i for i, digest in enumerate(digests) if digest != digests[0]), None)
        if other is not None:
            raise UsageError(
                f"Worker {other} ({self._cluster.workers[other]}) begins with other {what} than the chief.\n"
                "Expected the same command on all, one --run folder that all see, and the same dataset."
            )

    @contextlib.contextmanager
    def _naming_lost_workers(self) -> Iterator[None]:
        try:
            yield
        except LOST as error:
            if len(self._cluster.workers) == 1:
                raise
            lines = str(error.message).strip().splitlines()  # mostly of the graph
            cause = next((line for line in lines if "aborted by" in line), lines[0])
            raise WorkerLostError(
                f"Another worker of this training is gone, or cannot be reached ({cause}).\n"
                "Give the same command on all machines again: the run goes on from its last checkpoint."
            ) from error


class _OverReplicas:
    """Mean and sum over the voxels of all replicas, of which each has as many."""

    @staticmethod
    def mean(x: tf.Tensor) -> tf.Tensor:
        return _mean(tf.reduce_mean(x))

    @staticmethod
    def sum(x: tf.Tensor) -> tf.Tensor:
        return _replica().all_reduce("SUM", tf.reduce_sum(x))


def _replica() -> tf.distribute.ReplicaContext:
    return tf.distribute.get_replica_context()


def _mean(values: Any) -> Any:
    return _replica().all_reduce("MEAN", values)
