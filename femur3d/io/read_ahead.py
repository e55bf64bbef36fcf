"""What comes next is made in a thread while this process is busy with what it has."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Given = TypeVar("Given")
Made = TypeVar("Made")


def read_ahead(make: Callable[[Given], Made], items: Iterable[Given], ahead: int = 1) -> Iterator[Future[Made]]:
    """`make(item)` of every item, in order; up to `ahead` of them are made before they are asked for.

    What one raises is raised by its `result()`, in its turn. Closing the iterator, as Python does with one that is
    dropped, ends the thread.

    Args:
        make: runs in one thread, one item at a time.
        items: taken only as far as they are needed, so that there may be any number.
        ahead: at least 1.
    """
    left = iter(items)
    pool, all_given = ThreadPoolExecutor(1, thread_name_prefix="read-ahead"), False
    try:
        waiting = [pool.submit(make, item) for item in itertools.islice(left, ahead)]
        while waiting:
            waiting += [pool.submit(make, item) for item in itertools.islice(left, 1)]
            yield waiting.pop(0)
        all_given = True
    finally:
        pool.shutdown(cancel_futures=not all_given)
