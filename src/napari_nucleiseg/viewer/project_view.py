"""What a project says of a part of its slide, as the paint layer needs it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_nucleiseg.core.geometry import Region
from napari_nucleiseg.core.store.classes import read_classes
from napari_nucleiseg.core.store.ledger import APPROVED, rows_by_id
from napari_nucleiseg.viewer.marks import Said
from napari_nucleiseg.viewer.outlines import NO_IDS, OUTLINE, Classes, Ids

if TYPE_CHECKING:
    from napari_nucleiseg.core.store.project import Project

# The centre of a nucleus that reaches into a region lies no farther outside it.
AROUND_PX = 128


@dataclass(frozen=True, slots=True, eq=False)
class Pixels:
    """The ids that the project has in a region, level-0 pixels."""

    region: Region
    ids: Ids


def pixels_of(project: Project, region: Region) -> Pixels:
    """Read a part of the slide that is not empty."""
    return Pixels(region, project.labels.read(region))


@dataclass(frozen=True, slots=True)
class Unseen:
    """A nucleus that nobody has looked at, and its box in level-0 pixels."""

    id: int
    box: Region


def nearest_unseen(project: Project, centre: tuple[float, float], passed: Collection[int] = ()) -> Unseen | None:
    """Return the unapproved nucleus nearest to ``(y, x)``, level-0 pixels, that was not passed; None if all were."""
    reach = 512
    while True:
        region = Region(int(centre[0]), int(centre[1]), 1, 1).expand(reach)
        rows = project.census.rows_in(
            project.ledger.reader, region, "id, y, x, y0, x0, y1, x1", "review = 0 AND person IS NULL AND state = 0"
        )
        near = sorted(((row[1] - centre[0]) ** 2 + (row[2] - centre[1]) ** 2, row) for row in rows)
        for away, row in near:
            if away <= reach**2 and row[0] not in passed:
                return Unseen(row[0], Region.from_bounds(*row[3:]))
        if reach > max(project.shape):
            return None
        reach *= 2


def class_list(project: Project | None) -> list[tuple[int, str, str]]:
    """Return number, name and colour of each class; empty without a project."""
    if project is None:
        return []
    return [(entry.number, entry.name, entry.colour) for entry in read_classes(project.ledger.reader)]


def has_class(project: Project | None, number: int) -> bool:
    """Return whether nuclei can be given a class; 0, which is none, they always can."""
    return number == 0 or any(number == known for known, _name, _colour in class_list(project))


def classes_of(project: Project) -> Classes:
    """Return the classes of all nuclei of a slide."""
    database = project.ledger.reader
    rows = database.execute("SELECT id, class FROM nuclei WHERE class != 0 AND state = 0 ORDER BY id").fetchall()
    table = np.array(rows, np.uint32).reshape(-1, 2)
    return _classes(project, table[:, 0].copy(), table[:, 1])


def all_said(project: Project, window: Region) -> Said:
    """Return the classes of all nuclei of a slide, and what is approved around a window, level-0 pixels."""
    return Said(classes_of(project), approved_in(project, window))


def said_of(project: Project, ids: Collection[int]) -> Said:
    """Return what was said of some nuclei, nothing for those that are gone; no other row is read."""
    known = np.array(sorted(ids), np.uint32)
    numbers = np.zeros(len(known), np.uint32)
    rows = list(rows_by_id(project.ledger.reader, "class, state, review", known.tolist()))
    table = np.array(rows, np.uint32).reshape(-1, 4)
    shown = table[table[:, 2] == 0]
    numbers[np.searchsorted(known, shown[:, 0])] = shown[:, 1]
    return Said(_classes(project, known, numbers), np.sort(shown[shown[:, 3] == APPROVED, 0]))


def approved_in(project: Project, region: Region) -> Ids:
    """Return the approved nuclei in and around a region, level-0 pixels, ascending; none of an empty one."""
    if region.is_empty:
        return NO_IDS
    rows = project.census.rows_in(
        project.ledger.reader, region.expand(AROUND_PX), "id", f"review = {APPROVED} AND state = 0"
    )
    return np.array(sorted(row[0] for row in rows), np.uint32)


def _classes(project: Project, ids: Ids, numbers: Ids) -> Classes:
    colours = {entry.number: entry.colour for entry in read_classes(project.ledger.reader)}
    names = tuple(colours.get(number, OUTLINE) for number in range(1, max(colours, default=0) + 1))
    return Classes(ids, numbers.astype(np.uint8), names)
