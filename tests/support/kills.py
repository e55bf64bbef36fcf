"""A command that is killed at its n-th event in the file system, and started again.

    python -m tests.support.kills pack|train FOLDER SAMPLES

FOLDER holds `data`, a dataset, and `tiny.py`, an experiment. Makes FOLDER/unbroken by the command; then for every n (or
SAMPLES of them) FOLDER/kill-n, where it was killed at event n and then run again.
"""

import contextlib
import importlib
import os
import shutil
import sys
import types
from pathlib import Path
from typing import ClassVar

import numpy as np
from absl import flags

WATCHED = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.chmod", "ctypes.call_function"}
KILLED = 77


class StandInEngine:
    """Updates that depend on weights, patches and the optimiser's state, for which Keras's NumPy backend will do."""

    errors: tuple = ()
    versions: ClassVar[dict] = {}

    def make_repeatable(self, training=True):
        pass

    def device_name(self):
        return "nothing"

    def patch_stream(self, sampler, first_step, steps):
        return (sampler.batch(step) for step in range(first_step, steps))

    def make_train_step(self, network, optimizer, *_):
        def step(images, labels):
            seen = float(np.mean(images)) + float(np.mean(labels))
            for variable in (*network.trainable_variables, *optimizer.variables[2:]):
                variable.assign(0.5 * variable + seen)
            optimizer.iterations.assign_add(1)
            names = ("loss", "ce_lower", "ce_mid", "ce_upper", "l2_penalty", "learning_rate", "gradient_norm")
            return dict.fromkeys(names, seen)

        return step

    def make_predict(self, network):
        return lambda patches: (patches > 0).astype(np.float32)


def run(module: types.ModuleType, top: Path, folder: Path) -> None:
    """The command line of `femur3d.pack` or `femur3d.train` in this process, with all its output in `folder`."""
    output = ["--run", str(folder / "run")] if module.__name__.endswith("train") else ["-o", str(folder / "p.h5")]
    sys.argv = [module.__name__, "--experiment", str(top / "tiny.py"), "--dataset", str(top / "data"), *output]
    module.main(flags.FLAGS(sys.argv))


def run_in_child(module: types.ModuleType, top: Path, folder: Path, left: float) -> tuple[int, int]:
    """Runs the command in a fork of this process, which dies at event `left`; its exit code, and events it saw."""
    reader, writer = os.pipe()
    child = os.fork()
    if child:
        os.close(writer)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        with os.fdopen(reader) as told:
            return code, int(told.read() or 0)
    seen = 0

    def die(event, arguments):
        nonlocal seen
        changes = event != "open" or (isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR))
        if event in WATCHED and changes and str(folder) in str(arguments):
            if seen == left:
                os._exit(KILLED)
            seen += 1

    sys.addaudithook(die)
    code = 1
    with contextlib.suppress(SystemExit), open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        run(module, top, folder)
        code = 0
    os.write(writer, str(seen).encode())
    os._exit(code)


def main() -> None:
    os.environ["KERAS_BACKEND"] = "numpy"  # starts in a tenth of TensorFlow's time
    backend = types.ModuleType("femur3d.engines.backend")
    backend.ENGINE = StandInEngine()
    sys.modules[backend.__name__] = backend
    module = importlib.import_module(f"femur3d.{sys.argv[1]}")  # one alone: both define flags of the same names
    importlib.import_module("femur3d.training.trainer")  # once, and not in every child
    top, samples = Path(sys.argv[2]), int(sys.argv[3])
    unbroken = top / "unbroken"
    unbroken.mkdir()
    code, events = run_in_child(module, top, unbroken, float("inf"))
    assert code == 0
    for number in np.unique(np.linspace(0, events - 1, min(samples, events)).astype(int)).tolist():
        folder = top / f"kill-{number}"
        folder.mkdir()
        code, _ = run_in_child(module, top, folder, number)
        assert code == KILLED, (number, code)
        if (folder / "run" / "config.json").exists():
            shutil.copytree(folder, top / f"seen-{number}")
        code, _ = run_in_child(module, top, folder, float("inf"))
        assert code == 0, (number, code)
    print(f"{events} events")


if __name__ == "__main__":
    main()
