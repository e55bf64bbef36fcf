"""The processes of one training, as the environment variable TF_CONFIG names them. Needs no TensorFlow."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from femur3d.errors import UsageError

EXAMPLE = '{"cluster": {"worker": ["node1:12345", "node2:12345"]}, "task": {"type": "worker", "index": 0}}'


@dataclasses.dataclass(frozen=True)
class Cluster:
    """All workers of a training, and which of them this process is.

    Attributes:
        workers: host:port of each; the first one is the chief, which alone writes.
        index: of this process.
    """

    workers: tuple[str, ...]
    index: int


def read_cluster(tf_config: str) -> Cluster:
    """The workers that TF_CONFIG lists; a task of its own for the chief counts as the first of them.

    Raises:
        UsageError: it is missing, or not what TensorFlow understands by it.
    """
    if not tf_config:
        raise _refused("TF_CONFIG is not set")
    try:
        config = json.loads(tf_config)
    except ValueError as error:
        raise _refused(f"TF_CONFIG is no JSON ({error})") from error
    cluster, task = _part(config, "cluster"), _part(config, "task")
    chief, workers = (cluster.get(job, []) for job in ("chief", "worker"))
    if not set(cluster) <= {"chief", "worker"} or not all(map(_are_addresses, (chief, workers))) or len(chief) > 1:
        raise _refused(f"TF_CONFIG's cluster is {json.dumps(cluster)}")
    job, index = task.get("type"), task.get("index")
    if type(index) is not int or job not in ("chief", "worker") or not 0 <= index < len(cluster.get(job, [])):
        raise _refused(f"TF_CONFIG's task is {json.dumps(task)}, which is none of its cluster's")
    if len(chief) + len(workers) < 2:
        raise _refused("TF_CONFIG names one worker, this one")
    return Cluster((*chief, *workers), index + (len(chief) if job == "worker" else 0))


def _part(config: Any, name: str) -> dict[str, Any]:
    part = config.get(name) if isinstance(config, dict) else None
    if not isinstance(part, dict):
        raise _refused(f"TF_CONFIG has no {name}")
    return part


def _are_addresses(hosts: Any) -> bool:
    return isinstance(hosts, list) and all(isinstance(h, str) and h.rpartition(":")[2].isdecimal() for h in hosts)


def _refused(what: str) -> UsageError:
    return UsageError(f"--strategy multiworker: {what}.\nExpected on every machine, with its own index: {EXAMPLE}")
