"""The project that a command line names: by its folder, or by the slide that it lies beside."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from napari_nucleiseg.core.errors import SlideError, StoreError

if TYPE_CHECKING:
    from napari_nucleiseg.cli.console import Console, ProgressBars
    from napari_nucleiseg.core.slides.pyramid import Slide
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
    return Project.open(where, writable=writable) if (where / DATABASE).is_file() else _of_slide(path, writable)


def _of_slide(path: str, writable: bool) -> Project:
    """Open a slide's project, also where slide or project were renamed."""
    from napari_nucleiseg.core.slides.registry import open_slide
    from napari_nucleiseg.core.store.finding import find_project, usual_folder
    from napari_nucleiseg.core.store.project import Project

    with closing(open_slide(path)) as slide:
        project = Project.open(find_project(slide) or usual_folder(slide), writable=writable)
        project.note_bounds(slide)
        return project


def projects_with_slides(
    projects: Sequence[str], slides: Sequence[str], console: Console
) -> Generator[tuple[str, Project, Slide, ProgressBars], None, None]:
    """Iterate over projects, only looked at, each with its slide; both are open until the next is asked for.

    Close it where its loop can fail (`contextlib.closing`): what is open is closed then, not only when it is forgotten.

    Parameters
    ----------
    projects : sequence of str
        Folders, or slides that they lie beside; one that is named twice comes once.
    slides : sequence of str
        Where slides are that do not lie beside their project.
    console : Console
        Shows how far it is.

    Yields
    ------
    path, project, slide, bars
        The path as it was named; `bars` take sentences.

    Raises
    ------
    SlideError
        If a slide is not found.
    StoreError
        If a project cannot be opened.
    """
    from napari_nucleiseg.core.store.project import DATABASE
    from napari_nucleiseg.core.teaching.slides import find_slide

    done: set[Path] = set()
    # A project that is named by its slide tells where the slide is.
    given = [*slides, *(path for path in projects if Path(path).exists() and not (Path(path) / DATABASE).is_file())]
    with console.progress() as bars:
        for place, path in enumerate(projects):
            bars.update("reading", place, len(projects), path)
            with open_project(path, writable=False) as project:
                if project.folder in done:
                    continue
                done.add(project.folder)
                slide = find_slide(project, given)
                if slide is None:
                    raise SlideError(_where_is_it(project, path, slides))
                try:
                    yield path, project, slide, bars
                finally:
                    slide.close()


def _where_is_it(project: Project, path: str, slides: Sequence[str]) -> str:
    """Return what to do about a slide that is not found, neither beside its project nor among those that were named."""
    name = project.slide_name
    if not slides:
        return f"The slide {name} of {path} is not beside it. Say where it is with --slide PATH."
    others = f"{slides[0]} is another slide" if len(slides) == 1 else f"{', '.join(slides)} are other slides"
    return f"{others}, not {name} of {path}, which is not beside it either. Say where that one is with --slide PATH."
