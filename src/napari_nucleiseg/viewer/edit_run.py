"""One edit of a project as a job runs it: part by part, counted, stopped between two; knows neither napari nor Qt."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from napari_nucleiseg.core.geometry import Region
from napari_nucleiseg.viewer.marks import Said
from napari_nucleiseg.viewer.project_view import Pixels, pixels_of, said_of

if TYPE_CHECKING:
    from napari_nucleiseg.core.store.editor import Changed, Editor
    from napari_nucleiseg.core.store.project import Project
    from napari_nucleiseg.viewer.long_work import LongWork

Edit = Callable[["Editor"], Iterable["Changed | None"]]
# Of more parts than this the whole window is read once.
FEW_PARTS = 8


@dataclass(frozen=True, slots=True)
class Length:
    """How long an edit takes.

    Parameters
    ----------
    title : str
        What is being done.
    total : callable
        Returns how much there is to do, from the project's `Editor`.
    of : callable
        Returns how much of it a part is.
    stopped : str
        What to say of an edit that was stopped, with ``{done}`` and ``{total}``.
    """

    title: str
    total: Callable[[Editor], int]
    of: Callable[[Changed | None], int]
    stopped: str


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """What an edit did.

    Parameters
    ----------
    regions : list of Region
        Where something changed, level-0 pixels; empty if nothing did.
    window : Region
        What was painted on when it was done, level-0 pixels.
    pixels : list of Pixels
        What the window has there now.
    said : Said
        Of the nuclei that changed.
    stopped : str
        What to say if it was stopped.
    """

    regions: list[Region]
    window: Region
    pixels: list[Pixels]
    said: Said
    stopped: str


def run_edit(project: Project, edit: Edit, window: Region, work: LongWork, length: Length | None) -> Outcome:
    """Do an edit, and read what shows of it.

    Parameters
    ----------
    project : Project
        Open for writing.
    edit : callable
        Called with the project's `Editor`; returns what changed, part by part.
    window : Region
        What is painted on, level-0 pixels.
    work : LongWork
        Told how far it is, and asked whether to stop; only with `length`.
    length : Length, optional
        Of an edit that may take long.
    """
    parts: list[Changed] = []
    stopped = ""
    done, total = 0, 0 if length is None else length.total(project.editor)
    if length is not None:
        work.note(length.title, 0, total)
    for part in edit(project.editor):
        if part is not None:
            parts.append(part)
        if length is not None:
            done = min(total, done + length.of(part))
            work.note(length.title, done, total)
            if work.is_stopped and done < total:
                stopped = length.stopped.format(done=f"{done:,}", total=f"{total:,}")
                break
    regions = [part.region for part in parts]
    ids = set().union(*(part.ids for part in parts))
    return Outcome(regions, window, _pixels(project, regions, window), said_of(project, ids), stopped)


def _pixels(project: Project, regions: list[Region], window: Region) -> list[Pixels]:
    seen = [common for common in (region.intersect(window) for region in regions) if not common.is_empty]
    return [pixels_of(project, region) for region in (seen if len(seen) <= FEW_PARTS else [window])]
