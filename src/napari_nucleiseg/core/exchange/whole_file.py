"""Write a file or folder whole or not at all: an interrupted export leaves no half file under the wanted name."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

from napari_nucleiseg.core.errors import ExportError


@contextmanager
def whole_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary name beside `path`; rename it to `path` at the end, delete it after an error.

    Raises
    ------
    ExportError
        If the file cannot be written.
    """
    target = Path(path)
    partial = target.with_name(f".{target.name}.part")
    try:
        yield partial
        partial.replace(target)
    except OSError as error:
        raise ExportError(f"{target} cannot be written: {error.strerror or error}") from error
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


@contextmanager
def whole_file(path: str | os.PathLike[str]) -> Iterator[TextIO]:
    """Open a UTF-8 text file that appears under its name only when complete.

    Raises
    ------
    ExportError
        If the file cannot be written.
    """
    with whole_path(path) as partial, partial.open("w", encoding="utf-8", newline="") as file:
        yield file


@contextmanager
def whole_folder(path: str | os.PathLike[str], may_replace: Callable[[Path], bool]) -> Iterator[Path]:
    """Give a temporary name beside `path` for a folder; rename it to `path` at the end, delete it after an error.

    Parameters
    ----------
    path : path
        The folder wanted.
    may_replace : callable
        Whether what is there already may go; it goes when the new folder is complete.

    Raises
    ------
    ExportError
        If something is there that may not be replaced, or the folder cannot be written.
    """
    target = Path(path)
    partial, former = (target.with_name(f".{target.name}.{end}") for end in ("part", "old"))
    replaced = target.exists()
    if replaced and not may_replace(target):
        raise ExportError(f"{target} exists already; choose another name or remove it first")
    try:
        for left in (partial, former):
            if left.exists():
                shutil.rmtree(left)
        yield partial
        if replaced:
            target.replace(former)
        partial.replace(target)
    except OSError as error:
        raise ExportError(f"{target} cannot be written: {error.strerror or error}") from error
    finally:
        if former.exists() and not target.exists():
            with suppress(OSError):
                former.replace(target)
        shutil.rmtree(partial, ignore_errors=True)
        if target.exists():
            shutil.rmtree(former, ignore_errors=True)
