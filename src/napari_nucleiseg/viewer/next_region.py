"""Where correcting helps most: regions are proposed one after another, and become annotated ones if the user wants."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from psygnal import Signal

from napari_nucleiseg.core.geometry import Region
from napari_nucleiseg.core.store.regions import HOLD_OUT, TEACH, AnnotatedRegion
from napari_nucleiseg.viewer.connections import Connections
from napari_nucleiseg.viewer.dashed_box import DashedBox
from napari_nucleiseg.viewer.display import Display
from napari_nucleiseg.viewer.jobs import Cancelled
from napari_nucleiseg.viewer.marker import fly_to
from napari_nucleiseg.viewer.messages import Hint, Progress
from napari_nucleiseg.viewer.regions import Regions
from napari_nucleiseg.viewer.sentences import failure
from napari_nucleiseg.viewer.teaching import QUEUE as LANE
from napari_nucleiseg.viewer.teaching import Teaching

if TYPE_CHECKING:
    from napari_nucleiseg.core.teaching.queue import Proposal, Ranked

NO_SLIDE = "Open a slide and segment a part of it first: the most useful region is looked for there."
ALL_SEEN = "These were all. Once more looks for others."


class NextRegion:
    """The proposals of one viewer; all methods are for the main thread.

    Parameters
    ----------
    teaching : Teaching
        Knows the engine.
    regions : Regions
        What is annotated already, and where a proposal goes.
    display : Display
        Knows the viewer, the session, the slide in hand and the jobs.
    """

    running_changed = Signal(bool)
    progress_changed = Signal(Progress)
    changed = Signal()
    """Another region is proposed, or none any more."""
    said = Signal(Hint)

    def __init__(self, teaching: Teaching, regions: Regions, display: Display) -> None:
        self._engine, self._regions = teaching.engine, regions
        self._viewer, self._jobs, self._shelf = display.viewer, display.jobs, display.shelf
        self._session = display.session
        self._box = DashedBox(self._viewer)
        self._waiting: list[Proposal] = []
        self._enough = threading.Event()
        self.now: Proposal | None = None
        """What is proposed."""
        self._connections = Connections(
            (self._shelf.switched, self._on_other),
            (self._session.events.model, self._on_other),
            (self._session.events.attention_level, self._on_other),
            (self._viewer.scene.camera.events.zoom, self._on_zoomed),
        )
        self._connections.open()

    def close(self) -> None:
        """Propose nothing any more."""
        self._connections.close()
        self.drop()

    # ------------------------------------------------------------------ what the user does

    @property
    def is_running(self) -> bool:
        """Whether regions are being looked for."""
        return self._jobs.is_running(LANE)

    def next(self) -> None:
        """Go to the next proposal; look for some if there are none."""
        if self.is_running:
            return
        had = self.now is not None
        while self._waiting:
            proposal = self._waiting.pop(0)
            if not self._is_annotated(proposal.region):
                self._propose(proposal)
                return
        self._clear()
        if had:
            self.said.emit(Hint(ALL_SEEN))
        else:
            self._look()

    def stop(self) -> None:
        """Look no further, and propose the best of what was looked at so far."""
        self._enough.set()

    def make(self) -> None:
        """Make the proposal an annotated region to teach with; correcting begins with it."""
        if self.now is None:
            return
        box = self.now.region
        corners = ((box.y, box.x), (box.y, box.x1), (box.y1, box.x1), (box.y1, box.x))
        vertices = tuple((float(y), float(x)) for y, x in corners)
        self._clear()
        self._session.editing = True
        self._regions.put(AnnotatedRegion(0, "", TEACH, vertices))

    def drop(self) -> None:
        """Forget all proposals and look for no more."""
        self._waiting = []
        if self._jobs.cancel(LANE):
            self.running_changed.emit(False)
        self._clear()

    # ------------------------------------------------------------------ looking

    def _look(self) -> None:
        opened, name, device = self._shelf.now, self._session.model, self._session.device
        level, ignore_brown = self._session.attention_level, self._session.ignore_brown
        if opened is None:
            self.said.emit(Hint(NO_SLIDE, is_warning=True))
            return
        self._enough = enough = threading.Event()

        def work(cancelled: Cancelled) -> Iterator[Progress | list[Proposal]]:
            seen: list[Ranked] = []
            model, _ = yield from self._engine.levels.model_for(self._engine.load(name), opened, level)
            model = self._engine.looking(model, ignore_brown=ignore_brown)
            for one in self._engine.rank(model, opened, device=device):
                seen.append(one)
                yield Progress("Looking", one.done, one.total)
                if cancelled() or enough.is_set():
                    break
            yield self._engine.next_regions(seen)

        self._jobs.start(
            LANE,
            work,
            title="Looking for the next region",
            on_value=self._on_value,
            on_end=lambda: self.running_changed.emit(False),
            on_error=self._on_failed,
            on_late_error=lambda error: self.said.emit(failure(error)),
        )
        self.said.emit(Hint())
        self.running_changed.emit(True)
        self.progress_changed.emit(Progress("Looking for the next region"))

    def _on_value(self, value: Progress | list[Proposal]) -> None:
        if isinstance(value, Progress):
            self.progress_changed.emit(value)
            return
        self._waiting = value
        if value:
            self._propose(self._waiting.pop(0))

    def _on_failed(self, error: BaseException) -> None:
        self.running_changed.emit(False)
        self.said.emit(failure(error))

    # ------------------------------------------------------------------ what is proposed

    def _is_annotated(self, box: Region) -> bool:
        """Whether the user has annotated something there since it was looked at."""
        taken = (region.box for region in self._regions.regions if region.role in {TEACH, HOLD_OUT})
        return any(box.overlaps(other) for other in taken)

    def _propose(self, proposal: Proposal) -> None:
        opened = self._shelf.now
        if opened is None:
            return
        self.now = proposal
        fly_to(self._viewer, opened, proposal.region, whole=True)
        self._box.show(opened, proposal.region)
        left = len(self._waiting)
        more = f" {left} more {'proposal' if left == 1 else 'proposals'}." if left else ""
        self.said.emit(Hint(proposal.reason + more))
        self.changed.emit()

    def _clear(self) -> None:
        """Propose nothing at the moment."""
        self._box.hide()
        if self.now is not None:
            self.now = None
            self.said.emit(Hint())
            self.changed.emit()

    # ------------------------------------------------------------------ what happens elsewhere

    def _on_other(self, _what: Any) -> None:
        """Another slide or another model is unsure of other places."""
        self.drop()

    def _on_zoomed(self, _event: Any = None) -> None:
        self._box.fit()
