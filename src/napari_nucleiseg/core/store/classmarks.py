"""Classes of a model's nuclei outlive the nuclei: what another run finds at the same place takes them over."""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Collection, Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from napari_nucleiseg.core.geometry import Region
from napari_nucleiseg.core.store.labels import LabelStore
from napari_nucleiseg.core.store.ledger import rows_by_id
from napari_nucleiseg.core.store.nuclei import TileNuclei
from napari_nucleiseg.core.store.packing import Row
from napari_nucleiseg.core.store.records import MARKS, NUCLEI, rows_of
from napari_nucleiseg.core.store.schema import CLASS_MARKS

# Of the boxes of two nuclei so much is shared if one was found where the other was.
_ALIKE = 0.3


def leave_marks(database: sqlite3.Connection, labels: LabelStore, leaving: Collection[int]) -> None:
    """Note the classes of nuclei that are about to go from table and image, inside the caller's transaction."""
    for statement in CLASS_MARKS:
        database.execute(statement)
    # Of an index the last entry is found at once.
    highest = "SELECT max(class) FROM nuclei WHERE class != 0", "SELECT max(mark) FROM left_classes"
    if not leaving or not any(database.execute(query).fetchone()[0] for query in highest):
        return
    known = {row[0] for row in database.execute("SELECT class FROM classes")}
    rows = list(rows_by_id(database, "class, run, y, x, y0, x0, y1, x1", leaving))
    # A person took it away, or what had it was another with this number.
    bare = [(row[0],) for row in rows if row[1] not in known]
    database.executemany("DELETE FROM left_classes WHERE nucleus = ?", bare)
    classed = [row for row in rows if row[1] in known and row[2] is not None]
    if not classed:
        return
    frame = Region.enclosing(np.array([row[5:] for row in classed]))
    image = labels.read(frame)
    for nucleus, number, run, y, x, *bounds in classed:
        box = Region.from_bounds(*bounds)
        mark = database.execute(
            "SELECT mark FROM left_classes WHERE nucleus = ? AND y >= ? AND y < ? AND x >= ? AND x < ?",
            (nucleus, box.y, box.y1, box.x, box.x1),
        ).fetchone()
        if mark is not None:
            change = "UPDATE left_classes SET class = ?, nucleus = NULL, was = ?, run = ? WHERE mark = ?"
            database.execute(change, (number, nucleus, run, mark[0]))
        else:
            seen = np.argwhere(image[box.translate(-frame.y, -frame.x).slices] == nucleus)
            # The centroid of a bent nucleus lies beside it.
            away = np.square(seen - (y - box.y, x - box.x)).sum(axis=1)
            row, column = seen[away.argmin()] + (box.y, box.x) if len(seen) else _pixel(y, x)
            _add(database, (int(row), int(column)), number, (nucleus, run))


def give_up_classes(database: sqlite3.Connection, labels: LabelStore, duplicates: Collection[int]) -> None:
    """Note the classes of nuclei that another of their run has just been found to be, for that one to take over.

    For before the image changes, inside the caller's transaction: a place is noted where they were seen. What they have
    taken over themselves is noted already.
    """
    has = "SELECT 1 FROM left_classes WHERE nucleus = ?"
    own = [nucleus for nucleus in duplicates if database.execute(has, (nucleus,)).fetchone() is None]
    if own:
        leave_marks(database, labels, own)
        # They bear them until one takes over.
        borne = "WHERE was = ? AND nucleus IS NULL AND run = (SELECT run FROM nuclei WHERE id = was)"
        database.executemany(f"UPDATE left_classes SET nucleus = was {borne}", [(one,) for one in own])  # noqa: S608


def take_over(
    database: sqlite3.Connection,
    labels: LabelStore,
    nuclei: TileNuclei,
    ids: NDArray[np.uint32],
    hidden: Iterable[int],
) -> None:
    """Give new nuclei of a tile, but for those that are not seen, the classes that were left where they are now.

    Of several that were left in one nucleus it takes the one nearest to its centroid; the others go on waiting. Of
    several nuclei at one place, as where those of two tiles overlap, the one has it whose centroid is nearest; one that
    loses it to another takes what else was left in it.
    """
    box, unseen = nuclei.box, set(hidden)
    found: dict[int, tuple[float, int, int, int]] = {}
    rows = database.execute(
        "SELECT mark, y, x, class, nucleus FROM left_classes JOIN classes USING (class) "
        "WHERE y >= ? AND y < ? AND x >= ? AND x < ?",
        (box.y, box.y1, box.x, box.x1),
    )
    for mark, y, x, number, former in rows.fetchall():
        place = int(nuclei.labels[y - box.y, x - box.x]) - 1
        if place < 0 or int(ids[place]) in unseen:
            continue
        away = math.dist(nuclei.centroids[place], (y, x))
        bearer = _bearer(database, former, y, x)
        if bearer is None or _gives_way(bearer, (y, x, number), away):
            offer = away, mark, number, 0 if bearer is None else bearer[0]
            found[place] = min(found.get(place, offer), offer)
    for place, (_, mark, number, former) in found.items():
        nucleus = int(ids[place])
        database.execute("UPDATE nuclei SET class = 0 WHERE id = ?", (former,))
        database.execute("UPDATE nuclei SET class = ? WHERE id = ?", (number, nucleus))
        database.execute("UPDATE left_classes SET nucleus = ? WHERE mark = ?", (nucleus, mark))
    for former in {offer[3] for offer in found.values()} - {0}:
        _take_what_waits(database, labels, former)


def _take_what_waits(database: sqlite3.Connection, labels: LabelStore, nucleus: int) -> None:
    """Give a nucleus of the image, which has no class, the one that waits in it nearest to its centroid."""
    row = rows_of(database, NUCLEI, [nucleus])[nucleus]
    waiting = database.execute(
        "SELECT mark, y, x, class FROM left_classes JOIN classes USING (class) "
        "WHERE nucleus IS NULL AND y >= ? AND y < ? AND x >= ? AND x < ?",
        (row[6], row[8], row[7], row[9]),
    )
    inside = [one for one in waiting if int(labels.read(Region(one[1], one[2], 1, 1))[0, 0]) == nucleus]
    if inside:
        mark, _, _, number = min(inside, key=lambda one: math.dist(row[4:6], one[1:3]))
        database.execute("UPDATE nuclei SET class = ? WHERE id = ?", (number, nucleus))
        database.execute("UPDATE left_classes SET nucleus = ? WHERE mark = ?", (nucleus, mark))


def _bearer(database: sqlite3.Connection, nucleus: int | None, y: int, x: int) -> Row | None:
    """Return the row of the nucleus that took over what was left at a place; None if it is gone."""
    row = rows_of(database, NUCLEI, [nucleus]).get(nucleus) if nucleus else None
    # Another one may have its number by now.
    return row if row is not None and row[6] <= y < row[8] and row[7] <= x < row[9] else None


def _gives_way(bearer: Row, mark: tuple[int, int, int], away: float) -> bool:
    """Whether a nucleus that took a class over gives it to one whose centroid is `away` pixels from the mark."""
    return _has_taken(bearer, mark[2]) and (bearer[13] != 0 or away < math.dist(bearer[4:6], mark[:2]))


def _has_taken(row: Row, number: int) -> bool:
    """Whether a nucleus is its model's and has a class as it was left."""
    return row[1] is not None and not row[14] and bool(row[11] == number)


def take_back(database: sqlite3.Connection, marks: Mapping[int, Row | None]) -> set[int]:
    """Take the class from nuclei that have taken over one that is about to be forgotten (None); return their ids."""
    taken = set()
    for _, y, x, number, nucleus, *_ in rows_of(
        database, MARKS, [key for key, row in marks.items() if row is None]
    ).values():
        bearer = _bearer(database, nucleus, y, x)
        if bearer is not None and _has_taken(bearer, number):
            database.execute("UPDATE nuclei SET class = 0 WHERE id = ?", (bearer[0],))
            taken.add(int(bearer[0]))
    return taken


def waiting_marks(database: sqlite3.Connection, number: int) -> list[int]:
    """Return what was left of a class and nobody has taken over, as keys of the table."""
    if not database.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (MARKS,)).fetchone():
        return []
    waiting = "SELECT mark FROM left_classes WHERE class = ? AND nucleus IS NULL"
    return [row[0] for row in database.execute(waiting, (number,))]


def turn_heirs(
    database: sqlite3.Connection, labels: LabelStore, turns: Iterable[tuple[Row, Row]]
) -> Mapping[int, Row | None]:
    """Turn a class where the nucleus that had it is gone: that of what a model has found there since.

    Parameters
    ----------
    database : sqlite3.Connection
        Inside a transaction.
    labels : LabelStore
        The image.
    turns : iterable of (Row, Row)
        Rows of nuclei that are gone: as they were left, and as they should become.

    Returns
    -------
    mapping of int to Row
        Rows of the nuclei table that change; the caller puts them.
    """
    for statement in CLASS_MARKS:
        database.execute(statement)
    changed: dict[int, Row | None] = {}
    for left, wanted in turns:
        if left[11] == wanted[11]:
            continue
        mark = database.execute(
            "SELECT mark, y, x, nucleus FROM left_classes WHERE was = ? AND run = ? AND class = ?",
            (left[0], left[1], left[11]),
        ).fetchone()
        if mark is not None:
            # Not deleted where it has none any more: that may be done again.
            database.execute("UPDATE left_classes SET class = ? WHERE mark = ?", (wanted[11], mark[0]))
            heir = _bearer(database, mark[3], mark[1], mark[2])
        else:
            y, x = _pixel(left[4], left[5])
            under = int(labels.read(Region(y, x, 1, 1))[0, 0])
            heir = rows_of(database, NUCLEI, [under]).get(under) if under else None
            if heir is None and not left[11]:
                _add(database, (y, x), wanted[11], (left[0], left[1]))
            elif heir is not None and not _are_alike(heir, left):
                continue
        if heir is not None and _has_taken(heir, left[11]):
            changed[heir[0]] = (*heir[:11], wanted[11], *heir[12:])
    return changed


def _pixel(y: float, x: float) -> tuple[int, int]:
    """Return the pixel of a centroid; pixel 0 has its centre at 0."""
    return int(y + 0.5), int(x + 0.5)


def _are_alike(one: Row, other: Row) -> bool:
    """Whether two nuclei lie at the same place: what their boxes share is much of what they cover."""
    first, second = (Region.from_bounds(*row[6:10]) for row in (one, other))
    shared = first.intersect(second).area
    return shared >= _ALIKE * (first.area + second.area - shared)


def _add(database: sqlite3.Connection, place: tuple[int, int], number: int, was: tuple[int, int]) -> None:
    """Note a class that the nucleus with an id, of a run, has left at a place."""
    database.execute("INSERT INTO left_classes(y, x, class, was, run) VALUES (?, ?, ?, ?, ?)", (*place, number, *was))
