"""The errors that a user can correct, and the exit codes of the command lines."""

EXIT_INTERNAL = 1
EXIT_USAGE = 2
EXIT_INPUT = 3
EXIT_SOME_FAILED = 4
EXIT_RED_FLAG = 5  # with --strict: all is written, but a segmentation is not to be trusted


class FemurError(ValueError):
    """A mistake that the user can correct: entry points print its message (one or two lines) and no traceback.

    The message says what was received, what would be accepted and what to do.
    """

    exit_code = EXIT_INPUT


class InputError(FemurError):
    """A file or dataset that cannot be read or is not valid."""


class UsageError(FemurError):
    """A flag or setting that makes no sense."""

    exit_code = EXIT_USAGE


def no_femur() -> InputError:
    """The error of formats that cannot hold an empty label map."""
    return InputError("The label map holds no femur: all voxels are 0.\nCheck that the scan shows a hip.")
