"""Labels of a z-stack as they were last, in one file that is always whole: what was painted outlives a crash."""

from __future__ import annotations

import errno
import hashlib
import itertools
import json
import os
import sqlite3
import time
import zlib
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_nucleiseg.core.errors import StoreError
from napari_nucleiseg.core.store.files import decode_chunk, encode_chunk

if TYPE_CHECKING:
    from napari_nucleiseg.core.slides.voxels import VolumeLike

CHUNK = (16, 128, 128)
ENDING, AWAY = ".sqlite", ".away"
AWAY_DAYS = 30.0
_KEY_PLANES, _KEY_SIDE = 9, 512
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})

Place = tuple[int, int, int]
Box = tuple[slice, slice, slice]


class KeptInUseError(StoreError):
    """The file is open in another window."""


def stacks_folder() -> Path:
    """Return where labels of stacks are kept on this computer."""
    import platformdirs

    return Path(platformdirs.user_data_dir("napari-nucleiseg")) / "stacks"


def stack_key(volume: VolumeLike) -> str:
    """Return what a stack is recognised by, wherever it lies: its sides and the middle of some of its planes.

    Parameters
    ----------
    volume : array-like, shape (z, y, x) or (z, y, x, 3)
        One channel; the middle 512 x 512 pixels of nine planes are read.
    """
    digest = hashlib.blake2b(f"{tuple(volume.shape)} {np.dtype(volume.dtype)}".encode(), digest_size=16)
    middle = tuple(
        slice(max(0, (side - _KEY_SIDE) // 2), max(0, (side - _KEY_SIDE) // 2) + _KEY_SIDE)
        for side in volume.shape[1:3]
    )
    for z in sorted(set(np.linspace(0, volume.shape[0] - 1, _KEY_PLANES).round().astype(int).tolist())):
        digest.update(np.ascontiguousarray(np.asarray(volume[(z, *middle)])).tobytes())
    return digest.hexdigest()


def kept_versions(key: str) -> list[Path]:
    """Return the files of a stack that were not put away, the oldest first."""
    return sorted((stacks_folder() / key).glob(f"*{ENDING}"))


def new_version(key: str) -> Path:
    """Return where further labels of a stack are kept."""
    return stacks_folder() / key / f"{time.time_ns():020d}{ENDING}"


def put_away(path: Path) -> Path:
    """Let a closed file no longer count, and return where it is then; those put away long ago are deleted."""
    with _explained(path):
        oldest = time.time() - AWAY_DAYS * 86400
        for old in path.parent.glob(f"*{AWAY}"):
            if old.stat().st_mtime < oldest:
                old.unlink(missing_ok=True)
        away = path.with_suffix(AWAY)
        path.replace(away)
        os.utime(away)
        return away


def bring_back(away: Path) -> Path:
    """Let a file that was put away count again, and return where it is then."""
    with _explained(away):
        return away.replace(away.with_suffix(ENDING))


def drop_unpainted(key: str, but: Path) -> None:
    """Delete what former searches found in a stack, unless somebody painted on it or has it open."""
    for path in kept_versions(key):
        if path == but:
            continue
        with suppress(StoreError):
            with closing(KeptStack.open(path)) as kept:
                painted = kept.facts.get("painted", False)
            if not painted:
                path.unlink(missing_ok=True)


class KeptStack:
    """One file of labels; a write is done as a whole or not at all, also when the program is killed amid it.

    It is locked as long as it is open. All methods are for one thread at a time.

    Parameters
    ----------
    path : Path
        An sqlite file; made with `create` and found with `open`.
    connection : sqlite3.Connection
        Of that file.
    """

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self.path, self._connection = path, connection
        self.facts: dict[str, Any] = {}
        self._sums: dict[Place, int] = {}

    @classmethod
    def create(cls, path: Path, shape: tuple[int, ...]) -> KeptStack:
        """Make the file for labels of a shape ``(z, y, x)``, all background.

        Raises
        ------
        StoreError
            If that cannot be done.
        """
        unfinished = path.with_suffix(".making")
        with _explained(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            unfinished.unlink(missing_ok=True)
            with closing(_connect(unfinished)) as connection, _transaction(connection):
                connection.execute("CREATE TABLE facts(facts TEXT NOT NULL)")
                connection.execute(
                    "CREATE TABLE chunks(z INTEGER, y INTEGER, x INTEGER, sum INTEGER NOT NULL, "
                    "labels BLOB NOT NULL, PRIMARY KEY(z, y, x))"
                )
                _note(connection, {"shape": [int(side) for side in shape]})
            unfinished.replace(path)
        return cls.open(path)

    @classmethod
    def open(cls, path: Path) -> KeptStack:
        """Open a file.

        Raises
        ------
        KeptInUseError
            If another window has it open.
        StoreError
            If it cannot be read.
        """
        with _explained(path):
            kept = cls(path, _connect(path))
            try:
                with _transaction(kept._connection):
                    kept.facts = json.loads(kept._connection.execute("SELECT facts FROM facts").fetchone()[0])
                    rows = kept._connection.execute("SELECT z, y, x, sum FROM chunks")
                    kept._sums = {(z, y, x): total for z, y, x, total in rows}
            except BaseException:
                kept.close()
                raise
        return kept

    def write(self, labels: NDArray[np.int32], places: Iterable[Place] | None = None, **facts: object) -> int:
        """Keep labels as they are now; return how many chunks were written.

        Parameters
        ----------
        labels : ndarray of int32, shape (z, y, x)
            All of them.
        places : iterable of (z, y, x), optional
            Chunks that may have changed (see `places_of`); default all. Those with the same content are not written.
        **facts
            What else is to be noted; values of JSON.

        Raises
        ------
        StoreError
            If they cannot be written; what was kept before then stays as it was.
        """
        sums: dict[Place, int] = {}
        with _explained(self.path), _transaction(self._connection):
            for place in _all_places(labels.shape) if places is None else places:
                chunk = np.ascontiguousarray(labels[_box(place)], np.int32)
                total = zlib.crc32(chunk.data) if chunk.any() else 0
                if total == self._sums.get(place, 0):
                    continue
                sums[place] = total
                row = (*place, total, encode_chunk(chunk))
                self._connection.execute("INSERT OR REPLACE INTO chunks VALUES (?, ?, ?, ?, ?)", row)
            noted = {**self.facts, **facts, "at": time.time()}
            _note(self._connection, noted)
        self._sums.update(sums)
        self.facts = noted
        return len(sums)

    def read(self) -> NDArray[np.int32]:
        """Return the labels, ``(z, y, x)`` int32.

        Raises
        ------
        StoreError
            If the file is damaged.
        """
        with _explained(self.path):
            labels = np.zeros(tuple(self.facts["shape"]), np.int32)
            for *place, data in self._connection.execute("SELECT z, y, x, labels FROM chunks"):
                part = labels[_box((place[0], place[1], place[2]))]
                part[...] = decode_chunk(data, part.shape, np.dtype(np.int32))
        return labels

    def close(self) -> None:
        """Let go of the file."""
        self._connection.close()


def _note(connection: sqlite3.Connection, facts: dict[str, Any]) -> None:
    connection.execute("DELETE FROM facts")
    connection.execute("INSERT INTO facts VALUES (?)", (json.dumps(facts),))


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Do all of the block or nothing."""
    connection.execute("BEGIN EXCLUSIVE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def places_of(box: Box) -> set[Place]:
    """Return the chunks that a box of voxels touches."""
    ranges = (range(part.start // side, -(-part.stop // side)) for part, side in zip(box, CHUNK, strict=True))
    return {(z, y, x) for z, y, x in itertools.product(*ranges)}


def _all_places(shape: tuple[int, ...]) -> Iterator[Place]:
    return itertools.product(*(range(-(-side // step)) for side, step in zip(shape, CHUNK, strict=True)))  # type: ignore[return-value] # three axes


def _box(place: Place) -> Box:
    z, y, x = (slice(number * side, (number + 1) * side) for number, side in zip(place, CHUNK, strict=True))
    return z, y, x


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=0.2, isolation_level=None, check_same_thread=False)
    # The lock is kept until the file is closed: two windows that write to one file would mix their nuclei.
    connection.execute("PRAGMA locking_mode = EXCLUSIVE")
    return connection


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Re-raise what disk and sqlite say as a `StoreError`."""
    try:
        yield
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code == sqlite3.SQLITE_BUSY:
            raise KeptInUseError("The nuclei of this stack are open in another window.") from error
        raise StoreError(_sentence(path, error, is_full=code == sqlite3.SQLITE_FULL)) from error
    except OSError as error:
        raise StoreError(_sentence(path, error, is_full=error.errno in _FULL)) from error
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{path} is damaged ({error}). Move it away; the nuclei in it cannot be read.") from error


def _sentence(path: Path, error: Exception, *, is_full: bool) -> str:
    if is_full:
        return (
            f"The disk that holds {path.parent.parent} is full, so the nuclei of the stack are not kept as they are "
            "now; what was kept before is whole. Make space, and it is tried again; or save them elsewhere with "
            "“Save nuclei…”."
        )
    return f"The nuclei of the stack cannot be kept in {path} ({error}). Save them elsewhere with “Save nuclei…”."
