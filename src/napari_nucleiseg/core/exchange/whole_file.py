"""Write a file whole or not at all: an interrupted export leaves no half file under the wanted name."""

from __future__ import annotations

import os
from collections.abc import Iterator
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
