"""Nuclei of the slide in hand against a reference: scores, and mistakes as layers, until the user has seen enough."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from psygnal import Signal

from napari_nucleiseg.core.store.regions import REFERENCE, AnnotatedRegion
from napari_nucleiseg.viewer.connections import Connections
from napari_nucleiseg.viewer.display import Display
from napari_nucleiseg.viewer.editing import LANE as EDIT_LANE
from napari_nucleiseg.viewer.editing import Editing
from napari_nucleiseg.viewer.given_anew import if_given_anew
from napari_nucleiseg.viewer.jobs import Cancelled
from napari_nucleiseg.viewer.judge_lanes import LANE, WRITE_LANE
from napari_nucleiseg.viewer.judging_layers import fit_outline, judging_layers
from napari_nucleiseg.viewer.long_work import LongWork, StoppedError
from napari_nucleiseg.viewer.messages import Hint, Progress
from napari_nucleiseg.viewer.sentences import OUT_OF_SIGHT, failure
from napari_nucleiseg.viewer.visible import visible_region

if TYPE_CHECKING:
    from napari_nucleiseg.core.batch.slide_evaluation import RegionChoice
    from napari_nucleiseg.core.evaluation.slide_report import SlideReport
    from napari_nucleiseg.core.exchange.reference import Reference
    from napari_nucleiseg.core.geometry import Region
    from napari_nucleiseg.core.store.project import Project
    from napari_nucleiseg.viewer.opened import OpenedSlide

VIEW, COVERED, ALL, FOR_REFERENCE, FOR_HOLD_OUT = PLACES = ("view", "covered", "all", "reference", "holdout")
NO_SLIDE = "Open a slide first: its nuclei are compared with a reference."
NO_NUCLEI = "There are no nuclei to compare yet. Segment the slide, or draw some."
FOUND_ANEW = "The nuclei were found anew where they were compared. Compare again to see how they are now."
NOT_FLAT = "Switch to the two-dimensional view (Ctrl+Y) to compare what you see."
TITLE = "Comparing with the reference"
STAGES = {
    "reading": "Reading the reference",
    "writing": "Sorting the reference",
    "counting": "Comparing",
    "measuring": "Measuring outlines",
}


@dataclass(frozen=True, slots=True)
class Wish:
    """What is to be compared with what.

    Parameters
    ----------
    path : str
        Of the reference: GeoJSON, label image, or project folder.
    place : str
        One of `PLACES`: where nuclei are compared.
    """

    path: str
    place: str = COVERED


class _Lease:
    """A reference that is read in one thread, shown by another, and closed once, whoever is last."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._reference: Reference | None = None
        self.is_over = False

    def give(self, reference: Reference) -> bool:
        """Hand a reference over; False if nobody wants it any more."""
        with self._lock:
            if not self.is_over:
                self._reference = reference
            return not self.is_over

    def end(self) -> Reference | None:
        """Want it no more; return what is to be closed."""
        with self._lock:
            self.is_over = True
            reference, self._reference = self._reference, None
            return reference


@dataclass(frozen=True, slots=True, eq=False)
class _Judged:
    """What came of it."""

    project: Project
    reference: Reference
    report: SlideReport


class Judging:
    """One comparison with a reference at a time in one viewer; all methods are for the main thread.

    Parameters
    ----------
    editing : Editing
        What was drawn last is compared, too.
    display : Display
        Knows the viewer, the slides and the jobs.
    """

    progress_changed = Signal(object)
    """A `Progress`, or None when nothing runs any more."""
    shown = Signal(object)
    """The `SlideReport` whose layers are there now, or None when they are gone."""
    said = Signal(Hint)

    def __init__(self, editing: Editing, display: Display) -> None:
        self._editing, self._display = editing, display
        self._viewer, self._jobs, self._shelf = display.viewer, display.jobs, display.shelf
        self.wish: Wish | None = None
        """What was asked for last."""
        self._lease = _Lease()
        self._layers: tuple[Any, ...] = ()
        self._judged: _Judged | None = None
        self._work = LongWork(self._jobs, LANE)
        self._work.changed.connect(self._on_progress_changed)
        self._connections = Connections(
            (self._shelf.switched, self._on_slide_switched),
            (self._editing.edited, self._on_edited),
            (display.tile_done, self._on_tile_done),
            (self._viewer.scene.camera.events.zoom, self._on_zoomed),
            (self._viewer.layers.events.removed, self._on_layer_removed),
        )
        self._connections.open()

    def close(self) -> None:
        """Stop for good; the layers go."""
        self._connections.close()
        self.stop()

    # ------------------------------------------------------------------ begin and end

    @property
    def is_running(self) -> bool:
        """Whether a reference is read or compared."""
        return self._work.is_running

    @property
    def is_shown(self) -> bool:
        """Whether the layers of a comparison are there."""
        return bool(self._layers)

    def begin(self, wish: Wish) -> None:
        """Compare the nuclei of the slide in hand with a reference."""
        opened = self._shelf.now
        if opened is None or opened.project is None:
            self.said.emit(Hint(NO_SLIDE if opened is None else NO_NUCLEI, is_warning=True))
            return
        view = visible_region(self._viewer, opened.layer)
        if wish.place == VIEW and (view is None or view.is_empty):
            self.said.emit(Hint(NOT_FLAT if view is None else OUT_OF_SIGHT, is_warning=True))
            return
        self.stop()
        self.wish = wish
        self.said.emit(Hint())
        lease = self._lease = _Lease()
        # What was drawn last is written first.
        self._editing.commit("paint")
        self._work.begin(f"{TITLE}: {Path(wish.path).name}")
        self._jobs.enqueue(EDIT_LANE, lambda: None, on_value=lambda _none: self._start(opened, wish, view, lease))

    def again(self) -> None:
        """Compare as it was asked for last, by what the nuclei are now."""
        if self.wish is not None:
            self.begin(self.wish)

    def _start(self, opened: OpenedSlide, wish: Wish, view: Region | None, lease: _Lease) -> None:
        project = opened.project
        if lease.is_over:
            return
        if project is None:
            self.stop()
            return

        def note(stage: str, done: int, total: int) -> None:
            if lease.is_over or self._work.is_stopped:
                raise StoppedError
            self._work.note(STAGES.get(stage, TITLE), done, total)

        def work(_cancelled: Cancelled) -> Iterator[_Judged]:
            from napari_nucleiseg.core.batch.slide_evaluation import evaluate_slide
            from napari_nucleiseg.core.exchange.reference import open_reference

            reference = open_reference(wish.path, project, on_progress=note)
            if not lease.give(reference):
                reference.close()
                return
            regions = _regions(project, reference, wish.place, view)
            yield _Judged(project, reference, evaluate_slide(project, reference, regions=regions, on_progress=note))

        self._jobs.start(
            LANE,
            work,
            title=TITLE,
            on_value=lambda judged: self._show(opened, judged),
            on_end=self._work.end,
            on_error=lambda error: self._on_failed(error, lease),
        )

    def stop(self) -> None:
        """Stop comparing, and take away what is shown of it."""
        reference = self._lease.end()
        self._jobs.cancel(LANE)
        if self._work.is_running:
            self._work.end()
        layers, self._layers = self._layers, ()
        self._judged = None
        for layer in layers:
            if layer in self._viewer.layers:
                self._viewer.layers.remove(layer)
        if reference is not None:
            # It may be large, and what is at work may still read it.
            self._jobs.after(reference.close, LANE, WRITE_LANE)
        if layers:
            self.shown.emit(None)

    # ------------------------------------------------------------------ what is seen

    def _show(self, opened: OpenedSlide, judged: _Judged) -> None:
        if opened is not self._shelf.now or opened.project is not judged.project:
            self.stop()
            return
        self._judged = judged
        self._layers = judging_layers(opened.slide, judged.project, judged.reference, judged.report)
        for layer in self._layers:
            opened.insert_above(self._viewer, layer, self._viewer.layers[-1])
        self._on_zoomed()
        self.shown.emit(judged.report)

    def write_mistakes(self, path: str) -> None:
        """Write the nuclei that are wrong as GeoJSON for QuPath."""
        judged = self._judged
        if judged is None:
            return

        def work(_cancelled: Cancelled) -> Iterator[int]:
            from napari_nucleiseg.core.exchange.mistakes import write_mistakes

            if judged.project.writable:
                judged.project.flush()
            yield write_mistakes(judged.project, judged.reference, judged.report, path)

        def on_written(nuclei: int) -> None:
            self.said.emit(Hint(f"{nuclei:,} nuclei that are wrong written to {Path(path).name}."))

        title = f"Writing {Path(path).name}"
        self._jobs.start(WRITE_LANE, work, title=title, on_value=on_written, on_error=self._on_unwritten)

    # ------------------------------------------------------------------ what happens elsewhere

    def _on_progress_changed(self, progress: Progress | None) -> None:
        self.progress_changed.emit(progress)

    def _on_zoomed(self, _event: Any = None) -> None:
        fit_outline(self._layers, self._viewer.scene.camera.zoom)

    def _on_edited(self) -> None:
        """Show nuclei where they are now; what became of them a new comparison says."""
        for layer in self._layers:
            layer.refresh(thumbnail=False, extent=False, highlight=False)

    def _on_tile_done(self, region: Region) -> None:
        """A model has written: if it found nuclei anew that were compared, what is shown is of others."""
        judged = self._judged
        if judged is not None:
            ids = judged.report.pred.ids
            if_given_anew(self._jobs, judged.project, region, ids, lambda: self._on_given_anew(judged))

    def _on_given_anew(self, judged: _Judged) -> None:
        if self._judged is judged:
            self.stop()
            self.said.emit(Hint(FOUND_ANEW, is_warning=True))

    def _on_layer_removed(self, event: Any) -> None:
        """Who takes the outlines away has seen enough; a mistake that is not of interest may go alone."""
        if self._layers and event.value == self._layers[-1]:
            self.stop()

    def _on_slide_switched(self) -> None:
        self.stop()
        # A reference is that of one slide.
        self.wish = None
        self.said.emit(Hint())

    def _on_failed(self, error: BaseException, lease: _Lease) -> None:
        if lease is not self._lease:
            return
        self.stop()
        if isinstance(error, StoppedError):
            self.said.emit(Hint("Stopped."))
        else:
            self.said.emit(failure(error))

    def _on_unwritten(self, error: BaseException) -> None:
        self.said.emit(failure(error))


def _regions(project: Project, reference: Reference, place: str, view: Region | None) -> tuple[AnnotatedRegion, ...]:
    from napari_nucleiseg.core.batch.slide_evaluation import regions_to_evaluate

    if place == VIEW and view is not None:
        corners = ((view.y, view.x), (view.y, view.x1), (view.y1, view.x1), (view.y1, view.x))
        return (AnnotatedRegion(0, "View", REFERENCE, tuple((float(y), float(x)) for y, x in corners)),)
    chosen: dict[str, RegionChoice] = {ALL: "all", FOR_REFERENCE: "reference", FOR_HOLD_OUT: "holdout"}
    return regions_to_evaluate(project, reference, chosen.get(place))
