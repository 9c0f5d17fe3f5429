"""Doing the next thing while the last one is used: ordered, bounded, and gone when the user of it is gone."""

from __future__ import annotations

import os
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
_RESTING = "ahead, resting"


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


class _Worker:
    """A thread that is given one piece of work after another.

    The C library keeps what a thread frees for that thread's next use: were each run to have a new one, each would
    leave as much behind as a forward takes.
    """

    def __init__(self) -> None:
        self._given: queue.SimpleQueue[tuple[Callable[[], None], str, threading.Event]] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._go_on, name=_RESTING, daemon=True)
        self._thread.start()

    def give(self, work: Callable[[], None], name: str) -> threading.Event:
        """Begin with `work`, which must not raise; return what tells that it is done."""
        done = threading.Event()
        self._given.put((work, name, done))
        return done

    def _go_on(self) -> None:
        while True:
            work, self._thread.name, done = self._given.get()
            work()
            del work  # and all that it holds
            self._thread.name = _RESTING
            with _resting_lock:
                _resting.append(self)
            done.set()


_resting: list[_Worker] = []
_resting_lock = threading.Lock()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_resting.clear)  # a child has none of these threads


def _in_a_thread(work: Callable[[], None], name: str) -> threading.Event:
    """Begin with `work` in the thread that came to rest last, or a new one where none does."""
    with _resting_lock:
        worker = _resting.pop() if _resting else None
    return (worker or _Worker()).give(work, name)


class _Outcome:
    """How the background thread ended: keeps its exception, whichever it is, for the caller's thread to raise."""

    error: BaseException | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        self.error = error
        return True


class _Ahead(Generic[Item]):
    """What `run_ahead` does in a thread, and its queue."""

    def __init__(self, items: Iterator[Item], depth: int, name: str) -> None:
        self._items = items
        self._queue: queue.Queue[tuple[Item] | None] = queue.Queue(depth)
        self.outcome = _Outcome()
        self._stopped = threading.Event()
        self._name = name

    def __enter__(self) -> _Ahead[Item]:
        self._done = _in_a_thread(self._produce, self._name)
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._done.wait()

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
    generator closes `items` (after the item in the making); the thread then rests until the next run.
    """
    with _Ahead(items, depth, name) as ahead:
        while (entry := ahead.get()) is not None:
            yield entry[0]
        if ahead.outcome.error is not None:
            raise ahead.outcome.error
