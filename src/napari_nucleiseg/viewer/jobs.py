"""The one file that owns threads: jobs in lanes, answers on the main thread, late ones dropped by number."""

from __future__ import annotations

import logging
import math
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass, field
from typing import Any

Call = Callable[[], None]
Post = Callable[[Call], None]
Cancelled = Callable[[], bool]
Work = Callable[[Cancelled], Iterator[Any]]

NICENESS = 10

logger = logging.getLogger(__name__)


class MainThread:
    """Runs callables on the main thread, in the order they were posted, from whatever thread."""

    def __init__(self) -> None:
        from napari.qt.threading import WorkerBaseSignals

        # A signal of an object that lives on the main thread: emitted elsewhere, it is queued there.
        self._mailbox: Any = WorkerBaseSignals()
        self._mailbox.returned.connect(_run)

    def __call__(self, call: Call) -> None:
        """Run `call` soon on the main thread."""
        try:
            self._mailbox.returned.emit(call)
        except RuntimeError:  # Qt has deleted the mailbox: the application is closing
            logger.debug("an answer came after the window had gone")


def _run(call: Call) -> None:
    call()


def _nothing() -> None:
    """Take a place in a lane."""


@dataclass(eq=False)
class Job:
    """One piece of work in a lane.

    Parameters
    ----------
    lane : str
        Jobs of a lane run one after another; a new one supersedes those before it.
    number : int
        Place in the order of all jobs.
    title : str
        For people.
    """

    lane: str
    number: int
    title: str
    on_value: Callable[[Any], None]
    on_end: Call
    on_error: Callable[[BaseException], None]
    on_late_error: Callable[[BaseException], None]
    on_late_value: Callable[[Any], None] | None
    stop: threading.Event = field(default_factory=threading.Event)


class Jobs:
    """Starts, supersedes and ends jobs.

    Parameters
    ----------
    post : callable, optional
        Runs a callable on the main thread; default through Qt's event loop.
    """

    def __init__(self, post: Post | None = None) -> None:
        self._post = post or MainThread()
        self._clock = _Clock(self._post)
        self._pools: dict[str, ThreadPoolExecutor] = {}
        self._current: dict[str, Job] = {}
        self._futures: set[Future[None]] = set()
        self._count = 0
        self._closed = False

    def start(
        self,
        lane: str,
        work: Work,
        *,
        title: str = "",
        on_value: Callable[[Any], None] = lambda _value: None,
        on_end: Call = lambda: None,
        on_error: Callable[[BaseException], None] | None = None,
        on_late_error: Callable[[BaseException], None] | None = None,
        on_late_value: Callable[[Any], None] | None = None,
    ) -> Job | None:
        """Supersede what runs in `lane` with `work`; it begins once that has stopped.

        Parameters
        ----------
        lane : str
            Name of the lane.
        work : callable
            Called in the lane's thread with a function that says whether to stop; returns an iterator.
        title : str
            For people.
        on_value, on_end, on_error : callable
            Called on the main thread, each value in turn and then one of the others, unless the job was
            superseded or cancelled meanwhile. `on_error`'s default raises on the main thread.
        on_late_error : callable
            Called in place of `on_error` if the job was superseded or cancelled meanwhile, so that no failure is
            lost: it is to say it, and to leave alone what runs now. Default `on_error`.
        on_late_value : callable, optional
            Called in place of `on_value` with what was yielded before the job had noticed that it was superseded or
            cancelled: for values that tell of what is done and cannot be taken back.

        Returns
        -------
        Job or None
            None after `close`.
        """
        if self._closed:
            return None
        self.cancel(lane)
        self._count += 1
        on_error = on_error or _raise
        job = Job(lane, self._count, title, on_value, on_end, on_error, on_late_error or on_error, on_late_value)
        self._current[lane] = job
        pool = self._pool(lane)
        future = pool.submit(self._drain, job, work)
        self._futures.add(future)
        # From the lane's own thread, so that the end is posted after the last value.
        pool.submit(lambda: self._post(lambda: self._finish(job, future)))
        return job

    def enqueue(
        self,
        lane: str,
        call: Callable[[], Any],
        *,
        on_value: Callable[[Any], None] = lambda _value: None,
        on_error: Callable[[BaseException], None] | None = None,
    ) -> None:
        """Run `call` in `lane` after all that was asked for before; it is never superseded or cancelled.

        Parameters
        ----------
        lane : str
            Name of the lane; not one of `start`.
        call : callable
            Runs in the lane's thread, even if this is closed meanwhile.
        on_value, on_error : callable
            Called on the main thread with what `call` returned or raised, unless this is closed by then.
        """
        if self._closed:
            return
        pool = self._pool(lane)
        future = pool.submit(call)
        self._futures.add(future)
        pool.submit(lambda: self._post(lambda: self._answer(lane, future, on_value, on_error or _raise)))

    def _answer(
        self,
        lane: str,
        future: Future[Any],
        on_value: Callable[[Any], None],
        on_error: Callable[[BaseException], None],
    ) -> None:
        self._futures.discard(future)
        error = future.exception()
        if error is not None and self._closed:
            logger.error("%s failed after its window was closed", lane, exc_info=error)
        elif error is not None:
            on_error(error)
        elif not self._closed:
            on_value(future.result())

    def _pool(self, lane: str) -> ThreadPoolExecutor:
        pool = self._pools.get(lane)
        if pool is None:
            pool = ThreadPoolExecutor(1, f"nucleiseg-{lane}", initializer=_step_back)
            self._pools[lane] = pool
        return pool

    def after(self, call: Call, *lanes: str) -> None:
        """Run `call` once all that was started in `lanes` has ended, in the thread of one; it is never superseded.

        It runs even if this is closed meanwhile.
        """
        pools = [self._pools[lane] for lane in lanes if lane in self._pools]
        if not pools:
            call()
            return
        earlier = [pool.submit(_nothing) for pool in pools[:-1]]

        def run() -> None:
            for future in earlier:
                future.result()
            call()

        pools[-1].submit(run)

    def _drain(self, job: Job, work: Work) -> None:
        """Run in the lane's thread."""
        if job.stop.is_set():
            return
        with closing(_Closable(work(job.stop.is_set))) as values:
            for value in values:
                is_late = job.stop.is_set()
                if not is_late or job.on_late_value is not None:
                    self._post(lambda value=value: self._deliver(job, value))  # type: ignore[misc]
                if is_late:
                    return

    def _deliver(self, job: Job, value: Any) -> None:
        if self._is_current(job):
            job.on_value(value)
        elif job.on_late_value is not None and not self._closed:
            job.on_late_value(value)

    def _finish(self, job: Job, future: Future[None]) -> None:
        self._futures.discard(future)
        current = self._is_current(job)
        if current:
            del self._current[job.lane]
        error = future.exception()
        if error is not None and self._closed:
            logger.error("%s failed after its window was closed", job.title or job.lane, exc_info=error)
        elif error is not None:
            # Also of a superseded job: a full disk matters even if the view has moved on.
            (job.on_error if current else job.on_late_error)(error)
        elif current:
            job.on_end()

    def _is_current(self, job: Job) -> bool:
        return not self._closed and self._current.get(job.lane) is job

    def is_running(self, lane: str) -> bool:
        """Whether a job of `lane` is wanted and has not ended."""
        return lane in self._current

    @property
    def busy(self) -> bool:
        """Whether any thread is still at work, superseded ones included."""
        return bool(self._futures)

    def is_settled(self, seconds: float) -> bool:
        """Whether no thread is at work and nothing that waits for its time is due within `seconds`."""
        return not self.busy and not self._clock.is_due(seconds)

    def cancel(self, lane: str) -> bool:
        """Ask what runs in `lane` to stop and drop its answers; return whether there was anything."""
        job = self._current.pop(lane, None)
        if job is not None:
            job.stop.set()
        return job is not None

    def later(self, key: str, seconds: float, call: Call) -> None:
        """Run `call` on the main thread after `seconds` without another `later` of the same key."""
        self._clock.set(key, time.monotonic() + seconds, lambda: self._unless_closed(call))

    def soon(self, key: str, seconds: float, call: Call) -> None:
        """Run `call` on the main thread: at once, or `seconds` after the last of the same key, however often asked."""
        self._clock.space(key, seconds, lambda: self._unless_closed(call))

    def _unless_closed(self, call: Call) -> None:
        """Run what was due before `close` only if it comes before it: what it would change may be gone."""
        if not self._closed:
            call()

    def forget(self, key: str) -> None:
        """Do not run what `later` or `soon` were to run."""
        self._clock.drop(key)

    def close(self) -> None:
        """Stop everything without waiting; no answer arrives afterwards."""
        for lane in list(self._current):
            self.cancel(lane)
        self._closed = True
        self._clock.close()
        for pool in self._pools.values():
            pool.shutdown(wait=False, cancel_futures=False)

    def join(self) -> None:
        """Wait until all threads have ended; only after `close`."""
        for pool in self._pools.values():
            pool.shutdown(wait=True)
        self._clock.join()


def _step_back() -> None:
    """Let the window's own threads go first where cores are few; threads started from this one do the same."""
    if sys.platform == "linux":  # elsewhere a thread has no niceness of its own
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)


def _raise(error: BaseException) -> None:
    raise error


class _Closable:
    """Any iterator with a ``close``, as generators have one."""

    def __init__(self, values: Iterator[Any]) -> None:
        self._values = values

    def __iter__(self) -> Iterator[Any]:
        return self._values

    def close(self) -> None:
        """End a generator at its current yield, so that its clean-up runs in this thread."""
        close = getattr(self._values, "close", None)
        if close is not None:
            close()


class _Clock(threading.Thread):
    """Posts calls when they are due; one thread, asleep in between."""

    def __init__(self, post: Post) -> None:
        super().__init__(name="nucleiseg-clock", daemon=True)
        self._post = post
        self._due: dict[str, tuple[float, Call]] = {}
        self._ran: dict[str, float] = {}
        self._change = threading.Condition()
        self._closed = False
        self.start()

    def set(self, key: str, when: float, call: Call) -> None:
        """Have `call` run at `when`, in place of what was to run under the same key."""
        with self._change:
            self._due[key] = (when, call)
            self._change.notify()

    def space(self, key: str, seconds: float, call: Call) -> None:
        """Have `call` run at once, but not within `seconds` of the last one of the same key."""
        with self._change:
            self._due[key] = (self._ran.get(key, -math.inf) + seconds, call)
            self._change.notify()

    def drop(self, key: str) -> None:
        """Forget what was to run under a key."""
        with self._change:
            self._due.pop(key, None)

    def is_due(self, seconds: float) -> bool:
        """Whether anything is due within `seconds`."""
        with self._change:
            return any(when <= time.monotonic() + seconds for when, _call in self._due.values())

    def close(self) -> None:
        """Forget everything and end the thread."""
        with self._change:
            self._closed = True
            self._due.clear()
            self._change.notify()

    def run(self) -> None:
        """Sleep until something is due."""
        with self._change:
            while not self._closed:
                now = time.monotonic()
                for key in [key for key, (when, _call) in self._due.items() if when <= now]:
                    self._ran[key] = now
                    self._post(self._due.pop(key)[1])
                wait = min((when for when, _call in self._due.values()), default=None)
                self._change.wait(None if wait is None else max(0.0, wait - time.monotonic()))
