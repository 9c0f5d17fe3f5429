"""The engine of one machine: a process a worker, each with its own threads or its own GPU."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from napari_nucleiseg.core.batch.engines.base import Ending, Engine, EngineLostError, Outcome, Task, ended
from napari_nucleiseg.core.batch.engines.worker import settle

DIED = "the worker's process ended in the middle of it (killed, or out of memory)"
# A worker that dies again and again before it has done anything cannot be helped by a new process.
_MOST_DEATHS_IN_A_ROW = 12


@dataclass(slots=True, eq=False)
class _Slot:
    """One worker and what it was given, oldest first: that one is in work."""

    number: int
    executor: Executor
    given: deque[tuple[Task, Future[Any]]] = field(default_factory=deque)


class LocalEngine(Engine):
    """Processes of this machine.

    Parameters
    ----------
    workers : int
        How many.
    threads : int
        Threads of torch and OpenCV in each.
    devices : sequence of str
        Devices that workers take in turn, e.g. ``("cuda:0", "cuda:1")``; empty leaves it to the task.
    in_process : bool
        One thread of this process instead: no time to start, no protection from a crash; for small work and tests.
    """

    def __init__(
        self, workers: int = 1, *, threads: int = 1, devices: Sequence[str] = (), in_process: bool = False
    ) -> None:
        self._threads, self._devices, self._in_process = threads, tuple(devices), in_process
        self._deaths = 0
        self._slots = [_Slot(number, self._executor(number)) for number in range(1 if in_process else workers)]
        self._ready: list[Outcome] = []

    @property
    def workers(self) -> int:
        """Processes."""
        return len(self._slots)

    @property
    def waiting(self) -> int:
        """Tasks given and not collected."""
        return sum(len(slot.given) for slot in self._slots) + len(self._ready)

    def submit(self, task: Task) -> None:
        """Give a task to the worker with least to do."""
        slot = min(self._slots, key=lambda slot: len(slot.given))
        self._give(slot, task)

    def collect(self, timeout_s: float) -> list[Outcome]:
        """Return what ended."""
        if not self._ready:
            running = [slot.given[0][1] for slot in self._slots if slot.given]
            if running:
                wait(running, timeout=timeout_s, return_when=FIRST_COMPLETED)
            else:
                time.sleep(timeout_s)
        outcomes, self._ready = self._ready, []
        for slot in self._slots:
            outcomes += self._ended_in(slot)
        return outcomes

    def describe(self) -> str:
        """Return e.g. ``this machine, 2 processes of 1 thread``."""
        if self._in_process:
            return "this process"
        where = f" on {', '.join(self._devices)}" if self._devices else ""
        count = f"{self.workers} process{'es' * (self.workers > 1)}"
        return f"this machine, {count} of {self._threads} thread{'s' * (self._threads > 1)}{where}"

    def close(self) -> None:
        """Stop all workers at once; a task in work is lost, as by a kill, and nothing that it had finished."""
        for slot in self._slots:
            processes = dict(getattr(slot.executor, "_processes", None) or {})
            slot.executor.shutdown(wait=False, cancel_futures=True)
            # Python 3.14 has a method for this; until then a task of minutes would have to be waited for.
            for process in processes.values() if slot.given else ():
                process.kill()
        for slot in self._slots:
            slot.executor.shutdown(wait=True)

    def _executor(self, number: int) -> Executor:
        if self._in_process:
            return ThreadPoolExecutor(1, thread_name_prefix="nucleiseg-task")
        device = self._devices[number % len(self._devices)] if self._devices else ""
        # A fresh interpreter: threads and locks of a window, or of torch, do not survive a fork.
        context = multiprocessing.get_context("spawn")
        return ProcessPoolExecutor(1, context, _begin, (self._threads, device, os.getpid()))

    def _give(self, slot: _Slot, task: Task) -> None:
        # Processes are started when they get their first task.
        with _hidden_main():
            try:
                future = slot.executor.submit(task.function, *task.arguments)
            except BrokenProcessPool:
                self._renew(slot)
                future = slot.executor.submit(task.function, *task.arguments)
        slot.given.append((task, future))

    def _ended_in(self, slot: _Slot) -> list[Outcome]:
        outcomes = []
        while slot.given and slot.given[0][1].done():
            task, future = slot.given.popleft()
            error = future.exception()
            if error is None:
                self._deaths = 0
                outcomes.append(Outcome(task, Ending.DONE, future.result()))
            elif isinstance(error, BrokenProcessPool):
                outcomes.append(Outcome(task, Ending.DIED, None, DIED, type(error).__name__))
                self._renew(slot)
            else:
                self._deaths = 0
                outcomes.append(ended(task, error))
        return outcomes

    def _renew(self, slot: _Slot) -> None:
        """Start a worker in the place of one that died; what it had not begun is given to the new one."""
        self._deaths += 1
        if self._deaths > _MOST_DEATHS_IN_A_ROW:
            raise EngineLostError(
                f"{self._deaths} workers died one after the other before they had done anything. What is finished is "
                "kept; free memory or ask for fewer workers, and run the same command again."
            )
        slot.executor.shutdown(wait=False, cancel_futures=True)
        slot.executor = self._executor(slot.number)
        left, slot.given = slot.given, deque()
        for task, _ in left:
            self._give(slot, task)


@contextmanager
def _hidden_main() -> Iterator[None]:
    """Keep new processes from running the program's main script: one that opens a window would open one in each."""
    main = sys.modules["__main__"].__dict__
    kept: dict[str, Any] = {name: main[name] for name in ("__file__", "__spec__") if name in main}
    main["__spec__"] = None
    main.pop("__file__", None)
    try:
        yield
    finally:
        main.update(kept)


def _begin(threads: int, device: str, parent: int) -> None:
    """Set a worker up: its threads, its device, and that it ends when whoever started it is gone."""
    # Control-C is for whoever started it, who then says what becomes of the workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    settle(threads, device)
    threading.Thread(target=_end_with, args=(parent,), daemon=True, name="nucleiseg-parent").start()


def _end_with(parent: int) -> None:
    """End this process when its parent was killed: nobody would ever hear what it finds."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)
