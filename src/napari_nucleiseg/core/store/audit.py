"""Verifies that the tables of a project can be read, agree with each other and with the pixels, and mends them."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from napari_nucleiseg.core.geometry import Region
from napari_nucleiseg.core.store.attention import broken_chunks
from napari_nucleiseg.core.store.journal import get_edit
from napari_nucleiseg.core.store.ledger import APPROVED, REJECTED, REPLACED, drop_claims, run_number
from napari_nucleiseg.core.store.merge import State
from napari_nucleiseg.core.store.nuclei import PERSON_ID_START
from napari_nucleiseg.core.store.retouch import Measured, measure

if TYPE_CHECKING:
    from napari_nucleiseg.core.store.project import Project

_CLOSE_PX = 1e-3
_ODD = (
    "(state NOT BETWEEN 0 AND 3) OR (review NOT BETWEEN 0 AND 3) OR ((state = 3) != (review IN (2, 3))) "
    "OR (run IS NULL AND person IS NULL) OR (run IS NOT NULL AND run NOT IN (SELECT run FROM runs))"
)
# Of one that a person gave back to its model others may cover a part: the table has the whole of it.
_OF_PEOPLE = f"person IS NOT NULL AND (review = {APPROVED} OR id >= {PERSON_ID_START}) AND state = ?"


@dataclass(frozen=True, slots=True)
class TableReport:
    """What is wrong in the tables.

    Parameters
    ----------
    broken_edits : tuple of int
        Entries of the history that cannot be read or stand in no order; repaired by forgetting them and what can then
        not be undone or done again.
    odd_rows : tuple of int
        Nuclei whose row contradicts itself, such as rejected and shown; repaired by what the image shows.
    wrong_claims : tuple of int
        Hidden pixels that belong to no nucleus, lie beside theirs or cannot be read; repaired by dropping them.
    wrong_geometry : tuple of int
        Nuclei of people whose box, centroid or area is not that of their pixels, or nuclei that are listed in a wrong
        place; repaired by measuring anew.
    broken_regions : tuple of int
        Annotated regions whose outline cannot be read; repaired by dropping them.
    broken_attention : tuple of int
        Pieces of painted attention that cannot be read; repaired by dropping them.
    wrong_counts : int
        Places whose number of nuclei is not that of the table; repaired by counting anew.
    next_id : int
        What the next nucleus of a person must be called at least, if the project would use a name twice, else 0;
        repaired by noting it.
    database : tuple of str
        What the database's own check says. Cannot be repaired.
    """

    broken_edits: tuple[int, ...] = ()
    odd_rows: tuple[int, ...] = ()
    wrong_claims: tuple[int, ...] = ()
    wrong_geometry: tuple[int, ...] = ()
    broken_regions: tuple[int, ...] = ()
    broken_attention: tuple[int, ...] = ()
    wrong_counts: int = 0
    next_id: int = 0
    database: tuple[str, ...] = ()

    @property
    def is_sound(self) -> bool:
        """Whether nothing was wrong."""
        return self == TableReport()


class Tally:
    """Measures the nuclei of people while the image goes by, chunk for chunk.

    Parameters
    ----------
    database : sqlite3.Connection
        Of the project.
    """

    def __init__(self, database: sqlite3.Connection) -> None:
        query = f"SELECT id FROM nuclei WHERE {_OF_PEOPLE} ORDER BY id"  # noqa: S608
        self.ids = np.fromiter((row[0] for row in database.execute(query, (int(State.SHOWN),))), np.uint32)
        self._areas = np.zeros(len(self.ids), np.int64)
        self._sums = np.zeros((len(self.ids), 2))
        self._boxes = np.tile(np.array([1 << 40, 1 << 40, 0, 0]), (len(self.ids), 1))

    def add(self, image: NDArray[np.uint32], region: Region, ids: NDArray[np.uint32]) -> None:
        """Add what a part of the image, level-0 pixels, shows; `ids` are those that occur there, ascending."""
        mine = np.isin(self.ids, ids, assume_unique=True)
        if not mine.any():
            return
        part = measure(image, self.ids[mine], region)
        self._areas[mine] += part.areas
        self._sums[mine] += part.centroids * part.areas[:, None]
        self._boxes[mine, :2] = np.minimum(self._boxes[mine, :2], part.boxes[:, :2])
        self._boxes[mine, 2:] = np.maximum(self._boxes[mine, 2:], part.boxes[:, 2:])

    def measured(self) -> dict[int, Measured]:
        """Return what was seen of each nucleus that has pixels."""
        found = {}
        for index in np.flatnonzero(self._areas).tolist():
            row = slice(index, index + 1)
            centroids = self._sums[row] / self._areas[row, None]
            found[int(self.ids[index])] = Measured(self._areas[row], centroids, self._boxes[row])
        return found


def audit(project: Project, tally: Tally) -> TableReport:
    """Look through the tables.

    Parameters
    ----------
    project : Project
        Open.
    tally : Tally
        Has seen the whole image.
    """
    database = project.ledger.reader
    broken, highest = _broken_edits(database)
    (most,) = database.execute("SELECT max(id) FROM nuclei").fetchone()
    highest = max(highest, int(most or 0))
    next_id = int(project.ledger.meta().get("next_id", PERSON_ID_START))
    return TableReport(
        broken_edits=broken,
        odd_rows=tuple(row[0] for row in database.execute(f"SELECT id FROM nuclei WHERE {_ODD} ORDER BY id")),  # noqa: S608
        wrong_claims=tuple(sorted(_wrong_claims(database))),
        wrong_geometry=tuple(sorted({*_wrong_geometry(project, tally), *_misplaced(project)})),
        broken_regions=tuple(_broken_regions(database)),
        broken_attention=tuple(broken_chunks(database)),
        wrong_counts=project.census.stale_cells(),
        next_id=highest + 1 if highest >= max(PERSON_ID_START, next_id) else 0,
        database=said_by_database(database),
    )


def mend(project: Project, report: TableReport, tally: Tally, seen: NDArray[np.uint32]) -> None:
    """Mend what is wrong; the right to write is held.

    Parameters
    ----------
    project : Project
        Open for writing.
    report : TableReport
        What `audit` said.
    tally : Tally
        As for `audit`.
    seen : ndarray of uint32, shape (n,)
        The ids in the image, ascending.
    """
    with project.ledger.transaction() as database:
        for number in report.broken_edits:
            _forget(database, number)
        drop_claims(database, report.wrong_claims)
        _mend_rows(database, report.odd_rows, seen)
        _mend_geometry(project, database, report.wrong_geometry, tally)
        database.executemany("DELETE FROM regions WHERE region = ?", [(key,) for key in report.broken_regions])
        database.executemany("DELETE FROM attention WHERE chunk = ?", [(key,) for key in report.broken_attention])
        if report.next_id:
            project.editor.keep_next_id(database, [report.next_id - 1])


def said_by_database(database: sqlite3.Connection) -> tuple[str, ...]:
    """Return what the database's own check finds; nothing if all is well."""
    said = tuple(str(row[0]) for row in database.execute("PRAGMA integrity_check(10)"))
    return () if said == ("ok",) else said


def _broken_edits(database: sqlite3.Connection) -> tuple[tuple[int, ...], int]:
    """Return the edits that cannot be read, and the highest id that the others speak of."""
    broken = []
    highest = 0
    undone_before = False
    for number, undone in database.execute("SELECT edit, undone FROM edits ORDER BY edit").fetchall():
        try:
            edit = get_edit(database, number)
        except (ValueError, TypeError, KeyError, AttributeError, imagecodecs.ZstdError, RuntimeError):
            broken.append(number)
            continue
        if undone_before and not undone:
            broken.append(number)
        undone_before |= bool(undone)
        keys = [key for side in (edit.records.before, edit.records.after) for key in side.get("nuclei", {})]
        peaks = [int(pixels.max(initial=0)) for pixels in (edit.before, edit.after) if pixels is not None]
        highest = max(highest, *keys, *peaks, 0)
    return tuple(broken), highest


def _forget(database: sqlite3.Connection, number: int) -> None:
    """Forget an edit and those on its far side: older ones if it is done, later ones if it is undone."""
    row = database.execute("SELECT undone FROM edits WHERE edit = ?", (number,)).fetchone()
    if row is not None and row[0]:
        database.execute("DELETE FROM edits WHERE edit >= ?", (number,))
    else:
        database.execute("DELETE FROM edits WHERE edit <= ?", (number,))


def _wrong_claims(database: sqlite3.Connection) -> Iterator[int]:
    for query in (
        "SELECT id FROM claims WHERE id NOT IN (SELECT id FROM nuclei) OR id NOT IN (SELECT id FROM claim_boxes)",
        "SELECT id FROM claim_boxes WHERE id NOT IN (SELECT id FROM claims)",
        "SELECT id FROM claim_boxes JOIN claims USING (id) WHERE length(mask) != ((y1 - y0) * (x1 - x0) + 7) / 8",
        """SELECT id FROM claim_boxes AS claim JOIN nuclei AS its USING (id)
        WHERE claim.y0 < its.y0 OR claim.x0 < its.x0 OR claim.y1 > its.y1 OR claim.x1 > its.x1""",
    ):
        yield from (row[0] for row in database.execute(query))


def _broken_regions(database: sqlite3.Connection) -> Iterator[int]:
    for region, vertices in database.execute("SELECT region, vertices FROM regions ORDER BY region"):
        try:
            points = np.array(json.loads(vertices), float)
        except (ValueError, TypeError):
            points = np.zeros(0)
        if points.ndim != 2 or points.shape[1:] != (2,) or not np.isfinite(points).all():
            yield region


def _misplaced(project: Project) -> Iterator[int]:
    """Find nuclei that are listed under another cell than that of their centroid."""
    rows = project.ledger.reader.execute("SELECT id, cell, y, x FROM nuclei")
    while part := rows.fetchmany(100_000):
        ids, cells, ys, xs = (np.array(column) for column in zip(*part, strict=True))
        wrong = project.census.cells(np.stack([ys, xs], axis=1)) != cells
        yield from ids[wrong].tolist()


def _wrong_geometry(project: Project, tally: Tally) -> Iterator[int]:
    um2 = project.mpp_um.y * project.mpp_um.x
    measured = tally.measured()
    query = f"SELECT id, y, x, area_um2 / ?, y0, x0, y1, x1 FROM nuclei WHERE {_OF_PEOPLE}"  # noqa: S608
    for key, *numbers in project.ledger.reader.execute(query, (um2, int(State.SHOWN))):
        found = measured.get(key)
        if found is not None:
            there = [*found.centroids[0], found.areas[0], *found.boxes[0]]
            if not np.allclose(numbers, there, rtol=1e-6, atol=_CLOSE_PX):
                yield key


def _mend_rows(database: sqlite3.Connection, ids: tuple[int, ...], seen: NDArray[np.uint32]) -> None:
    shown = set(seen.tolist())
    if not ids:
        return
    for key in ids:
        state, review = database.execute("SELECT state, review FROM nuclei WHERE id = ?", (key,)).fetchone()
        if key in shown:
            state, review = int(State.SHOWN), review if review in {0, APPROVED} else APPROVED
        elif state == State.REJECTED or review not in {0, APPROVED}:
            state, review = int(State.REJECTED), review if review in {REJECTED, REPLACED} else REJECTED
        elif state not in {State.COVERED, State.DUPLICATE}:
            state = int(State.COVERED)
        database.execute("UPDATE nuclei SET state = ?, review = ? WHERE id = ?", (state, review, key))
    # Without its run a nucleus of a model can be nobody's: its tile is done again by the next run.
    unknown = run_number(database, "unknown", "")
    lost = "run NOT IN (SELECT run FROM runs)"
    database.execute(f"UPDATE nuclei SET run = NULL WHERE {lost}")  # noqa: S608
    nobody = "run IS NULL AND person IS NULL"
    database.execute(f"UPDATE nuclei SET run = ? WHERE {nobody} AND id < ?", (unknown, PERSON_ID_START))  # noqa: S608
    database.execute(f"UPDATE nuclei SET person = 'unknown' WHERE {nobody}")  # noqa: S608


def _mend_geometry(project: Project, database: sqlite3.Connection, ids: tuple[int, ...], tally: Tally) -> None:
    um2 = project.mpp_um.y * project.mpp_um.x
    measured = tally.measured() if ids else {}
    for key in ids:
        found = measured.get(key)
        if found is not None:
            y, x = found.centroids[0].tolist()
            database.execute(
                "UPDATE nuclei SET y = ?, x = ?, y0 = ?, x0 = ?, y1 = ?, x1 = ?, area_um2 = ? WHERE id = ?",
                (y, x, *found.boxes[0].tolist(), float(found.areas[0] * um2), key),
            )
        y, x = database.execute("SELECT y, x FROM nuclei WHERE id = ?", (key,)).fetchone()
        cell = int(project.census.cells(np.array([[y, x]]))[0])
        database.execute("UPDATE nuclei SET cell = ? WHERE id = ?", (cell, key))
