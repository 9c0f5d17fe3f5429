"""Teaches the model in hand with what was corrected on the open slides, beside everything else that goes on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from psygnal import Signal

from napari_nucleiseg.core.errors import DoubtfulLabelsError, NucleiSegError
from napari_nucleiseg.viewer import heads_lanes
from napari_nucleiseg.viewer.connections import Connections
from napari_nucleiseg.viewer.display import Display
from napari_nucleiseg.viewer.engine import Engine
from napari_nucleiseg.viewer.jobs import Cancelled
from napari_nucleiseg.viewer.messages import Hint, Progress
from napari_nucleiseg.viewer.segmentation import open_project
from napari_nucleiseg.viewer.sentences import failure

if TYPE_CHECKING:
    from napari_nucleiseg.core.models.weights import LoadedModel
    from napari_nucleiseg.core.teaching.advice import Advice
    from napari_nucleiseg.core.teaching.collect import Lesson
    from napari_nucleiseg.core.teaching.finetune import Step
    from napari_nucleiseg.core.teaching.verdict import Outcome
    from napari_nucleiseg.core.teaching.versions import Version
    from napari_nucleiseg.viewer.editing import Editing
    from napari_nucleiseg.viewer.opened import OpenedSlide

LANE, ADVICE, VERSIONS = "teach", "advice", "versions"
COMPARE, QUEUE, UNLABELLED = "compare", "queue", "without labels"
LANES = (LANE, ADVICE, VERSIONS, COMPARE, QUEUE, UNLABELLED, *heads_lanes.LANES)
EDITED_S = 0.6
NO_RESULTS = "Open a slide and segment a part of it first: teaching starts from nuclei that you correct."


@dataclass(frozen=True, slots=True, eq=False)
class Taught:
    """A fine-tune has ended: what it came to, and the version that was kept of it."""

    outcome: Outcome
    version: Version


class Teaching:
    """One fine-tune at a time; all methods are for the main thread.

    Parameters
    ----------
    engine : Engine
        The headless part.
    editing : Editing
        Tells when something was corrected.
    display : Display
        Knows the viewer, the session, the slides and the jobs.
    """

    advised = Signal(object)
    """`Advice` about what was corrected so far, or None where there is nothing to teach with."""
    stepped = Signal(object)
    """A `Step` of the fine-tune."""
    running_changed = Signal(bool)
    progress_changed = Signal(object)
    """`Progress`, or None when nothing is taught."""
    ended = Signal(object)
    """`Taught`, or None if it was stopped or failed."""
    doubted = Signal(str)
    """Regions look wrong; the sentence says which. `teach` with ``trust=True`` goes on."""
    adopted = Signal(object)
    """The `Version` that is to be used from now on."""
    used_changed = Signal()
    """Another model is in use; `is_in_use` and `can_go_back` may have changed."""
    said = Signal(Hint)

    def __init__(self, engine: Engine, editing: Editing, display: Display) -> None:
        self.engine, self._display = engine, display
        self._jobs, self._session, self._shelf = display.jobs, display.session, display.shelf
        self.former = ""
        """Name of the model that was in use before the last one was adopted."""
        self.last: Taught | None = None
        self._connections = Connections(
            (editing.edited, self._on_changed),
            (self._shelf.switched, self._on_changed),
            (self._shelf.removed, self._on_changed),
            # Opened results of an earlier session come as a layer.
            (display.viewer.layers.events.inserted, self._on_changed),
            (self._session.events.model, self._on_changed),
        )
        self._session.events.model.connect(self._on_model_changed)

    # ------------------------------------------------------------------ advice

    def watch(self, *, on: bool) -> None:
        """Keep the advice up to date as long as somebody reads it."""
        if on:
            self._connections.open()
            self.advise()
        else:
            self._connections.close()

    def _on_changed(self, _what: Any = None) -> None:
        if not self.is_running:
            self._jobs.later(ADVICE, EDITED_S, self.advise)

    def advise(self) -> None:
        """Look at what was corrected, and say what is missing."""
        slides, name = self._slides(), self._session.model
        if not slides:
            self.advised.emit(None)
            return

        def work(_cancelled: Cancelled) -> Iterator[Advice]:
            yield self.engine.advise(self._lesson(slides, self.engine.load(name)), slides)

        self._jobs.start(ADVICE, work, on_value=self.advised.emit, on_error=self._on_advice_failed)

    def _on_advice_failed(self, error: BaseException) -> None:
        if not isinstance(error, NucleiSegError):
            raise error
        # A licence that is not accepted yet, a slide whose drive is gone.
        self.advised.emit(None)
        if not self.is_running:
            self.said.emit(failure(error))

    def _slides(self) -> list[OpenedSlide]:
        """Return the open slides that have results, the one in hand first."""
        opened = [slide for slide in self._shelf.opened if slide.project is not None]
        return sorted(opened, key=lambda slide: slide is not self._shelf.now)

    def _lesson(self, slides: list[OpenedSlide], model: LoadedModel) -> Lesson:
        for opened in slides:
            open_project(opened, self.engine, self._session.results_folder, create=False)
        return self.engine.lesson(slides, model)

    # ------------------------------------------------------------------ teaching

    @property
    def is_running(self) -> bool:
        """Whether a model is being taught."""
        return self._jobs.is_running(LANE)

    def teach(self, *, trust: bool = False) -> None:
        """Teach the model in hand with everything that was corrected on the open slides.

        Parameters
        ----------
        trust : bool
            Teach even with regions that look wrong.
        """
        slides, name, device = self._slides(), self._session.model, self._session.device
        level, ignore_brown = self._session.attention_level, self._session.ignore_brown
        if self.is_running:
            return
        if not slides:
            self.said.emit(Hint(NO_RESULTS, is_warning=True))
            return

        def work(cancelled: Cancelled) -> Iterator[Step | Taught | Progress]:
            model = self.engine.load(name)
            lesson = self._lesson(slides, model)
            taught_by = {example.fingerprint for example in lesson.examples}
            teachers = [opened for opened in slides if opened.slide.fingerprint in taught_by]
            # As people have seen it when they corrected its nuclei.
            model = yield from self.engine.levels.model_for_all(model, teachers, level)
            steps = self.engine.finetune(model, lesson, device=device, trust=trust, ignore_brown=ignore_brown)
            for step in steps:
                if cancelled():
                    return
                if step.outcome is not None:
                    yield Taught(step.outcome, self.engine.keep(step.outcome))
                else:
                    yield step

        self.last = None
        self._jobs.cancel(ADVICE)
        self._jobs.start(
            LANE,
            work,
            title="Teaching",
            on_value=self._on_step,
            on_end=lambda: self._end(None),
            on_error=self._on_failed,
            on_late_error=self._on_version_failed,
        )
        self.running_changed.emit(True)
        self.progress_changed.emit(Progress("Looking at your regions"))

    def cancel(self) -> None:
        """Stop after the current step; the model in use stays as it is."""
        if self._jobs.cancel(LANE):
            self.said.emit(Hint("Stopped. The model is as it was; teach again to go on from where it stopped."))
            self._end(None)

    def _on_step(self, step: Step | Taught | Progress) -> None:
        if isinstance(step, Taught):
            self.last = step
            return
        if isinstance(step, Progress):
            self.progress_changed.emit(step)
            return
        self.stepped.emit(step)
        self.progress_changed.emit(Progress("Teaching", step.step, step.total))

    def _end(self, _nothing: None) -> None:
        self.progress_changed.emit(None)
        self.running_changed.emit(False)
        self.ended.emit(self.last)
        if self.last is not None and self.last.outcome.adopted:
            self.take(self.last.version)

    def _on_failed(self, error: BaseException) -> None:
        self.last = None
        self._end(None)
        if isinstance(error, DoubtfulLabelsError):
            self.doubted.emit(str(error))
        else:
            self.said.emit(failure(error))

    # ------------------------------------------------------------------ versions

    @property
    def is_in_use(self) -> bool:
        """Whether what was taught last is the model in use."""
        return self.last is not None and self.last.version.card.name == self._session.model

    @property
    def can_go_back(self) -> bool:
        """Whether another model was in use before."""
        return self.former not in ("", self._session.model)

    def _on_model_changed(self, _name: str) -> None:
        self.used_changed.emit()

    def take(self, version: Version) -> None:
        """Use a version from now on; one that was refused is taken all the same."""

        def work(_cancelled: Cancelled) -> Iterator[Version]:
            yield self.engine.take(version)

        def on_taken(taken: Version) -> None:
            if taken.card.name != self._session.model:
                self.former = self._session.model
            if self.last is not None and taken.card.sha256 == self.last.version.card.sha256:
                self.last = replace(self.last, version=taken)  # one that was refused lies elsewhere now
            self.adopted.emit(taken)

        self._jobs.start(VERSIONS, work, on_value=on_taken, on_error=self._on_version_failed)

    def go_back(self) -> None:
        """Use the model again that was in use before."""
        self.find(self.former, self.take)

    def find(self, name: str, on_found: Callable[[Version], None]) -> None:
        """Look a version up by the name of its weights."""

        def work(_cancelled: Cancelled) -> Iterator[Any]:
            yield next((version for version in self.engine.versions() if version.card.name == name), None)

        def on_value(version: Version | None) -> None:
            if version is not None:
                on_found(version)

        self._jobs.start(VERSIONS, work, on_value=on_value, on_error=self._on_version_failed)

    def _on_version_failed(self, error: BaseException) -> None:
        self.said.emit(failure(error))
