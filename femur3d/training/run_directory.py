"""The run directory: `runs/NAME/{config.json, checkpoints/, model/, metrics.csv, events.out.tfevents.*, log.txt}`."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import hashlib
import io
import json
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import filelock

from femur3d.config import Experiment
from femur3d.errors import InputError, UsageError
from femur3d.inference.saved_model import recover_model
from femur3d.io.atomic import naming, remove_leftovers, replacing
from femur3d.io.integrity import read_json, write_json
from femur3d.io.settings import from_dict, to_dict

# What may be changed when a run goes on: how often, not what is learnt; and how far, where the rate does not ask.
CHANGEABLE = ("checkpoint_every", "validate_every", "log_every")
CHANGEABLE_WHEN_HALVING = (*CHANGEABLE, "steps")
NOTES = ("encoder_source", "initial_model", "data", "config_sha256")  # what config.json holds besides the experiment


class RunDirectory:
    """The paths of a run and its config.json. Writes nothing until `open_run_directory` has locked it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkpoints = path / "checkpoints"
        self.model = path / "model"
        self.packed = path / "packed.h5"  # of runs made before packed files were shared
        self._config = path / "config.json"
        self._is_new = not path.exists()
        self._lock = filelock.FileLock(path / ".lock")

    def __enter__(self) -> RunDirectory:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def lock(self) -> None:
        """Makes this the one process that writes here. Raises UsageError where another process does."""
        try:
            self._lock.acquire(timeout=0)
        except filelock.Timeout as error:
            raise UsageError(
                f"{self.path}: another process is training in it.\nChoose another --run, or wait."
            ) from error

    def close(self) -> None:
        """Gives the lock back."""
        self._lock.release()

    def discard(self) -> None:
        """Removes a directory that was made for a run which was refused before it began."""
        if self._is_new and not self._config.exists():
            for name in ("log.txt", ".lock"):
                (self.path / name).unlink(missing_ok=True)
            for folder in (self.checkpoints, self.path):
                with contextlib.suppress(OSError):  # not empty: not ours alone
                    folder.rmdir()

    def say(self, line: str) -> None:
        """Prints a line and appends it, with the time, to log.txt."""
        print(line, flush=True)
        path = self.path / "log.txt"
        with naming(path), path.open("a", encoding="utf-8") as log:
            log.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')}  {line}\n")

    def stored(self) -> dict[str, Any]:
        """What config.json holds besides the experiment, NOTES; {} in a new run."""
        if not self._config.exists():
            return {}
        return {name: value for name, value in self._read().items() if name in NOTES}

    def check_experiment(self, experiment: Experiment) -> None:
        """Raises UsageError where the run was begun with another experiment, InputError for a damaged config.json."""
        if not self._config.exists():
            return
        stored = {name: value for name, value in self._read().items() if name not in NOTES}
        before, now = flat(from_dict(Experiment, stored, str(self._config))), flat(experiment)
        may_change = CHANGEABLE_WHEN_HALVING if experiment.training.schedule == "halving" else CHANGEABLE
        changed = [n for n in now if before[n] != now[n] and n.rpartition(".")[2] not in may_change]
        if changed:
            name = changed[0]
            raise UsageError(
                f"{self.path}: begun with {name}={before[name]}, now {now[name]}.\n"
                f"Expected the same experiment (only {', '.join(may_change)} may change); choose another --run."
            )

    def check_data(self, data: str) -> None:
        """Raises InputError where the run was begun with other data (`PackedDataset.data`)."""
        before = str(self.stored().get("data", data))
        volumes = data.partition("-")[0]
        if before.partition("-")[0] != volumes:
            raise InputError(
                f"{self.path}: begun with data {before[:16]}…, now {data[:16]}….\n"
                "Expected the same dataset; choose another --run for another one."
            )
        if before not in (data, volumes):  # runs of earlier versions have stored the volumes alone
            raise InputError(
                f"{self.path}: begun with other cases to train on and to validate with.\n"
                "Expected the same splits_final.json and --fold; choose another --run for others."
            )

    def write_config(
        self, experiment: Experiment, encoder_source: Mapping[str, str], data: str, initial_model: Mapping | None = None
    ) -> None:
        """Writes config.json. Raises InputError as `check_data`."""
        self.check_data(data)
        content = {**to_dict(experiment), "encoder_source": dict(encoder_source), "data": data}
        if initial_model:
            content["initial_model"] = dict(initial_model)
        content["config_sha256"] = _digest(content)
        write_json(self._config, content)

    def _read(self) -> dict[str, Any]:
        stored = read_json(self._config, advice="Choose another --run.")
        if not isinstance(stored, dict):
            raise InputError(f"{self._config}: not a run's configuration.\nChoose another --run.")
        digest = stored.pop("config_sha256", None)  # runs of earlier versions lack it
        if digest not in (None, _digest(stored)):
            raise InputError(f"{self._config}: not what was written (SHA-256).\nChoose another --run.")
        return stored


def open_run_directory(path: Path) -> RunDirectory:
    """Creates a run directory, or takes up an existing one, for this process alone; close it afterwards.

    What a killed process left is put right: half-written files go, and a model that was being replaced is whole again.

    Raises:
        UsageError: another process is training in it.
    """
    run = RunDirectory(path)
    run.checkpoints.mkdir(parents=True, exist_ok=True)
    run.lock()
    remove_leftovers(path)
    recover_model(run.model)
    return run


def _digest(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def flat(experiment: Experiment) -> dict[str, object]:
    """Every field of an experiment by its full name, e.g. `training.rate`."""
    flat: dict[str, object] = {}
    for name, value in dataclasses.asdict(experiment).items():
        flat.update({f"{name}.{k}": v for k, v in value.items()} if isinstance(value, dict) else {name: value})
    return flat


class MetricsLog:
    """metrics.csv: a row every `log_every` updates."""

    def __init__(self, path: Path, columns: tuple[str, ...]) -> None:
        self._path = path
        self._columns = columns

    def start_after(self, step: int) -> dict[str, str]:
        """Writes the header, or drops the rows beyond the step that a run goes on from. Returns its row, or {}."""
        rows = self._rows_until(step)
        self._write(rows)
        return rows[-1] if rows and int(rows[-1]["step"]) == step else {}

    def _write(self, rows: list[dict[str, str]]) -> None:
        header = dict(zip(self._columns, self._columns, strict=True))
        with replacing(self._path) as temporary:
            temporary.write_text(_csv_text([header, *rows], self._columns), encoding="utf-8")

    def _rows_until(self, step: int) -> list[dict[str, str]]:
        if not self._path.exists():
            return []
        with self._path.open(newline="", encoding="utf-8", errors="replace") as file:
            whole = [row for row in csv.DictReader(file) if None not in row.values()]  # a full disk cuts rows off
        rows = [{c: row.get(c) or "" for c in self._columns} for row in whole]
        return [row for row in rows if _is_sound(row) and int(row["step"]) <= step]

    def add(self, row: Mapping[str, float | int]) -> None:
        """Appends a row; columns that it lacks stay empty."""
        with naming(self._path), self._path.open("a", newline="", encoding="utf-8") as file:
            file.write(_csv_text([self._texts(row)], self._columns))

    def complete(self, row: Mapping[str, float | int]) -> None:
        """Writes columns into the last row, where it is of the same step; otherwise appends them."""
        rows, texts = self._rows_until(int(row["step"])), self._texts(row)
        if rows and rows[-1]["step"] == texts["step"]:
            texts = {column: text or rows[-1][column] for column, text in texts.items()}
            rows.pop()
        self._write([*rows, texts])

    def _texts(self, row: Mapping[str, float | int]) -> dict[str, str]:
        return {c: _number(row[c]) if c in row else "" for c in self._columns}


def _is_sound(row: Mapping[str, str]) -> bool:
    """Whether a row is one that was written: a killed process leaves parts of rows, a bad disk anything."""
    try:
        return row["step"].isdecimal() and all(math.isfinite(float(text)) for text in row.values() if text)
    except ValueError:
        return False


def _number(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.6g}"


def _csv_text(rows: list[dict[str, str]], columns: tuple[str, ...]) -> str:
    out = io.StringIO()
    csv.DictWriter(out, columns, extrasaction="ignore").writerows(rows)
    return out.getvalue()
