"""A head as a prior for nuclei: where it looks most there may be one."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter
from scipy.spatial import cKDTree

from napari_nucleiseg.core.attention.grid import TokenGrid
from napari_nucleiseg.core.errors import DataError
from napari_nucleiseg.core.geometry import YX

PERCENTILE = 75.0
DISTANCE_UM = 4.0


def level_of(attention: NDArray[np.floating], percentile: float = PERCENTILE) -> float:
    """Return the attention that so many percent of the known tokens stay below.

    Raises
    ------
    DataError
        If the percentile is not 0..100, or nothing is known.
    """
    if not 0 <= percentile <= 100:
        raise DataError(f"a percentile lies between 0 and 100; {percentile} does not")
    known = attention[~np.isnan(attention)]
    if not known.size:
        raise DataError("nothing is known of this head here; wait until the patches were looked at")
    return float(np.percentile(known, percentile))


def prior_of(attention: NDArray[np.floating], percentile: float = PERCENTILE) -> NDArray[np.bool_]:
    """Return where a head looks more than at so many percent of the tokens.

    Parameters
    ----------
    attention : ndarray of float, shape (rows, columns)
        A map of one head; NaN is never inside.
    percentile : float
        0..100, of the known tokens. A map that is the same everywhere has no prior.

    Returns
    -------
    ndarray of bool, shape (rows, columns)
        `TokenGrid.on_pixels` paints it on a raster, as foreground from which nuclei are proposed.

    Raises
    ------
    DataError
        If the percentile is not 0..100, or nothing is known.
    """
    return np.asarray(attention > level_of(attention, percentile), np.bool_)


def seeds_of(
    attention: NDArray[np.floating],
    grid: TokenGrid,
    mpp_um: YX,
    *,
    percentile: float = PERCENTILE,
    distance_um: float = DISTANCE_UM,
) -> NDArray[np.float64]:
    """Return points in which nuclei may lie: where a head looks more than around it, and more than elsewhere.

    Parameters
    ----------
    attention : ndarray of float, shape (rows, columns)
        A map of one head; NaN is never a seed.
    grid : TokenGrid
        Its tokens in level-0 pixels.
    mpp_um : YX
        Micrometres per pixel at level 0.
    percentile : float
        0..100: seeds lie above so many percent of the known tokens.
    distance_um : float
        Seeds are at least so far apart; 0 or more.

    Returns
    -------
    ndarray of float64, shape (n, 2)
        ``(y, x)`` level-0 pixels, a pixel's centre being whole numbers as in `edits`; strongest first, equal ones row
        by row.

    Raises
    ------
    DataError
        If the map does not fit the grid, an option has no meaning, or nothing is known.
    """
    grid.must_fit(attention)
    if not (math.isfinite(distance_um) and distance_um >= 0):
        raise DataError(f"seeds lie 0 um or more apart, not {distance_um} um")
    values = np.where(prior_of(attention, percentile), attention, -np.inf).astype(np.float64)
    peaks = np.isfinite(values) & (values >= maximum_filter(values, size=3, mode="constant", cval=-np.inf))
    tokens = np.flatnonzero(peaks)
    tokens = tokens[np.argsort(-values.ravel()[tokens], kind="stable")]
    points = grid.centres(tokens)
    return points[_apart(points * np.array(mpp_um), distance_um)] - 0.5


def _apart(points_um: NDArray[np.float64], distance_um: float) -> NDArray[np.int64]:
    """Return the points that stay when each takes away all later ones that are nearer than the distance."""
    free = np.ones(len(points_um), np.bool_)
    tree = cKDTree(points_um) if len(points_um) else None
    for i in range(len(points_um)):
        if tree is not None and free[i]:
            near = np.array(tree.query_ball_point(points_um[i], np.nextafter(distance_um, 0)), np.int64)
            free[near[near > i]] = False
    return np.flatnonzero(free)
