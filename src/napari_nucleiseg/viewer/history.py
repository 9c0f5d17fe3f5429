"""What was done on the slide in hand, newest first, read page by page off the main thread."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from psygnal import Signal

from napari_nucleiseg.core.store.journal import Step
from napari_nucleiseg.viewer.connections import Connections
from napari_nucleiseg.viewer.display import Display
from napari_nucleiseg.viewer.editing import Editing
from napari_nucleiseg.viewer.jobs import Cancelled
from napari_nucleiseg.viewer.marker import fly_to

if TYPE_CHECKING:
    from napari_nucleiseg.core.store.project import Project

LANE = "history"
PAGE = 200
EDITED_S = 0.1


class History:
    """The history of one viewer's slide, between `open` and `close`; all methods are for the main thread.

    Parameters
    ----------
    editing : Editing
        Goes to earlier and later states.
    display : Display
        Knows the viewer, the slide in hand and the jobs.
    """

    read = Signal(bool)
    """There are other steps; true if older ones were only added at the end."""

    def __init__(self, editing: Editing, display: Display) -> None:
        self._editing, self._display = editing, display
        self._viewer, self._jobs, self._shelf = display.viewer, display.jobs, display.shelf
        self.steps: list[Step] = []
        self.has_more = False
        """Whether there are older steps than those that were read."""
        self._read_from: Project | None = None
        self._connections = Connections(
            (editing.edited, self._on_edited),
            (self._shelf.switched, self.begin_anew),
            (self._viewer.layers.events.inserted, self._on_layers_changed),
        )

    def open(self) -> None:
        """Begin to follow what is done."""
        self._connections.open()
        self.refresh()

    def close(self) -> None:
        """Cease to follow."""
        if self.is_open:
            self._connections.close()
            self._jobs.cancel(LANE)

    @property
    def is_open(self) -> bool:
        """Whether it works."""
        return self._connections.is_open

    @property
    def project(self) -> Project | None:
        """The project whose history is shown."""
        return None if self._shelf.now is None else self._shelf.now.project

    @property
    def can_change(self) -> bool:
        """Whether nuclei are being corrected, and steps can be undone."""
        return self._editing.project is not None

    @property
    def now(self) -> int:
        """Number of the last step that is done; 0 if none is."""
        return next((step.number for step in self.steps if not step.undone), 0)

    def refresh(self) -> None:
        """Read as many steps anew as are known."""
        self._read(max(PAGE, len(self.steps)), None)

    def more(self) -> None:
        """Read older steps."""
        if self.has_more and not self._jobs.is_running(LANE):
            self._read(PAGE, self.steps[-1].number)

    def _read(self, most: int, before: int | None) -> None:
        project = self.project
        if project is None:
            self._on_read(None, [], before, most)
            return

        def work(_cancelled: Cancelled) -> Iterator[list[Step]]:
            yield project.editor.history(most, before=before)

        self._jobs.start(LANE, work, on_value=lambda steps: self._on_read(project, steps, before, most))

    def _on_read(self, project: Project | None, steps: list[Step], before: int | None, most: int) -> None:
        if project is not self.project or not self.is_open:
            return
        self._read_from = project
        self.has_more = len(steps) == most
        self.steps = steps if before is None else self.steps + steps
        self.read.emit(before is not None)

    def go_to(self, step: Step) -> None:
        """Show where a step changed something."""
        if self._shelf.now is not None and step.region is not None:
            fly_to(self._viewer, self._shelf.now, step.region)

    def jump(self, step: Step) -> None:
        """Undo what came after a step, or do again what is undone up to it."""
        self._editing.jump(step.number)

    def begin_anew(self) -> None:
        """Read the steps of the slide that is in hand now; with another pixel size they are others."""
        if self.is_open:
            self._on_edited()

    def _on_edited(self) -> None:
        self._jobs.later(LANE, EDITED_S, self.refresh)

    def _on_layers_changed(self, _event: Any = None) -> None:
        """The results of an earlier session are shown as a layer when they have been opened."""
        if self.project is not self._read_from:
            self._jobs.later(LANE, 0.0, self.refresh)
