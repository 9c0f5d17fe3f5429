"""Trains models on slides without labels, and fits them to the slide in hand, beside everything else that goes on."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from psygnal import Signal

from napari_nucleiseg.core.geometry import Region
from napari_nucleiseg.state import FRESH, NETWORKS, SHAPE_NETWORKS, SIZES, UnlabelledWishes
from napari_nucleiseg.viewer.catalogue import Catalogue
from napari_nucleiseg.viewer.connections import Connections
from napari_nucleiseg.viewer.display import Display
from napari_nucleiseg.viewer.jobs import Cancelled
from napari_nucleiseg.viewer.messages import Hint, Progress
from napari_nucleiseg.viewer.segmentation import open_project
from napari_nucleiseg.viewer.sentences import OUT_OF_SIGHT, failure
from napari_nucleiseg.viewer.slide_sources import SlideSources
from napari_nucleiseg.viewer.teaching import UNLABELLED as LANE
from napari_nucleiseg.viewer.teaching import VERSIONS, Teaching
from napari_nucleiseg.viewer.unlabelled_engine import Begun, Fitted, Target, Trained, UnlabelledEngine
from napari_nucleiseg.viewer.unlabelled_run import config_of, fit_of, score_in
from napari_nucleiseg.viewer.visible import visible_region

if TYPE_CHECKING:
    from napari_nucleiseg.core.teaching.versions import Version
    from napari_nucleiseg.core.training.scales.loop import PretrainStep

NO_SLIDE = "Open a slide or add files first: the network learns from their tissue, without a single label."
NONE_TICKED = "Tick at least one slide to learn from."
NO_SLIDE_TO_FIT = "Open a slide first: the model is fitted to it."
NOT_FLAT = "Switch to the two-dimensional view (Ctrl+Y) to fit the model to what is in view."
TRAIN, FIT, SET_LEVEL = "train", "fit", "level"
TITLES = {TRAIN: "Learning", FIT: "Fitting", SET_LEVEL: "Setting the level"}
# A pace is told once so many steps after the first were seen.
PACE_STEPS = 2


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """One step, as it is shown.

    Parameters
    ----------
    step, total : int
        Steps done, steps of the run.
    loss : float
        Weighted sum of all terms.
    accuracy : float or None
        Where it was measured at this step: how often the magnification is told, or how well shapes are met (F1); 0..1.
    picture : ndarray of uint8, shape (y, x, 3), or None
        The fixed tile, RGB, at the same steps.
    attention : ndarray of float32, shape (y, x), or None
        What the network looks at in it, or how likely a pixel is one of a nucleus; 0..1.
    """

    step: int
    total: int
    loss: float
    accuracy: float | None = None
    picture: NDArray[np.uint8] | None = None
    attention: NDArray[np.float32] | None = None


class Unlabelled:
    """One run or fit at a time; all methods are for the main thread.

    Parameters
    ----------
    teaching : Teaching
        Takes a version in use.
    catalogue : Catalogue
        Says which models there are.
    display : Display
        Knows the viewer, the session, the slides and the jobs.
    engine : UnlabelledEngine, optional
        The headless part.
    """

    models_changed = Signal()
    """Which models can be begun from or fitted, or which is in hand, has changed."""
    running_changed = Signal(bool)
    progress_changed = Signal(object)
    """`Progress`, or None when nothing runs."""
    begun = Signal(object)
    """`Begun`: a run begins or goes on."""
    stepped = Signal(Seen)
    ended = Signal(object)
    """`Trained` or `Fitted`, or None if nothing came of it."""
    used = Signal(object)
    """The `Version` that was kept of a run and is in use from now on."""
    said = Signal(Hint)

    def __init__(
        self, teaching: Teaching, catalogue: Catalogue, display: Display, engine: UnlabelledEngine | None = None
    ) -> None:
        self._teaching, self._catalogue, self._display = teaching, catalogue, display
        self.engine = engine or UnlabelledEngine(teaching.engine)
        self._viewer, self._jobs, self._session, self._shelf = (
            display.viewer, display.jobs, display.session, display.shelf,
        )  # fmt: skip
        self.wishes = UnlabelledWishes()
        self.doing = ""
        """What runs: `TRAIN`, `FIT`, `SET_LEVEL` or nothing."""
        self.last: Trained | Fitted | None = None
        self.models: dict[str, str] = {}
        """Models of scale attention: titles by name."""
        self.sources = SlideSources(display.viewer)
        self._enough = threading.Event()
        self._first: tuple[float, int] | None = None
        self._recent: list[float] = []
        self._sizes = dict(SIZES[self.wishes.network])
        self._connections = Connections(
            (catalogue.listed, self._on_models_listed),
            (self._session.events.model, self._on_model_changed),
            (self.wishes.events.network, self._on_network_changed),
        )
        self._connections.open()

    def close(self) -> None:
        """Cease to follow; a run that goes on keeps its last step."""
        self._connections.close()
        self.sources.close()
        self._jobs.cancel(LANE)

    def refresh(self) -> None:
        """Tell anew what there is."""
        self.sources.changed.emit()
        self.models_changed.emit()

    # ------------------------------------------------------------------ training

    @property
    def is_running(self) -> bool:
        """Whether a model learns or is fitted."""
        return self._jobs.is_running(LANE)

    @property
    def model(self) -> str:
        """Name of the model at hand."""
        return self._session.model

    @property
    def can_fit(self) -> bool:
        """Whether the model at hand is one of scale attention."""
        return self._session.model in self.models

    def train(self) -> None:
        """Learn from what is ticked; with the same settings and slides it goes on from where it stopped."""
        slides, files = self.sources.ticked()
        if self.is_running:
            return
        if not slides and not files:
            self.said.emit(Hint(NONE_TICKED if self.sources.offered else NO_SLIDE, is_warning=True))
            return
        wishes, config = self.wishes, config_of(self.wishes, self._session.device)
        start = FRESH if wishes.network in SHAPE_NETWORKS else wishes.start
        licence, folder, enough = wishes.licence.strip(), wishes.folder, self._begin(TRAIN)

        def work(_cancelled: Cancelled) -> Iterator[Any]:
            return self.engine.pretrain(
                config, slides, files, start=start, licence=licence, folder=folder, enough=enough
            )

        self._start(work)

    def fit(self, *, view: bool) -> None:
        """Fit the model at hand to the slide in hand, or to what is in view of it."""
        target = self._target(view=view)
        if target is None:
            return
        config = fit_of(self.wishes, self._catalogue.network_of(target.model), self._session.device)
        enough = self._begin(FIT)

        def work(_cancelled: Cancelled) -> Iterator[Any]:
            self._open_results(target)
            yield from self.engine.fit(target, config, enough)

        self._start(work)

    def set_level(self) -> None:
        """Set how many pixels the model at hand looks at by the slide in hand; nothing else of it changes."""
        target, level = self._target(view=False), self.wishes.level
        if target is None:
            return
        self._begin(SET_LEVEL)

        def work(_cancelled: Cancelled) -> Iterator[Any]:
            self._open_results(target)
            yield from self.engine.set_level(target, level)

        self._start(work)

    def stop(self) -> None:
        """End after the current step; what a run has learned is kept."""
        if self.is_running:
            self._enough.set()
            self.progress_changed.emit(Progress("Stopping after this step"))

    def _target(self, *, view: bool) -> Target | None:
        """Return what to fit to what, or say why there is nothing."""
        opened = self._shelf.now
        regions: tuple[Region, ...] = ()
        if self.is_running:
            return None
        if opened is None:
            self.said.emit(Hint(NO_SLIDE_TO_FIT, is_warning=True))
            return None
        if view:
            region = visible_region(self._viewer, opened.layer)
            if region is None or region.is_empty:
                self.said.emit(Hint(NOT_FLAT if region is None else OUT_OF_SIGHT, is_warning=True))
                return None
            regions = (region,)
        labelled = tuple(sorted(self._shelf.opened, key=lambda one: one is not opened))
        return Target(self._session.model, opened, regions, labelled, self._session.device)

    def _open_results(self, target: Target) -> None:
        """Open the results there are, in whose regions the outcome is measured."""
        for opened in target.labelled:
            open_project(opened, self.engine.engine, self._session.results_folder, create=False)

    def _begin(self, doing: str) -> Callable[[], bool]:
        self.doing, self.last, self._first, self._recent = doing, None, None, []
        self._enough = threading.Event()
        return self._enough.is_set

    def _start(self, work: Callable[[Cancelled], Iterator[Any]]) -> None:
        self._jobs.start(
            LANE,
            work,
            title="Training without labels",
            on_value=self._on_value,
            on_end=self._end,
            on_error=self._on_failed,
        )
        self.said.emit(Hint())
        self.running_changed.emit(True)
        self.progress_changed.emit(Progress("Looking for tissue" if self.doing == TRAIN else TITLES[self.doing]))

    def _on_value(self, value: Any) -> None:
        if isinstance(value, Begun):
            self.begun.emit(value)
            if value.note:
                self.said.emit(Hint(value.note))
        elif isinstance(value, Hint):
            self.said.emit(value)
        elif isinstance(value, Progress):
            if not self._enough.is_set():
                self.progress_changed.emit(value)
        elif isinstance(value, Trained | Fitted):
            self.last = value
        else:
            self._on_step(value)

    def _on_step(self, step: PretrainStep) -> None:
        self._first = self._first or (time.monotonic(), step.step)
        self._recent.append(step.parts.get("accuracy", 0.0))
        accuracy = None if step.validation is None else score_in(step.validation)
        glance = step.glance
        if glance is not None and step.validation is None and "accuracy" in step.parts:
            # Nothing is held out: what it learns from has to do.
            accuracy = float(np.mean(self._recent))
        if glance is not None:
            self._recent = []
        self.stepped.emit(
            Seen(
                step.step,
                step.total,
                step.loss,
                accuracy,
                None if glance is None else glance.picture,
                None if glance is None else glance.attention,
            )
        )
        if not self._enough.is_set():
            self.progress_changed.emit(
                Progress(TITLES[self.doing], step.step, step.total, self._left_s(step.step, step.total))
            )

    def _left_s(self, step: int, total: int) -> float | None:
        if self._first is None or step - self._first[1] < PACE_STEPS:
            return None
        return (time.monotonic() - self._first[0]) / (step - self._first[1]) * (total - step)

    def _end(self) -> None:
        self.doing = ""
        self.progress_changed.emit(None)
        self.running_changed.emit(False)
        self.ended.emit(self.last)
        if isinstance(self.last, Fitted) and self.last.outcome.adopted and self.last.outcome.after.nuclei:
            self._teaching.take(self.last.version)

    def _on_failed(self, error: BaseException) -> None:
        self.last = None
        self._end()
        self.said.emit(failure(error))

    # ------------------------------------------------------------------ what came of it

    def use(self) -> None:
        """Use what came of the last run or fit, also if it was refused; of a run a version is made."""
        last = self.last
        if isinstance(last, Fitted):
            self._teaching.take(last.version)
            self.used.emit(last.version)
        elif isinstance(last, Trained):

            def work(_cancelled: Cancelled) -> Iterator[Version]:
                yield self.engine.keep(last)

            self._jobs.start(VERSIONS, work, on_value=self._on_kept, on_error=self._on_use_failed)

    def _on_kept(self, version: Version) -> None:
        self._teaching.take(version)
        self.used.emit(version)

    def _on_use_failed(self, error: BaseException) -> None:
        self.said.emit(failure(error))

    # ------------------------------------------------------------------ what happens elsewhere

    def _on_models_listed(self, cards: tuple[Any, ...]) -> None:
        self.models = {card.name: card.title or card.name for card in cards if card.network in NETWORKS}
        if self.wishes.start not in self.models:
            self.wishes.start = FRESH
        self.models_changed.emit()

    def _on_model_changed(self, _name: str) -> None:
        self.models_changed.emit()

    def _on_network_changed(self, network: str) -> None:
        """Take what suits the network, as far as nobody has turned it."""
        for name, value in SIZES[network].items():
            if getattr(self.wishes, name) == self._sizes[name]:
                setattr(self.wishes, name, value)
        self._sizes = dict(SIZES[network])
