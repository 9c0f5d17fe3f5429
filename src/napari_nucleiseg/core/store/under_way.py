"""Chunks on their way to their files in threads, so that whoever changes the next ones need not wait for them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

Key = tuple[int, int, int]
UInt32Image = NDArray[np.uint32]
MOST_WORKERS = 8


def default_workers() -> int:
    """Threads that pack chunks beside the one that changes them: none on one or two cores, which have work enough."""
    return min(MOST_WORKERS, (os.cpu_count() or 1) // 2) if (os.cpu_count() or 1) > 2 else 0


@cache
def _pool(workers: int) -> ThreadPoolExecutor:
    """Return threads that all projects share."""
    return ThreadPoolExecutor(workers, thread_name_prefix="chunks")


@dataclass(frozen=True, slots=True, eq=False)
class Written:
    """A chunk that has reached its file."""

    key: Key
    chunk: UInt32Image


class UnderWay:
    """What is being packed and written; only for the thread that changes chunks.

    A chunk here must not be changed: whoever wants to, changes a copy. A key is here once at a time, so that an older
    chunk never comes after a newer one.

    Parameters
    ----------
    put : callable
        Packs and writes one chunk; called in threads.
    workers : int
        How many; 0 for none, then nothing may be begun.
    """

    def __init__(self, put: Callable[[Key, UInt32Image], None], workers: int) -> None:
        self._put = put
        self._workers = workers
        self._chunks: dict[Key, UInt32Image] = {}
        self._futures: dict[Future[None], Key] = {}

    def __len__(self) -> int:
        return len(self._chunks)

    def __contains__(self, key: Key) -> bool:
        return key in self._chunks

    @property
    def is_possible(self) -> bool:
        """Whether there are threads."""
        return self._workers > 0

    @property
    def is_full(self) -> bool:
        """Whether one must end before another is begun."""
        return len(self._chunks) >= 2 * self._workers

    def holds(self, key: Key, chunk: UInt32Image) -> bool:
        """Whether this very chunk is being written."""
        return self._chunks.get(key) is chunk

    def begin(self, key: Key, chunk: UInt32Image) -> None:
        """Write a chunk in a thread; its key must not be under way."""
        self._chunks[key] = chunk
        self._futures[_pool(self._workers).submit(self._put, key, chunk)] = key

    def ended(self, *, at_least_one: bool = False, all_of_them: bool = False) -> Iterator[Written]:
        """Yield what has reached its file.

        Parameters
        ----------
        at_least_one, all_of_them : bool
            Wait for it.

        Raises
        ------
        OSError
            Of the first that could not be written, once all that have ended are told. None of them is under way then.
        """
        if not self._futures:
            return
        if all_of_them:
            wait(self._futures)
        elif at_least_one:
            wait(self._futures, return_when=FIRST_COMPLETED)
        failure: BaseException | None = None
        for future in [future for future in self._futures if future.done()]:
            key = self._futures.pop(future)
            chunk = self._chunks.pop(key)
            if error := future.exception():
                failure = failure or error
            else:
                yield Written(key, chunk)
        if failure is not None:
            raise failure
