"""The project that a command line names: by its folder, or by the slide that it lies beside."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from napari_nucleiseg.core.errors import StoreError

if TYPE_CHECKING:
    from napari_nucleiseg.core.store.project import Project


def open_project(path: str, *, writable: bool) -> Project:
    """Open the project in a folder, or that of a slide.

    Raises
    ------
    StoreError
        If there is none, or it cannot be opened.
    SlideError
        If the path is neither a project nor a slide.
    """
    from napari_nucleiseg.core.store.project import DATABASE, Project

    where = Path(path)
    if not where.exists():
        raise StoreError(f"{path} does not exist. Check the name.")
    return Project.open(where if (where / DATABASE).is_file() else _of_slide(path), writable=writable)


def _of_slide(path: str) -> Path:
    """Return the folder of a slide's project, also where slide or project were renamed."""
    from napari_nucleiseg.core.slides.registry import open_slide
    from napari_nucleiseg.core.store.finding import find_project, usual_folder

    slide = open_slide(path)
    return find_project(slide) or usual_folder(slide)
