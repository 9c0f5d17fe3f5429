"""Solidity: convex hulls of all nuclei of a block at once."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from napari_nucleiseg.core.measurement.runs import Runs

_SMALLEST_GROUP = 8
# Twice a column, where a row has no pixel; far beyond any, and its differences stay whole numbers.
_NONE = float(1 << 40)


def solidities(runs: Runs) -> NDArray[np.float64]:
    """Return the pixels of each nucleus over those of its convex hull, shape (count,); NaN for one without pixels.

    A pixel counts as the diamond of the middles of its edges, and belongs to the hull if its centre lies inside or on
    it: what scikit-image calls solidity.
    """
    tops, heights = _extents(runs)
    solid = np.full(runs.count, np.nan)
    side = _SMALLEST_GROUP
    # Nuclei of about the same height together, or one large region would make the arrays of all large.
    left = heights > 0
    while left.any():
        group = np.flatnonzero(left & (heights <= side))
        if len(group):
            solid[group] = runs.areas[group] / _hull_areas(runs, group, tops, heights)
            left[group] = False
        side *= 2
    return solid


def _extents(runs: Runs) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the top row of each nucleus and its number of rows; 0 without pixels."""
    tops, bottoms = np.zeros(runs.count, np.int64), np.zeros(runs.count, np.int64)
    # In raster order a nucleus' first run has its top row, its last one the bottom row.
    tops[runs.owners[::-1]] = runs.ys[::-1]
    bottoms[runs.owners] = runs.ys + 1
    return tops, bottoms - tops


def _hull_areas(
    runs: Runs, group: NDArray[np.intp], tops: NDArray[np.int64], heights: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Return the number of pixels in the convex hull of each nucleus of `group`."""
    numbers = np.full(runs.count, -1, np.int64)
    numbers[group] = np.arange(len(group))
    owners = numbers[runs.owners]
    mine = owners >= 0
    owners, rows = owners[mine], runs.ys[mine] - tops[runs.owners[mine]]
    xs, ends = runs.xs[mine], runs.xs[mine] + runs.lengths[mine] - 1
    origins = np.zeros(len(group), np.int64)
    origins[owners[::-1]] = xs[::-1]
    # The right side is a left side seen in a mirror. All is doubled, so that halves of pixels are whole numbers.
    height = int(heights[group].max())
    sides = np.full((2, len(group), height), _NONE)
    sides[0, owners[::-1], rows[::-1]] = 2.0 * (xs - origins[owners])[::-1]
    sides[1, owners, rows] = -2.0 * (ends - origins[owners])
    lasts = 2 * heights[group]
    left, right = _limits(sides.reshape(-1, height), np.concatenate([lasts, lasts])).reshape(2, len(group), height)
    widths = np.maximum(1 - left - right, 0)
    widths[np.arange(height) >= heights[group, None]] = 0
    areas: NDArray[np.int64] = widths.sum(axis=1)
    return areas


def _limits(middles: NDArray[np.float64], lasts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the first column inside the convex hull in each row.

    Parameters
    ----------
    middles : ndarray of float64, shape (n, height)
        Twice the first column of each row of a nucleus; `_NONE` where it has no pixel.
    lasts : ndarray of int64, shape (n,)
        Twice the number of rows.

    Returns
    -------
    ndarray of int64, shape (n, height)
        Meaningless in rows from ``lasts / 2`` on.
    """
    # Along half rows: a pixel reaches half a column further at its middle, and half a row further at its column.
    extremes = np.full((len(middles), 2 * middles.shape[1] + 1), _NONE)
    extremes[:, 1::2] = np.where(middles < _NONE, middles - 1, _NONE)
    extremes[:, :-1:2] = middles
    extremes[:, 2::2] = np.minimum(extremes[:, 2::2], middles)
    vertices = _chain(extremes, lasts)
    # Each row lies on the line from the vertex before it (or on it) to the one behind.
    steps = np.arange(extremes.shape[1])
    before = np.maximum.accumulate(np.where(vertices, steps, 0), axis=1)[:, 1::2]
    behind = np.where(vertices, steps, steps[-1])[:, ::-1]
    behind = np.minimum.accumulate(behind, axis=1)[:, ::-1][:, 1::2]
    start = np.take_along_axis(extremes, before, axis=1).astype(np.int64)
    rise = np.take_along_axis(extremes, behind, axis=1).astype(np.int64) - start
    run = np.maximum(behind - before, 1)
    # Halved and rounded up, in whole numbers: a centre on the hull belongs to it.
    limits: NDArray[np.int64] = -(-(start * run + rise * (steps[1::2] - before)) // (2 * run))
    return limits


def _chain(extremes: NDArray[np.float64], lasts: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return which points lie on the lower convex chain of each row of `extremes`, shape (n, steps).

    From each vertex the chain goes where the slope is smallest. Slopes are quotients of small whole numbers: equal ones
    are equal as floats, and of these the farthest is taken.
    """
    steps = extremes.shape[1]
    places = np.arange(steps, dtype=np.float64)
    vertices = np.zeros(extremes.shape, np.bool_)
    vertices[:, 0] = True
    active, now, points = np.arange(len(extremes)), np.zeros(len(extremes), np.int64), extremes
    while len(active):
        # Nothing before the hindmost is looked at again.
        first = int(now.min()) + 1
        ahead = places[first:] - now[:, None]
        rises = points[:, first:] - points[np.arange(len(active)), now][:, None]
        slopes = np.divide(rises, ahead, out=np.full(rises.shape, np.inf), where=ahead > 0)
        now = steps - 1 - slopes[:, ::-1].argmin(axis=1)
        vertices[active, now] = True
        going = now < lasts[active]
        active, now, points = active[going], now[going], points[going]
    return vertices
