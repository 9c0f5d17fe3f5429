"""The view in which the like is looked for: features and candidates, computed beside the window once per view."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from psygnal import Signal

from napari_nucleiseg.core.errors import LicenceNotAcceptedError, MissingPixelSizeError, NucleiSegError
from napari_nucleiseg.viewer import like_lanes as lanes
from napari_nucleiseg.viewer.connections import Connections
from napari_nucleiseg.viewer.like_engine import LikeEngine, Look
from napari_nucleiseg.viewer.like_wishes import LikeWishes
from napari_nucleiseg.viewer.messages import Hint, LicenceQuestion, PixelSizeQuestion, Progress
from napari_nucleiseg.viewer.segmentation import Wish, wish_of
from napari_nucleiseg.viewer.sentences import OUT_OF_SIGHT, sentence_of
from napari_nucleiseg.viewer.visible import visible_region

if TYPE_CHECKING:
    from napari_nucleiseg.core.geometry import Region
    from napari_nucleiseg.viewer.controller import Controller
    from napari_nucleiseg.viewer.jobs import Cancelled
    from napari_nucleiseg.viewer.like_candidates import Candidates
    from napari_nucleiseg.viewer.opened import OpenedSlide

SETTLED_S = 0.15
SOON_S = 0.1
TITLE = "Find the like"
TWO_DIMENSIONS = "Switch to the two-dimensional view (Ctrl+Y) to find the like."
STOPPED = "Stopped. Move the view to go on."


class LikeView:
    """Looks at what the canvas shows; all methods are for the main thread.

    Parameters
    ----------
    controller : Controller
        Knows the viewer, the slide in hand and the jobs.
    engine : LikeEngine
        The headless part.
    wishes : LikeWishes
        Say whose features are read.
    """

    changed = Signal()
    """There is another `look`, or other `candidates`, or none any more."""
    moved = Signal()
    """The camera has moved within what was looked at."""
    progress_changed = Signal(object)
    """`Progress` while a view is looked at, then None."""
    said = Signal(Hint)

    def __init__(self, controller: Controller, engine: LikeEngine, wishes: LikeWishes) -> None:
        display = controller.display
        self._controller, self.engine, self._wishes = controller, engine, wishes
        self._viewer, self._jobs, self._session = display.viewer, display.jobs, display.session
        self.opened: OpenedSlide | None = None
        """The slide whose views are looked at."""
        self.look: Look | None = None
        self.candidates: Candidates | None = None
        self._again = self._warned = False
        camera, editing = self._viewer.scene.camera.events, controller.editing
        self._connections = Connections(
            (camera.center, self._on_view_moved),
            (camera.zoom, self._on_view_moved),
            (self._viewer.canvas.events.size, self._on_view_moved),
            (editing.edited, self._on_nuclei_changed),
            (display.tile_done, self._on_nuclei_changed),
            (self._session.events.model, self.forget),
            (wishes.events.source, self.forget),
        )

    # ------------------------------------------------------------------ life

    @property
    def is_open(self) -> bool:
        """Whether views are looked at."""
        return self._connections.is_open

    def open(self) -> None:
        """Begin to look."""
        self._connections.open()

    def close(self) -> None:
        """Cease to look, and forget the view."""
        self._connections.close()
        self.take(None)

    def take(self, opened: OpenedSlide | None) -> None:
        """Look at views of another slide from now on."""
        self.cancel()
        self.opened, self.look, self.candidates = opened, None, None
        self.changed.emit()

    def cancel(self) -> None:
        """Look at this view no longer."""
        self._again = False
        self._jobs.cancel(lanes.LOOK)
        self._jobs.forget(lanes.LOOK)
        self.progress_changed.emit(None)

    def stop(self) -> None:
        """The same, because the user wants it."""
        self.cancel()
        self._warned = True
        self.said.emit(Hint(STOPPED))

    @property
    def seen(self) -> Region | None:
        """What the canvas shows of the slide, level-0 pixels; None without a slide or in three dimensions."""
        return None if self.opened is None else visible_region(self._viewer, self.opened.layer)

    @property
    def wish(self) -> Wish:
        """The settings of the panel.

        Raises
        ------
        ValueError
            Without a slide.
        """
        if self.opened is None:
            raise ValueError("no slide is looked at")
        return wish_of(self._session, self.opened, None)

    # ------------------------------------------------------------------ looking

    def refresh(self) -> None:
        """Look at the view; what is known of it costs nothing, and nuclei are read anew."""
        view = self.seen
        if not self.is_open or self.opened is None:
            return
        if view is None or view.is_empty:
            self._warn(TWO_DIMENSIONS if view is None else OUT_OF_SIGHT)
            return
        self._again = False
        wish, source = self.wish, self._wishes.source

        def work(cancelled: Cancelled) -> Iterator[Any]:
            look = yield from self.engine.look(wish, source, view, cancelled)
            if not cancelled():
                yield look, self.engine.candidates(wish, look)

        self._jobs.start(
            lanes.LOOK,
            work,
            title=TITLE,
            on_value=self._on_value,
            on_end=self._on_ended,
            on_error=self.on_failed,
            on_late_error=self.on_late_error,
        )

    def _on_value(self, value: Any) -> None:
        if isinstance(value, Progress):
            self.progress_changed.emit(value)
            return
        self.look, self.candidates = value
        if self._warned:
            self._warned = False
            self.said.emit(Hint())
        self.changed.emit()

    def _on_ended(self) -> None:
        self.progress_changed.emit(None)
        if self._again:
            self.refresh()

    def on_failed(self, error: BaseException) -> None:
        """Say what went wrong, and ask where an answer helps."""
        self.progress_changed.emit(None)
        if not isinstance(error, NucleiSegError):
            raise error
        self.look = self.candidates = None
        self.changed.emit()
        if isinstance(error, MissingPixelSizeError) and self.opened is not None:
            self._controller.ask(PixelSizeQuestion(self.opened.slide), self.refresh)
        elif isinstance(error, LicenceNotAcceptedError):
            card = self.engine.card(self._wishes.source, self._session.model)
            if card is not None:
                self._controller.ask(LicenceQuestion(card), self.refresh)
        self._warn(sentence_of(error))

    def on_late_error(self, error: BaseException) -> None:
        """Say what went wrong with what nobody waits for any more; what runs now goes on."""
        self._warn(sentence_of(error))

    def _warn(self, sentence: str) -> None:
        self._warned = True
        self.said.emit(Hint(sentence, is_warning=True))

    # ------------------------------------------------------------------ what happens elsewhere

    def _on_view_moved(self, _event: Any = None) -> None:
        self._jobs.later(lanes.LOOK, SETTLED_S, self._on_view_settled)

    def _on_view_settled(self) -> None:
        view, look = self.seen, self.look
        if view is not None and look is not None and look.frame.region.contains(view):
            self.moved.emit()
        else:
            self.refresh()

    def _on_nuclei_changed(self, _region: Any = None) -> None:
        if self._jobs.is_running(lanes.LOOK):
            # It would begin anew with every tile of a segmentation.
            self._again = True
        else:
            self._jobs.later(lanes.LOOK, SOON_S, self.refresh)

    def forget(self, _name: str = "") -> None:
        """Look anew: with another network all is different."""
        self.look = self.candidates = None
        self.changed.emit()
        self._jobs.later(lanes.LOOK, SETTLED_S, self.refresh)
