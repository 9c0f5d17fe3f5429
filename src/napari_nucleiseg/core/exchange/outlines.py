"""Outlines of nuclei along pixel edges, so that filling them gives back the same pixels; many nuclei at once.

Each nucleus is looked at in its own bounding box only. The boxes of many are put side by side into one strip, where
the corners of all outlines are found together and joined to rings by array operations.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

# Boxes of about the same height share a strip, so that little of it is empty.
STRIP_NUCLEI = 512
_LOWEST_PX = 16.0
_TALLER = 1.5

# What the four pixels around a grid point (above left 1, above right 2, below left 4, below right 8) say of it.
_CORNERS = np.zeros(16, np.uint8)
_CORNERS[[1, 2, 4, 8, 7, 11, 13, 14]] = 1
_CORNERS[[6, 9]] = 2
_IS_CORNER = _CORNERS > 0
_RISING, _BELOW_RIGHT = 6, 8

Indices = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Outlines:
    """Rings of many nuclei.

    Parameters
    ----------
    points : ndarray of int64, shape (n, 2)
        ``(x, y)`` of the corners, level-0 pixels, ring after ring; the first of a ring is not repeated at its end.
    starts : ndarray of int64, shape (m + 1,)
        Where each ring starts in `points`; the last is their number.
    owners : ndarray of int64, shape (m,)
        Row of the nucleus that each ring belongs to, ascending.
    holes : ndarray of bool, shape (m,)
        Whether a ring is a hole. Other rings have a positive shoelace sum of ``(x, y)``, holes a negative one.
    """

    points: Indices
    starts: Indices
    owners: Indices
    holes: NDArray[np.bool_]

    def ring(self, index: int) -> Indices:
        """Return the corners ``(n, 2)`` of one ring."""
        return self.points[self.starts[index] : self.starts[index + 1]]

    def polygons(self) -> Iterator[tuple[int, list[list[int]]]]:
        """Yield each nucleus' row and its polygons: indices of the outer ring, then of its holes."""
        bounds = np.flatnonzero(np.diff(self.owners, prepend=-1, append=-1)).tolist()
        owners = self.owners.tolist()
        for first, stop in itertools.pairwise(bounds):
            yield owners[first], [[first]] if stop == first + 1 else self._sorted(range(first, stop))

    def _sorted(self, rings: range) -> list[list[int]]:
        polygons = [[index] for index in rings if not self.holes[index]]
        for hole in rings:
            if self.holes[hole]:
                self._around(hole, polygons).append(hole)
        return polygons

    def _around(self, hole: int, polygons: list[list[int]]) -> list[int]:
        """Return the polygon that a hole lies in: the smallest whose outer ring contains a pixel of the hole."""
        if len(polygons) == 1:
            return polygons[0]
        # The first corner of a ring is the left one of its highest row: the pixel to its lower right lies in the hole.
        x, y = (self.ring(hole)[np.lexsort(self.ring(hole).T)[0]] + 0.5).tolist()
        around = [
            (doubled_area(self.ring(polygon[0])), number)
            for number, polygon in enumerate(polygons)
            if _winds_around(self.ring(polygon[0]), x, y)
        ]
        return polygons[min(around)[1]]


def trace(
    labels: NDArray[np.integer[Any]], ids: NDArray[Any], boxes: NDArray[Any], corner: tuple[int, int]
) -> Outlines:
    """Trace the outlines of many nuclei exactly.

    Parameters
    ----------
    labels : ndarray of integers, shape (y, x)
        Ids.
    ids : ndarray of integers, shape (n,)
        The nuclei to trace.
    boxes : ndarray of integers, shape (n, 4)
        ``(y0, x0, y1, x1)`` of each, half-open, in pixels of `labels`.
    corner : tuple of int
        ``(y, x)`` of the first pixel of `labels`: added to what comes out.

    Returns
    -------
    Outlines
        Along pixel edges. Parts that touch at a corner count as two, and no ring touches itself. A nucleus without
        pixels in its box has no ring.
    """
    heights = boxes[:, 2] - boxes[:, 0]
    every = [_trace_strip(labels, chosen, ids, boxes) for chosen in _strips(heights)]
    if not every:
        return Outlines(np.zeros((0, 2), np.int64), np.zeros(1, np.int64), np.zeros(0, np.int64), np.zeros(0, np.bool_))
    points, lengths, owners = (np.concatenate(parts) for parts in zip(*every, strict=True))
    starts = np.concatenate([[0], np.cumsum(lengths)])
    # Rings by nucleus.
    order = np.argsort(owners, kind="stable")
    sorted_starts = np.concatenate([[0], np.cumsum(lengths[order])])
    places = np.arange(len(points)) + np.repeat(starts[order] - sorted_starts[:-1], lengths[order])
    points = points[places] + (corner[1], corner[0])
    return Outlines(points, sorted_starts, owners[order], _areas(points, sorted_starts) < 0)


def simplified(ring: Indices, tolerance_px: float) -> NDArray[np.float64]:
    """Drop points of a ring ``(n, 2)`` along pixel edges; what remains runs through the middles of pixel edges."""
    steps = np.roll(ring, -1, axis=0) - ring
    lengths = np.abs(steps).sum(axis=1)
    along = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths) + 0.5
    middles = np.repeat(ring, lengths, axis=0) + np.repeat(np.sign(steps), lengths, axis=0) * along[:, None]
    # In single precision, but near zero: whole slides have more pixels than it has digits.
    near = (middles - ring[0])[:, None].astype(np.float32)
    found = cv2.approxPolyDP(near, tolerance_px, closed=True)[:, 0]
    return found.astype(np.float64) + ring[0] if len(found) >= 3 else ring.astype(np.float64)


def doubled_area(ring: NDArray[Any]) -> float:
    """Return twice the shoelace area of a ring ``(n, 2)``; positive where it turns from x to y."""
    x, y = ring[:, 0], ring[:, 1]
    return float(np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y))


def _areas(points: Indices, starts: Indices) -> Indices:
    """Return the shoelace sums of rings along pixel edges; only their horizontal parts count."""
    if len(starts) == 1:
        return np.zeros(0, np.int64)
    # Rings begin with a horizontal segment, and every second is one.
    parts = points[::2, 1] * (points[::2, 0] - points[1::2, 0])
    sums: Indices = np.add.reduceat(parts, starts[:-1] // 2)
    return sums


def _winds_around(ring: Indices, x: float, y: float) -> bool:
    start, end = ring, np.roll(ring, -1, axis=0)
    crossed = (np.minimum(start[:, 1], end[:, 1]) < y) & (np.maximum(start[:, 1], end[:, 1]) > y) & (start[:, 0] < x)
    return bool(np.count_nonzero(crossed) & 1)


def _strips(heights: NDArray[Any]) -> Iterator[Indices]:
    """Cut the nuclei, lowest first, into groups of similar height."""
    order = np.argsort(heights, kind="stable")
    ascending = heights[order]
    start = 0
    while start < len(order):
        tallest = max(_LOWEST_PX, float(ascending[start]) * _TALLER)
        stop = min(int(np.searchsorted(ascending, tallest, side="right")), start + STRIP_NUCLEI)
        yield order[start:stop]
        start = stop


def _trace_strip(
    labels: NDArray[np.integer[Any]], chosen: Indices, ids: NDArray[Any], boxes: NDArray[Any]
) -> tuple[Indices, Indices, Indices]:
    """Return the corners of the rings of some nuclei in pixels of `labels`, the rings' lengths and owners."""
    strip, lefts = _strip_of(labels, ids[chosen], boxes[chosen])
    points, starts = _rings(strip)
    slots = np.searchsorted(lefts, points[starts[:-1], 0], side="right") - 1
    lengths = np.diff(starts)
    shifts = np.stack([boxes[chosen, 1] - lefts, boxes[chosen, 0]], axis=1)
    return points + np.repeat(shifts[slots], lengths, axis=0), lengths, chosen[slots]


def _strip_of(
    labels: NDArray[np.integer[Any]], ids: NDArray[Any], boxes: NDArray[Any]
) -> tuple[NDArray[np.uint8], Indices]:
    """Put the masks of nuclei side by side, a pixel apart and a pixel from the rim; return also where each begins."""
    widths = boxes[:, 3] - boxes[:, 1]
    lefts = np.cumsum(widths + 1) - widths
    tallest = int((boxes[:, 2] - boxes[:, 0]).max())
    strip = np.zeros((tallest + 2, int(lefts[-1] + widths[-1]) + 1), np.bool_)
    for (y0, x0, y1, x1), left, nucleus in zip(boxes.tolist(), lefts.tolist(), ids.tolist(), strict=True):
        np.equal(labels[y0:y1, x0:x1], nucleus, out=strip[1 : 1 + y1 - y0, left : left + x1 - x0])
    return strip.view(np.uint8), lefts - 1


def _rings(strip: NDArray[np.uint8]) -> tuple[Indices, Indices]:
    """Return the corners ``(x, y)`` of all outlines, ring after ring, and where each ring starts (and the last ends).

    On a row of grid points, outlines alternate: each odd corner is joined to the next. So it is on a column. Where two
    pixels touch at a corner, that grid point is a corner twice.
    """
    codes = strip[:-1, :-1] | strip[:-1, 1:] << 1 | strip[1:, :-1] << 2 | strip[1:, 1:] << 3
    flat = np.flatnonzero(_IS_CORNER[codes])
    if not len(flat):
        return np.zeros((0, 2), np.int64), np.zeros(1, np.int64)
    found = codes.ravel()[flat]
    times = _CORNERS[found]
    kinds = np.repeat(found, times)
    ys, xs = np.divmod(np.repeat(flat, times), codes.shape[1])
    # Of two corners at one place the one whose outline goes left comes first in its row.
    twins = np.flatnonzero(np.repeat(times == 2, times))[::2]
    above = _joined_in_columns(xs, twins[kinds[twins] == _RISING])
    # Segments along rows, numbered by half their corners; the nucleus lies left of the way.
    left = np.arange(0, len(kinds), 2)
    rightward = (kinds[left] & _BELOW_RIGHT) > 0
    first, last = np.where(rightward, left, left + 1), np.where(rightward, left + 1, left)
    heads, order, starts = _cycles(above[last] // 2)
    # A ring that passes a place twice is cut there, so that it becomes two.
    cut = twins[heads[twins // 2] == heads[(twins + 1) // 2]]
    if len(cut):
        swap = _swapped(len(kinds), cut)
        _, order, starts = _cycles(swap[above[swap[last]]] // 2)
    corners = np.stack([first[order], last[order]], axis=1).ravel()
    return np.stack([xs[corners], ys[corners]], axis=1), 2 * starts


def _swapped(n: int, first: Indices) -> Indices:
    """Return ``0..n-1`` with each of `first` and the one after it exchanged."""
    every = np.arange(n)
    every[first], every[first + 1] = first + 1, first
    return every


def _joined_in_columns(xs: Indices, rising: Indices) -> Indices:
    """Return for each corner (by rows) the one at the other end of its vertical segment.

    Of two corners at one place the one whose outline goes up comes first in its column; where the touching pixels lie
    like a rising line that is the second of its row.
    """
    swap = _swapped(len(xs), rising)
    columns = swap[np.argsort(xs[swap].astype(np.min_scalar_type(int(xs.max()))), kind="stable")]
    joined = np.empty_like(columns)
    joined[columns[::2]], joined[columns[1::2]] = columns[1::2], columns[::2]
    return joined


def _cycles(following: Indices) -> tuple[Indices, Indices, Indices]:
    """Sort the elements of a permutation by cycles.

    Returns
    -------
    heads : ndarray of int64, shape (n,)
        The least element of each element's cycle.
    order : ndarray of int64, shape (n,)
        The elements, cycle after cycle, from its head on.
    starts : ndarray of int64, shape (m + 1,)
        Where each cycle starts in `order`; the last is n.
    """
    n = len(following)
    head, jump = np.arange(n), following
    while True:
        # After k rounds `head` is the least of the next 2**k elements.
        least = np.minimum(head, head[jump])
        if np.array_equal(least, head):
            break
        head, jump = least, jump[jump]
    rest = np.where(following == head, 0, 1)
    jump = np.where(following == head, np.arange(n), following)
    while True:
        more = rest[jump]
        if not more.any():
            break
        rest, jump = rest + more, jump[jump]
    lengths = rest[head] + 1
    begins = np.flatnonzero(head == np.arange(n))
    starts = np.concatenate([[0], np.cumsum(lengths[begins])])
    base = np.empty(n, np.int64)
    base[begins] = starts[:-1]
    order = np.empty(n, np.int64)
    order[base[head] + lengths - 1 - rest] = np.arange(n)
    return head, order, starts
