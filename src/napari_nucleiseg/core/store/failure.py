"""Turns what the disk and sqlite say into sentences that tell the user what to do."""

from __future__ import annotations

import errno
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from napari_nucleiseg.core.errors import StoreError

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_NO_ROOM_BYTES = 256 << 10
_REFUSED = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})


@contextmanager
def explained(folder: Path) -> Iterator[None]:
    """Re-raise errors of the file system and of sqlite inside the block as `StoreError`.

    Parameters
    ----------
    folder : Path
        The project; named in the sentence.

    Raises
    ------
    StoreError
        Instead of OSError and sqlite3.Error.
    """
    try:
        yield
    except OSError as error:
        raise StoreError(_say_os(folder, error)) from error
    except sqlite3.Error as error:
        raise StoreError(_say_sqlite(folder, error)) from error


def full_disk(folder: Path) -> str:
    """Return the sentence for a full disk."""
    return (
        f"The disk that holds {folder} is full. Everything finished so far is kept: "
        "make space and start again, it goes on where it stopped."
    )


def not_writable(folder: Path) -> str:
    """Return the sentence for a folder that cannot be written."""
    return f"{folder} cannot be written. Choose another folder for this slide's project."


def _say_os(folder: Path, error: OSError) -> str:
    if error.errno in _FULL:
        return full_disk(folder)
    if error.errno in _REFUSED:
        return not_writable(folder)
    return f"{folder} cannot be used ({error}). Check that the drive is connected, or choose another folder."


def _say_sqlite(folder: Path, error: sqlite3.Error) -> str:
    text = str(error)
    # Where there is no room for the index of the write-ahead log, sqlite speaks of the disk only.
    if "full" in text or ("disk I/O" in text and _has_no_room(folder)):
        return full_disk(folder)
    if "readonly" in text or "unable to open" in text:
        return not_writable(folder)
    if "malformed" in text or "not a database" in text:
        return (
            f"project.sqlite in {folder} is damaged ({text}). Restore the folder from a copy, "
            "or move it away and segment the slide again."
        )
    return f"project.sqlite in {folder} cannot be used ({text}). Check the drive and open the slide again."


def _has_no_room(folder: Path) -> bool:
    with suppress(OSError):
        return shutil.disk_usage(folder).free < _NO_ROOM_BYTES
    return False
