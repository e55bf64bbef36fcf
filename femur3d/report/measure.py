"""Compares the results of a folder with their references, as `femur3d.evaluate` does."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping

from femur3d.errors import InputError
from femur3d.evaluation.cases import check_geometry, empty_labels, without_ignored
from femur3d.evaluation.metrics import FemurMetrics, measure_case
from femur3d.report.results import Result


def measure(
    results: Iterable[Result], names: Mapping[int, str]
) -> tuple[list[Result], list[FemurMetrics], list[InputError]]:
    """The metrics of all cases that have a reference; a case without readable label map counts as a failure.

    Args:
        results: the cases.
        names: label value → name, as `measure_case` takes them.

    Returns:
        The cases, without the references that cannot be read or lie on another grid; rows; what is wrong with those.
    """
    kept, rows, problems = [], [], []
    for result in results:
        try:
            rows += _rows(result, names)
            kept.append(result)
        except InputError as error:
            kept.append(dataclasses.replace(result, reference=None))
            problems.append(error)
    return kept, rows, problems


def _rows(result: Result, names: Mapping[int, str]) -> list[FemurMetrics]:
    reference, labels = result.read_reference(), result.read_labels()
    if reference is None or result.reference is None:
        return []
    if labels is not None and result.label_map is not None:
        check_geometry(result.label_map, labels, result.reference, reference)
    pair = without_ignored(reference, labels or empty_labels(reference))
    return measure_case(result.name, *pair, names=dict(names))
