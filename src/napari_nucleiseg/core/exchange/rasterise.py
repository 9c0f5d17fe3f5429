"""Many polygons with holes to pixels at once: exact, by the even-odd rule at pixel centres.

The crossings of all edges with all rows of pixel centres are computed together, sorted, and paired into spans.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_nucleiseg.core.geometry import Region

MOST_CROSSINGS = 1 << 24


@dataclass(frozen=True, slots=True, eq=False)
class Rings:
    """Closed outlines of many shapes.

    Parameters
    ----------
    points : ndarray of float64, shape (n, 2)
        ``(x, y)``, level-0 pixels, finite; ring after ring. The last of a ring is joined to the first.
    starts : ndarray of int64, shape (m + 1,)
        Where each ring starts in `points`; the last is their number. No ring is empty.
    owners : ndarray of int64, shape (m,)
        Number of the shape that each ring belongs to, ascending from 0; holes and parts are rings of their shape.
    """

    points: NDArray[np.float64]
    starts: NDArray[np.int64]
    owners: NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Spans:
    """Runs of pixels in rows, ascending by shape, row and column; all columns are int32 ``(n,)``.

    Parameters
    ----------
    owners : ndarray
        Number of the shape.
    rows, starts, stops : ndarray
        Row, first column and the column behind the last, level-0 pixels.
    """

    owners: NDArray[np.int32]
    rows: NDArray[np.int32]
    starts: NDArray[np.int32]
    stops: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.owners)

    def taken(self, which: NDArray[Any]) -> Spans:
        """Return some spans, by mask or index."""
        return Spans(self.owners[which], self.rows[which], self.starts[which], self.stops[which])


def fill(rings: Rings, limits: Region) -> Spans:
    """Return the pixels whose centres lie inside shapes.

    A centre exactly on an edge belongs to the shape at its top and left edges only, so that shapes with a common edge
    share no pixel.

    Parameters
    ----------
    rings : Rings
        The shapes.
    limits : Region
        What lies outside is left out, level-0 pixels.

    Returns
    -------
    Spans
        Not empty ones.
    """
    edges = _edges(rings)
    tops, counts = _rows_of(edges, limits)
    crossed = np.flatnonzero(counts > 0)
    edges, counts, tops = edges.taken(crossed), counts[crossed], tops[crossed]
    rows = np.arange(int(counts.sum())) + np.repeat(tops - (np.cumsum(counts) - counts), counts)
    slopes = (edges.lower_x - edges.upper_x) / (edges.lower_y - edges.upper_y)
    places = np.repeat(edges.upper_x, counts) + (rows + 0.5 - np.repeat(edges.upper_y, counts)) * np.repeat(
        slopes, counts
    )
    columns = _first_centre(places, limits.x, limits.x1)
    # Sorted by shape, row and column as one number.
    height = max(1, limits.height)
    keys = (np.repeat(edges.owners, counts) * height + (rows - limits.y)) << 32 | (columns - limits.x)
    keys.sort()
    starts, stops = keys[::2], keys[1::2]
    some = starts != stops
    starts, stops = starts[some], stops[some]
    lines = starts >> 32
    return Spans(
        (lines // height).astype(np.int32),
        (lines % height + limits.y).astype(np.int32),
        ((starts & 0xFFFFFFFF) + limits.x).astype(np.int32),
        ((stops & 0xFFFFFFFF) + limits.x).astype(np.int32),
    )


def crossings_of(rings: Rings, limits: Region) -> NDArray[np.int64]:
    """Return for each shape how many times its edges cross rows: what `fill` will have to hold in memory."""
    edges = _edges(rings)
    _, counts = _rows_of(edges, limits)
    return np.bincount(edges.owners, counts, int(rings.owners.max(initial=-1)) + 1).astype(np.int64)


@dataclass(frozen=True, slots=True, eq=False)
class _Edges:
    """Upper and lower end of edges and their shape; both shapes at an edge have the same numbers."""

    upper_x: NDArray[np.float64]
    upper_y: NDArray[np.float64]
    lower_x: NDArray[np.float64]
    lower_y: NDArray[np.float64]
    owners: NDArray[np.int64]

    def taken(self, which: NDArray[np.int64]) -> _Edges:
        """Return some edges."""
        ends = self.upper_x[which], self.upper_y[which], self.lower_x[which], self.lower_y[which]
        return _Edges(*ends, self.owners[which])


def _edges(rings: Rings) -> _Edges:
    firsts, lasts = rings.starts[:-1], rings.starts[1:] - 1
    x, y = (np.ascontiguousarray(column) for column in rings.points.T)
    ahead = []
    for column in (x, y):
        following = np.empty_like(column)
        following[:-1] = column[1:]
        following[lasts] = column[firsts]
        ahead.append(following)
    downward = y <= ahead[1]
    return _Edges(
        np.where(downward, x, ahead[0]),
        np.minimum(y, ahead[1]),
        np.where(downward, ahead[0], x),
        np.maximum(y, ahead[1]),
        np.repeat(rings.owners, np.diff(rings.starts)),
    )


def _rows_of(edges: _Edges, limits: Region) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the first row whose centre each edge reaches, and how many it crosses."""
    tops = _first_centre(edges.upper_y, limits.y, limits.y1)
    return tops, _first_centre(edges.lower_y, limits.y, limits.y1) - tops


def _first_centre(places: NDArray[np.float64], low: int, high: int) -> NDArray[np.int64]:
    """Return the first pixel whose centre does not lie before each place, no lower than `low`, no higher than `high`.

    Clipped before they become integers: a place may lie anywhere.
    """
    return np.clip(np.ceil(places - 0.5), low, high).astype(np.int64)
