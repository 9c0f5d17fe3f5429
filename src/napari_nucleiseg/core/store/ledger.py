"""project.sqlite: which tiles are done, the nuclei table, and changes that the chunk files do not hold yet."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_nucleiseg.core.errors import StoreError
from napari_nucleiseg.core.geometry import Region
from napari_nucleiseg.core.store.merge import Claim, State
from napari_nucleiseg.core.store.nuclei import TileNuclei
from napari_nucleiseg.core.store.pixels import decode_pixels
from napari_nucleiseg.core.store.schema import FORMAT, MIGRATIONS, READABLE, create_tables

CELL_PX = 512
# What a person said of a nucleus; replaced: its pixels went to others.
APPROVED = 1
REJECTED = 2
REPLACED = 3

Row = tuple[Any, ...]


class Ledger:
    """One project's database; one thread writes, any thread reads.

    Parameters
    ----------
    path : Path
        The sqlite file; make it with `create`.
    writable : bool
        Whether this process may change it.

    Raises
    ------
    StoreError
        If it was made by a newer version of the package, or by an older one and may not be changed.
    """

    def __init__(self, path: Path, *, writable: bool) -> None:
        self.path = path
        self.writable = writable
        self._readers: dict[int, sqlite3.Connection] = {}
        self._all: list[sqlite3.Connection] = []
        self._all_lock = threading.Lock()
        self._to_say: dict[str, str] = {}
        try:
            self._writer = self._connect(writable=writable)
            self._migrate()
        except (sqlite3.Error, StoreError):
            self.close()
            raise

    @classmethod
    def create(cls, path: Path, meta: Mapping[str, str]) -> Ledger:
        """Make the database; it appears as a whole or not at all."""
        unfinished = path.with_suffix(".making")
        unfinished.unlink(missing_ok=True)
        connection = sqlite3.connect(unfinished, isolation_level=None)
        try:
            connection.execute("PRAGMA page_size = 8192")
            connection.execute("BEGIN")
            create_tables(connection)
            connection.executemany("INSERT INTO meta VALUES (?, ?)", {**meta, "format": str(FORMAT)}.items())
            connection.execute("COMMIT")
        finally:
            connection.close()
        unfinished.replace(path)
        return cls(path, writable=True)

    def meta(self) -> dict[str, str]:
        """Return what the project says about itself."""
        return _meta(self.reader)

    def say(self, key: str, value: str) -> None:
        """Have the project say something else about itself from the next change on: who only looks changes no file."""
        self._to_say[key] = value

    @property
    def reader(self) -> sqlite3.Connection:
        """The calling thread's connection for reading."""
        # A number is free again when its thread has ended, and its connection then serves the next one.
        thread = threading.get_ident()
        found = self._readers.get(thread)
        if found is None:
            found = self._readers[thread] = self._connect(writable=False)
        return found

    @property
    def writer(self) -> sqlite3.Connection:
        """The connection of the writing thread."""
        return self._writer

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Change the database: all of the block or, if it raises, nothing of it."""
        self._writer.execute("BEGIN IMMEDIATE")
        try:
            for key, value in self._to_say.items():
                self._writer.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))
            yield self._writer
            self._writer.execute("COMMIT")
            self._to_say.clear()
        except BaseException:
            if self._writer.in_transaction:
                self._writer.execute("ROLLBACK")
            raise

    def close(self) -> None:
        """Close the connections of all threads."""
        with self._all_lock:
            # The writer, opened first, goes last: it folds the write-ahead log into the file.
            for connection in reversed(self._all):
                connection.close()
            self._all.clear()

    def _connect(self, *, writable: bool) -> sqlite3.Connection:
        if writable:
            connection = self._note(_open(self.path, "mode=rw"))
            connection.execute("PRAGMA journal_mode = WAL")
            # A commit is on the disk before chunk files that depend on it change.
            connection.execute("PRAGMA synchronous = FULL")
            return connection
        return self._note(_open_for_reading(self.path))

    def _note(self, connection: sqlite3.Connection) -> sqlite3.Connection:
        with self._all_lock:
            self._all.append(connection)
        return connection

    def _migrate(self) -> None:
        found = int(self._writer.execute("SELECT value FROM meta WHERE key = 'format'").fetchone()[0])
        if found > FORMAT:
            raise StoreError(
                f"{self.path.parent} was made by a newer napari-nucleiseg (format {found}, this one knows {FORMAT}). "
                "Update napari-nucleiseg to open it."
            )
        if found >= READABLE and not self.writable:
            return
        if found < FORMAT and not self.writable:
            raise StoreError(
                f"{self.path.parent} has the older format {found}. Open it for writing once, so that it is converted."
            )
        while found < FORMAT:
            with self.transaction() as connection:
                MIGRATIONS[found](connection)
                found += 1
                connection.execute("UPDATE meta SET value = ? WHERE key = 'format'", (str(found),))


def read_meta(path: Path) -> dict[str, str]:
    """Return what a project of any format says about itself."""
    connection = _open_for_reading(path)
    try:
        return _meta(connection)
    finally:
        connection.close()


def _meta(connection: sqlite3.Connection) -> dict[str, str]:
    return dict(connection.execute("SELECT key, value FROM meta"))


def _open_for_reading(path: Path) -> sqlite3.Connection:
    connection = _open(path, "mode=ro")
    try:
        connection.execute("SELECT 1 FROM meta").fetchone()
    except sqlite3.OperationalError:
        # A folder that cannot be written has no room for the shared index of the write-ahead log.
        connection.close()
        return _open(path, "immutable=1")
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def database_uri(path: PurePath, mode: str) -> str:
    """Return the name by which SQLite opens an absolute path in a mode such as ``mode=ro``."""
    uri = path.as_uri()
    # A drive of the network on Windows: SQLite takes no name of a machine where it stands by itself.
    if uri.startswith("file://") and not uri.startswith("file:///"):
        uri = uri.replace("file://", "file:////", 1)
    return f"{uri}?{mode}"


def _open(path: Path, mode: str) -> sqlite3.Connection:
    uri = database_uri(path.absolute(), mode)
    return sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False, timeout=10)


def run_number(connection: sqlite3.Connection, model_version: str, options_key: str) -> int:
    """Return the number of a run; a new one where there is none."""
    key = model_version, options_key
    connection.execute("INSERT OR IGNORE INTO runs(model_version, options_key) VALUES (?, ?)", key)
    number: int = connection.execute(
        "SELECT run FROM runs WHERE model_version = ? AND options_key = ?", key
    ).fetchone()[0]
    return number


def rows_by_id(connection: sqlite3.Connection, columns: str, ids: Iterable[int]) -> Iterator[Row]:
    """Iterate over ``id, columns`` of the nuclei with these ids; unknown ids are left out."""
    wanted = list(ids)
    for start in range(0, len(wanted), 500):
        part = wanted[start : start + 500]
        marks = ",".join("?" * len(part))
        yield from connection.execute(f"SELECT id, {columns} FROM nuclei WHERE id IN ({marks})", part)  # noqa: S608


def claims_in(connection: sqlite3.Connection, region: Region) -> dict[int, Claim]:
    """Return the claims whose boxes overlap a region."""
    rows = connection.execute(
        "SELECT id, y0, x0, y1, x1, mask FROM claim_boxes JOIN claims USING (id) "
        "WHERE y0 < ? AND y1 > ? AND x0 < ? AND x1 > ?",
        (region.y1, region.y, region.x1, region.x),
    )
    return {row[0]: _unpacked(row[1:5], row[5]) for row in rows}


def claim_row(nucleus_id: int, claim: Claim) -> Row:
    """Return a claim as id, box (y0, x0, y1, x1) and packed bits."""
    box = claim.box
    return nucleus_id, box.y, box.x, box.y1, box.x1, np.packbits(claim.mask).tobytes()


def put_claims(connection: sqlite3.Connection, claims: Mapping[int, Claim | None]) -> None:
    """Replace the claims of these nuclei; None removes."""
    drop_claims(connection, claims)
    kept = [(nucleus_id, claim) for nucleus_id, claim in claims.items() if claim is not None]
    connection.executemany(
        "INSERT INTO claims VALUES (?, ?)", [(i, np.packbits(claim.mask).tobytes()) for i, claim in kept]
    )
    connection.executemany(
        "INSERT INTO claim_boxes VALUES (?, ?, ?, ?, ?)",
        [(i, claim.box.y, claim.box.y1, claim.box.x, claim.box.x1) for i, claim in kept],
    )


def put_nuclei(
    connection: sqlite3.Connection,
    nuclei: TileNuclei,
    ids: NDArray[np.uint32],
    run: int,
    cells: NDArray[np.int64],
) -> None:
    """Add the nuclei of a tile to the table."""
    n = len(nuclei)
    columns = (
        ids.tolist(),
        [run] * n,
        cells.tolist(),
        *nuclei.centroids.T.tolist(),
        *nuclei.boxes.T.tolist(),
        nuclei.areas_um2.tolist(),
        nuclei.scores.tolist(),
    )
    connection.executemany(
        "INSERT INTO nuclei(id, run, cell, y, x, y0, x0, y1, x1, area_um2, score, class, state, review) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0, 0, 0)",
        zip(*columns, strict=True) if n else (),
    )


def put_states(connection: sqlite3.Connection, states: Mapping[int, State]) -> None:
    """Note what is seen of nuclei."""
    connection.executemany(
        "UPDATE nuclei SET state = ? WHERE id = ?", [(int(state), nucleus_id) for nucleus_id, state in states.items()]
    )


def drop_nuclei(connection: sqlite3.Connection, ids: Iterable[int]) -> None:
    """Remove nuclei and their claims from the tables."""
    wanted = list(ids)
    connection.executemany("DELETE FROM nuclei WHERE id = ?", [(nucleus_id,) for nucleus_id in wanted])
    drop_claims(connection, wanted)


def drop_claims(connection: sqlite3.Connection, ids: Iterable[int]) -> None:
    """Remove the claims of these nuclei."""
    keys = [(nucleus_id,) for nucleus_id in ids]
    connection.executemany("DELETE FROM claims WHERE id = ?", keys)
    connection.executemany("DELETE FROM claim_boxes WHERE id = ?", keys)


def put_redo(connection: sqlite3.Connection, region: Region, after: bytes) -> tuple[int, int]:
    """Note pixels (see `pixels`) that are about to change; return the number of the entry and its bytes."""
    entry = connection.execute(
        "INSERT INTO redo(y0, x0, y1, x1, after) VALUES (?, ?, ?, ?, ?)",
        (region.y, region.x, region.y1, region.x1, after),
    ).lastrowid
    return int(entry or 0), len(after)


def redo_entries(connection: sqlite3.Connection) -> Iterator[tuple[int, int, Region, NDArray[np.uint32]]]:
    """Iterate over the noted changes, oldest first: number, bytes, where, pixels."""
    for entry, *bounds, after in connection.execute("SELECT entry, y0, x0, y1, x1, after FROM redo ORDER BY entry"):
        region = Region.from_bounds(*bounds)
        yield entry, len(after), region, decode_pixels(after, (region.height, region.width))


def put_tile(connection: sqlite3.Connection, tile: int, run: int, core: Region, n: int) -> None:
    """Note that a tile is done."""
    connection.execute(
        "INSERT OR REPLACE INTO tiles VALUES (?, ?, 1, ?, ?, ?, ?, ?, ?)",
        (tile, run, core.y, core.x, core.y1, core.x1, n, time.time()),
    )


def reopen_tiles(connection: sqlite3.Connection, tiles: Iterable[int]) -> None:
    """Note that tiles must be done again."""
    connection.executemany("UPDATE tiles SET whole = 0 WHERE tile = ?", [(tile,) for tile in tiles])


def tiles_done(connection: sqlite3.Connection, model_version: str, options_key: str) -> set[int]:
    """Return the tiles that are whole for a run."""
    rows = connection.execute(
        "SELECT tile FROM tiles JOIN runs USING (run) WHERE model_version = ? AND options_key = ? AND whole",
        (model_version, options_key),
    )
    return {row[0] for row in rows}


def tiles_in(connection: sqlite3.Connection, region: Region) -> list[Region]:
    """Return where tiles of any run were written that touch a region, level-0 pixels."""
    rows = connection.execute(
        "SELECT y0, x0, y1, x1 FROM tiles WHERE y0 < ? AND y1 > ? AND x0 < ? AND x1 > ?",
        (region.y1, region.y, region.x1, region.x),
    )
    return [Region.from_bounds(*bounds) for bounds in rows]


def _unpacked(bounds: tuple[int, int, int, int], mask: bytes) -> Claim:
    box = Region.from_bounds(*bounds)
    bits = np.unpackbits(np.frombuffer(mask, np.uint8), count=box.area)
    return Claim(box, bits.reshape(box.height, box.width).astype(bool))
