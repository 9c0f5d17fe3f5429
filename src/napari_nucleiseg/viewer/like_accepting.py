"""Accepting proposals in the window: correcting begins with it, and the history has one step more."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from psygnal import Signal

from napari_nucleiseg.viewer.editing import LANE
from napari_nucleiseg.viewer.like_accept import Accepted, accept
from napari_nucleiseg.viewer.messages import Hint

if TYPE_CHECKING:
    from napari_nucleiseg.core.store.editor import Changed, Editor
    from napari_nucleiseg.viewer.controller import Controller
    from napari_nucleiseg.viewer.like import Like
    from napari_nucleiseg.viewer.like_engine import Found

NOTHING = "Nothing is proposed in this view."
NOTHING_CHOSEN = "Choose first: press “Choose”, then click on the proposals that you want."
ALL_KNOWN = "All of these are nuclei already. Choose a class to give them, or show them in the table."


class LikeAccepting:
    """Takes what is proposed in one viewer; all methods are for the main thread.

    Parameters
    ----------
    like : Like
        What is proposed.
    controller : Controller
        Writes.
    """

    busy_changed = Signal(bool)
    """Something is being written, or no longer."""

    def __init__(self, like: Like, controller: Controller) -> None:
        self._like, self._editing = like, controller.editing
        self._session = controller.session
        self.is_busy = False
        """Whether something is being written."""

    def all(self) -> None:
        """Take everything that is proposed in the view."""
        self._take(self._like.proposals(), NOTHING)

    def chosen(self) -> None:
        """Take what was chosen."""
        self._take(np.array(sorted(self._like.chosen), np.int32), NOTHING_CHOSEN)

    def _take(self, numbers: NDArray[np.int32], nothing: str) -> None:
        found, class_number = self._like.found, self._like.wishes.number
        if self.is_busy:
            return
        if found is None or not len(numbers):
            self._say(nothing, is_warning=True)
            return
        if not class_number and (found.candidates.ids[numbers] > 0).all():
            self._say(ALL_KNOWN)
            return
        self._begin(on=True)
        # What is taken belongs to a person from now on, and can be undone while nuclei are corrected.
        self._session.editing = True
        editing = self._editing
        # The project is open after what is under way in this lane.
        editing.jobs.enqueue(LANE, _nothing, on_value=lambda _: self._write(found, numbers, class_number))

    def _write(self, found: Found, numbers: NDArray[np.int32], class_number: int) -> None:
        editing, told = self._editing, Accepted(set())
        project = editing.project
        if project is None or editing.opened is not self._like.view.opened:
            # Why it could not be opened was said.
            self._begin(on=False)
            return

        def edit(_editor: Editor) -> Iterator[Changed | None]:
            return accept(project, found.candidates, numbers.tolist(), class_number, told)

        def on_error(error: BaseException) -> None:
            self._begin(on=False)
            editing.failed.emit(error)

        editing.do(edit, on_error=on_error)
        editing.jobs.enqueue(LANE, _nothing, on_value=lambda _: self._on_written(told))

    def _on_written(self, told: Accepted) -> None:
        if not self.is_busy:
            return
        self._begin(on=False)
        self._like.made |= told.new
        self._like.chosen.clear()
        parts = []
        if told.new:
            parts.append(f"{len(told.new):,} new {'nucleus' if len(told.new) == 1 else 'nuclei'}")
        if told.classified:
            parts.append(f"{told.classified:,} {'has' if told.classified == 1 else 'have'} the class now")
        if told.hidden:
            parts.append(f"{told.hidden:,} left out, because nuclei lie there by now")
        self._say(f"Accepted: {', '.join(parts)}. Ctrl+Z undoes it." if parts else "Nothing was changed.")

    def _begin(self, *, on: bool) -> None:
        self.is_busy = on
        self.busy_changed.emit(on)

    def _say(self, sentence: str, *, is_warning: bool = False) -> None:
        self._like.said.emit(Hint(sentence, is_warning=is_warning))


def _nothing() -> None:
    """Take a place in a lane."""
