"""Teaches one head to look where people painted, beside everything else that goes on; the guard says what is used."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from psygnal import Signal

from napari_nucleiseg.core.errors import NucleiSegError
from napari_nucleiseg.state import PATCHES
from napari_nucleiseg.viewer.heads import Heads
from napari_nucleiseg.viewer.heads_lanes import TEACH as LANE
from napari_nucleiseg.viewer.jobs import Cancelled
from napari_nucleiseg.viewer.messages import Hint, Progress
from napari_nucleiseg.viewer.segmentation import open_project
from napari_nucleiseg.viewer.sentences import sentence_of

if TYPE_CHECKING:
    from napari_nucleiseg.core.teaching.heads.teach import HeadStep
    from napari_nucleiseg.core.teaching.heads.verdict import HeadOutcome
    from napari_nucleiseg.core.teaching.versions import Version
    from napari_nucleiseg.viewer.opened import OpenedSlide

KEEPING = "head versions"
ONE_HEAD = "Choose the one head that is to be taught: the mean, maximum and rollout of all heads cannot be."
PATCHES_ONLY = "Heads of patches can be taught. Choose the level “Patches” first."
LOOK_FIRST = "Look at the view first, choose a head, and paint where it should look."


@dataclass(frozen=True, slots=True, eq=False)
class HeadTaught:
    """Teaching a head has ended: what it came to, and the version that was kept of it."""

    outcome: HeadOutcome
    version: Version


class HeadsTeaching:
    """One lesson at a time; all methods are for the main thread.

    Parameters
    ----------
    heads : Heads
        Says which head of which encoder, and on which slides.
    """

    stepped = Signal(object)
    """A `HeadStep`."""
    running_changed = Signal(bool)
    progress_changed = Signal(object)
    """`Progress`, or None when nothing is taught."""
    ended = Signal(object)
    """`HeadTaught`, or None if it was stopped or failed."""
    used_changed = Signal(str)
    """The encoder of this name is in hand now: what was taught, or the one before."""

    def __init__(self, heads: Heads) -> None:
        self._heads, self._jobs = heads, heads.jobs
        self.last: HeadTaught | None = None
        self.former = ""
        """Name of the encoder that was in hand before the last one was adopted."""
        self.is_taken = False
        """Whether what was taught last is used although it was refused."""

    def close(self) -> None:
        """Stop; nothing is kept of a lesson that has not ended."""
        self._jobs.cancel(LANE)

    @property
    def is_running(self) -> bool:
        """Whether a head is being taught."""
        return self._jobs.is_running(LANE)

    def teach(self) -> None:
        """Teach the head in hand with all that is painted on the open slides."""
        heads, wishes = self._heads, self._heads.wishes
        if self.is_running:
            return
        opened = [slide for slide in heads.shelf.opened if slide.slide.mpp_um is not None]
        problem = self._problem(opened)
        if problem:
            self._warn(problem)
            return
        name, device, results = wishes.encoder, heads.session.device, heads.session.results_folder
        layer, head = wishes.layer, int(wishes.head)
        engine = heads.controller.teaching.engine

        def work(cancelled: Cancelled) -> Iterator[Any]:
            for one in opened:
                open_project(one, engine, results, create=False)
            for step in heads.engine.teach(opened, name, layer=layer, head=head, device=device):
                if cancelled():
                    return
                if step.outcome is not None:
                    yield HeadTaught(step.outcome, heads.engine.keep_head(step.outcome))
                else:
                    yield step

        self.last, self.is_taken = None, False
        self._jobs.start(
            LANE,
            work,
            title="Teaching a head",
            on_value=self._on_step,
            on_end=self._end,
            on_error=self._on_failed,
            on_late_error=self._on_version_failed,
        )
        self.running_changed.emit(True)
        self.progress_changed.emit(Progress("Reading what is painted"))

    def _problem(self, opened: list[OpenedSlide]) -> str:
        """Return why nothing can be taught; empty if it can."""
        wishes = self._heads.wishes
        if not opened or not wishes.encoder:
            return LOOK_FIRST
        if wishes.level != PATCHES:
            return PATCHES_ONLY
        return "" if wishes.head.isdecimal() else ONE_HEAD

    def stop(self) -> None:
        """Stop after the current step; the encoder in hand stays as it is."""
        if self._jobs.cancel(LANE):
            self._heads.said.emit(Hint("Stopped. The head is as it was."))
            self._end()

    @property
    def can_take(self) -> bool:
        """Whether what was taught last was refused, and is not used."""
        return self.last is not None and not (self.last.outcome.adopted or self.is_taken)

    def take(self) -> None:
        """Use what was taught last although it was refused."""
        taught = self.last
        if taught is None or not self.can_take:
            return

        def work(_cancelled: Cancelled) -> Iterator[Any]:
            yield self._heads.engine.take_head(taught.version)

        def on_value(version: Version) -> None:
            self.is_taken = True
            self._use(version.name)

        self._jobs.start(KEEPING, work, on_value=on_value, on_error=self._on_version_failed)

    def go_back(self) -> None:
        """Use the encoder again that was in hand before."""
        if self.former:
            name, self.former = self.former, ""
            self._heads.wishes.encoder = name
            self.used_changed.emit(name)

    # ------------------------------------------------------------------ how it goes

    def _on_step(self, step: HeadStep | HeadTaught) -> None:
        if isinstance(step, HeadTaught):
            self.last = step
            return
        self.stepped.emit(step)
        self.progress_changed.emit(Progress("Teaching", step.step, step.total))

    def _end(self) -> None:
        self.progress_changed.emit(None)
        self.running_changed.emit(False)
        taught = self.last
        if taught is not None and taught.outcome.adopted:
            self._use(taught.version.name)
        self.ended.emit(taught)

    def _use(self, name: str) -> None:
        self.former = self._heads.wishes.encoder
        # It has the same heads and layers: the one that was taught stays in hand.
        self._heads.encoders.list(name)
        self.used_changed.emit(name)

    def _on_failed(self, error: BaseException) -> None:
        self.last = None
        self._end()
        self._on_version_failed(error)

    def _on_version_failed(self, error: BaseException) -> None:
        if not isinstance(error, NucleiSegError):
            raise error
        self._warn(sentence_of(error))

    def _warn(self, sentence: str) -> None:
        self._heads.said.emit(Hint(sentence, is_warning=True))
