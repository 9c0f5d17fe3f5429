"""Chosen clusters become nuclei of the slide, beside what is edited there, or a model for the rest of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from psygnal import Signal

from napari_nucleiseg.core.errors import StoreError
from napari_nucleiseg.viewer.editing import LANE as EDIT_LANE
from napari_nucleiseg.viewer.messages import FolderQuestion, Hint, InUseQuestion
from napari_nucleiseg.viewer.segmentation import FolderNeededError, InUseError, writable_project
from napari_nucleiseg.viewer.sentences import sentence_of
from napari_nucleiseg.viewer.versions import FILES

if TYPE_CHECKING:
    from napari_nucleiseg.core.batch.clustered import Written
    from napari_nucleiseg.core.store.project import Project
    from napari_nucleiseg.core.teaching.versions import Version
    from napari_nucleiseg.viewer.clustering import Clustering
    from napari_nucleiseg.viewer.controller import Controller
    from napari_nucleiseg.viewer.opened import OpenedSlide

# A model that is taken in hand first brings its threshold and size with it.
TAKEN_S = 0.4


class ClusterNuclei:
    """What is made of clusters; all methods are for the main thread.

    Parameters
    ----------
    clustering : Clustering
        What was found, and which of it is ticked.
    controller : Controller
        Knows the slide in hand, the jobs and the models.
    """

    busy_changed = Signal(bool)
    """Something is being made, or no longer."""

    def __init__(self, clustering: Clustering, controller: Controller) -> None:
        self._clustering, self._controller = clustering, controller
        self._display, self._jobs = controller.display, controller.display.jobs
        self._session = controller.session
        self.is_busy = False
        """Whether nuclei or a model are being made."""
        self._wanted = ""
        self._session.events.model.connect(self._on_model_changed)

    def close(self) -> None:
        """Follow the models no longer."""
        self._session.events.model.disconnect(self._on_model_changed)

    # ------------------------------------------------------------------ nuclei

    def make(self) -> None:
        """Make nuclei of the ticked clusters, in place of those that models found there."""
        opened, found = self._clustering.opened, self._clustering.found
        if opened is None or found is None or self.is_busy:
            return
        # A model that follows the view would put its own in their place.
        self._session.follow = False
        chosen, area = frozenset(self._clustering.chosen), self._session.min_area_um2

        def open_it() -> tuple[Project, Iterator[Written]]:
            # The engine that opens the projects of this viewer, so that there is one lock.
            project = writable_project(
                opened, self._controller.teaching.engine, self._session.results_folder, create=True
            )
            if project is None:
                raise StoreError("The results of this slide cannot be opened. Close the slide and open it again.")
            return project, self._clustering.engine.write(project, found, chosen, area)

        def on_opened(made: tuple[Project, Iterator[Written]]) -> None:
            self._display.show()
            self._go_on(opened, *made, count=0)

        self._begin()
        self._jobs.enqueue(
            EDIT_LANE, open_it, on_value=on_opened, on_error=lambda error: self._on_failed(error, opened)
        )

    def _go_on(self, opened: OpenedSlide, project: Project, parts: Iterator[Written], count: int) -> None:
        """Write the next part; what the user paints meanwhile takes its turn."""

        def on_written(part: Written | None) -> None:
            if part is None or opened.project is not project:
                self._end(self._made(count) if part is None else "")
                return
            self._display.tile_finished(part.region)
            self._go_on(opened, project, parts, count + part.nuclei)

        self._jobs.enqueue(
            EDIT_LANE,
            lambda: next(parts, None),
            on_value=on_written,
            on_error=lambda error: self._on_failed(error, opened),
        )

    def _made(self, count: int) -> str:
        """Return what to say of so many nuclei."""
        found = self._clustering.found
        if found is None:
            return ""
        plan, core = found.picture.plan, found.picture.core_px
        density = count / (core.area * plan.mpp_um.y * plan.mpp_um.x * 1e-6)
        return f"{count:,} nuclei were made of the ticked clusters, {density:,.0f} per mm² of what was clustered."

    # ------------------------------------------------------------------ a model

    def use(self, *, whole: bool) -> None:
        """Keep the fitted network as a model and take it in hand; `whole` segments the slide with it at once."""
        opened, found = self._clustering.opened, self._clustering.found
        if opened is None or found is None or self.is_busy:
            return
        slide, chosen = opened.slide, frozenset(self._clustering.chosen)

        def on_kept(version: Version) -> None:
            self._end(f"“{version.title}” is in the list of models, and in use.")
            self._session.follow = False
            self._wanted = version.card.name if whole else ""
            self._controller.catalogue.take(version)

        self._begin()
        self._jobs.enqueue(
            FILES,
            lambda: self._clustering.engine.keep(slide, found, chosen),
            on_value=on_kept,
            on_error=lambda error: self._on_failed(error, opened),
        )

    def _on_model_changed(self, name: str) -> None:
        if name == self._wanted:
            self._jobs.later("clusters everywhere", TAKEN_S, self._controller.segment_slide)
        self._wanted = ""

    # ------------------------------------------------------------------ how it goes

    def _begin(self) -> None:
        self.is_busy = True
        self.busy_changed.emit(True)

    def _end(self, sentence: str, *, is_warning: bool = False) -> None:
        self.is_busy = False
        self.busy_changed.emit(False)
        if not is_warning:
            self._clustering.put_aside()
        self._clustering.said.emit(Hint(sentence, is_warning=is_warning))

    def _on_failed(self, error: BaseException, opened: OpenedSlide) -> None:
        self._end(sentence_of(error), is_warning=True)
        if isinstance(error, FolderNeededError):
            self._controller.ask(FolderQuestion(opened.slide, str(error)), self.make)
        elif isinstance(error, InUseError):
            self._controller.ask(InUseQuestion(str(error)), self.make)
