"""The slide of a project: beside it, where it was last seen, or where somebody says that it is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from napari_nucleiseg.core.errors import SlideError
from napari_nucleiseg.core.slides.fingerprint import is_same
from napari_nucleiseg.core.slides.pyramid import Slide
from napari_nucleiseg.core.slides.registry import open_slide
from napari_nucleiseg.core.store.finding import slide_remembered
from napari_nucleiseg.core.store.project import Project


def find_slide(project: Project, given: Sequence[str] = ()) -> Slide | None:
    """Open the slide of a project.

    First come the paths that are given, then the slide's name beside the project, the place where this computer last
    saw it, and at last files of the same kind beside the project, for it may have been renamed. A slide is recognised
    by its fingerprint, so that none is taken for another.

    Parameters
    ----------
    project : Project
        States fingerprint and name of its slide.
    given : sequence of str
        Slides among which it may be.

    Returns
    -------
    Slide or None
        None if it is not found.

    Raises
    ------
    SlideError
        If one of the given paths cannot be opened.
    """
    for path in given:
        slide = open_slide(path)
        if _is_of(slide, project):
            return slide
        slide.close()
    for place in _likely(project):
        try:
            slide = open_slide(place)
        except SlideError:
            continue
        if _is_of(slide, project):
            return slide
        slide.close()
    return None


def _likely(project: Project) -> Iterator[Path]:
    named = project.folder.parent / project.slide_name
    remembered = slide_remembered(project.folder)
    first = [path for path in (named, remembered) if path is not None and path.exists()]
    yield from first
    beside = sorted(project.folder.parent.glob(f"*{named.suffix}")) if named.suffix else []
    yield from (path for path in beside if path not in first)


def _is_of(slide: Slide, project: Project) -> bool:
    if project.fingerprint and slide.fingerprint:
        return is_same(slide.fingerprint, project.fingerprint)
    return Path(slide.path).name == project.slide_name and slide.shape == project.shape
