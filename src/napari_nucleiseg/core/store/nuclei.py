"""What goes into and comes out of the store: the nuclei of one tile, tables of nuclei, and the rule of their ids."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from napari_nucleiseg.core.errors import StoreError
from napari_nucleiseg.core.geometry import Region

ID_BITS = 14
MAX_NUCLEI_PER_TILE = (1 << ID_BITS) - 1
MAX_TILES = 1 << 17
PERSON_ID_START = 1 << 31

# Two bytes a pixel where they suffice: level 0 of a fine scan is long to pass over.
LocalLabels = NDArray[np.uint16] | NDArray[np.int32]


@dataclass(frozen=True, slots=True, eq=False)
class TileNuclei:
    """The nuclei that one tile owns, in level-0 pixels of the slide.

    Parameters
    ----------
    tile_index : int
        Place of the tile on the slide's one grid (row * columns + column), below 2**17.
    core : Region
        The tile's core, level-0 pixels; cores of a grid do not overlap.
    box : Region
        What `labels` covers, level-0 pixels, clipped to the slide.
    labels : ndarray of uint16 or int32, shape (y, x)
        Owned nuclei as 1..n over `box`, 0 elsewhere.
    centroids : ndarray of float64, shape (n, 2)
        ``(y, x)`` level-0 pixels; row i belongs to label i + 1.
    areas_um2 : ndarray of float32, shape (n,)
        Square micrometres.
    boxes : ndarray of int64, shape (n, 4)
        ``(y0, x0, y1, x1)`` half-open, level-0 pixels.
    scores : ndarray of float32, shape (n,)
        Mean foreground probability, 0..1.
    """

    tile_index: int
    core: Region
    box: Region
    labels: LocalLabels
    centroids: NDArray[np.float64]
    areas_um2: NDArray[np.float32]
    boxes: NDArray[np.int64]
    scores: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.centroids)


@dataclass(frozen=True, slots=True, eq=False)
class NucleiTable:
    """Nuclei of a region as columns; row i of every column is the same nucleus.

    Parameters
    ----------
    ids : ndarray of uint32, shape (n,)
        Ids as in the label image, ascending.
    centroids : ndarray of float64, shape (n, 2)
        ``(y, x)`` level-0 pixels.
    boxes : ndarray of int64, shape (n, 4)
        ``(y0, x0, y1, x1)`` half-open, level-0 pixels.
    areas_um2 : ndarray of float32, shape (n,)
        Square micrometres.
    classes : ndarray of int32, shape (n,)
        Class number; 0 is "no class".
    scores : ndarray of float32, shape (n,)
        0..1.
    origins : ndarray of object, shape (n,)
        Who made it: a model version or a person's name.
    approved : ndarray of bool, shape (n,)
        Whether a person approved it.
    """

    ids: NDArray[np.uint32]
    centroids: NDArray[np.float64]
    boxes: NDArray[np.int64]
    areas_um2: NDArray[np.float32]
    classes: NDArray[np.int32]
    scores: NDArray[np.float32]
    origins: NDArray[np.object_]
    approved: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.ids)


def global_ids(tile_index: int, n: int) -> NDArray[np.uint32]:
    """Return the slide-wide ids of the labels 1..n of a tile; they depend on nothing but the tile and the label.

    Raises
    ------
    StoreError
        If the tile or its number of nuclei does not fit into 31 bits.
    """
    if not 0 <= tile_index < MAX_TILES:
        raise StoreError(
            f"tile {tile_index} lies beyond the {MAX_TILES:,} tiles that a project can hold; "
            "use a model with a coarser pixel size or larger tiles"
        )
    if n > MAX_NUCLEI_PER_TILE:
        raise StoreError(
            f"tile {tile_index} holds {n:,} nuclei but at most {MAX_NUCLEI_PER_TILE:,} fit; "
            "raise the threshold or the smallest area, or check the pixel size (mpp)"
        )
    return np.arange(1, n + 1, dtype=np.uint32) + np.uint32(tile_index << ID_BITS)


def tile_of(ids: ArrayLike) -> NDArray[np.int64]:
    """Return the tile index of each id; -1 for background and for nuclei made by people."""
    array = np.asarray(ids, dtype=np.int64)
    return np.where((array > 0) & (array < PERSON_ID_START), array >> ID_BITS, -1)
