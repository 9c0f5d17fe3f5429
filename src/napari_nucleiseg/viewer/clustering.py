"""Clusters what is in view without labels, and makes nuclei and a model of the clusters that a person chooses."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from psygnal import Signal

from napari_nucleiseg.core.errors import MissingPixelSizeError, NucleiSegError
from napari_nucleiseg.core.geometry import Region
from napari_nucleiseg.viewer.cluster_engine import ClusterEngine, Clusters
from napari_nucleiseg.viewer.cluster_layer import ClusterLayer, colour_of
from napari_nucleiseg.viewer.cluster_nuclei import ClusterNuclei
from napari_nucleiseg.viewer.jobs import Cancelled
from napari_nucleiseg.viewer.messages import Hint, PixelSizeQuestion
from napari_nucleiseg.viewer.sentences import OUT_OF_SIGHT, sentence_of
from napari_nucleiseg.viewer.shapes import bounds_of, selected_polygon
from napari_nucleiseg.viewer.visible import visible_region

if TYPE_CHECKING:
    from napari_nucleiseg.core.batch.clustered import Picture
    from napari_nucleiseg.core.slides.pyramid import Slide
    from napari_nucleiseg.core.training.clustering.config import ClusterConfig
    from napari_nucleiseg.core.training.clustering.fit import ClusterStep
    from napari_nucleiseg.viewer.controller import Controller
    from napari_nucleiseg.viewer.opened import OpenedSlide

LANE = "clusters"
SHOWN_S = 0.1
NO_SLIDE = "Open a slide first: what is in view is clustered."
TWO_DIMENSIONS = "Switch to the two-dimensional view (Ctrl+Y) to cluster."
STOPPING = "Stopping after this step…"


@dataclass(frozen=True, slots=True)
class ClusterProgress:
    """How far a fit is.

    Parameters
    ----------
    title : str
        What is being done, where no step is done yet.
    done, total : int
        Steps; a fit may end earlier.
    clusters : int
        How many are seen now.
    """

    title: str
    done: int = 0
    total: int = 0
    clusters: int = 0


class Clustering:
    """The clusters of one viewer; all methods are for the main thread.

    Parameters
    ----------
    controller : Controller
        Knows the viewer, the slide in hand, the jobs and the models.
    engine : ClusterEngine, optional
        The headless part.
    """

    running_changed = Signal(bool)
    progress_changed = Signal(ClusterProgress)
    found_changed = Signal()
    """There are other clusters, or none any more."""
    chosen_changed = Signal()
    """Other clusters are ticked."""
    said = Signal(Hint)

    def __init__(self, controller: Controller, engine: ClusterEngine | None = None) -> None:
        display = controller.display
        self.engine = engine or ClusterEngine()
        self._controller, self._viewer = controller, display.viewer
        self._jobs, self._shelf, self._session = display.jobs, display.shelf, display.session
        self._layer = ClusterLayer(display.viewer)
        self._enough = threading.Event()
        self._picture: Picture | None = None
        self._opened: OpenedSlide | None = None
        self._slide: Slide | None = None
        self._latest: ClusterStep | None = None
        self._is_seen = True
        self.found: Clusters | None = None
        """What the last fit has come to."""
        self.chosen: set[int] = set()
        """Clusters that are ticked."""
        self.colours: dict[int, str] = {}
        """Of each cluster that was found."""
        self.nuclei = ClusterNuclei(self, controller)
        controller.slide_changed.connect(self._on_slide_changed)

    def close(self) -> None:
        """Cluster nothing any more."""
        self._controller.slide_changed.disconnect(self._on_slide_changed)
        self.nuclei.close()
        self.drop()

    # ------------------------------------------------------------------ what the user does

    @property
    def is_running(self) -> bool:
        """Whether something is being clustered."""
        return self._jobs.is_running(LANE)

    @property
    def opened(self) -> OpenedSlide | None:
        """The slide that was clustered, as long as it is the one in hand and its pixels are what they were."""
        now = self._shelf.now
        return now if now is not None and now is self._opened and now.slide is self._slide else None

    @property
    def ticked_share(self) -> float:
        """Part of the area that belongs to ticked clusters, 0..1."""
        ranked = () if self.found is None else self.found.ranked
        return sum(item.share for item in ranked if item.cluster in self.chosen)

    def view(self, config: ClusterConfig) -> None:
        """Cluster what the canvas shows."""
        opened = self._shelf.now
        if opened is None:
            self._warn(NO_SLIDE)
            return
        region = visible_region(self._viewer, opened.layer)
        if region is None:
            self._warn(TWO_DIMENSIONS)
        elif region.is_empty:
            self._warn(OUT_OF_SIGHT)
        else:
            self._begin(opened, region, config, lambda: self.view(config))

    def shape(self, config: ClusterConfig) -> None:
        """Cluster the rectangle around the selected shape or annotated region; offer to draw one if there is none."""
        opened = self._shelf.now
        if opened is None:
            self._warn(NO_SLIDE)
            return
        polygon, sentence = selected_polygon(self._viewer, opened)
        if polygon is None:
            self.said.emit(Hint(sentence))
        else:
            self._begin(opened, bounds_of(polygon), config, lambda: self.shape(config))

    def stop(self) -> None:
        """End the fit after the step that is being done; the last state with enough clusters is kept."""
        if self.is_running:
            self._enough.set()
            self.said.emit(Hint(STOPPING))

    def choose(self, cluster: int, *, on: bool) -> None:
        """Tick or untick a cluster."""
        if self.found is None or (cluster in self.chosen) == on:
            return
        self.chosen ^= {cluster}
        self._is_seen = True
        self.light(None)
        self.chosen_changed.emit()

    def light(self, cluster: int | None) -> None:
        """Light one cluster up on the slide; None lights those that are ticked."""
        if self.found is not None:
            self._layer.colour(self.colours, self.chosen, cluster)
            self._layer.visible = self._is_seen or cluster is not None

    def drop(self) -> None:
        """Forget what was clustered, and stop what is."""
        if self._jobs.cancel(LANE):
            self._enough.set()
            self.running_changed.emit(False)
        self._picture = self._latest = self._opened = self._slide = None
        self._layer.hide()
        if self.found is not None:
            self._set_found(None)

    def put_aside(self) -> None:
        """Hide the label map, now that nuclei are made of it; pointing at a cluster shows it again."""
        self._is_seen = False
        self._layer.visible = False
        if self.opened is not None:
            self._layer.lower(self.opened)

    # ------------------------------------------------------------------ the fit

    def _begin(self, opened: OpenedSlide, region: Region, config: ClusterConfig, again: Callable[[], None]) -> None:
        if self.is_running:
            return
        if problem := config.validation_error():
            self._warn(f"{problem[0].upper()}{problem[1:]}.")
            return
        self.drop()
        self._opened, self._slide, self._is_seen = opened, opened.slide, True
        self._enough = enough = threading.Event()
        slide = opened.slide

        def work(cancelled: Cancelled) -> Iterator[Any]:
            picture = self.engine.read(slide, region, config)
            yield picture

            def ends() -> bool:
                return cancelled() or enough.is_set()

            with closing(self.engine.fit(picture, config, ends)) as steps:  # type: ignore[type-var]
                for step in steps:
                    if cancelled():
                        return
                    yield step if step.result is None else self.engine.rank(picture, step.result)

        self._jobs.start(
            LANE,
            work,
            title="Clustering",
            on_value=self._on_value,
            on_end=self._on_ended,
            on_error=lambda error: self._on_failed(error, again),
            on_late_error=lambda error: self._warn(sentence_of(error)),
        )
        self.said.emit(Hint())
        self.running_changed.emit(True)
        self.progress_changed.emit(ClusterProgress("Reading the view"))

    def _on_value(self, value: Any) -> None:
        if isinstance(value, Clusters):
            self._jobs.forget(LANE)
            self._set_found(value)
            done = value.result.iteration if self._latest is None else self._latest.iteration
            # Of what was kept, which may be an earlier step, and of the whole view.
            self._tell(done, value.result.config.iterations, len(value.ranked))
        elif hasattr(value, "labels"):
            self._latest = value
            self._tell(value.iteration, value.total, self._seen_in(value))
            self._jobs.soon(LANE, SHOWN_S, self._show_latest)
        else:
            self._picture = value
            self.progress_changed.emit(ClusterProgress("First step"))

    def _tell(self, done: int, total: int, clusters: int) -> None:
        self.progress_changed.emit(ClusterProgress("Clustering", done, total, clusters))

    def _seen_in(self, step: ClusterStep) -> int:
        """Return how many clusters the map shows, specks included: as many as the list will have rows."""
        labels = step.labels if self._picture is None else step.labels[self._picture.core]
        return int(np.count_nonzero(np.bincount(labels[labels >= 0].astype(np.intp))))

    def _show_latest(self) -> None:
        step, picture, opened = self._latest, self._picture, self.opened
        if step is None or picture is None or opened is None or self.found is not None:
            return
        labels = step.labels[picture.core]
        self._layer.show(opened, picture.core_px, picture.plan.grid.downsample, labels)
        self._layer.colour({cluster: colour_of(cluster) for cluster in range(int(labels.max(initial=0)) + 1)})

    def _set_found(self, found: Clusters | None) -> None:
        self.found = found
        ranked = () if found is None else found.ranked
        self.chosen = {item.cluster for item in ranked if item.proposed}
        self.colours = {item.cluster: colour_of(place) for place, item in enumerate(ranked)}
        opened = self.opened
        if found is not None and opened is not None:
            picture, labels = found.picture, found.result.labels
            self._layer.show(opened, picture.core_px, picture.plan.grid.downsample, labels[picture.core])
            self.light(None)
        self.found_changed.emit()

    def _on_ended(self) -> None:
        self._latest = None
        self.running_changed.emit(False)
        if self.found is not None:
            count, step = len(self.found.ranked), self.found.result.iteration
            self.said.emit(
                Hint(
                    f"{count} clusters, found at step {step}. Tick those that are nuclei; point at one to see it "
                    "alone. If none shows nuclei alone, try another seed."
                )
            )

    def _on_failed(self, error: BaseException, again: Callable[[], None]) -> None:
        self._jobs.forget(LANE)
        opened = self.opened
        self.drop()
        self.running_changed.emit(False)
        if not isinstance(error, NucleiSegError):
            raise error
        if isinstance(error, MissingPixelSizeError) and opened is not None:
            self._controller.ask(PixelSizeQuestion(opened.slide), again)
        self._warn(sentence_of(error))

    # ------------------------------------------------------------------ what happens elsewhere

    def _on_slide_changed(self, _slide: Slide | None) -> None:
        """Another slide is in hand, or its pixels have another size."""
        if self._opened is not None and self.opened is None:
            self.drop()
            self.said.emit(Hint())

    def _warn(self, sentence: str) -> None:
        self.said.emit(Hint(sentence, is_warning=True))
