"""The list of edits in the database: what was changed, where, when and by whom; undone ones come last."""

from __future__ import annotations

import sqlite3
import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_nucleiseg.core.geometry import Region
from napari_nucleiseg.core.store.pixels import decode_pixels
from napari_nucleiseg.core.store.records import Records


@dataclass(frozen=True, slots=True)
class Step:
    """One entry of the history; it may consist of several edits, which are undone together.

    Parameters
    ----------
    number : int
        Place in the history, ascending, not without gaps.
    kind : str
        What was done: ``paint``, ``erase``, ``delete``, ``merge``, ...
    person : str
        By whom.
    at : float
        When it began, seconds since 1970.
    region : Region or None
        Where pixels or nuclei changed, level-0 pixels; None if it has no place.
    nuclei : int
        How many nuclei changed.
    undone : bool
        Whether it is undone (wholly).
    """

    number: int
    kind: str
    person: str
    at: float
    region: Region | None
    nuclei: int
    undone: bool


@dataclass(frozen=True, slots=True, eq=False)
class Edit:
    """One edit as the journal holds it; `before` and `after` are ids over `region`, None if no pixel changed."""

    number: int
    region: Region
    before: NDArray[np.uint32] | None
    after: NDArray[np.uint32] | None
    records: Records


@dataclass(frozen=True, slots=True)
class Heading:
    """What the journal says of an edit besides its content; `step` is None for a step of its own."""

    kind: str
    person: str
    step: int | None = None


def put_edit(
    database: sqlite3.Connection,
    heading: Heading,
    region: Region,
    records: Records,
    *,
    nuclei: int = 0,
    pixels: tuple[bytes, bytes] | None = None,
) -> int:
    """Add an edit as the last that is done, forget those that are undone, and return the number of its step.

    `pixels` are those before and after, as `pixels` encodes them.
    """
    database.execute("DELETE FROM edits WHERE undone = 1")
    before, after = pixels or (None, None)
    box = region.y, region.x, region.y1, region.x1
    # Asked for beforehand: to note the step afterwards would write the pixels twice.
    last = database.execute("SELECT seq FROM sqlite_sequence WHERE name = 'edits'").fetchone()
    number = 1 if last is None else int(last[0]) + 1
    step = number if heading.step is None else heading.step
    database.execute(
        "INSERT INTO edits(edit, step, kind, person, at, undone, nuclei, y0, x0, y1, x1, before, after, records) "
        "VALUES (?, ?, ?, ?, ?, 0, ?, ?, ?, ?, ?, ?, ?, ?)",
        (number, step, heading.kind, heading.person, time.time(), nuclei, *box, before, after, records.encoded()),
    )
    return step


def next_turn(database: sqlite3.Connection, *, back: bool) -> tuple[int, int] | None:
    """Return edit and step that undo (`back`) or redo turns next; None if there is none."""
    order, undone = ("DESC", 0) if back else ("ASC", 1)
    found: tuple[int, int] | None = database.execute(
        f"SELECT edit, step FROM edits WHERE undone = ? ORDER BY edit {order} LIMIT 1",  # noqa: S608
        (undone,),
    ).fetchone()
    return found


def get_edit(database: sqlite3.Connection, number: int) -> Edit:
    """Return an edit of the journal."""
    *bounds, before, after, records = database.execute(
        "SELECT y0, x0, y1, x1, before, after, records FROM edits WHERE edit = ?", (number,)
    ).fetchone()
    region = Region.from_bounds(*bounds)
    return Edit(number, region, _pixels(before, region), _pixels(after, region), Records.decoded(records))


def kind_of(database: sqlite3.Connection, number: int) -> str:
    """Return the kind of an edit; empty if it is gone."""
    row = database.execute("SELECT kind FROM edits WHERE edit = ?", (number,)).fetchone()
    return "" if row is None else str(row[0])


def mark(database: sqlite3.Connection, number: int, *, undone: bool) -> None:
    """Note that an edit is undone, or done again."""
    database.execute("UPDATE edits SET undone = ? WHERE edit = ?", (int(undone), number))


def steps(database: sqlite3.Connection, most: int, before: int | None = None) -> list[Step]:
    """Return the newest `most` steps (with a number below `before`), newest first."""
    rows = database.execute(
        "SELECT step, (SELECT kind FROM edits AS first WHERE first.step = edits.step ORDER BY edit LIMIT 1), "
        "min(person), min(at), min(iif(y1 > y0, y0, NULL)), min(iif(y1 > y0, x0, NULL)), max(y1), max(x1), "
        "sum(nuclei), min(undone) FROM edits WHERE step < ? GROUP BY step ORDER BY step DESC LIMIT ?",
        (1 << 62 if before is None else before, most),
    )
    found = []
    for step, kind, person, at, y0, x0, y1, x1, nuclei, undone in rows:
        region = None if y0 is None else Region.from_bounds(y0, x0, y1, x1)
        found.append(Step(step, kind, person, at, region, nuclei, bool(undone)))
    return found


def _pixels(data: bytes | None, region: Region) -> NDArray[np.uint32] | None:
    return None if data is None else decode_pixels(data, (region.height, region.width))
