"""Rows of the tables as they were before and after an edit, so that it can be undone and done again."""

from __future__ import annotations

import base64
import json
import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import imagecodecs

from napari_nucleiseg.core.store.ledger import drop_claims
from napari_nucleiseg.core.store.packing import Row, Rows, pack, unpack

NUCLEI = "nuclei"
CLAIMS = "claims"
REGIONS = "regions"
CLASSES = "classes"
ATTENTION = "attention"
MARKS = "left_classes"

_KEYS = {NUCLEI: "id", REGIONS: "region", CLASSES: "class", ATTENTION: "chunk", MARKS: "mark"}
_COLUMNS = {
    NUCLEI: "id, run, person, cell, y, x, y0, x0, y1, x1, area_um2, class, score, state, review",
    REGIONS: "region, name, role, vertices, complete, done, person, at",
    CLASSES: "class, name, colour",
    ATTENTION: "chunk, pixels, coarse",
    MARKS: "mark, y, x, class, nucleus, was, run",
}
_AT_A_TIME = 500
_WITH_BYTES = {CLAIMS, ATTENTION}
# From so many nuclei on, columns are quicker than JSON.
MANY = 32
_PACKED = b"\0"


@dataclass(slots=True)
class Records:
    """Rows by table and key, before and after; None where there is no row."""

    before: dict[str, dict[int, Row | None]] = field(default_factory=dict)
    after: dict[str, dict[int, Row | None]] = field(default_factory=dict)

    def note(self, table: str, before: Rows, after: Rows) -> None:
        """Note what becomes of rows; keys that one side lacks have no row there."""
        for key in {*before, *after}:
            if before.get(key) != after.get(key):
                self.before.setdefault(table, {})[key] = before.get(key)
                self.after.setdefault(table, {})[key] = after.get(key)

    def __bool__(self) -> bool:
        return bool(self.before)

    def encoded(self) -> bytes:
        """Return this compressed: JSON, and behind it many nuclei as columns of numbers."""
        before, after = self.before, self.after
        columns = b""
        if len(before.get(NUCLEI, ())) >= MANY:
            columns = _PACKED + pack([before[NUCLEI], after[NUCLEI]])
            before, after = ({key: rows for key, rows in side.items() if key != NUCLEI} for side in (before, after))
        text = json.dumps([_plain(before), _plain(after)], separators=(",", ":"))
        return bytes(imagecodecs.zstd_encode(text.encode() + columns, 1))

    @classmethod
    def decoded(cls, data: bytes) -> Records:
        """Return what `encoded` made bytes of, now or before format 3, which had JSON only."""
        # JSON as it is written here has no zero byte.
        text, packed, columns = bytes(imagecodecs.zstd_decode(data)).partition(_PACKED)
        before, after = (_typed(side) for side in json.loads(text))
        if packed:
            before[NUCLEI], after[NUCLEI] = unpack(columns, 2)
        return cls(before, after)


def rows_of(database: sqlite3.Connection, table: str, keys: Iterable[int]) -> dict[int, Row]:
    """Return whole rows (`claims`: box and mask) by key; keys without a row are left out."""
    if table == CLAIMS:
        query = "SELECT id, y0, x0, y1, x1, mask FROM claim_boxes JOIN claims USING (id) WHERE id IN ({})"
    else:
        query = f"SELECT {_COLUMNS[table]} FROM {table} WHERE {_KEYS[table]} IN ({{}})"  # noqa: S608
    found = {}
    for part in _parts(keys):
        for row in database.execute(query.format(",".join("?" * len(part))), part):
            found[row[0]] = tuple(row)
    return found


def put_rows(database: sqlite3.Connection, table: str, rows: Rows) -> None:
    """Bring rows to what is given; None removes."""
    kept = [row for row in rows.values() if row is not None]
    if table == CLAIMS:
        drop_claims(database, rows)
        database.executemany("INSERT INTO claims VALUES (?, ?)", [(row[0], row[5]) for row in kept])
        boxes = [(row[0], row[1], row[3], row[2], row[4]) for row in kept]
        database.executemany("INSERT INTO claim_boxes VALUES (?, ?, ?, ?, ?)", boxes)
        return
    if table == NUCLEI:
        drop_claims(database, [key for key, row in rows.items() if row is None])
    database.executemany(f"DELETE FROM {table} WHERE {_KEYS[table]} = ?", [(key,) for key in rows])  # noqa: S608
    if table == NUCLEI:
        add_nuclei(database, kept)
    elif kept:
        marks = ",".join("?" * len(kept[0]))
        database.executemany(f"INSERT OR REPLACE INTO {table}({_COLUMNS[table]}) VALUES ({marks})", kept)  # noqa: S608


def add_nuclei(database: sqlite3.Connection, rows: Iterable[Row]) -> None:
    """Add nuclei that the table does not have."""
    # Not OR REPLACE: with the indexes of this table that takes longer than to delete and add.
    marks = ",".join("?" * len(_COLUMNS[NUCLEI].split(",")))
    database.executemany(f"INSERT INTO nuclei({_COLUMNS[NUCLEI]}) VALUES ({marks})", rows)  # noqa: S608


def _parts(keys: Iterable[int]) -> Iterator[list[int]]:
    every = [int(key) for key in keys]
    for start in range(0, len(every), _AT_A_TIME):
        yield every[start : start + _AT_A_TIME]


def _plain(tables: dict[str, dict[int, Row | None]]) -> dict[str, list[Any]]:
    return {
        table: [
            # Few tables hold bytes; to look at each value of thousands of nuclei takes longer than to write them.
            [key, row if row is None or table not in _WITH_BYTES else [_text(value) for value in row]]
            for key, row in rows.items()
        ]
        for table, rows in tables.items()
    }


def _typed(tables: dict[str, list[Any]]) -> dict[str, dict[int, Row | None]]:
    return {
        table: {
            key: None if row is None else tuple(base64.b64decode(v["b"]) if isinstance(v, dict) else v for v in row)
            for key, row in rows
        }
        for table, rows in tables.items()
    }


def _text(value: Any) -> Any:
    return {"b": base64.b64encode(value).decode()} if isinstance(value, bytes) else value
