"""Downloads the published encoders that are not here yet, once their licence is accepted."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from psygnal import Signal

from napari_nucleiseg.core.errors import NucleiSegError, WeightsError
from napari_nucleiseg.viewer.heads import Heads
from napari_nucleiseg.viewer.heads_lanes import DOWNLOAD as LANE
from napari_nucleiseg.viewer.jobs import Cancelled
from napari_nucleiseg.viewer.messages import Hint, LicenceQuestion, Progress
from napari_nucleiseg.viewer.sentences import sentence_of

if TYPE_CHECKING:
    from napari_nucleiseg.core.models.weights import ModelCard

TOLD_S = 0.3
ALL_HERE = "All published transformers are here already."
STOPPED = "Stopped. Nothing of it was kept."


class EncoderDownload:
    """One download at a time; all methods are for the main thread.

    Parameters
    ----------
    heads : Heads
        Knows the encoders that are here, and asks questions.
    """

    progress_changed = Signal(object)
    """`Progress` in megabytes, or None when nothing is downloaded."""

    def __init__(self, heads: Heads) -> None:
        self._heads, self._jobs = heads, heads.jobs
        self._told = ("", 0, 0)
        self._is_stopped = False

    @property
    def is_running(self) -> bool:
        """Whether something is being downloaded."""
        return self._jobs.is_running(LANE)

    def begin(self) -> None:
        """Ask for the licence of what is missing, then download it."""
        if self.is_running:
            return

        def work(_cancelled: Cancelled) -> Iterator[Any]:
            yield self._heads.engine.published()

        def on_value(cards: tuple[ModelCard, ...]) -> None:
            missing = tuple(card for card in cards if card.name not in self._heads.encoders.cards)
            if missing:
                self._ask(missing, missing)
            else:
                self._heads.said.emit(Hint(ALL_HERE))

        self._jobs.start(LANE, work, on_value=on_value, on_error=self._on_failed)

    def stop(self) -> None:
        """Stop; nothing is kept of a file that is not whole."""
        self._is_stopped = True
        if self._jobs.cancel(LANE):
            self.progress_changed.emit(None)
            self._heads.said.emit(Hint(STOPPED))

    def _ask(self, cards: tuple[ModelCard, ...], every: tuple[ModelCard, ...]) -> None:
        if not cards:
            self._get(tuple(card.name for card in every))
            return
        first, *rest = cards
        self._heads.controller.ask(LicenceQuestion(first), lambda: self._ask(tuple(rest), every))

    def _get(self, names: tuple[str, ...]) -> None:
        self._is_stopped = False

        def work(cancelled: Cancelled) -> Iterator[Any]:
            for name in names:

                def told(done: int, total: int, name: str = name) -> None:
                    if cancelled():
                        raise WeightsError(STOPPED)
                    self._told = name, done, total

                self._heads.engine.get_published(name, told)
                yield name

        self._jobs.start(
            LANE,
            work,
            title="Downloading",
            on_value=self._heads.encoders.list,
            on_end=self._on_ended,
            on_error=self._on_failed,
        )
        self._told = names[0], 0, 0
        self._tell()

    def _tell(self) -> None:
        """Show how far it is, as long as it goes on."""
        if self.is_running:
            name, done, total = self._told
            self.progress_changed.emit(Progress(name, done >> 20, total >> 20))
            self._jobs.later("told of download", TOLD_S, self._tell)

    def _on_ended(self) -> None:
        self.progress_changed.emit(None)

    def _on_failed(self, error: BaseException) -> None:
        self.progress_changed.emit(None)
        if not isinstance(error, NucleiSegError):
            raise error
        if not self._is_stopped:
            self._heads.said.emit(Hint(sentence_of(error), is_warning=True))
