"""Undoing an edit, or doing it again: pixels and rows go back to what they were, as far as nobody else took them."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from napari_nucleiseg.core.geometry import Region
from napari_nucleiseg.core.store.journal import Edit
from napari_nucleiseg.core.store.packing import Row
from napari_nucleiseg.core.store.records import CLAIMS, NUCLEI, put_rows, rows_of
from napari_nucleiseg.core.store.redo import Parts
from napari_nucleiseg.core.store.retouch import measure

Ids = NDArray[np.uint32]


class Turn:
    """One edit on its way back (or forth again).

    A model may have written since: pixels that are no longer what the edit left are not touched, and a nucleus that
    a model has replaced meanwhile does not come back.

    Parameters
    ----------
    database : sqlite3.Connection
        Inside a transaction.
    parts : Parts
        Of the project.
    edit : Edit
        Which.
    back : bool
        Undo; else do again.

    Attributes
    ----------
    image : ndarray of uint32 or None
        Ids over the edit's region as they become; None if no pixel changes.
    frame : Region
        Contains all nuclei concerned, level-0 pixels.
    ids : set of int
        The nuclei concerned.
    """

    def __init__(self, database: sqlite3.Connection, parts: Parts, edit: Edit, *, back: bool) -> None:
        self._database, self._labels, self._census, self._edit = database, parts.labels, parts.census, edit
        records = edit.records
        self._wanted, self._left = (records.before, records.after) if back else (records.after, records.before)
        self._to, self._from = (edit.before, edit.after) if back else (edit.after, edit.before)
        self.image: Ids | None = None
        self.ids = set(self._wanted.get(NUCLEI, {}))
        boxes = [row[6:10] for rows in (self._wanted, self._left) for row in rows.get(NUCLEI, {}).values() if row]
        place = edit.region
        bounds = np.array([(place.y, place.x, place.y1, place.x1), *boxes])
        self.frame = Region.enclosing(bounds)

    def restore(self) -> None:
        """Bring the tables back and find out what becomes of the pixels."""
        wanted = dict(self._wanted.get(NUCLEI, {}))
        current = None if self._to is None else self._labels.read(self._edit.region)
        lost = self._lost(current)
        for key in lost:
            wanted.pop(key)
        taken = self._restore_pixels(current, lost)
        put_rows(self._database, NUCLEI, wanted)
        if taken:
            self._measure_anew(wanted)
        self._restore_claims(lost, wanted)
        for table in set(self._wanted) - {NUCLEI, CLAIMS}:
            put_rows(self._database, table, self._wanted[table])
        self._reopen(wanted)

    def _lost(self, current: Ids | None) -> set[int]:
        """Return the nuclei that the edit left in the table and that are gone: a model has replaced them.

        The id of one that is gone may be another's by now: each run of a model counts the nuclei of a tile anew, and
        passes over those that are a person's at that time, so that even the same run may count otherwise.
        """
        left = {key: row for key, row in self._left.get(NUCLEI, {}).items() if row is not None}
        now = rows_of(self._database, NUCLEI, left)
        return {key for key, row in left.items() if key not in now or not self._is_same(now[key], row, current)}

    def _is_same(self, now: Row, left: Row, current: Ids | None) -> bool:
        """Whether a row is that of the nucleus which the edit left, not of another with its id."""
        if now[1] != left[1]:
            return False
        if now[1] is None or now[14] or now[4:11] == left[4:11]:
            return True
        # It may have lost pixels, but it has won none.
        if current is None or self._from is None or not self._edit.region.contains(Region.from_bounds(*now[6:10])):
            return False
        return not ((current == now[0]) & (self._from != now[0])).any()

    def _restore_claims(self, lost: set[int], wanted: Mapping[int, Row | None]) -> None:
        """Give nuclei back what they claim; those that are gone, or whose id is another's by now, claim nothing.

        What models have made a nucleus claim meanwhile stays, as far as it still can.
        """
        claims: dict[int, Row | None] = {**rows_of(self._database, CLAIMS, wanted)}
        claims.update((key, row) for key, row in self._wanted.get(CLAIMS, {}).items() if key not in lost)
        alive = rows_of(self._database, NUCLEI, claims)
        can = {key for key, row in claims.items() if _can_claim(alive.get(key), row)}
        put_rows(
            self._database,
            CLAIMS,
            {key: row if key in can else None for key, row in claims.items() if key in can or key in wanted},
        )

    def _restore_pixels(self, current: Ids | None, lost: set[int]) -> bool:
        """Return whether somebody else took pixels meanwhile."""
        if current is None or self._to is None or self._from is None:
            return False
        mine = (self._to != self._from) & (current == self._from)
        gone = np.array(sorted(lost), np.uint32)
        if lost:
            mine &= ~np.isin(current, gone)
        image = np.where(mine, self._to, current)
        if lost:
            image[mine & np.isin(image, gone)] = 0
        self.image = image
        return bool(lost) or not np.array_equal(image, np.where(self._to != self._from, self._to, current))

    def _measure_anew(self, rows: dict[int, Row | None]) -> None:
        """Bring rows to what the pixels say; a nucleus without any goes."""
        ids = np.array(sorted(key for key, row in rows.items() if row is not None and row[13] == 0), np.uint32)
        if self.image is None or not len(ids):
            return
        whole = self._labels.read(self.frame)
        whole[self._edit.region.translate(-self.frame.y, -self.frame.x).slices] = self.image
        measured = measure(whole, ids, self.frame)
        cells = self._census.cells(measured.centroids).tolist()
        um2 = self._labels.mpp_um.y * self._labels.mpp_um.x
        changed: dict[int, Row | None] = {}
        for index, key in enumerate(ids.tolist()):
            row = rows[key]
            place = (cells[index], *measured.centroids[index].tolist(), *measured.boxes[index].tolist())
            area = int(measured.areas[index])
            changed[key] = (*row[:3], *place, area * um2, *row[11:]) if row is not None and area else None
        put_rows(self._database, NUCLEI, changed)

    def _reopen(self, rows: dict[int, Row | None]) -> None:
        """Have tiles done again that another run has done since, where a nucleus goes back to its model."""
        for row in rows.values():
            if row is not None and row[1] is not None and row[14] == 0:
                self._database.execute(
                    "UPDATE tiles SET whole = 0 WHERE run != ? AND whole AND y0 <= ? AND y1 > ? AND x0 <= ? AND x1 > ?",
                    (row[1], row[4], row[4], row[5], row[5]),
                )


def _can_claim(nucleus: Row | None, claim: Row | None) -> bool:
    """Whether a claim (None: none any more) can be that of the nucleus in the table: it lies within its box."""
    if nucleus is None:
        return False
    if claim is None:
        return True
    y0, x0, y1, x1 = nucleus[6:10]
    return bool(y0 <= claim[1] and x0 <= claim[2] and y1 >= claim[3] and x1 >= claim[4])
