"""The tools of correcting: what mouse and keys do to the nuclei under them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_nucleiseg.core import edits
from napari_nucleiseg.core.errors import NucleiSegError
from napari_nucleiseg.viewer.editing import Editing
from napari_nucleiseg.viewer.messages import Hint
from napari_nucleiseg.viewer.project_view import has_class
from napari_nucleiseg.viewer.proposing import Proposing
from napari_nucleiseg.viewer.tour import Tour
from napari_nucleiseg.viewer.visible import visible_world

if TYPE_CHECKING:
    from napari_nucleiseg.viewer.paint_layer import PaintLayer

Points = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Tool:
    """What the mouse does: its key, a short title, what it is for, and napari's mode if it is one of napari's own."""

    name: str
    key: str
    title: str
    tip: str
    mode: str = "pan_zoom"


TOOLS = {
    tool.name: tool
    for tool in (
        Tool("move", "Z", "Move", "Drag the slide; hold Space in any other tool"),
        Tool("brush", "P", "Brush", "Press inside a nucleus to enlarge it, beside one to draw a new one", "paint"),
        Tool("erase", "E", "Erase", "Take pixels away", "erase"),
        Tool("add", "A", "Outline", "Draw around a new nucleus and let go"),
        Tool(
            "propose", "C", "Propose", "Click inside a missed nucleus; scroll to resize, Enter takes it, Esc does not"
        ),
        Tool("fill", "F", "Fill", "Fill a hole, or give a nucleus to the selected one", "fill"),
        Tool("join", "J", "Join", "Drag across nuclei that are one"),
        Tool(
            "split", "K", "Split", "Drag across a nucleus: the cut follows; or click on both sides for a straight one"
        ),
        Tool("lasso", "Shift-D", "Clear", "Draw around nuclei to delete them"),
        Tool("pick", "L", "Pick", "Click a nucleus to see it in the table", "pick"),
    )
}
DRAWN = {"add", "join", "split", "lasso", "propose"}
PREVIEW_POINTS = 24
# Screen pixels that the mouse moves before a click is a drag.
DRAG_PX = 3
# After the button is released, what was drawn is on its way to the project.
RELEASED_S = 0.05
# So many an unsteady hand strays from a line that is meant to be straight.
UNSTEADY_PX = 2.5
SMOOTH_PX = 2.0


class Tools:
    """Binds mouse and keys of every new paint layer.

    Parameters
    ----------
    viewer : napari.Viewer
        Whose cursor points.
    editing : Editing
        Does what the tools ask for.
    """

    def __init__(self, viewer: Any, editing: Editing) -> None:
        self._viewer, self._editing = viewer, editing
        self._session = editing.session
        self._proposing = Proposing(editing)
        self.tour = Tour(viewer, editing)
        self._last = 0
        # World position of the first of two clicks that cut.
        self._cut_from: tuple[float, ...] | None = None
        # Canvas pixels (x, y) of the mouse.
        self._spot: tuple[float, ...] | None = None
        editing.layer_made.connect(self._on_layer_made)
        self._session.events.tool.connect(self._on_tool_changed)

    @property
    def is_proposing(self) -> bool:
        """Whether a nucleus is proposed and waits to be taken or dropped; the wheel then resizes it."""
        return self._proposing.is_open

    # ------------------------------------------------------------------ binding

    def _on_layer_made(self, layer: PaintLayer) -> None:
        layer.mouse_drag_callbacks.insert(0, self._on_press)
        layer.mouse_drag_callbacks.append(self._on_drag)
        layer.mouse_wheel_callbacks.append(self._on_wheel)
        layer.mouse_move_callbacks.append(self._on_move)
        layer.events.mode.connect(self._on_mode_changed)
        for key, action in self._actions().items():
            layer.bind_key(key, _for_layer(action), overwrite=True)
        self._on_tool_changed()

    def _actions(self) -> dict[str, Callable[[], None]]:
        actions: dict[str, Callable[[], None]] = {
            tool.key: lambda name=name: setattr(self._session, "tool", name)  # type: ignore[misc]
            for name, tool in TOOLS.items()
        }
        actions |= {str(number): lambda number=number: self.classify(number) for number in range(10)}  # type: ignore[misc]
        return actions | {
            "D": self.delete,
            "Delete": self.delete,
            "Backspace": self.delete,
            "G": lambda: self._reshape("fill holes", edits.fill_holes),
            "S": lambda: self._reshape("smooth", edits.smooth, SMOOTH_PX),
            ".": lambda: self._reshape("grow", edits.grow, 1.0),
            ",": lambda: self._reshape("shrink", edits.shrink, 1.0),
            "Y": self.approve,
            "R": self.reject,
            "M": self.select_new,
            "Enter": self._proposing.take,
            "Escape": self._on_escape,
            "Control-Z": self._editing.undo,
            "Control-Shift-Z": self._editing.redo,
        }

    def _on_tool_changed(self, _name: str = "") -> None:
        layer = self._editing.window.layer
        if layer is None:
            return
        tool = TOOLS[self._session.tool]
        self._on_escape()
        layer.mode = tool.mode
        layer.preserve_labels = tool.name == "brush"
        # What is drawn with the mouse must not drag the slide as well.
        layer.mouse_pan = tool.name == "move"
        if tool.name in DRAWN:
            # With the background selected, napari shows a line and does not cover the tissue.
            layer.selected_label = 0
        layer.cursor = "crosshair" if tool.mode == "pan_zoom" and tool.name != "move" else layer.cursor

    def _on_mode_changed(self, _event: Any) -> None:
        """The buttons of napari choose tools too."""
        layer = self._editing.window.layer
        if layer is None:
            return
        mode = str(layer.mode)
        if mode != TOOLS[self._session.tool].mode:
            names = {tool.mode: tool.name for tool in TOOLS.values() if tool.mode != "pan_zoom"} | {"pan_zoom": "move"}
            if mode in names:
                self._session.tool = names[mode]

    # ------------------------------------------------------------------ mouse

    def _on_press(self, layer: PaintLayer, event: Any) -> Iterator[None]:
        """Come before napari's own tools: choose the label that they draw with."""
        self._editing.is_drawing = True
        tool = self._session.tool
        under = self.nucleus_at(event.position)
        if tool == "brush":
            self._last = layer.selected_label = under or self._new_id()
        elif tool == "fill" and not under:
            layer.selected_label = self._new_id()
        yield
        while event.type == "mouse_move":
            yield
        self._editing.is_drawing = False
        # The view may have gone elsewhere meanwhile; what was drawn is written first.
        self._editing.jobs.later("follow", RELEASED_S, self._editing.follow)
        if tool == "pick":
            self._last = under
            self._editing.picked.emit(under)

    def _on_drag(self, layer: PaintLayer, event: Any) -> Iterator[None]:
        """Draw with the tools that napari does not have."""
        tool = self._session.tool
        if tool not in DRAWN or event.button != 1:
            return
        start = np.asarray(event.pos, float)
        points = [self._point(event)]
        yield
        moved = False
        while event.type == "mouse_move":
            moved |= bool(np.abs(np.asarray(event.pos, float) - start).max() > DRAG_PX)
            points[1 if tool == "join" else len(points) :] = [self._point(event)]
            # What is shown is what is done.
            shown = self._steadied(layer, points) if tool == "split" else points
            layer.preview(_thinned(shown), closed=tool != "split")
            yield
        layer.preview([])
        if tool == "propose":
            self._proposing.at(points[0])
        elif moved:
            self._cut_from = None
            self._draw(tool, np.array(self._steadied(layer, points) if tool == "split" else points))
        elif tool == "split":
            self._click_cut(layer, event)

    def _steadied(self, layer: PaintLayer, points: list[tuple[float, float]]) -> list[tuple[float, float]]:
        tolerance_px = UNSTEADY_PX / (self._viewer.scene.camera.zoom * layer.scale[-1])
        return [(float(y), float(x)) for y, x in edits.steadied(np.array(points), tolerance_px)]

    def _click_cut(self, layer: PaintLayer, event: Any) -> None:
        """Begin a straight cut with one click and do it with the next."""
        start, self._cut_from = self._cut_from, None
        if start is None:
            self._cut_from = tuple(event.position)
            self._say("Click where the cut ends, or drag across a nucleus.")
        else:
            self._say("")
            self._split(np.array([np.asarray(layer.world_to_data(start))[-2:], self._point(event)]))

    def _on_escape(self) -> None:
        """Drop what is proposed, or the cut that was begun."""
        layer, begun = self._editing.window.layer, self._cut_from
        self._cut_from = None
        self._proposing.drop()
        if layer is not None and begun is not None:
            layer.preview([])
            self._say("")

    def _on_move(self, layer: PaintLayer, event: Any) -> None:
        if self._cut_from is not None:
            y, x = np.asarray(layer.world_to_data(self._cut_from))[-2:]
            layer.preview([(float(y), float(x)), self._point(event)])
        spot = tuple(float(value) for value in event.pos)
        if spot != self._spot:
            self._spot = spot
            self.tour.leave()

    def _on_wheel(self, _layer: PaintLayer, event: Any) -> None:
        if self.is_proposing:
            self._proposing.resize(1 if event.delta[-1] > 0 else -1)
            event.handled = True

    def _draw(self, tool: str, line: Points) -> None:
        try:
            self._do(tool, line)
        except NucleiSegError as error:  # what is asked for cannot be done, as joining nuclei that lie too far apart
            self._say(str(error))

    def _do(self, tool: str, line: Points) -> None:
        ids = self._editing.window.ids
        if tool == "add":
            self._last = self._new_id()
            if not self._editing.change(edits.draw_polygon(ids, self._last, line), "draw"):
                self._say("There is no room for a nucleus here: it lies on others.")
        elif tool == "join":
            self._join(self._crossed(line))
        elif tool == "split":
            self._split(line)
        else:
            found = edits.delete_inside(ids, line)
            if found is None or not self._editing.change(found[0], "delete"):
                self._say("No nucleus has its centre inside the line.")

    def _join(self, touched: list[int]) -> None:
        if len(touched) < 2:
            self._say("Drag from one nucleus into another to join them.")
        else:
            self._editing.change(edits.merge(self._editing.window.ids, touched), "merge")

    def _split(self, line: Points) -> None:
        ids = self._editing.window.ids
        new_ids = iter(self._new_id, None)
        cuts = (edits.split(ids, nucleus, line, new_ids) for nucleus in self._crossed(line))
        if not self._editing.change_all(cuts, "split"):
            self._say("Drag all the way across a nucleus to cut it.")

    def _crossed(self, line: Points) -> list[int]:
        """Return the nuclei that a line passes over, in no order."""
        ids = self._editing.window.ids
        steps = [np.linspace(a, b, int(np.abs(b - a).max()) + 2) for a, b in pairwise(line)]
        pixels = np.rint(np.concatenate(steps)).astype(int)
        inside = pixels[((pixels >= 0) & (pixels < ids.shape)).all(1)]
        found = np.unique(ids[tuple(inside.T)])
        return [int(nucleus) for nucleus in found if nucleus]

    # ------------------------------------------------------------------ keys

    def nucleus_at(self, position: Iterable[float]) -> int:
        """Return the nucleus at a world position; 0 where there is none."""
        layer = self._editing.window.layer
        if layer is None:
            return 0
        y, x = (round(float(value)) for value in np.asarray(layer.world_to_data(tuple(position)))[-2:])
        ids = self._editing.window.ids
        return int(ids[y, x]) if 0 <= y < ids.shape[0] and 0 <= x < ids.shape[1] else 0

    def under_cursor(self) -> int:
        """Return the nucleus that the mouse points at; 0 for none, which is said."""
        found = self.tour.aimed or self.nucleus_at(self._pointed_at())
        if not found:
            self._say("Point at a nucleus first.")
        return found

    def _pointed_at(self) -> tuple[float, ...]:
        """Return the world position of the mouse: napari's is that before the camera was moved."""
        if self._spot is None:
            return tuple(self._viewer.cursor.position)
        (top, left), (bottom, right) = visible_world(self._viewer)
        height, width = self._viewer.canvas.size
        x, y = self._spot
        return float(top + (bottom - top) * y / height), float(left + (right - left) * x / width)

    def delete(self) -> None:
        """Delete the nucleus under the cursor."""
        self._remove("delete")

    def reject(self) -> None:
        """Take the nucleus under the cursor away for good: no model brings it back."""
        self._remove("reject")

    def _remove(self, kind: str) -> None:
        nucleus = self.under_cursor()
        if nucleus:
            self._editing.change(edits.delete(self._editing.window.ids, [nucleus]), kind)

    def approve(self) -> None:
        """Mark the nucleus under the cursor as right."""
        nucleus = self.under_cursor()
        if nucleus:
            self._editing.approve([nucleus])

    def classify(self, number: int) -> None:
        """Give the nucleus under the cursor a class; 0 takes it, and a number that is no class does nothing."""
        nucleus = self.under_cursor()
        if nucleus and has_class(self._editing.project, number):
            self._editing.classify([nucleus], number)

    def choose_class(self, number: int) -> None:
        """Give the class to the nucleus that was picked or drawn last."""
        if self._last and (self._editing.window.ids == self._last).any():
            self._editing.classify([self._last], number)
        else:
            self._say("Pick a nucleus first (L), or point at one and press the number.")

    def select_new(self) -> None:
        """Paint a new nucleus next, wherever the brush is put down."""
        layer = self._editing.window.layer
        if layer is not None:
            layer.selected_label = self._new_id()

    def _reshape(self, kind: str, edit: Callable[..., Any], *how: Any) -> None:
        nucleus = self.under_cursor()
        if nucleus and not self._editing.change(edit(self._editing.window.ids, nucleus, *how), kind):
            self._say("There is nothing to change on this nucleus.")

    # ------------------------------------------------------------------ inside

    def _new_id(self) -> int:
        project = self._editing.project
        return project.editor.new_id() if project is not None else 0

    def _point(self, event: Any) -> tuple[float, float]:
        layer = self._editing.window.layer
        y, x = np.asarray(layer.world_to_data(event.position))[-2:] if layer is not None else (0.0, 0.0)
        return float(y), float(x)

    def _say(self, sentence: str) -> None:
        self._editing.hinted.emit(Hint(sentence))


def _thinned(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return few enough points to be seen as a line."""
    step = -(-len(points) // PREVIEW_POINTS)
    return [*points[:-1:step], points[-1]]


def _for_layer(action: Callable[[], None]) -> Callable[[Any], None]:
    def press(_layer: Any) -> None:
        action()

    return press
