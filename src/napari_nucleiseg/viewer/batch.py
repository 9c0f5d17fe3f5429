"""Works through slides unattended, beside everything else that goes on in a window."""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterator, Sequence
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from psygnal import Signal

from napari_nucleiseg.core.batch.inputs import stem_of
from napari_nucleiseg.core.batch.job import SlideFailed
from napari_nucleiseg.core.batch.unattended.database import DONE, RUNNING
from napari_nucleiseg.core.batch.unattended.job import BatchAdvanced, BatchEvent, BatchFinished, SlideDone
from napari_nucleiseg.core.batch.unattended.manifest import Entry
from napari_nucleiseg.core.batch.unattended.page import NAME as SUMMARY
from napari_nucleiseg.core.slides.bytesource import is_address
from napari_nucleiseg.viewer import preferences
from napari_nucleiseg.viewer.batch_engine import BatchEngine, Encoders, Known, Listed, NotAccepted
from napari_nucleiseg.viewer.batch_pace import Overall, Pace
from napari_nucleiseg.viewer.batch_queue import Queue
from napari_nucleiseg.viewer.batch_result import BatchResults
from napari_nucleiseg.viewer.batch_wishes import NO_ENCODER, NOT_GIVEN, BatchWishes, job_of
from napari_nucleiseg.viewer.connections import Connections
from napari_nucleiseg.viewer.jobs import Cancelled
from napari_nucleiseg.viewer.messages import Hint, LicenceQuestion
from napari_nucleiseg.viewer.sentences import failure

if TYPE_CHECKING:
    from napari_nucleiseg.viewer.controller import Controller

LANE, LIST_LANE, FOLDER_LANE, ENCODER_LANE = "batch", "batch list", "batch folder", "batch encoders"
NO_SLIDES = "Add slides first: files, a folder of them, or a manifest."
NO_FOLDER = "Choose a folder for the results first."
NO_OPEN_SLIDE = "No slide is open."
NO_FILE = "The open slide is no file: other processes could not open it."
NOT_DONE = "This slide is not done yet."
STOPPED = "Stopped. What is done is kept; Start goes on from there."


class Doing(Enum):
    """What a batch does at the moment."""

    NOTHING = "nothing"
    RUNNING = "running"
    PAUSED = "paused"
    STOPPING = "stopping"


class Batch:
    """One run at a time over a list of slides; all methods are for the main thread.

    Parameters
    ----------
    controller : Controller
        Of the viewer: its session, models, jobs and slides.
    engine : BatchEngine, optional
        The headless part.
    """

    listed = Signal()
    """There are other slides in the queue."""
    row_changed = Signal(str)
    """Of the slide of this path something else is known."""
    doing_changed = Signal(object)
    progress_changed = Signal(object)
    """`Overall`, or None where nothing was begun."""
    place_changed = Signal(str)
    """Where it is done, in words."""
    models_changed = Signal()
    encoders_changed = Signal()
    folder_read = Signal()
    """What the folder of results holds is known."""
    said = Signal(Hint)

    def __init__(self, controller: Controller, engine: BatchEngine | None = None) -> None:
        self._controller, self.engine = controller, engine or BatchEngine()
        display = controller.display
        self._session, self._jobs, self._shelf = display.session, display.jobs, display.shelf
        self.wishes = BatchWishes(folder=preferences.batch_folder())
        self.queue = Queue()
        self.doing = Doing.NOTHING
        self.has_summary = False
        """Whether there is a page that sums up the folder."""
        self.models: dict[str, Any] = {}
        """Cards of models that can be used, by name."""
        self.encoders = Encoders({}, {})
        self.results = BatchResults(display)
        """Shows results in the viewer."""
        self._enough, self._pause = threading.Event(), threading.Event()
        self._follows = True
        self._pace: Pace | None = None
        self._finished: BatchFinished | None = None
        wishes = self._session.events
        self._connections = Connections(
            (controller.catalogue.listed, self._on_models_listed),
            (wishes.model, self._take_over),
            (wishes.threshold, self._take_over),
            (wishes.min_area_um2, self._take_over),
            (self.wishes.events.model, self._on_model_chosen),
            (self.results.said, self._on_said),
        )
        self._connections.open()
        self._take_over()
        self._was_shown = False

    def close(self) -> None:
        """Cease to follow and stop; what is done is kept."""
        self._connections.close()
        self._enough.set()
        self._jobs.cancel(LANE)

    def refresh(self) -> None:
        """Read what is not known yet: encoders, and what the remembered folder holds."""
        if not self._was_shown:
            self._was_shown = True
            self._jobs.start(ENCODER_LANE, self._look_for_encoders, on_value=self._on_encoders, on_error=self._on_error)
            if self.wishes.folder:
                self.choose_folder(self.wishes.folder)

    @property
    def is_running(self) -> bool:
        """Whether slides are worked on, or will be once a pause ends."""
        return self.doing is not Doing.NOTHING

    # ------------------------------------------------------------------ slides

    def add(self, paths: Sequence[str]) -> None:
        """Put slides, folders of them or manifests into the queue."""
        wanted = tuple(paths)
        self._jobs.enqueue(
            LIST_LANE, lambda: self.engine.listed(wanted), on_value=self._on_listed, on_error=self._on_error
        )

    def add_open(self) -> None:
        """Put the slide in hand into the queue, with the pixel size that the user has given, now or earlier."""
        opened = self._shelf.now
        if opened is None:
            self.said.emit(Hint(NO_OPEN_SLIDE, is_warning=True))
            return
        path = opened.slide.path
        if not (is_address(path) or Path(path).exists()):
            self.said.emit(Hint(NO_FILE, is_warning=True))
            return
        size = opened.slide.mpp_um
        is_users = opened.mpp_was_given or opened.mpp_was_remembered
        given = (size.y + size.x) / 2 if size is not None and is_users else None
        self._on_listed(
            Listed((Entry(path if is_address(path) else str(Path(path).absolute()), stem_of(path), given),), ())
        )

    def remove(self, paths: Collection[str]) -> None:
        """Take slides off the queue; their results stay."""
        if not self.is_running:
            self.queue.remove(paths)
            self._show_queue()

    def clear(self) -> None:
        """Empty the queue; all results stay."""
        self.remove([row.path for row in self.queue])

    def choose_folder(self, folder: str) -> None:
        """Keep results in a folder, and show what is there already."""
        if self.is_running:
            return
        self.wishes.folder = folder
        preferences.remember_batch_folder(folder)

        def work(_cancelled: Cancelled) -> Iterator[Known]:
            yield self.engine.known(folder)

        self._jobs.start(FOLDER_LANE, work, on_value=self._on_known, on_error=self._on_error)

    def _on_listed(self, listed: Listed) -> None:
        if self.is_running:
            self.said.emit(Hint("Slides can be added once this run has ended.", is_warning=True))
            return
        self.queue.add(listed.entries)
        self.said.emit(Hint(" ".join(listed.refused), is_warning=bool(listed.refused)))
        self._show_queue()

    def _on_known(self, known: Known) -> None:
        self.has_summary = known.has_summary
        self.queue.know(known.slides)
        self.said.emit(Hint())
        self._show_queue()
        self.folder_read.emit()

    def _show_queue(self) -> None:
        self.listed.emit()
        self._show_progress()

    # ------------------------------------------------------------------ the run

    def start(self) -> None:
        """Work through the queue; what is done already with the same settings is passed over."""
        if self.is_running:
            return
        if not len(self.queue) or not self.wishes.folder:
            self.said.emit(Hint(NO_FOLDER if len(self.queue) else NO_SLIDES, is_warning=True))
            return
        wishes = self.wishes
        job, entries = job_of(wishes, self._session, ""), self.queue.entries
        mpp_um = None if wishes.mpp_um == NOT_GIVEN else wishes.mpp_um
        self._enough, self._pause, self._finished = threading.Event(), threading.Event(), None
        enough, pause = self._enough, self._pause

        def work(cancelled: Cancelled) -> Iterator[Any]:
            return self.engine.run(
                job, entries, mpp_um, cancelled=lambda: enough.is_set() or cancelled(), paused=pause.is_set
            )

        self._pace = Pace(measures=wishes.measure, encodes=wishes.encoder != NO_ENCODER)
        self._jobs.start(
            LANE, work, title="Batch", on_value=self._on_event, on_end=self._on_end, on_error=self._on_failed
        )
        self.said.emit(Hint())
        self._do(Doing.RUNNING)

    def pause(self) -> None:
        """Give out no more work until `go_on`; what is in work ends."""
        if self.doing is Doing.RUNNING and self._pace is not None:
            self._pause.set()
            self._pace.pause()
            self._do(Doing.PAUSED)

    def go_on(self) -> None:
        """End a pause."""
        if self.doing is Doing.PAUSED and self._pace is not None:
            self._pause.clear()
            self._pace.go_on()
            self._do(Doing.RUNNING)

    def stop(self) -> None:
        """End once what is in work has ended; the next start goes on from there."""
        if self.is_running:
            self._enough.set()
            self._do(Doing.STOPPING)

    def _do(self, doing: Doing) -> None:
        self.doing = doing
        self.doing_changed.emit(doing)
        self._show_progress()

    def _on_event(self, event: BatchEvent | NotAccepted) -> None:
        if isinstance(event, NotAccepted):
            self._controller.ask(LicenceQuestion(event.card), self.start_again)
        elif isinstance(event, BatchAdvanced):
            self.place_changed.emit(event.engine)
            self._show_progress()
        elif isinstance(event, BatchFinished):
            self._finished, self.has_summary = event, True
        else:
            path = self.queue.take(event)
            if isinstance(event, SlideDone | SlideFailed) and not self.has_summary:
                self.has_summary = True
                self.folder_read.emit()
            if path:
                self.row_changed.emit(path)
                self._show_progress()

    def start_again(self) -> None:
        """Start after a licence was accepted: what asked for it has ended by then, or does so now."""
        self._jobs.cancel(LANE)
        self._end()
        self.start()

    def _on_end(self) -> None:
        finished = self._finished
        self._end()
        if finished is not None:
            self.said.emit(Hint(STOPPED if finished.left else _outcome(finished), is_warning=bool(finished.failed)))

    def _on_failed(self, error: BaseException) -> None:
        self._end()
        self.said.emit(failure(error))

    def _end(self) -> None:
        running = [row.path for row in self.queue if row.state == RUNNING]
        self.queue.settle()
        self._do(Doing.NOTHING)
        for path in running:
            self.row_changed.emit(path)

    def _show_progress(self) -> None:
        self.progress_changed.emit(self.overall)

    @property
    def overall(self) -> Overall | None:
        """How far all of it is; None for an empty queue."""
        pace = self._pace or Pace(measures=False, encodes=False)
        return pace.overall(self.queue) if len(self.queue) else None

    # ------------------------------------------------------------------ results

    def open_result(self, path: str) -> None:
        """Show a slide of the queue with the nuclei that were found on it."""
        if path not in self.queue or self.queue[path].state != DONE:
            self.said.emit(Hint(NOT_DONE, is_warning=True))
            return
        self.said.emit(Hint())
        self.results.open(self.queue[path].entry, self.wishes.folder)

    @property
    def summary(self) -> Path | None:
        """The page that sums up the folder, if there is one."""
        return Path(self.wishes.folder) / SUMMARY if self.has_summary else None

    # ------------------------------------------------------------------ what happens elsewhere

    def _look_for_encoders(self, _cancelled: Cancelled) -> Iterator[Encoders]:
        yield self.engine.encoders()

    def _on_encoders(self, encoders: Encoders) -> None:
        self.encoders = encoders
        self.encoders_changed.emit()

    def _on_models_listed(self, cards: tuple[Any, ...]) -> None:
        self.models = {card.name: card for card in cards}
        self.models_changed.emit()

    def _take_over(self) -> None:
        """Take model, threshold and smallest area from the panel as long as no other model was chosen here."""
        session, wishes = self._session, self.wishes
        if self._follows:
            wishes.model = session.model
            wishes.threshold, wishes.min_area_um2 = session.threshold, session.min_area_um2

    def _on_model_chosen(self, name: str) -> None:
        """Take what suits the model, unless it is the one in the panel: then what was set there."""
        card = self.models.get(name)
        self._follows = name == self._session.model
        source = self._session if name == self._session.model or card is None else card
        self.wishes.threshold, self.wishes.min_area_um2 = source.threshold, source.min_area_um2

    def _on_said(self, hint: Hint) -> None:
        self.said.emit(hint)

    def _on_error(self, error: BaseException) -> None:
        self.said.emit(failure(error))


def _outcome(finished: BatchFinished) -> str:
    slides = f"{finished.done:,} slide{'s' * (finished.done != 1)} done"
    failed = f", {finished.failed:,} failed: select one to read why, and press Start to try again" * bool(
        finished.failed
    )
    return f"{slides} with {finished.nuclei:,} nuclei{failed}."
