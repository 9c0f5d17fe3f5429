"""What an edit of pixels means for the tables: the rows and claims of the nuclei that it touches."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_nucleiseg.core.geometry import Region
from napari_nucleiseg.core.store.ledger import APPROVED, REJECTED, REPLACED, claim_row, claims_in
from napari_nucleiseg.core.store.merge import Claim, State, cropped
from napari_nucleiseg.core.store.nuclei import PERSON_ID_START
from napari_nucleiseg.core.store.packing import Row
from napari_nucleiseg.core.store.records import CLAIMS, NUCLEI, Records, put_rows, rows_of
from napari_nucleiseg.core.store.redo import Parts

FEW = 16

Ids = NDArray[np.uint32]
# Row, first column, length and owner, each ``(n,)``.
Runs = tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Attributes:
    """What is known of a nucleus besides its pixels; without a class a new one takes that of what it replaces."""

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
        places = np.flatnonzero(self._changed)
        both = (_without_repeats(image.ravel()[places]) for image in pixels)
        self.touched: list[int] = np.unique(np.concatenate(list(both))).tolist()
        if self.touched[0] == 0:
            self.touched.pop(0)
        self._rows = rows_of(database, NUCLEI, self.touched)
        bounds = np.array([(place.y, place.x, place.y1, place.x1), *(row[6:10] for row in self._rows.values())])
        self.frame = Region.enclosing(bounds)

    def records(self, person: str, attributes: Mapping[int, Attributes]) -> Records:
        """Bring the tables to what the pixels say and return what changed there."""
        old, new = self._images()
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
            box = Region.from_bounds(*row[6:10])
            inside = box.translate(-self.frame.y, -self.frame.x).slices
            mask = Claim(box, old[inside] == nucleus_id)
            onto = new[inside][mask.mask]
            taken = bool(np.count_nonzero(onto) * 2 > len(onto))
            rows[nucleus_id] = (*row[:2], person, *row[3:13], int(State.REJECTED), REPLACED if taken else REJECTED)
            claims[nucleus_id] = None if taken else cropped(mask.box, mask.mask)
        return self._put(rows, claims)

    def _images(self) -> tuple[Ids, Ids]:
        """Return the ids over the frame before and after."""
        if self.frame == self._place:
            return self._before, self._after
        old = self._labels.read(self.frame)
        new = old.copy()
        new[self._place.translate(-self.frame.y, -self.frame.x).slices] = self._after
        return old, new

    def _row(self, nucleus_id: int, row: Row | None, person: str, measures: Row, given: Attributes | None) -> Row:
        if row is not None:
            stated = row[11:13] if given is None or given.class_number is None else (given.class_number, given.score)
            return (*row[:2], person, *measures, *stated, int(State.SHOWN), APPROVED)
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
        there = image != 0
    ys, xs, lengths, found = runs_of(image, there)
    index = np.searchsorted(ids, found)
    if len(ids) > FEW:
        wanted = ids[np.minimum(index, len(ids) - 1)] == found
        ys, xs, lengths, index = ys[wanted], xs[wanted], lengths[wanted], index[wanted]
    return measure_runs((ys, xs, lengths, index), len(ids), frame)


def measure_runs(runs: Runs, n: int, frame: Region) -> Measured:
    """Measure nuclei of runs of pixels inside `frame`, whose owners are 0 to n - 1."""
    ys, xs, lengths, index = runs
    areas = np.bincount(index, lengths, n).astype(np.int64)
    middles = xs + (lengths - 1) / 2
    sums = np.bincount(index, ys * lengths, n), np.bincount(index, middles * lengths, n)
    boxes = np.zeros((n, 4), np.int64)
    boxes[:, :2] = np.iinfo(np.int64).max
    for column, low, high in ((0, ys, ys + 1), (1, xs, xs + lengths)):
        np.minimum.at(boxes[:, column], index, low)
        np.maximum.at(boxes[:, column + 2], index, high)
    boxes[areas == 0] = 0
    centroids = np.stack(sums, axis=1) / np.maximum(areas, 1)[:, None]
    origin = np.array([frame.y, frame.x])
    return Measured(areas, centroids + origin, boxes + np.tile(origin, 2))


def measured_rows(parts: Parts, rows: Mapping[int, Row], image: Ids, frame: Region) -> dict[int, Row | None]:
    """Return rows, by ascending id, with the geometry that ids over a frame say; None for those without a pixel."""
    measured = measure(image, np.array(list(rows), np.uint32), frame)
    cells = parts.census.cells(measured.centroids).tolist()
    um2 = parts.labels.mpp_um.y * parts.labels.mpp_um.x
    found: dict[int, Row | None] = {}
    for index, (key, row) in enumerate(rows.items()):
        place = (cells[index], *measured.centroids[index].tolist(), *measured.boxes[index].tolist())
        area = int(measured.areas[index])
        found[key] = (*row[:3], *place, area * um2, *row[11:]) if area else None
    return found


def measured_in_place(parts: Parts, rows: Mapping[int, Row]) -> dict[int, Row | None]:
    """Like `measured_rows` of what the image shows, each row in its own box: for few that may lie far apart."""
    found: dict[int, Row | None] = {}
    for key, row in rows.items():
        box = Region.from_bounds(*row[6:10])
        found.update(measured_rows(parts, {key: row}, parts.labels.read(box), box))
    return found


def runs_of(image: Ids, there: NDArray[np.bool_]) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any], Ids]:
    """Return row, first column, length and id of the runs of equal pixels along rows where `there` says so."""
    flat = np.flatnonzero(there)
    values = image.ravel()[flat]
    width = image.shape[1]
    new = np.ones(len(flat), bool)
    new[1:] = (flat[1:] != flat[:-1] + 1) | (values[1:] != values[:-1])
    # What goes on in the next row is another run.
    new |= flat % width == 0
    starts = np.flatnonzero(new)
    ys, xs = np.divmod(flat[starts], width)
    return ys, xs, np.diff(np.append(starts, len(flat))), values[starts]


def _without_repeats(values: Ids) -> Ids:
    """Drop values that equal the one before: neighbours mostly do."""
    kept = np.ones(len(values), bool)
    kept[1:] = values[1:] != values[:-1]
    return values[kept]
