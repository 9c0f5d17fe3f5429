"""Undoing an edit, or doing it again: pixels and rows go back to what they were, as far as nobody else took them."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from napari_nucleiseg.core.geometry import Region
from napari_nucleiseg.core.store.classmarks import take_back, turn_heirs
from napari_nucleiseg.core.store.journal import Edit
from napari_nucleiseg.core.store.merge import State
from napari_nucleiseg.core.store.packing import Row
from napari_nucleiseg.core.store.records import CLAIMS, MARKS, NUCLEI, put_rows, rows_of
from napari_nucleiseg.core.store.redo import Parts
from napari_nucleiseg.core.store.retouch import measured_in_place, measured_rows

Ids = NDArray[np.uint32]


class Turn:
    """One edit on its way back (or forth again).

    A model may have written since: pixels that are no longer what the edit left are not touched, and a nucleus that
    a model has replaced or hidden meanwhile does not come back. One that becomes a person's again is measured: it may
    have lost or won pixels.

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
    region : Region
        Contains every pixel that may change, level-0 pixels.
    image : ndarray of uint32 or None
        Ids over the region as they become; None if no pixel changes.
    frame : Region
        Contains all nuclei concerned, level-0 pixels.
    ids : set of int
        The nuclei concerned.
    """

    def __init__(self, database: sqlite3.Connection, parts: Parts, edit: Edit, *, back: bool) -> None:
        self._database, self._parts, self._labels, self._edit = database, parts, parts.labels, edit
        records = edit.records
        self._wanted, self._left = (records.before, records.after) if back else (records.after, records.before)
        wanted, left = self._wanted.get(NUCLEI, {}), self._left.get(NUCLEI, {})
        # Those that go from their model to a person, who approves or rejects them.
        self._won = {key for key, row in wanted.items() if row and row[14] and not (left.get(key) or row)[14]}
        self.image: Ids | None = None
        self.ids = set(wanted)
        self.region = place = edit.region
        boxes = [row[6:10] for rows in (wanted, left) for row in rows.values() if row]
        self.frame = Region.enclosing(np.array([(place.y, place.x, place.y1, place.x1), *boxes]))
        before, after = edit.before, edit.after
        if before is not None and after is not None:
            self.region = Region.enclosing(
                np.array([(place.y, place.x, place.y1, place.x1), *(row[6:10] for row in self._rejected())])
            )
            inside = place.translate(-self.region.y, -self.region.x)
            before, after = (_padded(pixels, inside, self.region) for pixels in (before, after))
        self._to, self._from = (before, after) if back else (after, before)

    def _rejected(self) -> list[Row]:
        """Return the rows, as they are left, of nuclei that a person takes from their model to reject them."""
        rows = [(self._wanted[NUCLEI][key], self._left[NUCLEI][key]) for key in sorted(self._won)]
        return [left for wanted, left in rows if wanted is not None and left is not None and wanted[13] != 0]

    def restore(self) -> None:
        """Bring the tables back and find out what becomes of the pixels."""
        wanted = dict(self._wanted.get(NUCLEI, {}))
        current = None if self._to is None else self._labels.read(self.region)
        lost = self._lost(current)
        for key in lost:
            wanted.pop(key)
        self._won -= lost
        taken = self._restore_pixels(current, lost)
        put_rows(self._database, NUCLEI, wanted)
        if self._to is None:
            self._turn_class_of_lost(lost)
        hidden = self._won if self._to is not None else set(rows_of(self._database, CLAIMS, self._won))
        self._measure_anew(wanted if taken else {key: wanted[key] for key in hidden})
        self._restore_claims(lost, wanted)
        for table in set(self._wanted) - {NUCLEI, CLAIMS}:
            if table == MARKS:
                self.ids |= take_back(self._database, self._wanted[table])
            put_rows(self._database, table, self._wanted[table])
        self._reopen(wanted)

    def _lost(self, current: Ids | None) -> set[int]:
        """Return the nuclei that the edit left in the table and that are gone: a model has replaced or hidden them.

        The id of one that is gone may be another's by now: each run of a model counts the nuclei of a tile anew, and
        passes over those that are a person's at that time, so that even the same run may count otherwise. So may that
        of one that the edit left nowhere and that is to come back: it stays away.
        """
        stated = self._left.get(NUCLEI, {})
        now = rows_of(self._database, NUCLEI, stated)
        left = {key: row for key, row in stated.items() if row is not None}
        gone = {key for key, row in left.items() if key not in now or not self._is_same(now[key], row, current)}
        return gone | {key for key in now if key not in left and self._wanted[NUCLEI][key] is not None}

    def _is_same(self, now: Row, left: Row, current: Ids | None) -> bool:
        """Whether a row is that of the nucleus which the edit left, not of another with its id."""
        if now[1] != left[1] or now[13] != left[13]:
            return False
        if now[1] is None or now[14] or now[4:11] == left[4:11]:
            return True
        # It may have lost pixels, but it has won none.
        if current is None or self._from is None or not self.region.contains(Region.from_bounds(*now[6:10])):
            return False
        return not ((current == now[0]) & (self._from != now[0])).any()

    def _turn_class_of_lost(self, lost: set[int]) -> None:
        """Bring the class back of nuclei that a model has hidden, for they may be seen again, or has found anew."""
        rows: dict[int, Row | None] = {}
        gone: list[tuple[Row, Row]] = []
        now = rows_of(self._database, NUCLEI, lost)
        for key in sorted(lost):
            wanted, left, row = self._wanted[NUCLEI][key], self._left[NUCLEI][key], now.get(key)
            if wanted is None or left is None:
                continue
            is_there = row is not None and row[1] == left[1] and row[4:11] == left[4:11]
            # A duplicate has given its class to the nucleus that is kept.
            if row is not None and is_there and (row[13] != State.DUPLICATE or row[11] == left[11] != 0):
                rows[key] = (*row[:11], *wanted[11:13], *row[13:])
            elif left[1] is not None and not left[14] and not wanted[14]:
                gone.append((left, wanted))
        heirs = turn_heirs(self._database, self._labels, gone)
        self.ids |= heirs.keys()
        put_rows(self._database, NUCLEI, {**heirs, **rows})

    def _restore_claims(self, lost: set[int], wanted: Mapping[int, Row | None]) -> None:
        """Give nuclei back what they claim; those that are gone, or whose id is another's by now, claim nothing.

        What models have made a nucleus claim meanwhile stays, as far as it still can, and if no person has it now.
        """
        claims: dict[int, Row | None] = {**rows_of(self._database, CLAIMS, wanted), **dict.fromkeys(self._won)}
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
        rejected = [row[0] for row in self._rejected()]
        if rejected:
            image[np.isin(image, np.array(rejected, np.uint32))] = 0
        self.image = image
        change = self._to != self._from
        return bool(lost) or not np.array_equal(image[change], self._to[change])

    def _measure_anew(self, rows: Mapping[int, Row | None]) -> None:
        """Bring rows to what the pixels say; a nucleus without any goes."""
        shown = {key: row for key, row in sorted(rows.items()) if row is not None and row[13] == 0}
        if self.image is None:
            put_rows(self._database, NUCLEI, measured_in_place(self._parts, shown))
        elif shown:
            whole = self._labels.read(self.frame)
            whole[self.region.translate(-self.frame.y, -self.frame.x).slices] = self.image
            put_rows(self._database, NUCLEI, measured_rows(self._parts, shown, whole, self.frame))

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


def _padded(pixels: Ids, inside: Region, region: Region) -> Ids:
    """Return pixels with background around them, so that they cover a larger region, of which they are `inside`."""
    if (inside.height, inside.width) == (region.height, region.width):
        return pixels
    padded = np.zeros((region.height, region.width), np.uint32)
    padded[inside.slices] = pixels
    return padded
