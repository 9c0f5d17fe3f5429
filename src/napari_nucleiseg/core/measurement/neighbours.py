"""Where the other nuclei are: distances to the nearest, neighbours, density."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from napari_nucleiseg.core.geometry import YX, Region
from napari_nucleiseg.core.measurement.columns import DENSITY_RADIUS_UM, NEAREST, NEIGHBOUR_UM, SEARCH_UM


def searched(region: Region, mpp_um: YX) -> Region:
    """Return where the neighbours of the nuclei of `region` lie, level-0 pixels."""
    # A pixel more, for a centroid at the very border.
    dy, dx = (math.ceil(SEARCH_UM / mpp) + 1 for mpp in mpp_um)
    return Region.from_bounds(region.y - dy, region.x - dx, region.y1 + dy, region.x1 + dx)


def measure_neighbours(
    centroids: NDArray[np.float64], others: NDArray[np.float64], mpp_um: YX
) -> Mapping[str, NDArray[np.float64]]:
    """Return the columns `NEIGHBOURS` of nuclei, ``(n,)`` each.

    Parameters
    ----------
    centroids : ndarray of float64, shape (n, 2)
        ``(y, x)`` level-0 pixels of the nuclei.
    others : ndarray of float64, shape (m, 2)
        Of all nuclei within `SEARCH_UM` of them, their own included, in any order.
    mpp_um : YX
        Micrometres per level-0 pixel.
    """
    if not len(centroids):
        return dict.fromkeys(("nearest_um", "nearest_5_um", "neighbours_25um", "density_per_mm2"), np.zeros(0))
    mine = centroids * mpp_um
    tree = cKDTree(others * mpp_um)
    # The first of each is the nucleus itself. The bound itself is not within it.
    bound = np.nextafter(SEARCH_UM, np.inf)
    distances = np.asarray(tree.query(mine, np.arange(2, NEAREST + 2), distance_upper_bound=bound)[0])
    found = np.isfinite(distances)
    number = found.sum(axis=1)
    sums = np.where(found, distances, 0).sum(axis=1)
    near = tree.query_ball_point(mine, NEIGHBOUR_UM, return_length=True)
    around = tree.query_ball_point(mine, DENSITY_RADIUS_UM, return_length=True)
    return {
        "nearest_um": np.where(found[:, 0], distances[:, 0], np.nan),
        "nearest_5_um": np.divide(sums, number, out=np.full(len(mine), np.nan), where=number > 0),
        "neighbours_25um": np.asarray(near, np.float64) - 1,
        "density_per_mm2": np.asarray(around) / (math.pi * (DENSITY_RADIUS_UM / 1000) ** 2),
    }
