"""Measurements of nuclei that are plotted, and which of them are selected: in the plot, on the slide, in the table."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from psygnal import Signal

from napari_nucleiseg.core.geometry import Region
from napari_nucleiseg.state import IN_VIEW, WHOLE_SLIDE, PlotWishes
from napari_nucleiseg.viewer.connections import Connections
from napari_nucleiseg.viewer.display import Display
from napari_nucleiseg.viewer.editing import Editing
from napari_nucleiseg.viewer.given_anew import FOUND_ANEW, GivenAnew, tell_given_anew
from napari_nucleiseg.viewer.jobs import Cancelled
from napari_nucleiseg.viewer.long_work import LongWork
from napari_nucleiseg.viewer.marker import Marker, fly_to
from napari_nucleiseg.viewer.messages import Hint
from napari_nucleiseg.viewer.plot_data import (
    NEW,
    Cloud,
    Floats,
    Histogram,
    Ids,
    Part,
    Place,
    Rows,
    cloud_of,
    combined,
    in_range,
    inside_fence,
)
from napari_nucleiseg.viewer.plot_lanes import MEASURING, SELECTING
from napari_nucleiseg.viewer.plots_engine import PlotsEngine
from napari_nucleiseg.viewer.regions import Regions
from napari_nucleiseg.viewer.sentences import sentence_of
from napari_nucleiseg.viewer.visible import camera_place, visible_region

if TYPE_CHECKING:
    from napari_nucleiseg.core.store.project import Project
    from napari_nucleiseg.viewer.opened import OpenedSlide

AT_ONCE_S = 0.02
EDITED_S = 0.6
VIEW_S = 0.4
TILE_S = 3.0
# What is measured so far is shown this often, and never takes more than a fifth of the time.
PART_S, REST = 1.0, 4.0
# A bar that would be gone at once is not worth a redraw of the window.
LONG_S = 0.4
NO_IDS = np.zeros(0, np.uint32)


class Plots:
    """What plots of one viewer show; all methods are for the main thread.

    Parameters
    ----------
    editing : Editing
        Tells of edits, and of nuclei that are picked.
    display : Display
        Knows the viewer, the slide in hand and the jobs.
    regions : Regions
        Annotated regions, whose nuclei can be plotted.
    engine : PlotsEngine, optional
        The headless part.

    Notes
    -----
    It works only between `open` and `close`. A selection outlives what is plotted: who selects, and then moves the view
    to see what was selected, does not lose it; but nuclei that a model has found anew since are not selected.
    """

    measured = Signal()
    """There is a new `cloud`."""
    selection_changed = Signal()
    said = Signal(Hint)
    list_wanted = Signal(object)
    """The user wants to see these nuclei (ids, ascending) in the table."""

    def __init__(self, editing: Editing, display: Display, regions: Regions, engine: PlotsEngine | None = None) -> None:
        self.editing, self.display, self.regions = editing, display, regions
        self.engine = engine or PlotsEngine()
        self.wishes = PlotWishes()
        self.viewer, self.jobs, self.shelf = display.viewer, display.jobs, display.shelf
        self.marker = Marker(self.viewer, "nucleus in the plot")
        self.long_work = LongWork(self.jobs, MEASURING)
        """How far measuring is, where it takes long."""
        self.cloud = Cloud()
        """What is plotted."""
        self.selected: Ids = NO_IDS
        """Selected nuclei, ascending; some may not be plotted."""
        self._selected_of: Project | None = None
        self._anew, self._told = GivenAnew(), 0
        self._measured_of: tuple[Project | None, Place] | None = None
        self._again = False
        self._flown: tuple[float, ...] | None = None
        self._connections = self._make_connections()
        self.display.tile_done.connect(self._on_tile_written)

    # ------------------------------------------------------------------ life

    def _make_connections(self) -> Connections:
        camera = self.viewer.scene.camera.events
        return Connections(
            (self.editing.edited, self._on_edited),
            (self.editing.picked, self._on_picked),
            (self.shelf.switched, self._on_slide_switched),
            (self.shelf.removed, self._on_slide_switched),
            (self.regions.changed, self._on_regions_changed),
            (self.viewer.layers.events.inserted, self._on_layers_changed),
            (self.viewer.layers.events.removed, self._on_layer_removed),
            (self.wishes.events.source, self._on_source_changed),
            (camera.center, self._on_view_moved),
            (camera.zoom, self._on_view_moved),
            (self.viewer.canvas.events.size, self._on_view_moved),
        )

    def open(self) -> None:
        """Begin to measure."""
        if not self.is_open:
            self._connections.open()
            self.refresh()

    def close(self) -> None:
        """Cease to measure, and take the ring away; what was measured is kept."""
        if self.is_open:
            self._connections.close()
            self._cancel()
            self.marker.hide()

    @property
    def is_open(self) -> bool:
        """Whether it works."""
        return self._connections.is_open

    @property
    def opened(self) -> OpenedSlide | None:
        """The slide in hand."""
        return self.shelf.now

    @property
    def project(self) -> Project | None:
        """The project whose nuclei are plotted."""
        return None if self.opened is None else self.opened.project

    @property
    def is_measuring(self) -> bool:
        """Whether nuclei are being measured."""
        return self.jobs.is_running(MEASURING)

    # ------------------------------------------------------------------ measuring

    def refresh(self) -> None:
        """Measure anew; blocks whose nuclei are the same are read, not measured."""
        opened, project = self.opened, self.project
        if not self.is_open:
            return
        self._cancel()
        if project is not self._selected_of:
            self._put(NO_IDS)
        place = None if opened is None else self._place(opened)
        if opened is None or project is None or place is None or (place.region and place.region.is_empty):
            self._measured_of = None
            self._show(Cloud())
            return
        slide, is_new = opened.slide, self._measured_of != (project, place)
        is_other = self._measured_of is None or self._measured_of[0] is not project
        self._measured_of, self._told = (project, place), self._anew.now
        self.long_work.begin("Measuring nuclei", after_s=LONG_S)

        def work(cancelled: Cancelled) -> Iterator[Part]:
            def ends() -> bool:
                return cancelled() or self.long_work.is_stopped

            blocks, due, part = [], time.monotonic() + PART_S, Part(0, 0, None)
            for block in self.engine.measure(project, slide, place.region, ends):
                blocks.append(block)
                self.long_work.note("Measuring nuclei", block.done, block.total)
                began, cloud = time.monotonic(), None
                if is_new and began > due:
                    cloud = cloud_of(blocks).inside(place)
                    due = time.monotonic() + max(PART_S, REST * (time.monotonic() - began))
                part = Part(block.done, block.total, cloud)
                yield part
            yield Part(part.done, part.total, cloud_of(blocks).inside(place))

        self.jobs.start(
            MEASURING, work, on_value=self._on_part, on_end=self._on_measured, on_error=self._on_measuring_failed
        )
        if is_other:
            # Nuclei of this project have the same ids as those that were plotted.
            self._show(Cloud())

    def stop(self) -> None:
        """Measure no further; what is measured so far is plotted."""
        self.long_work.stop()

    def _cancel(self) -> None:
        self._again = False
        self.jobs.forget(MEASURING)
        self.jobs.cancel(MEASURING)
        if self.long_work.is_running:
            self.long_work.end()

    def _on_part(self, part: Part) -> None:
        if part.cloud is not None:
            self._anew.forget(self._told)
            self._show(part.cloud)
        if part.cloud is not None and self.long_work.is_stopped and part.done < part.total:
            self.said.emit(Hint(f"Stopped: {part.done:,} of {part.total:,} parts of the slide are measured."))

    def _on_measured(self) -> None:
        self.long_work.end()
        if self._again:
            self._again = False
            self.refresh()

    def _on_measuring_failed(self, error: BaseException) -> None:
        if self.long_work.is_running and not self.is_measuring:
            self.long_work.end()
        self.on_failed(error)

    def on_failed(self, error: BaseException) -> None:
        """Say what is a sentence for people; anything else is an error of the program."""
        self.said.emit(Hint(sentence_of(error), is_warning=True))

    def _show(self, cloud: Cloud) -> None:
        if len(cloud) or len(self.cloud):
            self.cloud = cloud
        self.measured.emit()

    def _place(self, opened: OpenedSlide) -> Place | None:
        """Return whose nuclei are wanted; None where the view shows no slide (in three dimensions)."""
        source = self.wishes.source
        if source == WHOLE_SLIDE:
            return Place(None)
        found = next((region for region in self.regions.regions if str(region.number) == source), None)
        if found is not None:
            return Place(found.box.intersect(opened.slide.region), found.vertices)
        seen = visible_region(self.viewer, opened.layer)
        return None if seen is None else Place(seen)

    # ------------------------------------------------------------------ selecting

    def select(self, ids: Ids, how: str = NEW) -> None:
        """Select nuclei (ascending ids): these, these too, or all but these (`NEW`, `MORE`, `LESS`)."""
        self._put(combined(self.selected, np.asarray(ids, np.uint32), how))

    def fence(self, across: str, up: str, corners: Floats, how: str = NEW) -> None:
        """Select what lies inside a closed line in a plot.

        Parameters
        ----------
        across, up : str
            Names of the quantities along the axes.
        corners : ndarray of float64, shape (n, 2)
            ``(across, up)`` in their units.
        how : str
            As for `select`.
        """
        cloud, project = self.cloud, self.project

        def found() -> Rows:
            points = np.stack([cloud.of(across), cloud.of(up)], axis=1).astype(np.float64)
            return np.flatnonzero(inside_fence(points, corners))

        def on_value(rows: Rows) -> None:
            if project is self.project:
                self.select_rows(rows, how) if cloud is self.cloud else self.fence(across, up, corners, how)

        self.jobs.enqueue(SELECTING, found, on_value=on_value)

    def range(self, name: str, low: float, high: float, how: str = NEW) -> None:
        """Select nuclei whose value of one quantity lies from `low` to `high`."""
        self.select_rows(np.flatnonzero(in_range(self.cloud.of(name), low, high)), how)

    def bar(self, name: str, histogram: Histogram, place: int, how: str = NEW) -> None:
        """Select nuclei whose value of one quantity lies in a bin of a histogram."""
        self.select_rows(np.flatnonzero(histogram.bins_of(self.cloud.of(name)) == place), how)

    def select_all(self) -> None:
        """Select all that is plotted."""
        self.select_rows(np.arange(len(self.cloud)))

    def select_rows(self, rows: Rows, how: str = NEW) -> bool:
        """Select plotted nuclei by row, without those whose id a model has given anew; return whether any is left."""
        ids = self.cloud.ids[rows]
        kept = ids[~self._anew.among(ids)]
        self.said.emit(Hint(FOUND_ANEW if len(kept) < len(ids) else ""))
        if len(kept) or not len(ids):
            self.select(kept, how)
        return len(kept) > 0

    def clear(self) -> None:
        """Select nothing."""
        self.marker.hide()
        self._put(NO_IDS)

    def choose(self, ids: Ids) -> None:
        """Mark in the plot what was selected elsewhere."""
        if self.is_open:
            self.select(np.unique(ids))

    def go_to(self, row: int) -> None:
        """Select a plotted nucleus, and fly there; the plot stays as it is, though it may be of what was in view."""
        opened = self.opened
        if opened is None or row >= len(self.cloud) or not self.select_rows(np.array([row])):
            return
        box = self.cloud.box(row)
        fly_to(self.viewer, opened, box)
        self._flown = camera_place(self.viewer)
        self.marker.show(opened, box)

    def _put(self, ids: Ids) -> None:
        self._selected_of = self.project
        if not np.array_equal(ids, self.selected):
            self.selected = ids
            self.selection_changed.emit()

    # ------------------------------------------------------------------ what happens elsewhere

    def _on_source_changed(self, _source: str) -> None:
        self._flown = None
        self.refresh()

    def _on_edited(self) -> None:
        self.jobs.later(MEASURING, EDITED_S, self.refresh)

    def _on_picked(self, nucleus_id: int) -> None:
        if nucleus_id:
            self.choose(np.array([nucleus_id], np.uint32))

    def _on_tile_written(self, tile: Region) -> None:
        """Also while nobody looks, nothing stays selected that may be another nucleus now."""
        project = self.project
        if project is not None and (self.is_open or len(self.selected) or len(self.cloud)):
            tell_given_anew(self.jobs, project, tile, lambda ids: self._on_given_anew(project, tile, ids))

    def _on_given_anew(self, project: Project, tile: Region, ids: Ids) -> None:
        if project is not self.project:
            return
        self._anew.tell(ids)
        if project is self._selected_of:
            self._put(self.selected[~np.isin(self.selected, ids)])
        region = None if self._measured_of is None else self._measured_of[1].region
        if self.is_open and (region is None or region.overlaps(tile)):
            self.jobs.soon("plots of tiles", TILE_S, self._on_tiles_done)

    def _on_tiles_done(self) -> None:
        """While the slide is segmented there is always something new: what is being measured comes to its end first."""
        if self.is_measuring:
            self._again = True
        else:
            self.refresh()

    def _on_slide_switched(self, _opened: Any = None) -> None:
        self._cancel()
        self.marker.hide()
        self._put(NO_IDS)
        self._flown = None
        if self._measured_of is not None and self._measured_of[0] is not self.project:
            self._show(Cloud())
        if not any(str(region.number) == self.wishes.source for region in self.regions.regions):
            self.wishes.source = WHOLE_SLIDE if self.wishes.source == WHOLE_SLIDE else IN_VIEW
        self.jobs.later(MEASURING, AT_ONCE_S, self.refresh)

    def _on_layers_changed(self, _event: Any = None) -> None:
        """Opened results of an earlier session come as a layer; those of another pixel size go with theirs."""
        if self.project is not (None if self._measured_of is None else self._measured_of[0]):
            self.jobs.later(MEASURING, AT_ONCE_S, self.refresh)

    def _on_layer_removed(self, _event: Any = None) -> None:
        self.jobs.later("plots of results", AT_ONCE_S, self._on_layers_changed)

    def _on_regions_changed(self) -> None:
        opened = self.opened
        if opened is None or self._measured_of is None or self.wishes.source in {IN_VIEW, WHOLE_SLIDE}:
            return
        if not any(str(region.number) == self.wishes.source for region in self.regions.regions):
            self.wishes.source = IN_VIEW
        elif self._measured_of[1] != self._place(opened):
            self.jobs.later(MEASURING, EDITED_S, self.refresh)

    def _on_view_moved(self, _event: Any = None) -> None:
        if self.wishes.source == IN_VIEW:
            self.jobs.later(MEASURING, VIEW_S, self._on_view_settled)

    def _on_view_settled(self) -> None:
        opened = self.opened
        if opened is None or camera_place(self.viewer) == self._flown:
            return
        self._flown = None
        if self._measured_of is None or self._measured_of[1] != self._place(opened):
            self.refresh()
