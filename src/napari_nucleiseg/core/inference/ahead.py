"""Doing the next thing while the last one is used: ordered, bounded, and gone when the user of it is gone."""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from typing import Generic, Self, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")
_POLL_S = 0.05


def map_ahead(
    function: Callable[[Item], Result], items: Iterable[Item], *, workers: int, depth: int, name: str
) -> Generator[Result, None, None]:
    """Apply `function` to `items` in `workers` threads, at most `depth` results ahead, in the order of `items`.

    An exception of `function` is raised where its result would have come. Closing the iterator waits for
    what runs and leaves no thread behind.
    """
    pending: deque[Future[Result]] = deque()
    source = iter(items)
    with ThreadPoolExecutor(workers, thread_name_prefix=name) as pool:
        try:
            while True:
                while len(pending) < depth:
                    try:
                        item = next(source)
                    except StopIteration:
                        break
                    pending.append(pool.submit(function, item))
                if not pending:
                    return
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()


class _Outcome:
    """How the background thread ended: keeps its exception, whichever it is, for the caller's thread to raise."""

    error: BaseException | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        self.error = error
        return True


class _Ahead(Generic[Item]):
    """The background thread of `run_ahead` and its queue."""

    def __init__(self, items: Iterator[Item], depth: int, name: str) -> None:
        self._items = items
        self._queue: queue.Queue[tuple[Item] | None] = queue.Queue(depth)
        self.outcome = _Outcome()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._produce, name=name, daemon=True)

    def __enter__(self) -> _Ahead[Item]:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()

    def get(self) -> tuple[Item] | None:
        return self._queue.get()

    def _put(self, entry: tuple[Item] | None) -> bool:
        while not self._stopped.is_set():
            try:
                self._queue.put(entry, timeout=_POLL_S)
            except queue.Full:
                continue
            return True
        return False

    def _produce(self) -> None:
        # closing() also ends generators that this one feeds on, in the thread that ran them.
        with self.outcome, closing(_as_generator(self._items)) as items:
            for item in items:
                if not self._put((item,)):
                    return
        self._put(None)


def _as_generator(items: Iterator[Item]) -> Generator[Item, None, None]:
    """Wrap any iterator so that it can be closed; a generator inside is closed with it."""
    try:
        yield from items
    finally:
        close = getattr(items, "close", None)
        if close is not None:
            close()


def run_ahead(items: Iterator[Item], *, depth: int, name: str) -> Generator[Item, None, None]:
    """Run the iterator `items` in a background thread, at most `depth` items ahead.

    An exception of the iterator is raised in the caller's thread after the items before it. Closing this
    generator closes `items` (after the item in the making) and joins the thread.
    """
    with _Ahead(items, depth, name) as ahead:
        while (entry := ahead.get()) is not None:
            yield entry[0]
        if ahead.outcome.error is not None:
            raise ahead.outcome.error
