"""What is shown of a slide's results: outlines, heatmap, and how many nuclei there are."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray
from psygnal import Signal

from napari_nucleiseg.core.geometry import Region
from napari_nucleiseg.state import NO_HEATMAP, Session
from napari_nucleiseg.viewer.counting import Done, count_polygon, count_view
from napari_nucleiseg.viewer.jobs import Cancelled, Jobs
from napari_nucleiseg.viewer.messages import Counts
from napari_nucleiseg.viewer.outlines import Classes
from napari_nucleiseg.viewer.project_view import classes_of
from napari_nucleiseg.viewer.shelf import Shelf
from napari_nucleiseg.viewer.visible import visible_region

LOOK = "look on"
REDRAW_S = 0.1
RECOUNT_S = 0.3
RECOLOUR_S = 0.5
LOOK_S = 1.0
# Of the time that a redraw took, so many times it nothing is redrawn: the window must stay free.
REST = 4.0


class Display:
    """Keeps layers and counts of the slide in hand up to date.

    Parameters
    ----------
    viewer : napari.Viewer
        To draw in.
    session : Session
        Says what to show.
    shelf : Shelf
        Says of which slide.
    jobs : Jobs
        Counting runs there.
    on_error : callable
        Told when counting fails.
    """

    counted = Signal(object)
    """New `Counts`, or None where nothing is known."""
    tile_done = Signal(Region)
    """A model has written here, level-0 pixels."""

    def __init__(
        self, viewer: Any, session: Session, shelf: Shelf, jobs: Jobs, on_error: Callable[[BaseException], None]
    ) -> None:
        self.viewer, self.session, self.shelf, self.jobs = viewer, session, shelf, jobs
        self._on_error = on_error
        self._redraw_took_s = 0.0
        self._eye_closed = False
        self.polygon: NDArray[np.float64] | None = None
        """Counts are of this ``(y, x)`` in level-0 pixels; None is the view."""
        session.events.heatmap.connect(self.show_heatmap)
        session.events.outlines.connect(self._on_outlines_changed)
        viewer.layers.events.removed.connect(self._on_layer_removed)

    def turn_to_slide(self) -> None:
        """Begin with the slide that is in hand now: a shape was another's, and its nuclei have an eye of their own."""
        self.polygon = None
        self.forget_count()
        opened = self.shelf.now
        if opened is not None and opened.nuclei is not None:
            self.session.outlines = opened.nuclei.visible

    def tile_finished(self, region: Region) -> None:
        """Draw and count anew, soon and not too often, if anybody sees where the tile lies.

        Parameters
        ----------
        region : Region
            Level-0 pixels that the tile changed.
        """
        self.tile_done.emit(region)
        opened = self.shelf.now
        # What was found anew has the class of what was there, and ids are given anew.
        self.jobs.soon("recolour", RECOLOUR_S, self.recolour)
        seen = None if opened is None else visible_region(self.viewer, opened.layer)
        if seen is None or seen.overlaps(region):
            self.jobs.soon("redraw", max(REDRAW_S, REST * self._redraw_took_s), self.redraw)
            self.jobs.soon("count", RECOUNT_S, self.count)

    def fit_outlines(self) -> None:
        """Have the outlines seen at the present zoom."""
        if self.shelf.now is not None:
            self.shelf.now.fit_outlines(self.viewer.scene.camera.zoom)

    def show(self) -> bool:
        """Show the nuclei layer if there are results and it is not there; return whether it was added."""
        opened = self.shelf.now
        if opened is None or not opened.show_nuclei(self.viewer, visible=self.session.outlines):
            return False
        self.watch_eye(opened.nuclei)
        self.fit_outlines()
        self.recolour()
        return True

    def recolour(self) -> None:
        """Show the classes of all nuclei; while they are corrected, that is done by what corrects them."""
        opened = self.shelf.now
        if opened is None or opened.project is None or opened.nuclei is None or self.session.editing:
            return
        project, layer = opened.project, opened.nuclei

        def work(_cancelled: Cancelled) -> Iterator[Classes]:
            yield classes_of(project)

        self.jobs.start("recolour", work, on_value=layer.show_classes, on_error=self._on_error)

    def watch_eye(self, layer: Any) -> None:
        """Heed the eye of a layer of nuclei from now on."""
        layer.events.visible.connect(self._on_eye_clicked)

    def _on_eye_clicked(self, event: Any) -> None:
        """The layer list's eye and the panel's box say the same of the slide in hand."""
        opened = self.shelf.now
        if not self._eye_closed and opened is not None and event.source in (opened.nuclei, opened.edit):
            self.session.outlines = event.source.visible

    @contextmanager
    def eye_closed(self) -> Iterator[None]:
        """Within the block, hiding the nuclei layer is not what the user wants."""
        self._eye_closed = True
        try:
            yield
        finally:
            self._eye_closed = False

    def redraw(self) -> None:
        """Draw the nuclei anew."""
        start = time.perf_counter()
        opened = self.shelf.now
        if opened is not None and not self.show():
            opened.redraw_nuclei()
        self._redraw_took_s = time.perf_counter() - start

    def _on_outlines_changed(self, visible: bool) -> None:
        opened = self.shelf.now
        if opened is not None and (opened.edit or opened.nuclei) is not None:
            (opened.edit or opened.nuclei).visible = visible

    def show_heatmap(self) -> None:
        """Show the output that the session names, as far as it was kept."""
        opened = self.shelf.now
        if opened is None:
            return
        found = opened.heatmap_levels(self.session.heatmap) if self.session.heatmap else None
        if found is None:
            opened.hide_heatmap(self.viewer)
        else:
            opened.show_heatmap(self.viewer, *found)

    def _on_layer_removed(self, event: Any) -> None:
        """Who takes the heatmap away wants none; with its slide it goes by itself."""
        opened = self.shelf.now
        if opened is not None and opened.heatmap == event.value and opened.layer in self.viewer.layers:
            self.session.heatmap = NO_HEATMAP

    def forget_count(self) -> None:
        """Show no number; what is being counted is not shown either, as it may be of what is not shown any more."""
        self.jobs.forget("count")
        self.jobs.cancel("count")
        self.counted.emit(None)

    def look_on(self) -> None:
        """Show what another program has written meanwhile, if that has the project: soon, and not too often."""
        opened = self.shelf.now
        if opened is not None and opened.project is not None and not opened.project.writable:
            self.jobs.soon(LOOK, LOOK_S, self._look_anew)

    def _look_anew(self) -> None:
        opened = self.shelf.now
        project = None if opened is None else opened.project
        if opened is None or project is None:
            return

        def work(_cancelled: Cancelled) -> Iterator[None]:
            project.refresh()
            yield None

        def on_looked(_nothing: None) -> None:
            if opened is self.shelf.now and opened.project is project:
                opened.redraw_nuclei()
                self.jobs.soon("recolour", RECOLOUR_S, self.recolour)
                self.count()

        self.jobs.start(LOOK, work, on_value=on_looked, on_error=self._on_error)

    def count(self) -> None:
        """Count the nuclei in view, or in `polygon`."""
        opened = self.shelf.now
        region = None if opened is None else visible_region(self.viewer, opened.layer)
        if opened is None or opened.project is None or region is None or region.is_empty:
            self.forget_count()
            return
        project, slide, plan = opened.project, opened.slide, opened.plan
        tissue = opened.tissue if self.session.tissue_only else None
        (version, key), polygon = opened.done_key, self.polygon

        def work(_cancelled: Cancelled) -> Iterator[Counts]:
            # Nuclei of clusters and of earlier sessions are counted without a plan.
            done = None if plan is None else Done(plan.grid, project.tiles_done(version, key))
            if polygon is None:
                yield count_view(project, slide, region, done, tissue=tissue)
            else:
                yield count_polygon(project, slide, polygon, done, tissue=tissue)

        self.jobs.start("count", work, on_value=self.counted.emit, on_error=self._on_error)
