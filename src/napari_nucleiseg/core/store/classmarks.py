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

_INSIDE = "nucleus IS NULL AND y >= ? AND y < ? AND x >= ? AND x < ?"


def leave_marks(database: sqlite3.Connection, labels: LabelStore, leaving: Collection[int]) -> None:
    """Note the classes of nuclei that are about to go from table and image, inside the caller's transaction."""
    for statement in CLASS_MARKS:
        database.execute(statement)
    # Of an index the last entry is found at once.
    highest = "SELECT max(class) FROM nuclei WHERE class != 0", "SELECT max(mark) FROM class_marks"
    if not leaving or not any(database.execute(query).fetchone()[0] for query in highest):
        return
    rows = list(rows_by_id(database, "class, y, x, y0, x0, y1, x1", leaving))
    # A person took it away, or what had it was another with this number.
    database.executemany("DELETE FROM class_marks WHERE nucleus = ?", [(row[0],) for row in rows if not row[1]])
    classed = [row for row in rows if row[1]]
    if not classed:
        return
    frame = Region.enclosing(np.array([row[4:] for row in classed]))
    image = labels.read(frame)
    for nucleus, number, y, x, *bounds in classed:
        box = Region.from_bounds(*bounds)
        mark = database.execute(
            "SELECT mark FROM class_marks WHERE nucleus = ? AND y >= ? AND y < ? AND x >= ? AND x < ?",
            (nucleus, box.y, box.y1, box.x, box.x1),
        ).fetchone()
        if mark is not None:
            database.execute("UPDATE class_marks SET class = ?, nucleus = NULL WHERE mark = ?", (number, mark[0]))
        else:
            seen = np.argwhere(image[box.translate(-frame.y, -frame.x).slices] == nucleus)
            # The centroid of a bent nucleus lies beside it.
            away = np.square(seen - (y - box.y, x - box.x)).sum(axis=1)
            row, column = seen[away.argmin()] + (box.y, box.x) if len(seen) else _pixel(y, x)
            _add(database, (int(row), int(column)), number)


def take_over(database: sqlite3.Connection, nuclei: TileNuclei, ids: NDArray[np.uint32], hidden: Iterable[int]) -> None:
    """Give new nuclei of a tile, but for those that are not seen, the classes that were left where they are now.

    Of several that were left in one nucleus it takes the one nearest to its centroid; the others go on waiting. Of
    several nuclei at one place, as where those of two tiles overlap, the one has it whose centroid is nearest.
    """
    box, unseen = nuclei.box, set(hidden)
    found: dict[int, tuple[float, int, int, int]] = {}
    rows = database.execute(
        "SELECT mark, y, x, class, nucleus FROM class_marks WHERE y >= ? AND y < ? AND x >= ? AND x < ?",
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
        database.execute("UPDATE class_marks SET nucleus = ? WHERE mark = ?", (nucleus, mark))


def _bearer(database: sqlite3.Connection, nucleus: int | None, y: int, x: int) -> Row | None:
    """Return the row of the nucleus that took over what was left at a place; None if it is gone."""
    row = rows_of(database, NUCLEI, [nucleus]).get(nucleus) if nucleus else None
    # Another one may have its number by now.
    return row if row is not None and row[6] <= y < row[8] and row[7] <= x < row[9] else None


def _gives_way(bearer: Row, mark: tuple[int, int, int], away: float) -> bool:
    """Whether a nucleus that took a class over gives it to one whose centroid is `away` pixels from the mark."""
    is_untouched = bearer[1] is not None and not bearer[14] and bearer[11] == mark[2]
    return is_untouched and (bearer[13] != 0 or away < math.dist(bearer[4:6], mark[:2]))


def waiting_marks(database: sqlite3.Connection, number: int) -> list[int]:
    """Return what was left of a class and nobody has taken over, as keys of the table."""
    if not database.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (MARKS,)).fetchone():
        return []
    waiting = "SELECT mark FROM class_marks WHERE class = ? AND nucleus IS NULL"
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
        y, x = _pixel(left[4], left[5])
        under = int(labels.read(Region(y, x, 1, 1))[0, 0])
        heir = rows_of(database, NUCLEI, [under]).get(under) if under else None
        y0, x0, y1, x1 = left[6:10]
        waiting = (y0, y1, x0, x1, left[11])
        if heir is not None and heir[1] is not None and not heir[14] and heir[11] == left[11]:
            changed[under] = (*heir[:11], wanted[11], *heir[12:])
        if wanted[11]:
            database.execute(f"UPDATE class_marks SET class = ? WHERE {_INSIDE} AND class = ?", (wanted[11], *waiting))  # noqa: S608
            if heir is None and not left[11]:
                _add(database, (y, x), wanted[11])
        else:
            database.execute(f"DELETE FROM class_marks WHERE {_INSIDE} AND class = ?", waiting)  # noqa: S608
    return changed


def _pixel(y: float, x: float) -> tuple[int, int]:
    """Return the pixel of a centroid; pixel 0 has its centre at 0."""
    return int(y + 0.5), int(x + 0.5)


def _add(database: sqlite3.Connection, place: tuple[int, int], number: int) -> None:
    database.execute("INSERT INTO class_marks(y, x, class) VALUES (?, ?, ?)", (*place, number))
