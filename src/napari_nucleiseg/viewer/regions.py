"""Annotated regions of the slide in hand: what is drawn on their layer is kept, what is kept is drawn."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from psygnal import Signal

from napari_nucleiseg.core.store.ledger import APPROVED
from napari_nucleiseg.core.store.regions import TEACH, AnnotatedRegion, put_region, read_regions, remove_region
from napari_nucleiseg.viewer.connections import Connections
from napari_nucleiseg.viewer.counting import inside_polygon
from napari_nucleiseg.viewer.display import Display
from napari_nucleiseg.viewer.editing import Editing
from napari_nucleiseg.viewer.jobs import Cancelled
from napari_nucleiseg.viewer.marker import fly_to
from napari_nucleiseg.viewer.messages import Hint
from napari_nucleiseg.viewer.region_layer import (
    TOOLS,
    drawn,
    edge_width,
    is_drawing,
    mark_pending,
    put_regions,
    region_layer,
)

if TYPE_CHECKING:
    from napari_nucleiseg.core.store.editor import Changed, Editor
    from napari_nucleiseg.core.store.project import Project
    from napari_nucleiseg.viewer.opened import OpenedSlide

LANE = "regions"
DRAWN_S = 0.15
EDITED_S = 0.3
ZOOMED_S = 0.3


@dataclass(frozen=True, slots=True)
class Share:
    """How many nuclei lie in a region, and how many of them a person has approved or drawn."""

    nuclei: int
    approved: int


class Regions:
    """The regions of one viewer; all methods are for the main thread.

    Parameters
    ----------
    editing : Editing
        Writes what is drawn, as steps of the history.
    display : Display
        Knows the viewer, the slide in hand and the jobs.
    """

    changed = Signal()
    """The regions, or what is in them, are no longer what they were."""
    said = Signal(Hint)

    def __init__(self, editing: Editing, display: Display) -> None:
        self._editing, self._display = editing, display
        self._viewer, self._jobs, self._shelf = display.viewer, display.jobs, display.shelf
        self.regions: tuple[AnnotatedRegion, ...] = ()
        self.shares: dict[int, Share] = {}
        self._read_from: Project | None = None
        self._layer: Any = None
        self._layer_of: OpenedSlide | None = None
        # What was last put into the layer, and what was kept of it since: others there are new.
        self._shown: tuple[AnnotatedRegion, ...] = ()
        self._showing = False
        self._unkept = False
        self._back_to: Any = None
        self._role = TEACH
        self._connections = Connections(
            (editing.edited, self._on_edited),
            (editing.failed, self._on_failed),
            (editing.session.events.editing, self._on_editing_changed),
            (self._shelf.switched, self.begin_anew),
            (self._viewer.layers.events.inserted, self._on_layers_changed),
            (self._viewer.scene.camera.events.zoom, self._on_zoomed),
        )
        self._connections.open()
        self.refresh()

    def close(self) -> None:
        """Cease to show and to keep; the layer stays."""
        self._connections.close()
        self._jobs.cancel(LANE)

    # ------------------------------------------------------------------ what there is

    @property
    def project(self) -> Project | None:
        """The project whose regions are shown."""
        return None if self._shelf.now is None else self._shelf.now.project

    @property
    def can_change(self) -> bool:
        """Whether nuclei are being corrected, and regions with them."""
        return self._editing.project is not None

    def refresh(self) -> None:
        """Read regions and what is in them anew."""
        project = self.project
        if project is None:
            self._on_read(None, ())
            return

        def work(cancelled: Cancelled) -> Iterator[tuple[AnnotatedRegion, ...] | tuple[int, Share]]:
            found = read_regions(project.ledger.reader)
            yield found
            for region in found:
                if cancelled():
                    return
                yield region.number, share_of(project, region)

        def on_value(value: Any) -> None:
            if value and isinstance(value[-1], Share):
                self._on_counted(project, *value)
            else:
                self._on_read(project, value)

        self._jobs.start(LANE, work, on_value=on_value)

    def _on_read(self, project: Project | None, regions: tuple[AnnotatedRegion, ...]) -> None:
        if project is not self.project:
            return
        if project is not self._read_from:
            self.shares = {}
        self._read_from, self.regions = project, regions
        self._show()
        self.changed.emit()

    def _on_counted(self, project: Project, number: int, share: Share) -> None:
        if project is self.project:
            self.shares[number] = share
            self.changed.emit()

    # ------------------------------------------------------------------ what the user does

    def draw(self, shape: str, role: str = TEACH) -> None:
        """Let the user draw a region: a ``rectangle`` or a ``polygon``; correcting begins with it."""
        opened = self._shelf.now
        if opened is None:
            return
        self._role = role
        self._editing.session.editing = True
        layer = self._layer_for(opened)
        active = self._viewer.layers.selection.active
        if active is not None and active != layer:
            self._back_to = active
        layer.visible = layer.editable = True
        layer.selected_data = set()
        self._viewer.layers.selection.active = layer
        layer.current_edge_width = edge_width(layer, self._viewer.scene.camera.zoom)
        layer.mode = TOOLS[shape]
        how = "Drag a rectangle." if shape == "rectangle" else "Click its corners; double-click the last one."
        self.said.emit(Hint(how))

    def put(self, region: AnnotatedRegion) -> None:
        """Change a region as one step."""
        self._write(lambda project: [put_region(project, region)])

    def remove(self, region: AnnotatedRegion) -> None:
        """Take a region away as one step; its nuclei stay."""
        self._write(lambda project: [remove_region(project, region)])

    def go_to(self, region: AnnotatedRegion) -> None:
        """Show all of a region."""
        if self._shelf.now is not None:
            fly_to(self._viewer, self._shelf.now, region.box)

    def _write(self, write: Any) -> None:
        project = self._editing.project

        def edit(_editor: Editor) -> Iterable[Changed | None]:
            return [] if project is None else write(project)

        self._editing.do(edit, on_error=self._on_refused)

    # ------------------------------------------------------------------ the layer

    def _layer_for(self, opened: OpenedSlide) -> Any:
        if self._layer is None or self._layer_of is not opened or self._layer not in self._viewer.layers:
            self._drop_layer()
            self._layer, self._layer_of = region_layer(opened), opened
            opened.insert_above(self._viewer, self._layer, self._viewer.layers[-1])
            self._layer.events.data.connect(self._on_drawn)
        return self._layer

    def _drop_layer(self) -> None:
        self._unkept, self._shown = False, ()
        layer, self._layer = self._layer, None
        if layer is not None and layer in self._viewer.layers:
            self._viewer.layers.remove(layer)

    def _show(self) -> None:
        opened = self._shelf.now
        if opened is None or (not self.regions and self._layer is None):
            self._drop_layer()
            return
        layer = self._layer_for(opened)
        if is_drawing(layer) or self._unkept:
            self._jobs.later("regions shown", EDITED_S, self._show)
            return
        self._showing = True
        try:
            put_regions(layer, self.regions, self._viewer.scene.camera.zoom)
            self._shown = self.regions
        finally:
            self._showing = False
        layer.editable = self.can_change

    def _on_drawn(self, _event: Any) -> None:
        if not self._showing:
            self._unkept = True
            self._jobs.later("regions drawn", DRAWN_S, self._keep_drawn)

    def _keep_drawn(self) -> None:
        """Keep what was drawn, moved or deleted since the last time."""
        opened, layer = self._shelf.now, self._layer
        if opened is None or layer is None or self._layer_of is not opened:
            return
        if is_drawing(layer):
            self._jobs.later("regions drawn", DRAWN_S, self._keep_drawn)
            return
        self._unkept = False
        done = drawn(layer, opened.layer, self._shown) if self.can_change else None
        if done is None:
            self._show()
            return
        new, moved, removed = done
        # What was undone while a shape was drawn is neither moved nor removed.
        known = {region.number: region for region in self.regions}
        moved = {number: vertices for number, vertices in moved.items() if number in known}
        removed = [number for number in removed if number in known]
        role = self._role

        def write(project: Project) -> Iterator[Changed | None]:
            for vertices in new:
                yield put_region(project, AnnotatedRegion(0, "", role, vertices))
            for number, vertices in moved.items():
                yield put_region(project, replace(known[number], vertices=vertices))
            for number in removed:
                yield remove_region(project, known[number])

        if new or moved or removed:
            mark_pending(layer)
            self._shown = tuple(
                replace(region, vertices=moved.get(region.number, region.vertices))
                for region in self._shown
                if region.number not in removed
            )
            self._write(write)
        if new and str(layer.mode).startswith("add_"):
            self._stop_drawing(layer)

    def _stop_drawing(self, layer: Any) -> None:
        """One region was asked for: go back to what was done before."""
        layer.mode = "pan_zoom"
        back, self._back_to = self._back_to, None
        opened = self._shelf.now
        wanted = opened.edit if opened is not None and opened.edit is not None else back
        if wanted is not None and wanted in self._viewer.layers:
            self._viewer.layers.selection.active = wanted
        self.said.emit(Hint())

    # ------------------------------------------------------------------ what happens elsewhere

    def _on_refused(self, error: BaseException) -> None:
        self._show()
        self._editing.failed.emit(error)

    def _on_failed(self, _error: BaseException) -> None:
        self._show()

    def _on_edited(self) -> None:
        self._jobs.later(LANE, EDITED_S, self.refresh)

    def _on_editing_changed(self, _on: bool) -> None:
        if self._layer is not None:
            self._layer.editable = self.can_change
        self.changed.emit()

    def begin_anew(self) -> None:
        """Show the regions of the slide in hand, or of its pixel size, and no others."""
        self._drop_layer()
        self.regions, self.shares = (), {}
        self._jobs.later(LANE, 0.0, self.refresh)

    def _on_layers_changed(self, _event: Any = None) -> None:
        """The results of an earlier session are shown as a layer when they have been opened."""
        if self.project is not self._read_from:
            self._jobs.later(LANE, 0.0, self.refresh)

    def _on_zoomed(self, _event: Any = None) -> None:
        if self.regions:
            self._jobs.later("regions zoomed", ZOOMED_S, self._show)


def share_of(project: Project, region: AnnotatedRegion) -> Share:
    """Count the nuclei with their centroid in a region, and those of them that are approved."""
    rows = project.census.rows_in(project.ledger.reader, region.box, "y, x, review", "state = 0")
    table = np.array(rows, np.float64).reshape(-1, 3)
    inside = table[inside_polygon(table[:, :2], region.polygon)]
    return Share(len(inside), int((inside[:, 2] == APPROVED).sum()))
