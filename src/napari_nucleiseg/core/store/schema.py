"""The tables of project.sqlite, their format number, and what brings older projects up to it."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable

FORMAT = 5
# Older ones than this have to be converted before they are even looked at.
READABLE = 3

_FIRST = """
CREATE TABLE meta(key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
-- A run is one model version with one set of decoding options.
CREATE TABLE runs(
    run INTEGER PRIMARY KEY, model_version TEXT NOT NULL, options_key TEXT NOT NULL,
    UNIQUE(model_version, options_key));
-- whole: 0 once another run took nuclei out of the tile, so that it has to be done again.
CREATE TABLE tiles(
    tile INTEGER PRIMARY KEY, run INTEGER NOT NULL REFERENCES runs, whole INTEGER NOT NULL,
    y0 INTEGER NOT NULL, x0 INTEGER NOT NULL, y1 INTEGER NOT NULL, x1 INTEGER NOT NULL,
    n INTEGER NOT NULL, done_at REAL NOT NULL);
-- Level-0 pixels; cell: 512 px square of the centroid; state: shown, covered, duplicate, rejected; review: unseen,
-- approved, rejected, replaced; run is NULL for what a person drew; person is who drew or changed it.
CREATE TABLE nuclei(
    id INTEGER PRIMARY KEY, run INTEGER REFERENCES runs, person TEXT, cell INTEGER NOT NULL,
    y REAL NOT NULL, x REAL NOT NULL,
    y0 INTEGER NOT NULL, x0 INTEGER NOT NULL, y1 INTEGER NOT NULL, x1 INTEGER NOT NULL,
    area_um2 REAL NOT NULL, class INTEGER NOT NULL, score REAL NOT NULL,
    state INTEGER NOT NULL, review INTEGER NOT NULL);
CREATE INDEX nuclei_place ON nuclei(cell, y, x, state);
-- Pixels that a nucleus claims but does not show: packed bits over its box.
CREATE TABLE claims(id INTEGER PRIMARY KEY, mask BLOB NOT NULL);
CREATE VIRTUAL TABLE claim_boxes USING rtree_i32(id, y0, y1, x0, x1);
-- Pixels (see `pixels`) of changes whose chunks may not have reached their files.
CREATE TABLE redo(
    entry INTEGER PRIMARY KEY AUTOINCREMENT,
    y0 INTEGER NOT NULL, x0 INTEGER NOT NULL, y1 INTEGER NOT NULL, x1 INTEGER NOT NULL, after BLOB NOT NULL);
"""

_EDITING = """
-- What people changed. Edits of one step are undone together; undone ones come last and go with the next new edit.
-- before, after: pixels over the box (see `pixels`), NULL if none changed; records: rows before and after (zstd; JSON,
-- and behind a zero byte the columns of many nuclei).
CREATE TABLE edits(
    edit INTEGER PRIMARY KEY AUTOINCREMENT, step INTEGER NOT NULL, kind TEXT NOT NULL, person TEXT NOT NULL,
    at REAL NOT NULL, undone INTEGER NOT NULL, nuclei INTEGER NOT NULL,
    y0 INTEGER NOT NULL, x0 INTEGER NOT NULL, y1 INTEGER NOT NULL, x1 INTEGER NOT NULL,
    before BLOB, after BLOB, records BLOB NOT NULL);
CREATE INDEX edits_undone ON edits(undone, edit);
CREATE INDEX edits_step ON edits(step);
-- Annotated regions: role teach, hold out or reference; vertices: JSON list of (y, x) level-0 pixels; complete: whether
-- everything inside was looked at, or only the approved nuclei count.
CREATE TABLE regions(
    region INTEGER PRIMARY KEY, name TEXT NOT NULL, role TEXT NOT NULL, vertices TEXT NOT NULL,
    complete INTEGER NOT NULL, done INTEGER NOT NULL, person TEXT NOT NULL, at REAL NOT NULL);
CREATE TABLE classes(class INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, colour TEXT NOT NULL);
CREATE INDEX nuclei_reviewed ON nuclei(review) WHERE review != 0;
CREATE INDEX nuclei_of_class ON nuclei(class) WHERE class != 0;
CREATE INDEX nuclei_of_person ON nuclei(person) WHERE person IS NOT NULL;
"""

_ATTENTION = """
-- Where a person painted how a model should look, in squares of 256 level-0 pixels counted row by row: pixels (zstd)
-- and a coarse picture of them, 8 x 8 bytes; 1 look here, 2 do not, 0 nothing. Squares without paint have no row.
CREATE TABLE attention(chunk INTEGER PRIMARY KEY, pixels BLOB NOT NULL, coarse BLOB NOT NULL);
"""

# Older projects have it from the first tile that is written on; programs that do not know it lose nothing.
TILES_OF_RUN = "CREATE INDEX IF NOT EXISTS tiles_of_run ON tiles(run, y0) WHERE whole"

# Where nuclei were that had a class when they went, level-0 pixels; was, run: which one it was, of which run; nucleus:
# who has the class now, NULL as long as nobody was found there. The place stays that of the first, so that nuclei that
# were one for a while both have it again. Projects have it from the first tile that is written on; programs that do not
# know it lose classes with the nuclei.
CLASS_MARKS = (
    """CREATE TABLE IF NOT EXISTS left_classes(
    mark INTEGER PRIMARY KEY AUTOINCREMENT, y INTEGER NOT NULL, x INTEGER NOT NULL, class INTEGER NOT NULL,
    nucleus INTEGER, was INTEGER NOT NULL, run INTEGER NOT NULL)""",
    "CREATE INDEX IF NOT EXISTS left_classes_place ON left_classes(y)",
    "CREATE INDEX IF NOT EXISTS left_classes_nucleus ON left_classes(nucleus) WHERE nucleus IS NOT NULL",
    "CREATE INDEX IF NOT EXISTS left_classes_was ON left_classes(was)",
)

# No colour is near the green of nuclei without a class; tumor and stroma are told apart by colour-blind people too.
CLASSES = (
    (1, "Tumor", "#e6194b"),
    (2, "Stroma", "#00d5ff"),
    (3, "Immune cells", "#4363d8"),
    (4, "Epithelium", "#f58231"),
    (5, "Necrosis", "#ffe119"),
    (6, "Other", "#a9a9a9"),
)


def create_tables(connection: sqlite3.Connection) -> None:
    """Make all tables of the present format, inside the caller's transaction."""
    _run(connection, _FIRST)
    connection.execute(TILES_OF_RUN)
    _add_editing(connection)
    _add_attention(connection)


def _add_editing(connection: sqlite3.Connection) -> None:
    _run(connection, _EDITING)
    connection.executemany("INSERT INTO classes VALUES (?, ?, ?)", CLASSES)


def _add_attention(connection: sqlite3.Connection) -> None:
    _run(connection, _ATTENTION)


def _leave_journal(_connection: sqlite3.Connection) -> None:
    """Change nothing: edits as format 2 has them are read as well; only an older program must not meet those of 3."""


def _leave_files(_connection: sqlite3.Connection) -> None:
    """Change nothing: only an older program must not meet files that hold several chunks."""


def _run(connection: sqlite3.Connection, script: str) -> None:
    # Not `executescript`, which would commit first.
    for statement in script.split(";\n"):
        if statement.strip():
            connection.execute(statement)


# Version n -> what brings a database from version n to n + 1; runs inside one transaction.
MIGRATIONS: dict[int, Callable[[sqlite3.Connection], None]] = {
    1: _add_editing,
    2: _leave_journal,
    3: _add_attention,
    4: _leave_files,
}
