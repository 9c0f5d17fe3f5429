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
    upper, lower, owners = _edges(rings)
    tops = _first_centre(upper[:, 1], limits.y, limits.y1)
    counts = _first_centre(lower[:, 1], limits.y, limits.y1) - tops
    crossed = np.flatnonzero(counts > 0)
    counts, tops = counts[crossed], tops[crossed]
    edges = np.repeat(crossed, counts)
    rows = np.arange(len(edges)) + np.repeat(tops - (np.cumsum(counts) - counts), counts)
    x0, y0 = upper[edges, 0], upper[edges, 1]
    with np.errstate(divide="ignore", invalid="ignore"):
        slopes = (lower[:, 0] - upper[:, 0]) / (lower[:, 1] - upper[:, 1])
    columns = _first_centre(x0 + (rows + 0.5 - y0) * slopes[edges], limits.x, limits.x1)
    # Sorted by shape, row and column as one number.
    height = max(1, limits.height)
    keys = (owners[edges] * height + (rows - limits.y)) << 32 | (columns - limits.x)
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
    upper, lower, owners = _edges(rings)
    counts = _first_centre(lower[:, 1], limits.y, limits.y1) - _first_centre(upper[:, 1], limits.y, limits.y1)
    return np.bincount(owners, counts, int(rings.owners.max(initial=-1)) + 1).astype(np.int64)


def _edges(rings: Rings) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
    """Return the upper and the lower end of every edge and its shape; both shapes at an edge get the same numbers."""
    following = np.arange(1, len(rings.points) + 1)
    following[rings.starts[1:] - 1] = rings.starts[:-1]
    begins, ends = rings.points, rings.points[following]
    downward = (begins[:, 1] <= ends[:, 1])[:, None]
    lengths = np.diff(rings.starts)
    return np.where(downward, begins, ends), np.where(downward, ends, begins), np.repeat(rings.owners, lengths)


def _first_centre(places: NDArray[np.float64], low: int, high: int) -> NDArray[np.int64]:
    """Return the first pixel whose centre does not lie before each place, no lower than `low`, no higher than `high`.

    Clipped before they become integers: a place may lie anywhere.
    """
    return np.clip(np.ceil(places - 0.5), low, high).astype(np.int64)
