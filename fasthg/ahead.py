"""A map on threads that stays a few results ahead of whoever consumes it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def map_ahead(function: Callable[[Item], Result], items: Iterable[Item], threads: int) -> Iterator[Result]:
    """`map(function, items)` on `threads` threads, in order, with up to twice as many results under way.

    An exception of `function` is raised where its result would have come. Leaving the iteration early cancels what has
    not begun. With 0 threads the caller's own thread does the work.
    """
    if not threads:
        yield from map(function, items)
        return
    items = iter(items)
    pool = ThreadPoolExecutor(threads, thread_name_prefix=getattr(function, "__name__", "loader"))
    try:
        pending: deque[Future[Result]] = deque(pool.submit(function, item) for item in islice(items, 2 * threads))
        while pending:
            result = pending.popleft().result()
            pending.extend(pool.submit(function, item) for item in islice(items, 1))
            yield result
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def walk_ahead(items: Iterable[Item], count: int) -> Iterator[Item]:
    """`items` in order, drawn by a thread of its own up to `count` ahead, where drawing them takes time itself."""
    source, end = iter(items), object()
    pool = ThreadPoolExecutor(1, thread_name_prefix="walker")
    try:
        pending = deque(pool.submit(next, source, end) for _ in range(max(1, count)))
        while (item := pending.popleft().result()) is not end:
            pending.append(pool.submit(next, source, end))
            yield item  # type: ignore[misc]
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        close = getattr(source, "close", None)
        if close is not None:
            close()  # on this thread, once the walker has let go of it
