"""Parts of the slide of which a person said what they are for, and whether all in them was corrected."""

from __future__ import annotations

import json
import sqlite3
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from napari_nucleiseg.core.errors import StoreError
from napari_nucleiseg.core.geometry import Region
from napari_nucleiseg.core.store.editor import Changed
from napari_nucleiseg.core.store.records import REGIONS

if TYPE_CHECKING:
    from napari_nucleiseg.core.store.project import Project

TEACH, HOLD_OUT, REFERENCE = ROLES = "teach", "hold out", "reference"
NEW, CHANGED, REMOVED = "region", "change region", "remove region"

_ALL = "SELECT region, name, role, vertices, complete, done, person, at FROM regions"

Vertices = tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True)
class AnnotatedRegion:
    """A part of the slide that a person outlined.

    Parameters
    ----------
    number : int
        Of the region in its project; 0 as long as it has none.
    name : str
        For people.
    role : str
        One of `ROLES`: a model is taught with it, is measured on it, or it only says where one is.
    vertices : tuple of tuple of float
        ``(y, x)``, level-0 pixels; at least three, the last is joined to the first.
    complete : bool
        Whether every nucleus inside was looked at; else only approved ones count.
    done : bool
        Whether work on it has ended.
    person : str
        Who changed it last.
    at : float
        When, seconds since 1970.
    """

    number: int
    name: str
    role: str
    vertices: Vertices
    complete: bool = True
    done: bool = False
    person: str = ""
    at: float = 0.0

    @property
    def polygon(self) -> NDArray[np.float64]:
        """The vertices as an array, shape (n, 2)."""
        return np.array(self.vertices, np.float64).reshape(-1, 2)

    @property
    def has_area(self) -> bool:
        """Whether there is anything inside."""
        return len(self.vertices) > 2 and bool(np.isfinite(self.polygon).all()) and _area(self.polygon) > 0

    @property
    def box(self) -> Region:
        """The smallest region that holds it, level-0 pixels."""
        low, high = np.floor(self.polygon.min(0)).astype(int), np.ceil(self.polygon.max(0)).astype(int)
        return Region.from_bounds(int(low[0]), int(low[1]), int(high[0]), int(high[1]))


def read_regions(database: sqlite3.Connection) -> tuple[AnnotatedRegion, ...]:
    """Return the regions of a project by number."""
    return tuple(_region(row) for row in database.execute(f"{_ALL} ORDER BY region"))


def put_region(
    project: Project, region: AnnotatedRegion, *, kind: str | None = None, step: int | None = None
) -> Changed | None:
    """Add a region (number 0) or change one as a step that can be undone; None if that changes nothing.

    Who and when are noted anew; a region without a name gets one.

    Parameters
    ----------
    project : Project
        Open for writing.
    region : AnnotatedRegion
        As it is to become.
    kind : str, optional
        For the history; default `NEW` or `CHANGED`.
    step : int, optional
        Number of an earlier step that this belongs to: both are undone together.

    Raises
    ------
    StoreError
        If it has no area or an unknown role, or the project cannot be written.
    """
    if region.role not in ROLES:
        raise StoreError(f"A region cannot be for {region.role!r}. Choose one of: {', '.join(ROLES)}.")
    if not region.has_area:
        raise StoreError("A region needs an area. Draw it anew.")
    database = project.ledger.reader
    rows = database.execute(f"{_ALL} WHERE region = ?", (region.number,))
    former = next((_region(row) for row in rows), None)
    if former is not None and region == replace(former, person=region.person, at=region.at):
        return None
    number = region.number or 1 + database.execute("SELECT coalesce(max(region), 0) FROM regions").fetchone()[0]
    row = (
        number,
        region.name.strip() or f"Region {number}",
        region.role,
        json.dumps(region.vertices),
        int(region.complete),
        int(region.done),
        project.editor.person,
        time.time(),
    )
    box = region.box.intersect(project.labels.whole)
    kind = kind or (NEW if former is None else CHANGED)
    return project.editor.put(REGIONS, number, row, kind=kind, region=box, step=step)


def remove_region(project: Project, region: AnnotatedRegion) -> Changed | None:
    """Take a region away as a step that can be undone; the nuclei in it stay. None if it is not there."""
    box = region.box.intersect(project.labels.whole)
    return project.editor.put(REGIONS, region.number, None, kind=REMOVED, region=box)


def _region(row: tuple[int, str, str, str, int, int, str, float]) -> AnnotatedRegion:
    number, name, role, text, complete, done, person, at = row
    vertices = tuple((float(y), float(x)) for y, x in json.loads(text))
    return AnnotatedRegion(number, name, role, vertices, bool(complete), bool(done), person, at)


def _area(polygon: NDArray[np.float64]) -> float:
    """Return the area by the shoelace formula, square pixels."""
    (y, x), (following_y, following_x) = polygon.T, np.roll(polygon, -1, axis=0).T
    return abs(float(np.sum(y * following_x - x * following_y))) / 2
