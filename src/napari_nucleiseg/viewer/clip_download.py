"""Downloads the weights of a CLIP, once their licence is accepted: told how far, stopped, and nothing half is kept."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from psygnal import Signal

from napari_nucleiseg.core.errors import LicenceNotAcceptedError, NucleiSegError, WeightsError
from napari_nucleiseg.viewer.like_lanes import CLIP_DOWNLOAD as LANE
from napari_nucleiseg.viewer.messages import Hint, LicenceQuestion, Progress
from napari_nucleiseg.viewer.sentences import sentence_of

if TYPE_CHECKING:
    from napari_nucleiseg.viewer.by_text_engine import ByTextEngine
    from napari_nucleiseg.viewer.controller import Controller
    from napari_nucleiseg.viewer.jobs import Cancelled

TOLD_S = 0.3
TITLE = "Downloading, MB:"
STOPPED = "Stopped. Nothing of the weights was kept."


class ClipDownload:
    """One download at a time; all methods are for the main thread.

    Parameters
    ----------
    controller : Controller
        Asks questions, and has the jobs.
    engine : ByTextEngine
        The headless part.
    """

    progress_changed = Signal(object)
    """`Progress` in megabytes, or None when nothing is downloaded."""
    done = Signal(str, str)
    """Weights are here: their folder, and the checksum that they had."""
    said = Signal(Hint)

    def __init__(self, controller: Controller, engine: ByTextEngine) -> None:
        self._controller, self._jobs, self.engine = controller, controller.display.jobs, engine
        self._told = (0, 0)

    @property
    def is_running(self) -> bool:
        """Whether something is being downloaded."""
        return self._jobs.is_running(LANE)

    def begin(self, where: str, sha256: str = "") -> None:
        """Download weights by name or address, and ask for their licence before."""
        if self.is_running:
            return

        def work(cancelled: Cancelled) -> Iterator[Any]:
            def told(done: int, total: int) -> None:
                if cancelled():
                    raise WeightsError(STOPPED)
                self._told = done, total

            try:
                folder = self.engine.get(where, sha256, told)
            except NucleiSegError:
                if cancelled():
                    return  # that was said, and another one may have begun
                raise
            yield folder, self.engine.digest(folder)

        def on_error(error: BaseException) -> None:
            self._on_failed(error, where, sha256)

        self._told = 0, 0
        self.said.emit(Hint())
        self._jobs.start(LANE, work, title=TITLE, on_value=self._on_value, on_end=self._on_ended, on_error=on_error)
        self._tell()

    def stop(self) -> None:
        """Stop; nothing is kept of a file that is not whole."""
        if self._jobs.cancel(LANE):
            self.progress_changed.emit(None)
            self.said.emit(Hint(STOPPED))

    def _tell(self) -> None:
        """Show how far it is, as long as it goes on."""
        if self.is_running:
            done, total = self._told
            self.progress_changed.emit(Progress(TITLE, done // 10**6, total // 10**6))
            self._jobs.later(LANE, TOLD_S, self._tell)

    def _on_value(self, value: tuple[str, str]) -> None:
        self.done.emit(*value)

    def _on_ended(self) -> None:
        self.progress_changed.emit(None)

    def _on_failed(self, error: BaseException, where: str, sha256: str) -> None:
        self.progress_changed.emit(None)
        if not isinstance(error, NucleiSegError):
            raise error
        self.said.emit(Hint(sentence_of(error), is_warning=True))
        if isinstance(error, LicenceNotAcceptedError):
            self._controller.ask(LicenceQuestion(self.engine.card(where)), lambda: self.begin(where, sha256))
