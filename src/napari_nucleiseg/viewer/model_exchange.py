"""Models go to other programs and come from them, beside all other work, with progress and a way to stop."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from psygnal import Signal

from napari_nucleiseg.core.errors import LicenceNotAcceptedError, UnclearPackageError
from napari_nucleiseg.viewer.controller import Controller
from napari_nucleiseg.viewer.jobs import Cancelled
from napari_nucleiseg.viewer.long_work import LongWork, StoppedError
from napari_nucleiseg.viewer.messages import Hint, LicenceQuestion, Progress
from napari_nucleiseg.viewer.model_doors import ModelDoors
from napari_nucleiseg.viewer.sentences import failure

if TYPE_CHECKING:
    from napari_nucleiseg.core.models.weights import ModelCard
    from napari_nucleiseg.core.teaching.arrivals import Imported

LANE = "model exchange"
BUSY = "One model at a time: wait for the one that is written or read, or stop it."
STOPPED = "Stopped. Nothing was written."


class ModelExchange:
    """One export or import of a model at a time; all methods are for the main thread.

    Parameters
    ----------
    controller : Controller
        Asks for licences, lists the models.
    doors : ModelDoors
        The headless part.
    """

    progress_changed = Signal(object)
    """A `Progress`, or None when nothing runs any more."""
    imported = Signal(object)
    """The card of a model that is here now."""
    unclear = Signal(str)
    """A package does not say what its network means; the sentence says what is asked."""
    said = Signal(Hint)

    def __init__(self, controller: Controller, doors: ModelDoors) -> None:
        self._controller, self._doors = controller, doors
        self._title = ""
        self._work = LongWork(controller.display.jobs, LANE)
        self._work.changed.connect(self._on_progress)

    @property
    def is_running(self) -> bool:
        """Whether a model is being written or read."""
        return self._work.is_running

    def stop(self) -> None:
        """Stop after the stage that is being worked on; nothing is kept of it."""
        self._work.stop()

    def export(self, card: ModelCard, path: str, form: str) -> None:
        """Write a model for other programs.

        Parameters
        ----------
        card : ModelCard
            Of the model; its licence is asked for if need be.
        path : str
            File; nothing is overwritten.
        form : str
            Key of `export_formats`.
        """

        def work(_cancelled: Cancelled) -> Iterator[Path]:
            yield self._doors.export(card, path, form, self._note)

        def on_error(error: BaseException) -> None:
            if isinstance(error, LicenceNotAcceptedError):
                self._controller.ask(LicenceQuestion(card), lambda: self.export(card, path, form))
            else:
                self._on_failed(error)

        def on_value(target: Path) -> None:
            said = f"{card.name} is in {target}; it was opened again and says the same."
            self.said.emit(Hint(said if form != "safetensors" else f"{card.name} is copied to {target}."))

        self._begin(f"Exporting {card.name}", work, on_value, on_error)

    def import_package(
        self, path: str, name: str = "", *, foreground: str = "", boundary: str = "", mpp_um: float | None = None
    ) -> None:
        """Take a model from a bioimage.io package.

        Parameters
        ----------
        path : str
            A zip, a folder, or the ``rdf.yaml`` in it.
        name : str
            How to call the model; empty takes the package's name for it.
        foreground, boundary, mpp_um : str, float or None
            What the person says of a network whose package does not; see `core.exchange.networks.mapping.Meaning`.
        """

        def work(_cancelled: Cancelled) -> Iterator[Imported]:
            yield self._doors.import_model(path, name, (foreground, boundary, mpp_um), self._note)

        def on_error(error: BaseException) -> None:
            self._on_failed(error)
            if isinstance(error, UnclearPackageError):
                self.unclear.emit(str(error))

        self._begin(f"Importing {Path(path).name}", work, self._on_imported, on_error)

    def _on_imported(self, found: Imported) -> None:
        where = "was here already" if found.was_here else "is here, and can be used"
        self.said.emit(Hint(f"{found.card.name} {where}. {found.told}"))
        self._controller.catalogue.list()
        self.imported.emit(found.card)

    # ------------------------------------------------------------------ the job

    def _begin(
        self,
        title: str,
        work: Callable[[Cancelled], Iterator[Any]],
        on_value: Callable[[Any], None],
        on_error: Callable[[BaseException], None],
    ) -> None:
        if self.is_running:
            self.said.emit(Hint(BUSY))
            return
        self._title = title
        self._work.begin(title)
        self.said.emit(Hint())
        self._work.run(title, work, on_value, on_error)

    def _note(self, _stage: str, done: int, total: int) -> None:
        """Called in the thread of the work, before every stage."""
        if self._work.is_stopped:
            raise StoppedError
        self._work.note(self._title, done, total)

    def _on_progress(self, progress: Progress | None) -> None:
        self.progress_changed.emit(progress)

    def _on_failed(self, error: BaseException) -> None:
        self.said.emit(Hint(STOPPED) if isinstance(error, StoppedError) else failure(error))
