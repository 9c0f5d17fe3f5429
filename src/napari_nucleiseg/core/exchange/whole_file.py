"""Write a file or folder whole or not at all, and never over what is read: a slide, a project, a reference."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TextIO

from napari_nucleiseg.core.errors import ExportError, NucleiSegError
from napari_nucleiseg.core.slides.fingerprint import is_same


def check_target(
    path: str | os.PathLike[str], fingerprint: str = "", inputs: Iterable[str | os.PathLike[str]] = ()
) -> None:
    """Refuse to write over what is read; links are followed.

    Parameters
    ----------
    path : path
        File or folder to write.
    fingerprint : str
        Of the slide that the nuclei belong to: it is known by that whatever its name, as is a copy of it.
    inputs : iterable of path
        Other files and folders that are read.

    Raises
    ------
    ExportError
        If it is one of them, holds one of them, or lies in the folder of any project.
    """
    target = Path(path)
    _refuse_project(target)
    if fingerprint and target.exists() and is_same(_fingerprint_of(target), fingerprint):
        raise ExportError(f"{path} is the slide itself and would be lost. Choose another name to write to.")
    if any(_is_or_holds(target, Path(given)) for given in inputs):
        raise ExportError(f"{path} is what is read here and would be lost. Choose another name to write to.")


def _refuse_project(target: Path) -> None:
    from napari_nucleiseg.core.store.project import DATABASE

    # Where a link lies counts as well as where it points.
    for place in (Path(os.path.realpath(target)), Path(os.path.realpath(target.parent)) / target.name):
        for folder in (place, *place.parents):
            if (folder / DATABASE).is_file():
                where = "is" if folder == place else "lies in"
                raise ExportError(
                    f"{target} {where} the folder of a project, which would be lost. Choose a place outside of it."
                )


def _fingerprint_of(path: Path) -> str:
    """Return the fingerprint of a slide; empty if it is none."""
    from napari_nucleiseg.core.slides.registry import can_open, open_slide

    if not can_open(path):
        return ""
    try:
        with closing(open_slide(path)) as slide:
            return slide.fingerprint
    except (NucleiSegError, OSError):
        return ""


def _is_or_holds(target: Path, given: Path) -> bool:
    place, other = Path(os.path.realpath(target)), Path(os.path.realpath(given))
    if other.is_relative_to(place):
        return True
    # Two names of one file (hard links, or upper and lower case) look different.
    return place.exists() and other.exists() and place.samefile(other)


@contextmanager
def whole_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary name beside `path`; rename it to `path` at the end, delete it after an error.

    Raises
    ------
    ExportError
        If the file cannot be written, or lies in the folder of a project.
    """
    target = Path(path)
    _refuse_project(target)
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
        If the file cannot be written, or lies in the folder of a project.
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
        If something is there that may not be replaced, the folder cannot be written, or lies in that of a project.
    """
    target = Path(path)
    _refuse_project(target)
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
