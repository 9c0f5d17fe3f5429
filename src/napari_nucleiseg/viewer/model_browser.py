"""All models and networks, one of them looked at: used, compared, taught; listed and counted off the main thread."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from psygnal import Signal

from napari_nucleiseg.core.errors import ModelError
from napari_nucleiseg.viewer.comparing import Comparing
from napari_nucleiseg.viewer.connections import Connections
from napari_nucleiseg.viewer.controller import Controller
from napari_nucleiseg.viewer.jobs import Cancelled
from napari_nucleiseg.viewer.messages import Hint
from napari_nucleiseg.viewer.model_doors import ModelDoors
from napari_nucleiseg.viewer.model_exchange import ModelExchange
from napari_nucleiseg.viewer.model_rows import Row
from napari_nucleiseg.viewer.sentences import failure

if TYPE_CHECKING:
    from napari_nucleiseg.core.models.catalogue import NetworkEntry
    from napari_nucleiseg.core.teaching.versions import Version

LOOKED_S = 0.6
LANE, COUNT, COMPARE = "model list", "model sizes", "models to compare"


class ModelBrowser:
    """What one viewer can choose from, between `open` and `close`; all methods are for the main thread.

    Parameters
    ----------
    controller : Controller
        Knows the session, the models and the jobs.
    comparing : Comparing
        Compares two versions in the view.
    doors : ModelDoors, optional
        The headless part.
    """

    listed = Signal()
    """The rows, or which model is in use, are no longer what they were."""
    counted = Signal(str)
    """It is known how many parameters the network of this name has, or why it cannot be built."""
    said = Signal(Hint)

    def __init__(self, controller: Controller, comparing: Comparing, doors: ModelDoors | None = None) -> None:
        self._session, self._jobs = controller.session, controller.display.jobs
        self._doors = doors or ModelDoors(controller.teaching.engine)
        self.comparing = comparing
        self.exchange = ModelExchange(controller, self._doors)
        self.rows: tuple[Row, ...] = ()
        self.was_read = False
        """Whether `rows` are what there is, rather than not known yet."""
        self.parameters: dict[str, int | str] = {}
        """By name of the network: how many it has, or the sentence that says why it cannot be built here."""
        self._waiting: tuple[NetworkEntry, ...] = ()
        self._connections = Connections(
            (controller.catalogue.listed, self._on_changed),
            (controller.teaching.ended, self._on_changed),
            (self._session.events.model, self._on_model_changed),
        )

    def open(self) -> None:
        """Begin to follow what there is."""
        self._connections.open()
        self.refresh()

    def close(self) -> None:
        """Cease to follow; what is exported or imported goes on."""
        if self._connections.is_open:
            self._connections.close()
            self._jobs.forget(COUNT)
            for lane in (LANE, COUNT):
                self._jobs.cancel(lane)

    # ------------------------------------------------------------------ what there is

    def refresh(self) -> None:
        """List everything anew."""

        def work(_cancelled: Cancelled) -> Iterator[Any]:
            yield self._doors.rows()

        self._jobs.start(LANE, work, on_value=self._on_read, on_error=self._on_failed)

    def _on_read(self, rows: tuple[Row, ...]) -> None:
        self.rows, self.was_read = rows, True
        self.listed.emit()
        # What needs a library is counted when somebody looks at it: to import some takes seconds.
        self._count([row.entry for row in rows if row.card is None and row.entry and not row.entry.spec.needs])

    def look_at(self, row: Row) -> None:
        """Have the parameters of its network counted, if they are not."""
        entry = row.entry
        if entry is not None:
            # Who goes through the list does not wait for every library to be imported.
            seconds = LOOKED_S if entry.spec.needs and entry.spec.name not in self.parameters else 0.0
            self._jobs.later(COUNT, seconds, lambda: self._count([entry]))

    def _count(self, entries: list[NetworkEntry]) -> None:
        for entry in entries:
            if entry.measured is not None:
                self._on_counted((entry.spec.name, entry.measured.parameters))
            elif entry.missing:
                self._on_counted((entry.spec.name, entry.missing))
        # Those that wait already come after these.
        waiting = {entry.spec.name: entry for entry in (*entries, *self._waiting)}
        self._waiting = tuple(entry for name, entry in waiting.items() if name not in self.parameters)
        todo = self._waiting
        if not todo:
            return

        def work(cancelled: Cancelled) -> Iterator[tuple[str, int | str]]:
            for entry in todo:
                if cancelled():
                    return
                yield entry.spec.name, self._doors.parameters(entry)

        self._jobs.start(COUNT, work, on_value=self._on_counted, on_error=self._on_failed)

    def _on_counted(self, found: tuple[str, int | str]) -> None:
        name, parameters = found
        self.parameters[name] = parameters
        self.counted.emit(name)

    def is_in_use(self, row: Row) -> bool:
        """Whether this is the model that finds the nuclei now."""
        return row.card is not None and row.card.name == self._session.model

    # ------------------------------------------------------------------ what the user does

    def use(self, row: Row) -> None:
        """Find nuclei with this model from now on, as the panel's chooser does."""
        if row.card is not None and not row.is_for_stacks:
            self._session.model = row.card.name

    def compare(self, row: Row) -> None:
        """Compare a model with the one in use, in the view."""
        names = (row.name, self._session.model)

        def work(_cancelled: Cancelled) -> Iterator[tuple[Version, Version]]:
            versions = {version.card.name: version for version in self._doors.versions() if version.kind != "refused"}
            if missing := [name for name in names if name not in versions]:
                raise ModelError(f"{missing[0]} is not among the versions of models, so it cannot be compared.")
            yield versions[names[0]], versions[names[1]]

        self._jobs.start(COMPARE, work, on_value=lambda pair: self.comparing.begin(*pair), on_error=self._on_failed)

    # ------------------------------------------------------------------ what happens elsewhere

    def _on_changed(self, _what: Any) -> None:
        self.refresh()

    def _on_model_changed(self, _name: str) -> None:
        self.listed.emit()

    def _on_failed(self, error: BaseException) -> None:
        self.said.emit(failure(error))
