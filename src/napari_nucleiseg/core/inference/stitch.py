"""Joining the nuclei of tiles in memory, by the rule of the store, for pictures that need no project on disk."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from napari_nucleiseg.core.geometry import Region
from napari_nucleiseg.core.store.merge import Arrivals, Claim, Known, Merge, State
from napari_nucleiseg.core.store.nuclei import ID_BITS, MAX_NUCLEI_PER_TILE, TileNuclei, global_ids


class _Canvas:
    """The label image of a whole picture and what is known of the nuclei on it."""

    def __init__(self, shape: tuple[int, int]) -> None:
        self.image = np.zeros(shape, np.uint32)
        self._known: dict[int, Known] = {}
        self._claims: dict[int, Claim] = {}

    def add(self, nuclei: TileNuclei) -> None:
        """Merge the nuclei of one tile."""
        ids = global_ids(nuclei.tile_index, len(nuclei))
        for number, box in zip(ids.tolist(), nuclei.boxes.tolist(), strict=True):
            self._known[number] = Known(number, Region.from_bounds(*box), State.SHOWN, protected=False)
        merge = Merge(Region(0, 0, *self.image.shape), self.image, self._claims, self._lookup)
        merge.put_in(Arrivals(nuclei.box, nuclei.labels, ids, nuclei.boxes))
        for number, state in merge.outcome.states.items():
            self._known[number] = replace(self._known[number], state=state)
        for number, claim in merge.outcome.claims.items():
            self._claims.pop(number, None)
            if claim is not None:
                self._claims[number] = claim

    def numbered(self) -> NDArray[np.int32]:
        """Return the image with the ids that are seen as 1..n, in the order of ids."""
        tiles = (self.image >> ID_BITS).astype(np.int32)
        # The last tiles may have lost all of their nuclei to neighbours.
        last = max((number >> ID_BITS for number in self._known), default=0)
        slots = np.zeros(last + 2, np.int64)
        for number in self._known:
            slots[(number >> ID_BITS) + 1] += 1
        # Slot 0 is background, then come the nuclei of tile after tile.
        first = np.cumsum(slots)[:-1]
        place = np.where(self.image > 0, first[tiles] + (self.image & MAX_NUCLEI_PER_TILE), 0)
        seen = np.bincount(place.ravel()) > 0
        seen[0] = False
        return np.asarray(np.where(seen, np.cumsum(seen), 0)[place], dtype=np.int32)

    def _lookup(self, wanted: Iterable[int]) -> dict[int, Known]:
        return {number: self._known[number] for number in wanted}


def join_tiles(tiles: Iterable[TileNuclei], shape: tuple[int, int]) -> NDArray[np.int32]:
    """Paint the nuclei of tiles onto one canvas; the order in which they come does not matter.

    Parameters
    ----------
    tiles : iterable of TileNuclei
        Each tile at most once.
    shape : tuple of int
        Of the slide, level-0 ``(height, width)``.

    Returns
    -------
    ndarray of int32, shape (height, width)
        1..n without gaps, numbered by tile, then as within the tile.

    Raises
    ------
    StoreError
        If a tile holds more nuclei than can be numbered.
    """
    canvas = _Canvas(shape)
    for nuclei in tiles:
        if len(nuclei):
            canvas.add(nuclei)
    return canvas.numbered()
