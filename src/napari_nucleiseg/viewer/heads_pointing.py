"""The pointer over the slide, tied to the maps of all heads; and a click that asks what the token there attends to."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from psygnal import Signal

from napari_nucleiseg.core.geometry import Region
from napari_nucleiseg.state import REGION_LEVEL
from napari_nucleiseg.viewer.escape import EscapeKey
from napari_nucleiseg.viewer.heads import Heads
from napari_nucleiseg.viewer.heads_lanes import TOKEN as LANE
from napari_nucleiseg.viewer.jobs import Cancelled
from napari_nucleiseg.viewer.marker import Marker
from napari_nucleiseg.viewer.messages import Hint

if TYPE_CHECKING:
    from napari_nucleiseg.core.attention.shown import MapWish, ShownMap
    from napari_nucleiseg.viewer.heads_engine import Looks

ASK = "Click on the slide: the map then shows what that place attends to. Click beside the map to go back."
BESIDE = "That place was not looked at. Click inside the map, or look at the view first."
# So many screen pixels are still a click.
STILL_PX = 4.0


class HeadsPointing:
    """Ties the pointer of one viewer to its heads; all methods are for the main thread.

    Parameters
    ----------
    heads : Heads
        What was looked at.
    """

    pointed = Signal(object)
    """Where the pointer is in what was looked at, ``(y, x)`` in 0..1; None elsewhere."""

    def __init__(self, heads: Heads) -> None:
        self._heads, self._viewer, self._jobs = heads, heads.viewer, heads.jobs
        self.marker = Marker(heads.viewer, "place that is pointed at")
        self._is_open = False
        self._escape = EscapeKey(self._viewer, self._on_escape)
        heads.wishes.events.asking.connect(self._on_asking_changed)
        heads.looked.connect(self._on_looked)

    def open(self) -> None:
        """Begin to follow the pointer."""
        if not self._is_open:
            self._is_open = True
            self._viewer.mouse_move_callbacks.append(self._on_moved)
            self._viewer.mouse_drag_callbacks.append(self._on_pressed)

    def close(self) -> None:
        """Cease to follow it, and to ask."""
        self._heads.wishes.asking = False
        if self._is_open:
            self._is_open = False
            for callbacks, ours in (
                (self._viewer.mouse_move_callbacks, self._on_moved),
                (self._viewer.mouse_drag_callbacks, self._on_pressed),
            ):
                if ours in callbacks:
                    callbacks.remove(ours)
        self.marker.hide()

    def place(self, position: Any) -> tuple[float, float] | None:
        """Return the level-0 place under a world position, measured from corners; None without a slide."""
        opened = self._heads.opened
        if opened is None:
            return None
        point = opened.layer.world_to_data(position)
        return float(point[-2]) + 0.5, float(point[-1]) + 0.5

    def point(self, y: float, x: float) -> None:
        """Ring the place of a map, ``(y, x)`` in 0..1, on the slide."""
        looks, opened = self._heads.looks, self._heads.opened
        if looks is None or opened is None:
            return
        plan = looks.looking.plans[0]
        step, origin = plan.token_step, plan.origin
        row, column = int(y * plan.rows * plan.spec.side), int(x * plan.columns * plan.spec.side)
        corner = origin.y + row * step.y, origin.x + column * step.x
        self.marker.show(opened, Region(round(corner[0]), round(corner[1]), round(step.y), round(step.x)))

    # ------------------------------------------------------------------ the pointer

    def _on_moved(self, _viewer: Any, event: Any) -> None:
        looks, place = self._heads.looks, self.place(event.position)
        if looks is None or place is None:
            return
        plan = looks.looking.plans[0]
        step, origin, side = plan.token_step, plan.origin, plan.spec.side
        y = (place[0] - origin.y) / (step.y * plan.rows * side)
        x = (place[1] - origin.x) / (step.x * plan.columns * side)
        self.pointed.emit((y, x) if 0 <= y < 1 and 0 <= x < 1 else None)

    def _on_pressed(self, _viewer: Any, event: Any) -> Iterator[None]:
        if not self._heads.wishes.asking or event.button != 1:
            return
        began = event.pos
        yield
        while event.type == "mouse_move":
            yield
        moved = max(abs(float(began[0]) - float(event.pos[0])), abs(float(began[1]) - float(event.pos[1])))
        place = self.place(event.position)
        if moved <= STILL_PX and place is not None:
            self.ask(*place)

    # ------------------------------------------------------------------ asking

    def ask(self, y: float, x: float) -> None:
        """Show what the token at a level-0 place attends to; beside the map, go back to the class token."""
        heads = self._heads
        looks, opened = heads.looks, heads.opened
        if looks is None or opened is None:
            heads.said.emit(Hint(BESIDE, is_warning=True))
            return
        cell = looks.looking.plans[0].cell_at(y, x)
        if cell is None:
            self.forget()
        elif heads.wishes.level == REGION_LEVEL:
            self._ask_region(cell[0])
        else:
            self._ask_patch(*cell)

    def forget(self) -> None:
        """Show what the class token attends to again."""
        self.marker.hide()
        if self._heads.asked is not None:
            self._heads.asked = None
            self._heads.show()

    def _ask_patch(self, tile: int, token: int) -> None:
        heads, looks = self._heads, self._heads.looks
        opened, device = heads.opened, heads.session.device
        if looks is None or opened is None:
            return
        slide = opened.slide

        def work(_cancelled: Cancelled) -> Iterator[Any]:
            yield heads.engine.ask(slide, looks, tile, token, device=device)

        def on_value(attention: Any) -> None:
            from napari_nucleiseg.core.attention.shown import query_map

            if not self._is_shown(looks):
                return

            def asked(wish: MapWish) -> ShownMap:
                return query_map(looks.looks[0], tile, attention, wish)

            plan = looks.looking.plans[0]
            row, column = plan.place_of(tile)
            side = plan.spec.side
            at = row * side + (token - 1) // side, column * side + (token - 1) % side
            self._show(asked, (at[0] + 0.5) / (plan.rows * side), (at[1] + 0.5) / (plan.columns * side))

        self._jobs.start(LANE, work, on_value=on_value, on_error=heads.on_failed)

    def _ask_region(self, tile: int) -> None:
        heads, looks = self._heads, self._heads.looks
        if looks is None:
            return
        device, plan = heads.session.device, looks.looking.plans[0]
        row, column = plan.place_of(tile)

        def work(_cancelled: Cancelled) -> Iterator[Any]:
            yield heads.engine.ask_region(looks, 1 + row * plan.columns + column, device=device)

        def on_value(said: Any) -> None:
            from napari_nucleiseg.core.attention.shown import region_query_map

            if not self._is_shown(looks):
                return

            def asked(wish: MapWish) -> ShownMap:
                return region_query_map(looks.looks[0], said, wish)

            self._show(asked, (row + 0.5) / plan.rows, (column + 0.5) / plan.columns)

        self._jobs.start(LANE, work, on_value=on_value, on_error=heads.on_failed)

    def _is_shown(self, looks: Looks) -> bool:
        """Whether what was asked is still what is shown: its answer may come late."""
        now = self._heads.looks
        return now is not None and now.looking is looks.looking

    def _show(self, asked: Any, y: float, x: float) -> None:
        self._heads.asked, self._heads.asked_title = asked, "token"
        self._heads.show()
        self.point(y, x)

    def _on_asking_changed(self, on: bool) -> None:
        self._heads.said.emit(Hint(ASK if on else ""))
        if on:
            self._escape.take()
        else:
            self._escape.release()
            self.forget()

    def _on_escape(self) -> None:
        self._heads.wishes.asking = False

    def _on_looked(self) -> None:
        if self._heads.looks is None:
            self.marker.hide()
