"""batch.sqlite: what became of each slide, and of each run, in a folder of results."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from napari_nucleiseg.core.errors import StoreError
from napari_nucleiseg.core.store.failure import explained
from napari_nucleiseg.core.store.ledger import database_uri
from napari_nucleiseg.core.store.lock import WriterLock

NAME = "batch.sqlite"
LOCK = "batch.lock"
FORMAT = 1
WAITING, RUNNING, DONE, FAILED, STOPPED = "waiting", "running", "done", "failed", "stopped"

_TABLES = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS runs (
    run INTEGER PRIMARY KEY, started REAL NOT NULL, ended REAL, state TEXT NOT NULL,
    job TEXT NOT NULL, versions TEXT NOT NULL, engine TEXT NOT NULL DEFAULT '');
-- Times in seconds since 1970; settings: all that decides what comes out; told: facts for the summary as JSON.
CREATE TABLE IF NOT EXISTS slides (
    stem TEXT PRIMARY KEY, path TEXT NOT NULL, fingerprint TEXT NOT NULL DEFAULT '',
    settings TEXT NOT NULL DEFAULT '', state TEXT NOT NULL, stage TEXT NOT NULL DEFAULT '',
    sentence TEXT NOT NULL DEFAULT '', kind TEXT NOT NULL DEFAULT '', tiles INTEGER NOT NULL DEFAULT 0,
    tiles_done INTEGER NOT NULL DEFAULT 0, tiles_skipped INTEGER NOT NULL DEFAULT 0,
    nuclei INTEGER NOT NULL DEFAULT 0, outputs TEXT NOT NULL DEFAULT '[]', told TEXT NOT NULL DEFAULT '{}',
    seconds TEXT NOT NULL DEFAULT '{}', notes TEXT NOT NULL DEFAULT '[]', run INTEGER, updated REAL NOT NULL);
"""


@dataclass(frozen=True, slots=True)
class SlideRow:
    """What is known of a slide.

    Parameters
    ----------
    stem, path, fingerprint, settings
        Which slide, and with what it was worked through.
    state : str
        ``waiting``, ``running``, ``done``, ``failed`` or ``stopped``.
    stage : str
        What is, or was last, being done.
    sentence, kind : str
        Why it failed, and the name of the error's class.
    tiles, tiles_done, tiles_skipped, nuclei : int
        Planned, whole, given up; found.
    outputs : tuple of str
        Files and folders, relative to the folder of results where they lie in it.
    told : dict
        Facts: size, pixel size, tissue, picture, the manifest's columns.
    seconds : dict of str to float
        Work by stage, summed over workers.
    notes : tuple of str
        What a person should know.
    run : int or None
        The run that touched it last.
    updated : float
        When, seconds since 1970.
    """

    stem: str
    path: str
    fingerprint: str = ""
    settings: str = ""
    state: str = WAITING
    stage: str = ""
    sentence: str = ""
    kind: str = ""
    tiles: int = 0
    tiles_done: int = 0
    tiles_skipped: int = 0
    nuclei: int = 0
    outputs: tuple[str, ...] = ()
    told: dict[str, Any] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    run: int | None = None
    updated: float = 0.0


_COLUMNS = tuple(SlideRow.__dataclass_fields__)
_AS_JSON = frozenset({"outputs", "told", "seconds", "notes"})


@dataclass(frozen=True, slots=True)
class RunRow:
    """One run: when, with what job (its fields) and versions, where, and how it ended."""

    run: int
    started: float
    ended: float | None
    state: str
    job: dict[str, Any]
    versions: dict[str, str]
    engine: str


class RunDatabase:
    """The database of a folder of results; one run writes at a time, anybody reads with `read_slides`.

    Parameters
    ----------
    folder : Path
        Made if need be.

    Raises
    ------
    StoreError
        If it cannot be written, another run is at work, or a newer version of the package made it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with explained(folder):
            folder.mkdir(parents=True, exist_ok=True)
            self._lock = WriterLock(folder / LOCK)
            try:
                self._connection = sqlite3.connect(folder / NAME, isolation_level=None, timeout=10)
                self._connection.execute("PRAGMA journal_mode = WAL")
                # At once: who looks on sees all tables or none.
                start = f"INSERT OR IGNORE INTO meta VALUES ('format', '{FORMAT}');"  # noqa: S608
                self._connection.executescript(f"BEGIN IMMEDIATE; {_TABLES} {start} COMMIT;")
                _check_format(self._connection, folder)
            except BaseException:
                self._lock.release()
                raise

    def begin(self, job: Mapping[str, Any], versions: Mapping[str, str]) -> int:
        """Note that a run begins and return its number; a run that was killed is noted as stopped."""
        with explained(self.folder):
            self._connection.execute("UPDATE runs SET state = ? WHERE state = ?", (STOPPED, RUNNING))
            self._connection.execute("UPDATE slides SET state = ? WHERE state = ?", (STOPPED, RUNNING))
            row = time.time(), RUNNING, json.dumps(dict(job)), json.dumps(dict(versions))
            number = self._connection.execute(
                "INSERT INTO runs(started, state, job, versions) VALUES (?, ?, ?, ?)", row
            ).lastrowid
        return int(number or 0)

    def end(self, run: int, state: str, engine: str) -> None:
        """Note how a run ended and where it was done."""
        with explained(self.folder):
            self._connection.execute(
                "UPDATE runs SET ended = ?, state = ?, engine = ? WHERE run = ?", (time.time(), state, engine, run)
            )

    def put(self, row: SlideRow) -> None:
        """Write what is known of a slide."""
        values = [_stored(name, getattr(row, name)) for name in _COLUMNS[:-1]]
        marks = ", ".join("?" * len(_COLUMNS))
        with explained(self.folder):
            self._connection.execute(
                f"INSERT INTO slides({', '.join(_COLUMNS)}) VALUES ({marks}) "  # noqa: S608
                f"ON CONFLICT(stem) DO UPDATE SET {', '.join(f'{name} = excluded.{name}' for name in _COLUMNS[1:])}",
                (*values, time.time()),
            )

    def slides(self) -> dict[str, SlideRow]:
        """Return all slides by the name of their results."""
        return _slides(self._connection)

    def runs(self) -> tuple[RunRow, ...]:
        """Return all runs, oldest first."""
        return _runs(self._connection)

    def check(self) -> None:
        """Make sure that no other run has taken the folder over.

        Raises
        ------
        StoreError
            If one has.
        """
        self._lock.check()

    def close(self) -> None:
        """Close, and let other runs write."""
        self._connection.close()
        self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def read_run_database(folder: Path) -> tuple[dict[str, SlideRow], tuple[RunRow, ...]]:
    """Return slides by name, and runs, of a folder of results; for looking on while a run is at work, or begins.

    Raises
    ------
    StoreError
        If there is none or it cannot be read.
    """
    path = folder / NAME
    if not path.is_file():
        raise StoreError(f"{folder} holds no results of a batch run (no {NAME}); choose the folder that --out named")
    uri = database_uri(path.absolute(), "mode=ro")
    with explained(folder), closing(sqlite3.connect(uri, uri=True)) as connection:
        if connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'meta'").fetchone() is None:
            return {}, ()  # a run is about to make it
        _check_format(connection, folder)
        return _slides(connection), _runs(connection)


def _check_format(connection: sqlite3.Connection, folder: Path) -> None:
    found = int(connection.execute("SELECT value FROM meta WHERE key = 'format'").fetchone()[0])
    if found > FORMAT:
        raise StoreError(f"{folder} was written by a newer napari-nucleiseg (format {found}). Update to use it.")


def _slides(connection: sqlite3.Connection) -> dict[str, SlideRow]:
    rows = connection.execute(f"SELECT {', '.join(_COLUMNS)} FROM slides ORDER BY rowid").fetchall()  # noqa: S608
    return {row.stem: row for row in (SlideRow(**_read(row)) for row in rows)}


def _stored(name: str, value: Any) -> Any:
    """Return the value of a column as it is kept: text that is no UTF-8, as old archives unpack names, as bytes."""
    if name in _AS_JSON:
        return json.dumps(value)
    if isinstance(value, str) and any("\ud800" <= character <= "\udfff" for character in value):
        return value.encode("utf-8", "surrogatepass")
    return value


def _read(row: tuple[Any, ...]) -> dict[str, Any]:
    said = {name: _read_value(name, value) for name, value in zip(_COLUMNS, row, strict=True)}
    return said | {"outputs": tuple(said["outputs"]), "notes": tuple(said["notes"])}


def _read_value(name: str, value: Any) -> Any:
    if name in _AS_JSON:
        return json.loads(value)
    return value.decode("utf-8", "surrogatepass") if isinstance(value, bytes) else value


def _runs(connection: sqlite3.Connection) -> tuple[RunRow, ...]:
    rows = connection.execute("SELECT run, started, ended, state, job, versions, engine FROM runs ORDER BY run")
    return tuple(
        RunRow(number, started, ended, state, json.loads(job), json.loads(versions), engine)
        for number, started, ended, state, job, versions, engine in rows
    )
