"""The project that a command line names: by its folder, or by the slide that it lies beside."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from napari_nucleiseg.core.errors import StoreError

if TYPE_CHECKING:
    from napari_nucleiseg.core.store.project import Project


def open_project(path: str, *, writable: bool) -> Project:
    """Open the project in a folder, or the one beside a slide.

    Raises
    ------
    StoreError
        If there is none, or it cannot be opened.
    """
    from napari_nucleiseg.core.store.project import DATABASE, Project, default_folder

    where = Path(path)
    if not where.exists():
        raise StoreError(f"{path} does not exist. Check the name.")
    folder = where if (where / DATABASE).is_file() else default_folder(where)
    return Project.open(folder, writable=writable)
