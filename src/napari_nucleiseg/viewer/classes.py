"""Changes of the classes that nuclei can have, and what is to be known before one goes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from napari_nucleiseg.core.store.classes import NucleusClass, count_by_class, put_classes, read_classes
from napari_nucleiseg.viewer.editing import LANE, Editing

Found = tuple[tuple[NucleusClass, ...], dict[int, int]]


def ask_classes(editing: Editing, then: Callable[[Found], None]) -> None:
    """Have `then` called with the classes of the slide and the nuclei that each has, off the main thread."""
    project = editing.project
    if project is None:
        return

    def work() -> Found:
        database = project.ledger.reader
        return read_classes(database), count_by_class(database)

    editing.jobs.enqueue(LANE, work, on_value=then, on_error=editing.failed.emit)


def change_classes(editing: Editing, classes: Sequence[NucleusClass]) -> None:
    """Bring the classes of the slide to these, and colour the nuclei by them."""
    project = editing.project
    if project is not None:
        editing.do(lambda _editor: put_classes(project, classes))
