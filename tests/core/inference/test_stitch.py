"""Tiles of a picture become one label image, also where a tile loses all it found to its neighbour."""

import numpy as np
import pytest

from napari_nucleiseg.core.geometry import Region
from napari_nucleiseg.core.inference.stitch import join_tiles
from napari_nucleiseg.core.store.nuclei import TileNuclei


def found(tile_index, left, width):
    """One nucleus of a tile, from `left` on, in a picture of 20 x 40 pixels whose tiles are 20 px wide."""
    labels = np.zeros((20, 40), np.int32)
    labels[5:15, left : left + width] = 1
    return TileNuclei(
        tile_index=tile_index,
        core=Region(0, 20 * tile_index, 20, 20),
        box=Region(0, 0, 20, 40),
        labels=labels,
        centroids=np.array([[9.5, left + (width - 1) / 2]]),
        areas_um2=np.array([10.0 * width], np.float32),
        boxes=np.array([[5, left, 15, left + width]]),
        scores=np.array([0.9], np.float32),
    )


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_the_last_tile_may_keep_nothing(order):
    tiles = [found(0, 12, 14), found(1, 14, 11)]  # the same nucleus, seen whole by one and in part by the other
    joined = join_tiles([tiles[place] for place in order], (20, 40))
    assert joined.max() == 1
    assert (joined[5:15, 12:26] == 1).all()
    assert np.count_nonzero(joined) == 140


def test_nothing_found_is_an_empty_picture():
    assert join_tiles([], (20, 40)).max() == 0
