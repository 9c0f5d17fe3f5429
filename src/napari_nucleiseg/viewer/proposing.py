"""One click for a missed nucleus: its outline is proposed from what the model saw, resized, taken or dropped."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from napari_nucleiseg.core import edits
from napari_nucleiseg.core.geometry import Region
from napari_nucleiseg.viewer.editing import LANE, Editing
from napari_nucleiseg.viewer.messages import Hint

REACH_UM = 20.0
MOST_POINTS = 24


class Proposing:
    """A nucleus that is proposed but not taken yet.

    Parameters
    ----------
    editing : Editing
        Takes the nucleus.
    """

    def __init__(self, editing: Editing) -> None:
        self._editing = editing
        self._first: edits.Patch | None = None
        self._now: edits.Patch | None = None
        self._corner = (0, 0)
        self._steps = 0

    @property
    def is_open(self) -> bool:
        """Whether there is a proposal to take or to drop."""
        return self._now is not None

    def at(self, point: tuple[float, float]) -> None:
        """Propose a nucleus around ``(y, x)`` in pixels of the window."""
        self.drop()
        editing, window = self._editing, self._editing.window
        opened, project = editing.opened, editing.project
        if opened is None or project is None:
            return
        reach = round(REACH_UM / min(project.mpp_um))
        y, x = (round(value) for value in point)
        near = Region(y, x, 1, 1).expand(reach).intersect(Region(0, 0, *window.ids.shape))
        if near.is_empty:
            return
        ids = window.ids[near.slices].copy()
        place = near.translate(window.region.y, window.region.x)
        seed = point[0] - near.y, point[1] - near.x

        def work() -> edits.Patch | None:
            foreground = opened.foreground(place)
            return None if foreground is None else edits.propose(foreground, ids, seed, limit_px=reach)

        def show(patch: edits.Patch | None) -> None:
            self._on_proposed(patch, place)

        editing.jobs.enqueue(LANE, work, on_value=show, on_error=editing.failed.emit)

    def _on_proposed(self, patch: edits.Patch | None, place: Region) -> None:
        if patch is None:
            self._editing.hinted.emit(
                Hint("The model has nothing to propose here. Segment this view first, or draw the nucleus.")
            )
            return
        self._first = self._now = patch
        self._corner, self._steps = (place.y, place.x), 0
        self._show()
        self._editing.hinted.emit(Hint("Scroll to resize, Enter takes it, Esc drops it."))

    def resize(self, steps: int) -> None:
        """Grow or shrink the proposal by whole pixels."""
        window = self._editing.window
        if self._first is None:
            return
        moved = edits.Patch(self._in_window(self._first.box), self._first.mask)
        resized = edits.resize(moved, self._steps + steps, image=window.ids)
        if resized is not None:
            self._steps += steps
            dy, dx = window.region.y - self._corner[0], window.region.x - self._corner[1]
            self._now = edits.Patch(resized.box.translate(dy, dx), resized.mask)
            self._show()

    def take(self) -> None:
        """Make it a nucleus."""
        patch, project = self._now, self._editing.project
        self.drop()
        if patch is not None and project is not None:
            here = edits.Patch(self._in_window(patch.box), patch.mask)
            self._editing.change(edits.place(self._editing.window.ids, project.editor.new_id(), here), "propose")

    def drop(self) -> None:
        """Forget it."""
        if self._now is not None:
            self._first = self._now = None
            self._editing.hinted.emit(Hint())
        self._outline([])

    def _in_window(self, box: Region) -> Region:
        region = self._editing.window.region
        return box.translate(self._corner[0] - region.y, self._corner[1] - region.x)

    def _show(self) -> None:
        if self._now is not None:
            box = self._in_window(self._now.box)
            outline = outline_of(self._now.mask)
            self._outline([[y + box.y, x + box.x] for y, x in outline])

    def _outline(self, points: list[list[float]]) -> None:
        layer = self._editing.window.layer
        if layer is not None:
            layer.preview(points)


def outline_of(mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the outer outline ``(n, 2)`` of a mask, ``(y, x)`` pixels."""
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    longest = max(contours, key=len)[:, 0, ::-1].astype(np.float64)
    # napari marks every point that it is given.
    return longest[:: -(-len(longest) // MOST_POINTS)]
