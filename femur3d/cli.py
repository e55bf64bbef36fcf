"""What the entry points share: absl flags in, exit codes out, and a user's mistake as two lines, not a traceback."""

from __future__ import annotations

import contextlib
import errno
import importlib.util
import io
import os
import shutil
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags

from femur3d.config import Experiment
from femur3d.engines import selection
from femur3d.errors import EXIT_INPUT, EXIT_INTERNAL, EXIT_USAGE, FemurError, UsageError
from femur3d.io.atomic import TEMPORARY
from femur3d.io.formats.optional import without

if TYPE_CHECKING:
    from femur3d.inference.mode import Engine

EXIT_INTERRUPTED = 130
EXIT_TERMINATED = 143
_UNFINISHED = f"{TEMPORARY}dataset-"  # how folders begin in which datasets are made
FULL_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextlib.contextmanager
def quiet_imports() -> Iterator[None]:
    """Hides what TensorFlow writes to standard error while it is imported, and its later messages below errors.

    With --verbose on the command line nothing is hidden.

    TensorFlow 2.19 and later write start-up lines before they read TF_CPP_MIN_LOG_LEVEL (tensorflow#100442), so the
    file descriptor itself is turned away; where the import fails, what was hidden is shown.
    """
    if "--verbose" in sys.argv:
        yield
        return
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as hidden:
        os.dup2(hidden.fileno(), 2)
        try:
            yield
        except Exception:
            hidden.seek(0)
            os.write(kept, hidden.read())
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)


@contextlib.contextmanager
def starting() -> Iterator[None]:
    """`quiet_imports` for what an entry point imports before `run`; a FemurError ends the process as it would there."""
    try:
        with quiet_imports(), without(selection.idle_libraries()):
            yield
    except FemurError as error:
        sys.exit(_say(str(error), error.exit_code))
    except KeyboardInterrupt:
        sys.exit(_interrupted())


def load_engine(name: str, fast: bool) -> Engine:
    """`engines.selection.inference_engine`, imported in quiet."""
    with quiet_imports(), without(selection.idle_libraries(name)):
        return selection.inference_engine(name, fast)


def run(main: Callable[[Sequence[str]], int]) -> None:
    """Parses the flags, calls `main(argv)` and ends the process with the exit code it returns (DESIGN section 4).

    `--help` prints the calling module's docstring and flags. FemurError ends in its message and code, an OSError (a
    full disk, a missing permission) in code 3, Ctrl-C in 130; anything else is our mistake: a traceback and code 1.
    """
    if {"--help", "-help", "-h"} & set(sys.argv[1:]):
        print(f"{(sys.modules['__main__'].__doc__ or '').strip()}\n{flags.FLAGS.main_module_help()}")
        sys.exit(0)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a file's name may have letters that the terminal lacks
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(EXIT_TERMINATED))  # so that temporary files are removed
    sys.exit(_exit_code(main))


def empty_folder(path: str | None) -> Path:
    """A hidden folder to make a dataset in, inside the one of the flag; `finish_folder` takes it.

    So a command that was stopped can be given again.

    Raises:
        UsageError: the flag is missing, or something is in the way.
    """
    if not path:
        raise UsageError("-o: no folder received.\nExpected where to write the dataset, as in -o data/phantom.")
    folder = Path(path)
    if folder.is_file() or (folder.is_dir() and not all(one.name.startswith(_UNFINISHED) for one in folder.iterdir())):
        raise UsageError(f"-o: {folder} exists and is not an empty folder.\nName another folder or remove this one.")
    folder.mkdir(parents=True, exist_ok=True)
    return Path(tempfile.mkdtemp(prefix=_UNFINISHED, dir=folder))


def finish_folder(made: Path) -> Path:
    """Moves what was made in an `empty_folder` to where it was wanted, and returns that folder.

    What commands that were stopped have left there is removed.
    """
    folder = made.parent
    for one in made.iterdir():
        one.rename(folder / one.name)
    for left in folder.glob(f"{_UNFINISHED}*"):
        shutil.rmtree(left)
    return folder


def load_experiment(path: str | os.PathLike[str]) -> Experiment:
    """The `Experiment` that `get_config()` of an experiment file returns: code that the user chose to run.

    Args:
        path: a file, or the name of an experiment that comes with femur3d, such as 'scratch'.

    Raises:
        UsageError: no such file, not Python, or without `get_config()`.
    """
    path = next((file for file in [Path(path), *_experiments_named(str(path))] if file.is_file()), Path(path))
    if not path.is_file():
        raise UsageError(
            f"{path}: no such experiment.\nExpected a file such as experiments/scratch.py, or a name such as scratch."
        )
    spec = importlib.util.spec_from_file_location("femur3d_experiment", path)
    if spec is None or spec.loader is None:
        raise UsageError(f"{path}: not a Python file.\nExpected e.g. experiments/scratch.py.")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        experiment = module.get_config()
    except FemurError:
        raise
    except Exception as error:  # the file is the user's code and may raise anything
        raise UsageError(f"{path}: {type(error).__name__}: {error}\nExpected a file with get_config().") from error
    if not isinstance(experiment, Experiment):
        raise UsageError(f"{path}: get_config() returned {type(experiment).__name__}.\nExpected an Experiment.")
    return experiment


def _experiments_named(name: str) -> list[Path]:
    """Where an experiment that comes with femur3d may lie: in the installed package, or beside it in a clone."""
    if not name.isidentifier():
        return []
    package = Path(__file__).parent
    return [folder / "experiments" / f"{name}.py" for folder in (package, package.parent)]


def no_arguments(argv: Sequence[str]) -> None:
    """Raises UsageError where words are left over once the flags are parsed."""
    if len(argv) > 1:
        raise UsageError(f"Unexpected arguments: {' '.join(argv[1:])}\nExpected flags only; see --help.")


def _exit_code(main: Callable[[Sequence[str]], int]) -> int:
    try:
        return main(parse(sys.argv))
    except flags.Error as error:
        return _say(f"{error}\nSee `{os.path.basename(sys.argv[0])} --help` for the flags.", EXIT_USAGE)
    except FemurError as error:
        return _say(str(error), error.exit_code)
    except OSError as error:
        reason = " ".join((error.strerror or str(error)).split())
        full = "\nFree some space and give the same command again." if error.errno in FULL_DISK else ""
        return _say((f"{reason}: {error.filename}" if error.filename else reason) + full, EXIT_INPUT)
    except KeyboardInterrupt:
        return _interrupted()
    except Exception:
        traceback.print_exc()
        return EXIT_INTERNAL


def parse(words: Sequence[str]) -> list[str]:
    """Sets the flags by the words of a command line, --follow-links like --follow_links; returns the others."""
    return flags.FLAGS([_with_underscores(word) for word in words])


def _with_underscores(word: str) -> str:
    """--follow-links as the flag is called, --follow_links; other words as they are."""
    name, equals, value = word.partition("=")
    known = name[2:].replace("-", "_")
    is_flag = name.startswith("--") and (known in flags.FLAGS or known.removeprefix("no") in flags.FLAGS)
    return f"--{known}{equals}{value}" if is_flag else word


def _interrupted() -> int:
    return _say("Interrupted.", EXIT_INTERRUPTED)


def _say(message: str, code: int) -> int:
    print(message, file=sys.stderr)
    return code
