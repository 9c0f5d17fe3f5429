"""Files that are written whole or not at all; where others may lie already, never over one of them."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from errno import EEXIST
from pathlib import Path

ENDING = ".part"
_LEFT_BEHIND_S = 3600.0


def write_new(path: Path, content: bytes) -> None:
    """Write a file that is not there yet.

    Raises
    ------
    FileExistsError
        If there is one already, also one that another process made meanwhile; it stays as it is.
    OSError
        If it cannot be written; then there is none.
    """
    with _written_beside(path, content) as partial:
        try:
            os.link(partial, path)
        except FileExistsError:
            raise
        except OSError:  # a file system without links, such as that of memory sticks
            move_new(partial, path)


def move_new(path: Path, target: Path) -> None:
    """Give a file another name that is not taken.

    Raises
    ------
    FileExistsError
        If it is taken.
    OSError
        If it cannot be moved.
    """
    if target.exists():
        raise FileExistsError(EEXIST, os.strerror(EEXIST), str(target))
    path.rename(target)


def write_over(path: Path, content: bytes) -> None:
    """Write a file, in the place of the former one if there is one.

    Raises
    ------
    OSError
        If it cannot be written; then the former one is as it was.
    """
    with _written_beside(path, content) as partial:
        partial.replace(path)


def sweep(folder: Path) -> None:
    """Remove what processes that were killed left half written; what somebody may be writing now stays."""
    for path in folder.glob(f"*{ENDING}"):
        with suppress(OSError):
            if time.time() - path.stat().st_mtime > _LEFT_BEHIND_S:
                path.unlink()


@contextmanager
def _written_beside(path: Path, content: bytes) -> Iterator[Path]:
    """Write the content beside `path` for the length of the block, so that it survives a loss of power."""
    partial = path.with_name(f"{path.name}.{secrets.token_hex(4)}{ENDING}")
    try:
        with partial.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        yield partial
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
