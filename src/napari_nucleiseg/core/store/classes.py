"""The classes that nuclei can have, and changes of them as steps of the history."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from napari_nucleiseg.core.errors import StoreError
from napari_nucleiseg.core.geometry import Region
from napari_nucleiseg.core.store.classmarks import waiting_marks
from napari_nucleiseg.core.store.editor import Changed
from napari_nucleiseg.core.store.records import CLASSES, MARKS

if TYPE_CHECKING:
    from napari_nucleiseg.core.store.project import Project

NEW, CHANGED, REMOVED = "class", "change class", "remove class"
NOWHERE = Region(0, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class NucleusClass:
    """A class: its number in the tables (and its key, 1 to 9), name and colour (``#rrggbb``)."""

    number: int
    name: str
    colour: str


def read_classes(database: sqlite3.Connection) -> tuple[NucleusClass, ...]:
    """Return the classes of a project by number."""
    return tuple(
        NucleusClass(*row) for row in database.execute("SELECT class, name, colour FROM classes ORDER BY class")
    )


def count_by_class(database: sqlite3.Connection) -> dict[int, int]:
    """Return how many nuclei that are shown have each class; classes without any are left out."""
    return dict(database.execute("SELECT class, count(*) FROM nuclei WHERE class != 0 AND state = 0 GROUP BY class"))


def check_classes(classes: Iterable[NucleusClass]) -> None:
    """Refuse names that are empty or the same.

    Raises
    ------
    StoreError
        Which of them.
    """
    seen: set[str] = set()
    for entry in classes:
        name = entry.name.strip().casefold()
        if not name:
            raise StoreError(f"Class {entry.number} has no name.")
        if name in seen:
            raise StoreError(f"Two classes are called {entry.name.strip()}.")
        seen.add(name)


def put_classes(project: Project, classes: Iterable[NucleusClass]) -> Iterator[Changed]:
    """Bring the classes of a project to these; each change is a step. Nuclei of a class that goes have none then.

    Raises
    ------
    StoreError
        If names are empty or the same, or the project cannot be written.
    """
    wanted = {entry.number: (entry.number, entry.name.strip(), entry.colour) for entry in classes}
    check_classes(NucleusClass(*row) for row in wanted.values())
    database = project.ledger.reader
    known = {entry.number: (entry.number, entry.name, entry.colour) for entry in read_classes(database)}
    for number in sorted(set(known) - set(wanted)):
        ids = [row[0] for row in database.execute("SELECT id FROM nuclei WHERE class = ? AND state = 0", (number,))]
        gone = project.editor.put(CLASSES, number, None, kind=REMOVED, region=NOWHERE)
        bare = project.editor.classify(ids, 0, step=None if gone is None else gone.step)
        # Nor does what is found again where one of them was.
        waiting = dict.fromkeys(waiting_marks(database, number))
        forgotten = project.editor.put_all(
            MARKS, waiting, kind=REMOVED, region=NOWHERE, step=None if gone is None else gone.step
        )
        yield from (step for step in (gone, bare, forgotten) if step is not None)
    # Names are unique at every moment: who takes another's name waits until that one has a new one.
    names = {row[1]: number for number, row in known.items() if number in wanted}
    for number, row in wanted.items():
        holder = names.get(row[1], number)
        if holder != number:
            aside = (holder, f"{row[1]} ({holder})", known[holder][2])
            project.editor.put(CLASSES, holder, aside, kind=CHANGED, region=NOWHERE)
        kind = CHANGED if number in known else NEW
        step = project.editor.put(CLASSES, number, row, kind=kind, region=NOWHERE)
        names = {name: other for name, other in names.items() if other not in {number, holder}} | {row[1]: number}
        if step is not None:
            yield step
