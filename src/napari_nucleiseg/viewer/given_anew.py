"""Ids that a model gives anew: what is known of nuclei by their ids alone is then of others."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_nucleiseg.core.geometry import Region
from napari_nucleiseg.core.store.nuclei import PERSON_ID_START
from napari_nucleiseg.viewer.editing import LANE
from napari_nucleiseg.viewer.jobs import Jobs
from napari_nucleiseg.viewer.project_view import AROUND_PX

if TYPE_CHECKING:
    from napari_nucleiseg.core.store.project import Project


FOUND_ANEW = "Nuclei there have just been found anew: those of now are shown in a moment."


class GivenAnew:
    """Ids that were given anew since a list of nuclei was read: its rows may mean other nuclei by now."""

    def __init__(self) -> None:
        self._told: list[NDArray[np.uint32]] = []
        self._forgotten = 0

    @property
    def now(self) -> int:
        """How often anything was told; what is read from here on holds all of that."""
        return self._forgotten + len(self._told)

    def tell(self, ids: NDArray[np.uint32]) -> None:
        """Note ids that were given anew."""
        self._told.append(ids)

    def forget(self, until: int) -> None:
        """Forget what was told before `now` was `until`: the list was read after it."""
        number = max(0, until - self._forgotten)
        del self._told[:number]
        self._forgotten += number

    def among(self, ids: NDArray[np.uint32]) -> NDArray[np.bool_]:
        """Return which of these ids, ``(n,)``, may be of other nuclei now."""
        return np.isin(ids, np.concatenate([np.zeros(0, np.uint32), *self._told]))


def ids_given_anew(project: Project, region: Region) -> NDArray[np.uint32]:
    """Return the ids that a model which has just written a tile may have given to other nuclei.

    Parameters
    ----------
    project : Project
        What it was written to.
    region : Region
        What the tile changed, level-0 pixels.

    Returns
    -------
    ndarray of uint32, shape (n,)
        Those of all nuclei there, hidden ones too; but what a person has judged or drawn keeps its id.
    """
    given = f"review = 0 AND id < {PERSON_ID_START}"
    rows = project.census.rows_in(project.ledger.reader, region, "id", given)
    return np.array(rows, np.uint32).ravel()


def are_given_anew(project: Project, region: Region, ids: NDArray[np.integer[Any]]) -> bool:
    """Return whether some of these ids are among `ids_given_anew`.

    Parameters
    ----------
    project : Project
        What it was written to.
    region : Region
        What the tile changed, level-0 pixels; nuclei at its edge may be those of the tiles around.
    ids : ndarray of int, shape (n,)
        Of nuclei that were found before.
    """
    edge = min(AROUND_PX, min(region.height, region.width) // 4)
    return bool(np.isin(ids_given_anew(project, region.expand(-edge)), ids).any())


def if_given_anew(
    jobs: Jobs, project: Project, region: Region, ids: NDArray[np.integer[Any]], call: Callable[[], None]
) -> None:
    """Call back on the main thread if `are_given_anew`; not if the project is closed meanwhile."""

    def on_value(anew: bool) -> None:
        if anew:
            call()

    jobs.enqueue(LANE, lambda: are_given_anew(project, region, ids), on_value=on_value, on_error=lambda _error: None)


def tell_given_anew(jobs: Jobs, project: Project, region: Region, call: Callable[[NDArray[np.uint32]], None]) -> None:
    """Call back on the main thread with `ids_given_anew`; not if the project is closed meanwhile."""
    jobs.enqueue(LANE, lambda: ids_given_anew(project, region), on_value=call, on_error=lambda _error: None)
