"""Configurations as JSON and from it, by the names of today and of earlier versions; settings of the command line."""

from __future__ import annotations

import ast
import dataclasses
import json
import math
import typing
from collections.abc import Iterable
from typing import Any, TypeVar

from femur3d.config import Experiment
from femur3d.errors import InputError, UsageError

Section = TypeVar("Section")

# What files and commands of earlier versions call a field.
RENAMED = {
    "preparation": "preprocessing",
    "mixed_batches": "multi_volume_batches",
    "femur_share": "foreground_probability",
    "distort_share": "augmentation_probability",
}


def current_name(name: str, value: Any) -> tuple[str, Any]:
    """A field by its name of today, and its value; other names are returned as they are."""
    if name == "cycles":  # which counted the first one too
        return "warm_restarts", value - 1 if type(value) is int else value
    return RENAMED.get(name, name), value


def to_dict(section: Any) -> dict[str, Any]:
    """A configuration as plain JSON types; tuples become lists."""
    return json.loads(json.dumps(dataclasses.asdict(section)))


def from_dict(kind: type[Section], values: Any, where: str = "config") -> Section:
    """The inverse of `to_dict`. Raises InputError for unknown names, missing required names and wrong types."""
    if not isinstance(values, dict):
        raise InputError(f"{where}: expected an object. Received: {type(values).__name__}")
    hints = typing.get_type_hints(kind)
    values = dict(current_name(name, value) for name, value in values.items())
    unknown = sorted(set(values) - set(hints))
    if unknown:
        raise InputError(f"{where}: unknown {', '.join(map(repr, unknown))}. Known are: {', '.join(hints)}")
    try:
        return kind(**{name: _typed(hints[name], value, f"{where}.{name}") for name, value in values.items()})
    except TypeError as error:
        raise InputError(f"{where}: {error}") from error


def _typed(hint: Any, value: Any, where: str) -> Any:
    """`value` as the type `hint` (a dataclass, a tuple of numbers, or a plain type), or an InputError."""
    if dataclasses.is_dataclass(hint):
        return from_dict(typing.cast(type, hint), value, where)
    if typing.get_origin(hint) is tuple:
        if not isinstance(value, (list, tuple)):
            raise InputError(f"{where}: expected a list. Received: {value!r}")
        return tuple(_typed(typing.get_args(hint)[0], item, where) for item in value)
    if hint is float and type(value) is int and abs(value) < 2**53:
        value = float(value)
    if type(value) is not hint or (hint is float and not math.isfinite(value)):
        raise InputError(f"{where}: expected {hint.__name__}. Received: {value!r}")
    return value


def with_settings(experiment: Experiment, settings: Iterable[str]) -> Experiment:
    """The experiment with `section.field=value` (or `field=value`) settings applied, as `--set` gives them.

    All settings are applied before the result is validated. Raises UsageError.
    """
    values = dataclasses.asdict(experiment)
    for setting in settings:
        path, equals, text = setting.partition("=")
        *sections, name = path.strip().split(".")
        field, value = current_name(name, _literal(text))
        target: Any = values
        for section in sections:
            target = target.get(RENAMED.get(section, section), {}) if isinstance(target, dict) else {}
        if not equals or not isinstance(target, dict) or field not in target or isinstance(target[field], dict):
            raise UsageError(
                f"--set: no such setting. Received: {setting!r}\nExpected e.g. training.steps=500; known: {_names()}"
            )
        target[field] = value
    try:
        return from_dict(Experiment, values, "--set")
    except InputError as error:
        raise UsageError(str(error)) from error


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return text.strip()


def _names() -> str:
    names = []
    for name, hint in typing.get_type_hints(Experiment).items():
        inner = [f.name for f in dataclasses.fields(hint)] if dataclasses.is_dataclass(hint) else []
        names += [f"{name}.{field}" for field in inner] or [name]
    return ", ".join(names)
