"""The versions of all models as a tree, and what can be done with one; files are touched off the main thread."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from psygnal import Signal

from napari_nucleiseg.viewer.catalogue import Catalogue
from napari_nucleiseg.viewer.connections import Connections
from napari_nucleiseg.viewer.display import Display
from napari_nucleiseg.viewer.jobs import Cancelled
from napari_nucleiseg.viewer.messages import Hint
from napari_nucleiseg.viewer.sentences import failure
from napari_nucleiseg.viewer.teaching import Teaching

if TYPE_CHECKING:
    from napari_nucleiseg.core.teaching.versions import Branch, Version

# The tree is read in the one; what changes files waits for its turn in the other.
LANE, FILES = "version tree", "version files"


class Versions:
    """The versions as one viewer shows them, between `open` and `close`; all methods are for the main thread.

    Parameters
    ----------
    teaching : Teaching
        Makes versions, and takes one in use.
    catalogue : Catalogue
        The models to choose from, which change with the versions.
    display : Display
        Knows the session and the jobs.
    """

    listed = Signal()
    """The versions, or which is in use, are no longer what they were."""
    said = Signal(Hint)

    def __init__(self, teaching: Teaching, catalogue: Catalogue, display: Display) -> None:
        self._teaching, self._engine, self._catalogue = teaching, teaching.engine, catalogue
        self._jobs, self._session = display.jobs, display.session
        self.branches: tuple[Branch, ...] = ()
        self.was_read = False
        """Whether `branches` are what there is, rather than not known yet."""
        self._connections = Connections(
            (teaching.ended, self._on_changed),
            (teaching.adopted, self._on_changed),
            (catalogue.listed, self._on_changed),
            (self._session.events.model, self._on_model_changed),
        )

    def open(self) -> None:
        """Begin to follow what becomes of the versions."""
        self._connections.open()
        self.refresh()

    def close(self) -> None:
        """Cease to follow."""
        if self._connections.is_open:
            self._connections.close()
            self._jobs.cancel(LANE)

    # ------------------------------------------------------------------ what there is

    def refresh(self) -> None:
        """Read the versions anew."""

        def work(_cancelled: Cancelled) -> Iterator[Any]:
            yield self._engine.tree()

        self._jobs.start(LANE, work, on_value=self._on_read, on_error=self._on_failed)

    def _on_read(self, branches: tuple[Branch, ...]) -> None:
        self.branches, self.was_read = branches, True
        self.listed.emit()

    def is_in_use(self, version: Version) -> bool:
        """Whether this is the model that finds the nuclei now."""
        return version.kind != "refused" and version.card.name == self._session.model

    @property
    def in_use(self) -> Version | None:
        """The version that finds the nuclei now; None if it is none of these."""
        return next((branch.version for branch in self.branches if self.is_in_use(branch.version)), None)

    def parent(self, version: Version) -> Version | None:
        """Return what a version was taught from; None if that is no longer there."""
        parent = version.card.parent
        return next((branch.version for branch in self.branches if branch.version.card.version == parent), None)

    def children(self, version: Version) -> tuple[Version, ...]:
        """Return what was taught from a version."""
        name = version.card.version
        return tuple(branch.version for branch in self.branches if branch.version.card.parent == name)

    # ------------------------------------------------------------------ what the user does

    def use(self, version: Version) -> None:
        """Use a version from now on, also a refused one."""
        self._teaching.take(version)

    def rename(self, version: Version, title: str) -> None:
        """Give a version another title."""
        self._change(lambda: self._engine.rename(version, title), lambda _version: Hint())

    def export(self, version: Version, path: str) -> None:
        """Copy a version to a file outside."""

        def tell(target: Path) -> Hint:
            return Hint(f"{version.title} is kept in {target} as well.")

        self._change(lambda: self._engine.export(version, path), tell)

    def delete(self, version: Version) -> None:
        """Delete a version for good; what was taught from it stays."""
        self._change(lambda: self._engine.delete(version), lambda _left: Hint(f"{version.title} is deleted."))

    def _change(self, call: Callable[[], Any], tell: Callable[[Any], Hint]) -> None:
        def on_value(value: Any) -> None:
            self.said.emit(tell(value))
            self._catalogue.list()
            self.refresh()

        def on_error(error: BaseException) -> None:
            self._on_failed(error)
            self.refresh()

        self._jobs.enqueue(FILES, call, on_value=on_value, on_error=on_error)

    # ------------------------------------------------------------------ what happens elsewhere

    def _on_changed(self, _what: Any) -> None:
        self.refresh()

    def _on_model_changed(self, _name: str) -> None:
        self.listed.emit()

    def _on_failed(self, error: BaseException) -> None:
        self.said.emit(failure(error))
