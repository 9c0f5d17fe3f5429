"""Import and export of nuclei for the slide in hand, beside all other work, with progress and a way to stop."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from psygnal import Signal

from napari_nucleiseg.core.geometry import Region
from napari_nucleiseg.viewer.display import Display
from napari_nucleiseg.viewer.editing import LANE as EDIT_LANE
from napari_nucleiseg.viewer.editing import Editing
from napari_nucleiseg.viewer.jobs import Cancelled
from napari_nucleiseg.viewer.long_work import LongWork, StoppedError
from napari_nucleiseg.viewer.messages import Hint, Progress

if TYPE_CHECKING:
    from napari_nucleiseg.core.exchange.painting import Overlap
    from napari_nucleiseg.core.exchange.report import ImportReport
    from napari_nucleiseg.core.store.project import Project

LANE = "exchange"
NOTHING = "There are no nuclei to export yet. Segment the slide, or draw some."
BUSY = "One import or export at a time: wait for the one that runs, or stop it."
IMPORTING, EXPORTING = "Importing", "Exporting"


class Exchange:
    """Imports and exports of one viewer; all methods are for the main thread.

    Parameters
    ----------
    editing : Editing
        An import is an edit: correcting begins with it, and it is a step of the history.
    display : Display
        Knows the viewer, the slide in hand and the jobs.
    """

    progress_changed = Signal(object)
    """A `Progress`, or None when nothing runs any more."""
    imported = Signal(object)
    """An `ImportReport`."""
    exported = Signal(str, int)
    """What was written, and how many nuclei it holds."""
    said = Signal(Hint)
    failed = Signal(object)
    """An exception."""

    def __init__(self, editing: Editing, display: Display) -> None:
        self._editing, self._display = editing, display
        self._jobs, self._shelf = display.jobs, display.shelf
        self._title = ""
        self._work = LongWork(self._jobs, LANE)
        self._work.changed.connect(self._on_progress_changed)

    @property
    def is_running(self) -> bool:
        """Whether something is being imported or exported."""
        return self._work.is_running

    @property
    def has_nuclei(self) -> bool:
        """Whether the slide in hand has any nuclei already."""
        opened = self._shelf.now
        return opened is not None and opened.project is not None and opened.project.census.total() > 0

    def stop(self) -> None:
        """Stop soon; what was imported so far stays, and can be undone."""
        self._work.stop()

    # ------------------------------------------------------------------ import

    def import_file(self, path: str, *, overlap: Overlap = "keep") -> None:
        """Take nuclei and regions from a file into the slide in hand.

        Parameters
        ----------
        path : str
            See `core.exchange.imports.import_nuclei`.
        overlap : {"keep", "replace"}
            What becomes of nuclei where others are already.
        """
        if self._shelf.now is None or self._is_busy():
            return
        self._editing.session.editing = True
        # The project is opened in that lane, and may be refused there.
        self._jobs.enqueue(EDIT_LANE, lambda: None, on_value=lambda _none: self._import(path, overlap))

    def _import(self, path: str, overlap: Overlap) -> None:
        project = self._editing.project
        if project is None or self._is_busy():
            return

        def work(_cancelled: Cancelled) -> Iterator[ImportReport]:
            from napari_nucleiseg.core.exchange.imports import import_nuclei

            yield import_nuclei(project, path, overlap=overlap, on_progress=self._note)

        self._begin(f"{IMPORTING} {Path(path).name}", work, lambda report: self._on_imported(project, report))

    def _on_imported(self, project: Project, report: ImportReport) -> None:
        self._show_imported(project)
        self.imported.emit(report)

    def _show_imported(self, project: Project) -> None:
        if self._editing.project is project:
            self._editing.tile_finished(Region(0, 0, *project.shape))
            self._editing.recolour()
            self._editing.edited.emit()
        self._display.redraw()
        self._display.recolour()
        self._display.count()

    # ------------------------------------------------------------------ export

    def export_file(self, path: str, format_name: str) -> None:
        """Write the nuclei and regions of the slide in hand.

        Parameters
        ----------
        path : str
            File or folder; replaced if it is there.
        format_name : str
            Key of `core.exchange.formats.FORMATS`.
        """
        project = None if self._shelf.now is None else self._shelf.now.project
        if project is None:
            self.said.emit(Hint(NOTHING))
            return
        if self._is_busy():
            return

        def work(_cancelled: Cancelled) -> Iterator[int]:
            from napari_nucleiseg.core.exchange.formats import export
            from napari_nucleiseg.core.measurement.kept import source_for_export

            if project.writable:
                project.flush()
            nuclei = project.census.total()
            source = source_for_export(project, format_name)
            export(source, path, format_name, lambda done, total: self._note("writing", done, total))
            yield nuclei

        # What was drawn last goes with it.
        self._editing.commit("paint")
        title = f"{EXPORTING} {Path(path).name}"
        self._jobs.enqueue(
            EDIT_LANE,
            lambda: None,
            on_value=lambda _none: self._begin(title, work, lambda nuclei: self._on_exported(path, nuclei)),
        )

    def _on_exported(self, path: str, nuclei: int) -> None:
        self.said.emit(Hint(f"{nuclei:,} nuclei written to {Path(path).name}."))
        self.exported.emit(path, nuclei)

    # ------------------------------------------------------------------ the job

    def _is_busy(self) -> bool:
        if self.is_running:
            self.said.emit(Hint(BUSY))
        return self.is_running

    def _begin(self, title: str, work: Any, on_value: Callable[[Any], None]) -> None:
        if self._is_busy():
            return
        self._title = title
        self._work.begin(title)
        self.said.emit(Hint())
        self._work.run(title, work, on_value, self._on_error)

    def _note(self, _stage: str, done: int, total: int) -> None:
        """Called in the thread of the work, for every part."""
        if self._work.is_stopped:
            raise StoppedError
        self._work.note(self._title, done, total)

    def _on_progress_changed(self, progress: Progress | None) -> None:
        if progress is not None:
            # Where it stands in the panel, the file's name has no room.
            percent = 100 * progress.done // max(1, progress.total)
            progress = Progress(progress.title.split()[0], percent, 100 if progress.total else 0, progress.left_s)
        self.progress_changed.emit(progress)

    def _on_error(self, error: BaseException) -> None:
        title, project = self._title, self._editing.project
        if title.startswith(IMPORTING) and project is not None:
            self._show_imported(project)
        if isinstance(error, StoppedError):
            kept = " What was taken so far stays; undo takes it away." if title.startswith(IMPORTING) else ""
            self.said.emit(Hint(f"Stopped.{kept}"))
        else:
            self.failed.emit(error)
