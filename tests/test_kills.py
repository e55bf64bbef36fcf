"""`pack` and `train` killed at an event in the file system and started again: the same bits, and nothing left over."""

import csv
import re
import subprocess
import sys

import pytest

from tests.support.ellipsoids import write_dataset

TIMES = ("steps_per_s", "wait_share")
EXPERIMENT = """from femur3d.config import *

def get_config():
    return Experiment(
        "tiny",
        preprocessing=Preprocessing(spacing_mm=(2.0, 2.0, 2.0), margin_mm=6.0, patch_size=(16, 16, 16)),
        network=Network((2, 2, 2, 2), (2, 2, 2)),
        training=Training(steps=8, variants=(0,), checkpoint_every=2, validate_every=4, log_every=2),
    )
"""


def contents(folder):
    """Of every file that has to be the same, by its path below the folder; all others by name alone."""
    found = {}
    for path in (path for path in folder.rglob("*") if path.is_file()):
        name = path.relative_to(folder).as_posix()
        if path.name == "metrics.csv":
            with path.open(newline="") as file:
                found[name] = [{k: v for k, v in row.items() if k not in TIMES} for row in csv.DictReader(file)]
        elif path.name.startswith("events.out.tfevents."):
            found["events"] = None
        else:
            found[name] = None if path.name == "log.txt" else path.read_bytes()
    return found


@pytest.mark.slow
@pytest.mark.parametrize(("command", "samples", "fewest"), [("pack", 40, 6), ("train", 24, 50)])
def test_a_kill_at_any_event_costs_no_work(tmp_path, command, samples, fewest):
    write_dataset(tmp_path / "data", cases=2)
    (tmp_path / "tiny.py").write_text(EXPERIMENT)
    words = [sys.executable, "-m", "tests.support.kills", command, str(tmp_path), str(samples)]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    assert int(done.stdout.split()[0]) >= fewest
    expected = contents(tmp_path / "unbroken")
    hidden = sorted(name for name in expected if "/." in f"/{name}")
    packed = [".packed/.lock", ".packed/data_#.h5", "run/.lock"] if command == "train" else []
    assert [re.sub(r"_[0-9a-f]{16}", "_#", name) for name in hidden] == packed
    for folder in tmp_path.glob("kill-*"):
        assert contents(folder) == expected, folder.name
    for folder in tmp_path.glob("seen-*"):  # as they were left: once there is a model, there always is one
        saved = (folder / "run" / "metrics.csv").exists() and "\n4," in (folder / "run" / "metrics.csv").read_text()
        assert (folder / "run" / "model" / "config.json").exists() or not saved
