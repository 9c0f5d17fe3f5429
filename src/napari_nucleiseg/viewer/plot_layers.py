"""What plots show on the slide: selected nuclei marked, all of them coloured by a value; and a click on one of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from psygnal import Signal

from napari_nucleiseg.core.geometry import Region
from napari_nucleiseg.viewer.connections import Connections
from napari_nucleiseg.viewer.heads_layer import made_layer
from napari_nucleiseg.viewer.jobs import Cancelled
from napari_nucleiseg.viewer.layers import OWNER, ROLE, slide_name
from napari_nucleiseg.viewer.plot_data import MORE, NEW, Floats, Ids
from napari_nucleiseg.viewer.plot_lanes import PAINTING, POINTING
from napari_nucleiseg.viewer.plots import Plots
from napari_nucleiseg.viewer.visible import visible_region

if TYPE_CHECKING:
    from napari_nucleiseg.core.attention.shown import ShownMap
    from napari_nucleiseg.core.store.project import Project
    from napari_nucleiseg.viewer.opened import OpenedSlide

SELECTED, VALUES = "selected nuclei", "nuclei by value"
# Name of the colours and opacity of each layer.
STYLES = {SELECTED: ("yellow", 0.75), VALUES: ("turbo", 0.85)}
SETTLED_S, MOVED_S = 0.05, 0.2
# So much more than the view is painted on each side, so that a small step shows no rim.
AROUND = 0.25
# From so much nearer the pixels of a picture are seen, and it is painted anew.
NEARER = 0.4
# Values beyond these percentiles have the first and the last colour: one odd nucleus must not take all others' colours.
ENDS = (2, 98)
# So many screen pixels are still a click.
STILL_PX = 4.0


class PlotLayers:
    """Layers of one viewer that belong to its plots; all methods are for the main thread.

    Parameters
    ----------
    plots : Plots
        Which nuclei are plotted and selected.

    Notes
    -----
    They are there between `open` and `close`. What is painted is a picture of what is seen, made off the main
    thread: it costs the same for one nucleus and for a million, and is made anew where the view goes.
    """

    coloured = Signal(object)
    """The values ``(low, high)`` that have the first and the last colour; None where nothing is coloured."""

    def __init__(self, plots: Plots) -> None:
        self._plots, self._viewer, self._jobs = plots, plots.viewer, plots.jobs
        self._layers: dict[str, Any] = {}
        self._painted: tuple[Project, Region] | None = None
        self._limits: tuple[float, float] | None = None
        camera, wishes = self._viewer.scene.camera.events, plots.wishes.events
        self._connections = Connections(
            (plots.measured, self._on_changed),
            (plots.selection_changed, self._on_changed),
            (plots.editing.edited, self._on_changed),
            (plots.shelf.switched, self._on_slide_switched),
            (plots.shelf.removed, self._on_slide_switched),
            (wishes.coloured, self._on_changed),
            (wishes.across, self._on_changed),
            (camera.center, self._on_view_moved),
            (camera.zoom, self._on_view_moved),
            (self._viewer.canvas.events.size, self._on_view_moved),
        )

    def open(self) -> None:
        """Begin to show, and to listen to clicks."""
        if not self._connections.is_open:
            self._connections.open()
            self._viewer.mouse_drag_callbacks.append(self._on_pressed)
            self._on_changed()

    def close(self) -> None:
        """Take the layers away."""
        if self._connections.is_open:
            self._connections.close()
            if self._on_pressed in self._viewer.mouse_drag_callbacks:
                self._viewer.mouse_drag_callbacks.remove(self._on_pressed)
            self._hide()

    # ------------------------------------------------------------------ painting

    def _on_changed(self, _value: Any = None) -> None:
        self._jobs.later(PAINTING, SETTLED_S, self.paint)

    def _on_view_moved(self, _event: Any = None) -> None:
        if self._layers:
            self._jobs.later(PAINTING, MOVED_S, self._follow)

    def _follow(self) -> None:
        """Paint anew where the view shows what is not painted, or shows its pixels."""
        opened = self._plots.opened
        view = None if opened is None else visible_region(self._viewer, opened.layer)
        if view is None or view.is_empty or self._painted is None:
            return
        project, painted = self._painted
        is_near = view.height < NEARER * painted.height and view.width < NEARER * painted.width
        if project is not self._plots.project or is_near or painted.intersect(view) != view:
            self.paint()

    def paint(self) -> None:
        """Paint what is selected, and the values, where the view is."""
        plots = self._plots
        opened, project = plots.opened, plots.project
        view = None if opened is None else visible_region(self._viewer, opened.layer)
        if not self._connections.is_open or opened is None or project is None or view is None or view.is_empty:
            self._hide()
            return
        wanted = self._wanted()
        for role in STYLES.keys() - wanted.keys():
            self._remove(role)
        self._tell(wanted[VALUES][2] if VALUES in wanted else None)
        if not wanted:
            self._jobs.cancel(PAINTING)
            self._painted = None
            return
        around = round(AROUND * max(view.height, view.width))
        region = view.expand(around).intersect(Region(0, 0, *project.shape))

        def work(cancelled: Cancelled) -> Iterator[tuple[str, ShownMap]]:
            for role, what in wanted.items():
                if not cancelled():
                    yield role, plots.engine.picture(project, region, *what)

        def on_value(found: tuple[str, ShownMap]) -> None:
            if plots.opened is opened and self._connections.is_open:
                self._painted = project, region
                self._show(opened, *found)

        self._jobs.start(PAINTING, work, on_value=on_value, on_error=plots.on_failed)

    def _tell(self, limits: tuple[float, float] | None) -> None:
        if limits != self._limits:
            self._limits = limits
            self.coloured.emit(limits)

    def _wanted(self) -> dict[str, tuple[Ids, Floats, tuple[float, float]]]:
        """Return ids, values and limits of what is to be shown, by layer."""
        plots = self._plots
        found: dict[str, tuple[Ids, Floats, tuple[float, float]]] = {}
        values = plots.cloud.of(plots.wishes.across)
        known = np.isfinite(values)
        if plots.wishes.coloured and known.any():
            low, high = (float(end) for end in np.percentile(values[known], ENDS))
            found[VALUES] = (
                plots.cloud.ids[known],
                values[known].astype(np.float64),
                (low, high if high > low else low + 1.0),
            )
        if len(plots.selected):
            found[SELECTED] = plots.selected, np.ones(len(plots.selected)), (0.0, 1.0)
        return found

    def _show(self, opened: OpenedSlide, role: str, picture: ShownMap) -> None:
        layer, (colours, opacity) = self._layers.get(role), STYLES[role]
        made = made_layer(opened, picture, f"{slide_name(opened.slide)} {role}", opacity, colours)
        if layer is not None and layer in self._viewer.layers and layer.metadata[OWNER] == made.metadata[OWNER]:
            # A new layer would take napari longer, and forget whether the user wants to see it.
            layer.contrast_limits_range = layer.contrast_limits = picture.limits
            layer.data, layer.scale, layer.translate = made.data, made.scale, made.translate
            return
        made.metadata[ROLE] = "plots"
        made.editable = False
        self._remove(role)
        self._layers[role] = made
        lower = self._layers.get(VALUES) if role == SELECTED else None
        opened.insert_above(self._viewer, made, opened.layer if lower is None else lower)

    def _remove(self, role: str) -> None:
        layer = self._layers.pop(role, None)
        if layer is not None and layer in self._viewer.layers:
            self._viewer.layers.remove(layer)

    def _hide(self) -> None:
        self._jobs.forget(PAINTING)
        self._jobs.cancel(PAINTING)
        self._painted = None
        self._tell(None)
        for role in STYLES:
            self._remove(role)

    def _on_slide_switched(self, _opened: Any = None) -> None:
        self._hide()
        self._on_changed()

    # ------------------------------------------------------------------ a click on the slide

    def _on_pressed(self, _viewer: Any, event: Any) -> Iterator[None]:
        """Select the nucleus that is clicked; while nuclei are corrected, the tool “Pick” does that."""
        if self._plots.editing.session.editing or event.button != 1:
            return
        began = event.pos
        yield
        while event.type == "mouse_move":
            yield
        moved = max(abs(float(began[0]) - float(event.pos[0])), abs(float(began[1]) - float(event.pos[1])))
        if moved <= STILL_PX:
            self.click(event.position, MORE if "Shift" in event.modifiers else NEW)

    def click(self, position: Any, how: str = NEW) -> None:
        """Select the nucleus at a world position, if there is one."""
        opened, project, plots = self._plots.opened, self._plots.project, self._plots
        if opened is None or project is None:
            return
        y, x = (round(float(value)) for value in np.asarray(opened.layer.world_to_data(position))[-2:])

        def work(_cancelled: Cancelled) -> Iterator[int]:
            yield plots.engine.nucleus_at(project, y, x)

        def on_value(nucleus: int) -> None:
            if nucleus and plots.opened is opened:
                plots.select(np.array([nucleus], np.uint32), how)

        self._jobs.start(POINTING, work, on_value=on_value, on_error=plots.on_failed)
