"""Taking the place of whoever writes to the results of the slide in hand, once the user has said so."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from napari_nucleiseg.viewer.display import Display
from napari_nucleiseg.viewer.editing import LANE
from napari_nucleiseg.viewer.engine import Engine

if TYPE_CHECKING:
    from napari_nucleiseg.core.store.lock import Occupant
    from napari_nucleiseg.core.store.project import Project
    from napari_nucleiseg.viewer.opened import OpenedSlide


class TakingOver:
    """Opens for writing what could only be looked at; all methods are for the main thread.

    Parameters
    ----------
    engine : Engine
        Opens projects.
    display : Display
        Knows the viewer, the slide in hand and the jobs.
    lanes : tuple of str
        Where the project that was only looked at may still be read.
    go_on : callable
        Called when it is done.
    on_error : callable
        Told if it cannot be done.
    """

    def __init__(
        self,
        engine: Engine,
        display: Display,
        lanes: tuple[str, ...],
        go_on: Callable[[], None],
        on_error: Callable[[BaseException], None],
    ) -> None:
        self._engine, self._display, self._lanes = engine, display, lanes
        self._go_on, self._on_error = go_on, on_error

    def occupant(self) -> Occupant | None:
        """Return who writes to the results at this moment; None if nobody does."""
        opened = self._display.shelf.now
        return None if opened is None or opened.project is None else self._engine.occupant(opened.project)

    def begin(self) -> None:
        """Take the place, and go on with what was wanted; whoever had it can write no more."""
        opened = self._display.shelf.now
        looked_at = None if opened is None else opened.project
        if opened is None or looked_at is None:
            return
        self._display.jobs.enqueue(
            LANE,
            lambda: self._engine.take_over(opened.slide, looked_at.folder),
            on_value=lambda project: self._on_opened(opened, looked_at, project),
            on_error=self._on_error,
        )

    def _on_opened(self, opened: OpenedSlide, looked_at: Project, project: Project) -> None:
        jobs = self._display.jobs
        if self._display.shelf.now is not opened or opened.project is not looked_at:
            jobs.after(project.close, LANE)
            return
        opened.drop_results(self._display.viewer)
        opened.project = project
        jobs.after(looked_at.close, *self._lanes)
        self._display.show()
        self._go_on()
