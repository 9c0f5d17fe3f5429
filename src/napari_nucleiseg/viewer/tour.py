"""From one nucleus that nobody has looked at to the next; keys then act on that nucleus, until the mouse moves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari_nucleiseg.viewer.editing import LANE, Editing
from napari_nucleiseg.viewer.marker import Marker, fly_to
from napari_nucleiseg.viewer.messages import Hint
from napari_nucleiseg.viewer.project_view import Unseen, nearest_unseen
from napari_nucleiseg.viewer.visible import visible_region

if TYPE_CHECKING:
    from napari_nucleiseg.core.store.project import Project

ALL_SEEN = "Every nucleus on this slide has been approved."


class Tour:
    """Where the user is on the way through the nuclei of a slide.

    Parameters
    ----------
    viewer : napari.Viewer
        Whose camera flies.
    editing : Editing
        Says on which slide.

    Attributes
    ----------
    aimed : int
        The nucleus that keys act on in place of the one under the mouse; 0 for none.
    """

    def __init__(self, viewer: Any, editing: Editing) -> None:
        self._viewer, self._editing = viewer, editing
        self.aimed = 0
        self._marker = Marker(viewer)
        self._passed: set[int] = set()
        self._passed_of: Project | None = None
        editing.session.events.editing.connect(self.leave)

    def next(self) -> None:
        """Fly to the nearest nucleus that nobody has looked at and that was not passed yet."""
        project, opened = self._editing.project, self._editing.opened
        view = None if opened is None else visible_region(self._viewer, opened.layer)
        if project is None or view is None:
            return
        if project is not self._passed_of:
            # The same ids are other nuclei there.
            self._passed_of, self._passed = project, set()
        centre, passed = view.centre, frozenset(self._passed)

        def work() -> Unseen | None:
            # Who has passed all of them begins again.
            return nearest_unseen(project, centre, passed) or nearest_unseen(project, centre)

        self._editing.jobs.enqueue(LANE, work, on_value=self._on_found, on_error=self._editing.failed.emit)

    def _on_found(self, found: Unseen | None) -> None:
        opened = self._editing.opened
        if opened is None:
            return
        if found is None:
            self.leave()
            self._editing.hinted.emit(Hint(ALL_SEEN))
            return
        if found.id in self._passed:
            self._passed.clear()
        self._passed.add(found.id)
        fly_to(self._viewer, opened, found.box)
        self._marker.show(opened, found.box)
        self.aimed = found.id
        self._editing.picked.emit(found.id)

    def leave(self) -> None:
        """The mouse points again."""
        if self.aimed:
            self.aimed = 0
            self._marker.hide()
