"""Work that may take long: how far it is shows in the panel and in napari's activity dock, and it can be stopped."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from psygnal import Signal

from napari_nucleiseg.viewer.activity import Activity
from napari_nucleiseg.viewer.jobs import Jobs, Work
from napari_nucleiseg.viewer.messages import Progress

TICK_S = 0.15
# A pace is told once so much of it has been seen.
PACE_S = 3.0


class StoppedError(Exception):
    """The user has stopped it."""


class LongWork:
    """What is worked on in one lane; all methods but `note` are for the main thread.

    Parameters
    ----------
    jobs : Jobs
        Runs it, and its clock ticks.
    lane : str
        Name of the lane.
    """

    changed = Signal(object)
    """A `Progress`, or None when nothing runs any more."""

    def __init__(self, jobs: Jobs, lane: str) -> None:
        self._jobs, self._lane, self._key = jobs, lane, f"{lane} progress"
        self._pending = 0
        self._progress = Progress("")
        self._began = 0.0
        self._activity: Activity | None = None
        self.is_stopped = False
        """Whether the user wants all that is pending to end; read in the thread of the work."""

    @property
    def is_running(self) -> bool:
        """Whether anything is pending."""
        return self._pending > 0

    def begin(self, title: str, *, after_s: float = 0.0) -> None:
        """Begin, or wait behind what runs; nothing is shown of what takes less than `after_s`."""
        self._pending += 1
        if self._pending == 1:
            self.is_stopped = False
            self._progress = Progress(title)
            self._jobs.later(self._key, after_s, self._tick)

    def run(
        self, title: str, work: Work, on_result: Callable[[Any], None], on_error: Callable[[BaseException], None]
    ) -> None:
        """Do what was begun, in its lane; its outcome is told once it has ended, so that who acts on it may go on.

        Parameters
        ----------
        title : str
            For people.
        work : callable
            As for `Jobs.start`; yields what it has made.
        on_result, on_error : callable
            Called on the main thread when nothing runs any more, with each of the things made, or with the error.
        """
        made: list[Any] = []

        def on_end() -> None:
            self.end()
            for one in made:
                on_result(one)

        def on_failed(error: BaseException) -> None:
            self.end()
            on_error(error)

        self._jobs.start(self._lane, work, title=title, on_value=made.append, on_end=on_end, on_error=on_failed)

    def stop(self) -> None:
        """Have all that is pending end soon."""
        self.is_stopped = self.is_running

    def end(self) -> None:
        """One of those that began has ended."""
        self._pending -= 1
        if self._pending == 0:
            self.is_stopped = False
            self._close_activity()
            self.changed.emit(None)

    def note(self, title: str, done: int, total: int) -> None:
        """Note how far it is; called in the thread of the work, for every part."""
        if title != self._progress.title or done == 0:
            self._began = time.monotonic()
        self._progress = Progress(title, done, total)

    def _tick(self) -> None:
        if not self.is_running:
            return
        progress = self._progress
        if self._activity is None:
            self._activity = Activity(progress.title, 100, self.stop)
        if self._activity is not None:
            self._activity.show(100 * progress.done // max(1, progress.total))
        if self._pending == 0:
            # It ended while napari drew its bar and let other events come.
            self._close_activity()
            return
        self.changed.emit(replace(progress, left_s=self._left_s(progress)))
        self._jobs.later(self._key, TICK_S, self._tick)

    def _close_activity(self) -> None:
        activity, self._activity = self._activity, None
        if activity is not None:
            activity.close()

    def _left_s(self, progress: Progress) -> float | None:
        seconds = time.monotonic() - self._began
        if not progress.done or seconds < PACE_S:
            return None
        return seconds / progress.done * (progress.total - progress.done)
