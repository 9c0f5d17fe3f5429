"""One of two sets of nuclei that are compared: where each lies, its class, and its pixels when they are asked for."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from napari_nucleiseg.core.exchange.source import classes_of
from napari_nucleiseg.core.geometry import Region
from napari_nucleiseg.core.store.ledger import rows_by_id
from napari_nucleiseg.core.store.project import Project
from napari_nucleiseg.core.store.regions import AnnotatedRegion

_COLUMNS = "y, x, y0, x0, y1, x1, class"
NO_CLASS = 0

Ids = NDArray[np.int64]


class Side:
    """Nuclei of a project; holds what is known of those that were taken, and no pixel.

    Parameters
    ----------
    project : Project
        Only read; for the calling thread.
    """

    def __init__(self, project: Project) -> None:
        self._project = project
        self.whole = Region(0, 0, *project.shape)
        self.class_names = {number: found.name for number, found in classes_of(project).items()}
        self._ids = np.zeros(0, np.int64)
        self._centroids = np.zeros((0, 2), np.float64)
        self._boxes = np.zeros((0, 4), np.int64)
        self._classes = np.zeros(0, np.int64)

    def take(self, regions: Sequence[AnnotatedRegion]) -> None:
        """Take the nuclei whose centroid lies in the box of a region; all if there is none."""
        for box in [region.box for region in regions] if regions else [self.whole]:
            table = self._project.nuclei_in(box)
            self._add(table.ids.astype(np.int64), table.centroids, table.boxes, table.classes.astype(np.int64))

    def learn(self, ids: Ids) -> None:
        """Take further nuclei that pixels were seen of; ids without a nucleus are left out."""
        unknown = ids[~np.isin(ids, self._ids)]
        rows = list(rows_by_id(self._project.ledger.reader, _COLUMNS, unknown.tolist()))
        found = np.array(rows, np.float64).reshape(-1, 8)
        whole = found.astype(np.int64)
        self._add(whole[:, 0], found[:, 1:3], whole[:, 3:7], whole[:, 7])

    def _add(
        self, ids: Ids, centroids: NDArray[np.float64], boxes: NDArray[np.int64], classes: NDArray[np.int64]
    ) -> None:
        self._ids, firsts = np.unique(np.concatenate([self._ids, ids]), return_index=True)
        self._centroids = np.concatenate([self._centroids, centroids])[firsts]
        self._boxes = np.concatenate([self._boxes, boxes])[firsts]
        self._classes = np.concatenate([self._classes, classes])[firsts]

    def centroids_of(self, ids: Ids) -> NDArray[np.float64]:
        """Return ``(y, x)`` of each id, level-0 pixels, shape (n, 2); NaN where there is no such nucleus."""
        places, known = self._places(ids)
        found = np.full((len(ids), 2), np.nan)
        found[known] = self._centroids[places[known]]
        return found

    def boxes_of(self, ids: Ids) -> NDArray[np.int64]:
        """Return ``(y0, x0, y1, x1)`` of each id, level-0 pixels, shape (n, 4); empty if there is no such nucleus."""
        places, known = self._places(ids)
        found = np.zeros((len(ids), 4), np.int64)
        found[known] = self._boxes[places[known]]
        return found

    def classes_of(self, ids: Ids) -> NDArray[np.int64]:
        """Return the number of each id's class, shape (n,); `NO_CLASS` where it has none."""
        places, known = self._places(ids)
        found = np.full(len(ids), NO_CLASS, np.int64)
        found[known] = self._classes[places[known]]
        return found

    def _places(self, ids: Ids) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        if not len(self._ids):
            return np.zeros(len(ids), np.int64), np.zeros(len(ids), np.bool_)
        places = np.minimum(np.searchsorted(self._ids, ids), len(self._ids) - 1)
        return places, self._ids[places] == ids

    def blocks(self, side_px: int) -> NDArray[np.bool_]:
        """Return which blocks of the slide the boxes of all nuclei that were taken touch, shape (rows, columns)."""
        shape = -(-self.whole.height // side_px), -(-self.whole.width // side_px)
        wanted = np.zeros(shape, np.bool_)
        low, high = self._boxes[:, :2] // side_px, (self._boxes[:, 2:] - 1) // side_px
        for y0, x0, y1, x1 in np.unique(np.concatenate([low, high], axis=1), axis=0).tolist():
            wanted[max(0, y0) : y1 + 1, max(0, x0) : x1 + 1] = True
        return wanted

    def read(self, region: Region) -> NDArray[np.uint32]:
        """Return the ids of a region inside the slide, level-0 pixels."""
        return self._project.labels.read(region)
