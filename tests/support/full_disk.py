"""A disk that takes no more, as the system tells it: no file may grow beyond a size."""

import contextlib
import resource
import signal


@contextlib.contextmanager
def full_disk(largest_file=20_000):
    """In here a write beyond `largest_file` bytes raises OSError, from Python and from libraries alike."""
    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
