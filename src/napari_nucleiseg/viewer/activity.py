"""A running job in napari's activity dock, with its cancel button."""

from __future__ import annotations

from collections.abc import Callable

from napari.utils.progress import cancelable_progress


class _Bar(cancelable_progress):  # type: ignore[misc]
    """A bar whose cancel button acts at once; napari's own only asks an iterator that it wraps."""

    def cancel(self) -> None:
        """Called by the button."""
        super().cancel()
        if self.cancel_callback is not None:
            self.cancel_callback()


class Activity:
    """One bar in the activity dock.

    Parameters
    ----------
    title : str
        What is being done.
    total : int
        Steps.
    on_cancel : callable
        Called when the user presses the bar's cancel button.
    """

    def __init__(self, title: str, total: int, on_cancel: Callable[[], None]) -> None:
        self._bar: _Bar | None = _Bar(total=total, desc=title, cancel_callback=on_cancel)

    def show(self, done: int) -> None:
        """Show that `done` steps are done."""
        if self._bar is not None and done > self._bar.n:
            self._bar.update(done - self._bar.n)

    def close(self) -> None:
        """Take the bar away."""
        bar, self._bar = self._bar, None
        if bar is not None:
            bar.close()
