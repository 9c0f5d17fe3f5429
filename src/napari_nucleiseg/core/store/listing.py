"""The nuclei of a slide as a list: which of them, in which order, and what is known of each; for a million and more."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from napari_nucleiseg.core.geometry import YX, Region
from napari_nucleiseg.core.store.census import Census
from napari_nucleiseg.core.store.ledger import APPROVED, REJECTED
from napari_nucleiseg.core.store.merge import State

SHOWN, OPEN, DONE, GONE = "shown", "open", "approved", "rejected"
NO_ORIGIN = ""
# Text is turned into numbers in parts, so that other threads get their turn.
_PARSED_AT_ONCE = 1 << 20
_COLUMNS = "id, class, area_um2, score, run, person, state, review, y, x, y0, x0, y1, x1"
_STATUS = {
    SHOWN: f"state = {int(State.SHOWN)}",
    OPEN: f"state = {int(State.SHOWN)} AND review != {APPROVED}",
    DONE: f"state = {int(State.SHOWN)} AND review = {APPROVED}",
    GONE: f"state = {int(State.REJECTED)} AND review = {REJECTED}",
}
# Whole numbers, which sqlite writes and numpy reads many times faster than others.
_KEYS = {
    "id": "id",
    "class": "class",
    "area": "CAST(area_um2 * 1000 AS INTEGER)",
    "score": "CAST(score * 1000000 AS INTEGER)",
    "approved": f"review = {APPROVED}",
    "y": "CAST(y * 1000 AS INTEGER)",
    "x": "CAST(x * 1000 AS INTEGER)",
}
ORDERS = (*_KEYS, "origin")

Ids = NDArray[np.uint32]
Value = int | float | str


@dataclass(frozen=True, slots=True)
class Query:
    """Which nuclei, and in which order.

    Parameters
    ----------
    order : str
        One of `ORDERS`; equal ones come ascending by id.
    descending : bool
        Whether the largest comes first.
    status : str
        ``shown`` (all that are in the image), ``open`` (shown and not approved), ``approved`` or ``rejected``.
    class_number : int or None
        Only this class, 0 being those without one; None is any.
    origin : str
        Only nuclei of this model version or person; empty is any.
    least_um2, most_um2 : float or None
        Only nuclei of an area in this range, square micrometres, both ends included.
    region : Region or None
        Only nuclei whose centroid lies here, level-0 pixels.
    """

    order: str = "id"
    descending: bool = False
    status: str = SHOWN
    class_number: int | None = None
    origin: str = NO_ORIGIN
    least_um2: float | None = None
    most_um2: float | None = None
    region: Region | None = None


@dataclass(frozen=True, slots=True)
class Entry:
    """What is known of one nucleus.

    Parameters
    ----------
    id : int
        As in the label image.
    class_number : int
        0 is "no class".
    area_um2 : float
        Square micrometres.
    score : float or None
        0..1, the model's; None for what a person has drawn.
    origin : str
        Model version, or the person who drew or changed it.
    status : str
        ``open``, ``approved`` or ``rejected``.
    centroid : YX
        Level-0 pixels.
    box : Region
        Level-0 pixels.
    """

    id: int
    class_number: int
    area_um2: float
    score: float | None
    origin: str
    status: str
    centroid: YX
    box: Region


@dataclass(frozen=True, slots=True, eq=False)
class Listing:
    """The ids that a query found, in its order; 4 bytes a nucleus.

    Parameters
    ----------
    query : Query
        What was asked.
    ids : ndarray of uint32, shape (n,)
        In the query's order.
    origins : tuple of str
        Model versions and persons that nuclei of the slide may come from, in this order.
    """

    query: Query = field(default_factory=Query)
    ids: Ids = field(default_factory=lambda: np.zeros(0, np.uint32))
    origins: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.ids)

    def row_of(self, nucleus_id: int) -> int | None:
        """Return the row of a nucleus; None if it is not in the list."""
        found = np.flatnonzero(self.ids == nucleus_id)
        return int(found[0]) if len(found) else None

    def rows_of(self, ids: Collection[int]) -> NDArray[np.int64]:
        """Return the rows of nuclei, ascending; those that are not in the list are left out."""
        return np.flatnonzero(np.isin(self.ids, np.fromiter(ids, np.int64, len(ids))))


def list_nuclei(database: sqlite3.Connection, census: Census, query: Query) -> Listing:
    """Find the nuclei of a query; for any thread but the window's: a million take a quarter of a second.

    Parameters
    ----------
    database : sqlite3.Connection
        The calling thread's own.
    census : Census
        Knows in which cells a region lies.
    query : Query
        What is asked.
    """
    runs = dict(database.execute("SELECT run, model_version FROM runs ORDER BY run"))
    persons = [row[0] for row in database.execute("SELECT DISTINCT person FROM nuclei WHERE person IS NOT NULL")]
    key, given = _KEYS.get(query.order, ""), ()
    if query.order == "origin":
        # Sorted afterwards by name: persons count up, runs down.
        cases = "".join(f"WHEN ? THEN {number} " for number in range(len(persons)))
        key, given = f"CASE person {cases}ELSE -1 - ifnull(run, 0) END" if cases else "-1 - ifnull(run, 0)", (*persons,)
    conditions, values = _conditions(query)
    parts = []
    for where, bounds in _places(census, query.region):
        condition = " AND ".join([*conditions, *where])
        parts.append(
            database.execute(
                f"SELECT group_concat(id), group_concat({key}) FROM nuclei WHERE {condition}",  # noqa: S608
                (*given, *values, *bounds),
            ).fetchone()
        )
    ids = np.concatenate([np.zeros(0, np.int64), *(_numbers(part[0]) for part in parts)])
    keys = np.concatenate([np.zeros(0, np.int64), *(_numbers(part[1]) for part in parts)])
    if query.order == "origin":
        keys = _ranks(keys, {**dict(enumerate(persons)), **{-1 - run: name for run, name in runs.items()}})
    order = np.lexsort((ids, -keys if query.descending else keys))
    origins = (*dict.fromkeys(runs.values()), *sorted(persons, key=str.casefold))
    return Listing(query, ids[order].astype(np.uint32), origins)


def entries_of(database: sqlite3.Connection, ids: Collection[int]) -> dict[int, Entry]:
    """Return what is known of nuclei, by id; ids without a nucleus are left out."""
    runs = dict(database.execute("SELECT run, model_version FROM runs"))
    found = {}
    every = [int(nucleus_id) for nucleus_id in ids]
    for start in range(0, len(every), 500):
        part = every[start : start + 500]
        marks = ",".join("?" * len(part))
        for row in database.execute(f"SELECT {_COLUMNS} FROM nuclei WHERE id IN ({marks})", part):  # noqa: S608
            found[row[0]] = _entry(row, runs)
    return found


def _entry(row: tuple[Value, ...], runs: Mapping[int, str]) -> Entry:
    nucleus_id, number, area_um2, score, run, person, state, review, y, x, *box = row
    status = GONE if state == State.REJECTED else DONE if review == APPROVED else OPEN
    return Entry(
        id=int(nucleus_id),
        class_number=int(number),
        area_um2=float(area_um2),
        score=None if run is None else float(score),
        origin=str(person) if person is not None else runs.get(int(run), NO_ORIGIN) if run is not None else NO_ORIGIN,
        status=status,
        centroid=YX(float(y), float(x)),
        box=Region.from_bounds(*(int(bound) for bound in box)),
    )


def _conditions(query: Query) -> tuple[list[str], list[Value]]:
    conditions, values = [_STATUS[query.status]], []
    wanted: list[tuple[str, Value | None]] = [
        ("class = ?", query.class_number),
        ("area_um2 >= ?", query.least_um2),
        ("area_um2 <= ?", query.most_um2),
    ]
    for condition, value in wanted:
        if value is not None:
            conditions.append(condition)
            values.append(value)
    if query.origin:
        conditions.append(
            "(person = ? OR person IS NULL AND run IN (SELECT run FROM runs WHERE model_version = ?))",
        )
        values += [query.origin, query.origin]
    return conditions, values


def _places(census: Census, region: Region | None) -> Iterator[tuple[list[str], tuple[int, ...]]]:
    """Yield conditions that together hold for what lies in a region, each of one run of cells of the index."""
    if region is None:
        yield [], ()
        return
    bounds = region.y, region.y1, region.x, region.x1
    for first, last in census.spans(region):
        yield ["cell BETWEEN ? AND ?", "y >= ? AND y < ?", "x >= ? AND x < ?"], (first, last, *bounds)


def _ranks(codes: NDArray[np.int64], names: Mapping[int, str]) -> NDArray[np.int64]:
    """Replace codes by the place of their name among all names."""
    places = {name: place for place, name in enumerate(sorted(set(names.values()), key=str.casefold))}
    known, index = np.unique(codes, return_inverse=True)
    return np.array([places.get(names.get(int(code), ""), -1) for code in known], np.int64)[index]


def _numbers(text: str | None) -> NDArray[np.int64]:
    """Return numbers separated by commas."""
    parts = []
    start = 0
    while text and start < len(text):
        stop = text.find(",", start + _PARSED_AT_ONCE)
        stop = len(text) if stop < 0 else stop
        parts.append(np.fromstring(text[start:stop], np.int64, sep=","))
        start = stop + 1
    return np.concatenate([np.zeros(0, np.int64), *parts])
