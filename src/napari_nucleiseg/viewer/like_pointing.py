"""The mouse over the slide while the like is looked for: a click marks or chooses, a drag draws around a region."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from psygnal import Signal

from napari_nucleiseg.viewer.escape import EscapeKey
from napari_nucleiseg.viewer.like_wishes import CHOOSE, OFF, LikeWishes

if TYPE_CHECKING:
    from napari_nucleiseg.viewer.opened import OpenedSlide
    from napari_nucleiseg.viewer.shelf import Shelf

# So many screen pixels are still a click.
STILL_PX = 4.0
# Fewer corners are no region.
LEAST_CORNERS = 4
MOVE = "move"


class LikePointing:
    """Ties the mouse of one viewer to the hand in use; all methods are for the main thread.

    Parameters
    ----------
    viewer : napari.Viewer
        Whose mouse it is.
    shelf : Shelf
        Knows the slide in hand.
    session : Session
        Its tool for correcting is put aside: a click must not paint as well.
    wishes : LikeWishes
        Say what a click means.
    """

    clicked = Signal(float, float)
    """A place of the slide was clicked, level-0 pixels ``(y, x)`` measured from corners."""
    drawing = Signal(object)
    """Corners of what is being drawn, as of `drawn`; none once it is done."""
    drawn = Signal(object)
    """Corners ``(n, 2)`` of what was drawn, level-0 pixels measured from corners."""

    def __init__(self, viewer: Any, shelf: Shelf, session: Any, wishes: LikeWishes) -> None:
        self._viewer, self._shelf, self._session, self._wishes = viewer, shelf, session, wishes
        self._is_bound = False
        self._escape = EscapeKey(viewer, self._on_escape)
        self._tool_before = MOVE
        wishes.events.hand.connect(self._on_hand_changed)
        session.events.tool.connect(self._on_tool_changed)
        session.events.editing.connect(self._on_editing_changed)

    def close(self) -> None:
        """Cease to listen."""
        self._wishes.hand = OFF
        self._wishes.events.hand.disconnect(self._on_hand_changed)
        self._session.events.tool.disconnect(self._on_tool_changed)
        self._session.events.editing.disconnect(self._on_editing_changed)

    # ------------------------------------------------------------------ binding

    def _on_hand_changed(self, hand: str) -> None:
        on = hand != OFF
        if hand in {OFF, CHOOSE}:
            self._wishes.drawing = False
        if on == self._is_bound:
            return
        self._is_bound = on
        callbacks = self._viewer.mouse_drag_callbacks
        if on:
            self._tool_before = self._session.tool
            self._session.tool = MOVE
            callbacks.append(self._on_pressed)
            self._escape.take()
        else:
            self._escape.release()
            if self._on_pressed in callbacks:
                callbacks.remove(self._on_pressed)
            if self._session.tool == MOVE:
                self._session.tool = self._tool_before

    def _on_escape(self) -> None:
        self._wishes.hand = OFF

    def _on_tool_changed(self, tool: str) -> None:
        """Whoever takes a tool of correcting wants to correct."""
        if self._is_bound and tool != MOVE:
            self._tool_before = tool
            self._wishes.hand = OFF

    def _on_editing_changed(self, on: bool) -> None:
        if on and self._is_bound:
            self._session.tool = MOVE

    # ------------------------------------------------------------------ the mouse

    def _on_pressed(self, _viewer: Any, event: Any) -> Iterator[None]:
        if self._wishes.hand == OFF or event.button != 1 or event.modifiers:
            return
        opened = self._shelf.now
        if opened is None:
            return
        drawing, began = self._wishes.drawing, np.asarray(event.pos, float)
        corners = [_place(opened, event.position)]
        # The slide must not be dragged by what is drawn.
        event.handled = drawing
        yield
        moved = False
        while event.type == "mouse_move":
            moved |= bool(np.abs(np.asarray(event.pos, float) - began).max() > STILL_PX)
            corners.append(_place(opened, event.position))
            event.handled = drawing
            if drawing:
                self.drawing.emit(np.array(corners))
            yield
        if drawing:
            self.drawing.emit(np.zeros((0, 2)))
        if drawing and moved and len(corners) >= LEAST_CORNERS:
            self._wishes.drawing = False
            self.drawn.emit(np.array(corners))
        elif not moved:
            self.clicked.emit(*corners[0])


def _place(opened: OpenedSlide, position: Any) -> tuple[float, float]:
    """Return the level-0 place under a world position, measured from the corner of the first pixel."""
    point = opened.layer.world_to_data(position)
    return float(point[-2]) + 0.5, float(point[-1]) + 0.5
