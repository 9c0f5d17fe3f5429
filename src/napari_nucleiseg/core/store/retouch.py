"""What an edit of pixels means for the tables: the rows and claims of the nuclei that it touches."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_nucleiseg.core.geometry import Region
from napari_nucleiseg.core.store.ledger import APPROVED, REJECTED, REPLACED, claim_row, claims_in
from napari_nucleiseg.core.store.merge import Claim, State, cropped
from napari_nucleiseg.core.store.nuclei import PERSON_ID_START
from napari_nucleiseg.core.store.records import CLAIMS, NUCLEI, Records, Row, put_rows, rows_of
from napari_nucleiseg.core.store.redo import Parts

FEW = 16

Ids = NDArray[np.uint32]


@dataclass(frozen=True, slots=True)
class Attributes:
    """What is known of a new nucleus besides its pixels; None takes the class of what it replaces."""

    class_number: int | None = None
    score: float = 1.0
    approved: bool = True


class Retouch:
    """One change of pixels.

    Parameters
    ----------
    database : sqlite3.Connection
        Inside a transaction.
    parts : Parts
        Of the project.
    place : Region
        Where pixels change, level-0 pixels.
    pixels : tuple of ndarray of uint32, shape (y, x)
        Ids over `place` before and after.

    Attributes
    ----------
    touched : list of int
        The nuclei that win or lose pixels, ascending.
    frame : Region
        Contains all of them.
    """

    def __init__(self, database: sqlite3.Connection, parts: Parts, place: Region, pixels: tuple[Ids, Ids]) -> None:
        self._database, self._labels, self._census = database, parts.labels, parts.census
        self._place = place
        self._before, self._after = before, after = pixels
        self._changed = before != after
        self.touched: list[int] = np.union1d(before[self._changed], after[self._changed]).tolist()
        if self.touched[0] == 0:
            self.touched.pop(0)
        self._rows = rows_of(database, NUCLEI, self.touched)
        bounds = np.array([(place.y, place.x, place.y1, place.x1), *(row[6:10] for row in self._rows.values())])
        self.frame = Region.from_bounds(*bounds[:, :2].min(0).tolist(), *bounds[:, 2:].max(0).tolist())

    def records(self, person: str, attributes: Mapping[int, Attributes]) -> Records:
        """Bring the tables to what the pixels say and return what changed there."""
        old = self._labels.read(self.frame)
        new = old.copy()
        new[self._place.translate(-self.frame.y, -self.frame.x).slices] = self._after
        um2 = self._labels.mpp_um.y * self._labels.mpp_um.x
        measured = measure(new, np.array(self.touched, np.uint32), self.frame)
        cells = self._census.cells(measured.centroids).tolist()
        rows: dict[int, Row] = {}
        vanished = []
        for index, nucleus_id in enumerate(self.touched):
            row = self._rows.get(nucleus_id)
            if measured.areas[index]:
                place = (cells[index], *measured.centroids[index].tolist(), *measured.boxes[index].tolist())
                area = float(measured.areas[index] * um2)
                rows[nucleus_id] = self._row(nucleus_id, row, person, (*place, area), attributes.get(nucleus_id))
            elif row is not None and row[1] is not None:
                vanished.append(nucleus_id)
        claims = self._claims()
        for nucleus_id in vanished:
            row = self._rows[nucleus_id]
            mask = Claim(self.frame, old == nucleus_id)
            onto = new[mask.mask]
            taken = bool(np.count_nonzero(onto) * 2 > len(onto))
            rows[nucleus_id] = (*row[:2], person, *row[3:13], int(State.REJECTED), REPLACED if taken else REJECTED)
            claims[nucleus_id] = None if taken else cropped(mask.box, mask.mask)
        return self._put(rows, claims)

    def _row(self, nucleus_id: int, row: Row | None, person: str, measures: Row, given: Attributes | None) -> Row:
        if row is not None:
            return (*row[:2], person, *measures, *row[11:13], int(State.SHOWN), APPROVED)
        given = given or Attributes()
        number = self._replaced_class(nucleus_id) if given.class_number is None else given.class_number
        # Without approval a person's nucleus is as safe: its id says whose it is.
        review = APPROVED if given.approved or nucleus_id < PERSON_ID_START else 0
        return (nucleus_id, None, person, *measures, number, given.score, int(State.SHOWN), review)

    def _replaced_class(self, nucleus_id: int) -> int:
        """Return the class of the nucleus that most pixels of a new one belonged to."""
        former = self._before[self._changed & (self._after == nucleus_id)]
        ids, counts = np.unique(former, return_counts=True)
        row = self._rows.get(int(ids[counts.argmax()])) if len(ids) else None
        return 0 if row is None else int(row[11])

    def _claims(self) -> dict[int, Claim | None]:
        """Return the claims that change: what a person touched claims no more than it shows, nor others there."""
        found: dict[int, Claim | None] = {}
        for nucleus_id, claim in claims_in(self._database, self._place).items():
            common = claim.box.intersect(self._place)
            inside = common.translate(-claim.box.y, -claim.box.x).slices
            mask = claim.mask.copy()
            mask[inside] &= ~self._changed[common.translate(-self._place.y, -self._place.x).slices]
            if not np.array_equal(mask, claim.mask):
                found[nucleus_id] = cropped(claim.box, mask)
        own = rows_of(self._database, CLAIMS, self.touched)
        found.update(dict.fromkeys(own))
        return found

    def _put(self, rows: Mapping[int, Row], claims: Mapping[int, Claim | None]) -> Records:
        records = Records()
        gone = [key for key in self.touched if key not in rows]
        records.note(NUCLEI, self._rows, {**rows, **dict.fromkeys(gone)})
        after = {key: None if claim is None else claim_row(key, claim) for key, claim in claims.items()}
        records.note(CLAIMS, rows_of(self._database, CLAIMS, claims), after)
        for table, changed in records.after.items():
            put_rows(self._database, table, changed)
        return records


@dataclass(frozen=True, slots=True, eq=False)
class Measured:
    """Areas in pixels ``(n,)``, centroids ``(n, 2)`` and boxes ``(n, 4)`` in level-0 pixels of some ids."""

    areas: NDArray[np.int64]
    centroids: NDArray[np.float64]
    boxes: NDArray[np.int64]


def measure(image: Ids, ids: Ids, frame: Region) -> Measured:
    """Measure some ids (ascending) of an image over `frame`; those that are not there have area 0."""
    if len(ids) <= FEW:
        there = np.zeros(image.shape, bool)
        for nucleus_id in ids:
            there |= image == nucleus_id
    else:
        there = np.isin(image, ids)
    flat = np.flatnonzero(there)
    index = np.searchsorted(ids, image.ravel()[flat])
    ys, xs = np.divmod(flat, image.shape[1])
    n = len(ids)
    areas = np.bincount(index, minlength=n)
    sums = np.bincount(index, ys, n), np.bincount(index, xs, n)
    boxes = np.zeros((n, 4), np.int64)
    boxes[:, :2] = np.iinfo(np.int64).max
    for column, values in ((0, ys), (1, xs)):
        np.minimum.at(boxes[:, column], index, values)
        np.maximum.at(boxes[:, column + 2], index, values + 1)
    boxes[areas == 0] = 0
    centroids = np.stack(sums, axis=1) / np.maximum(areas, 1)[:, None]
    origin = np.array([frame.y, frame.x])
    return Measured(areas, centroids + origin, boxes + np.tile(origin, 2))
