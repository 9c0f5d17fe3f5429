"""Which pixels a brush stroke or a polygon covers; pixel ``(i, j)`` has its centre at the point ``(i, j)``."""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import NDArray

from napari_nucleiseg.core.edits.change import Mask
from napari_nucleiseg.core.geometry import Region

Points = NDArray[np.float64]

# A long segment is drawn in parts, so that the squares around them stay small.
LONGEST_PART_PX = 64.0
ROUNDING_PX = 1e-9


def span_of(points: Points, margin: float, limits: Region) -> Region:
    """Return the pixels whose centres lie no farther outside the points' bounding box than a margin."""
    low, high = np.ceil(points.min(axis=0) - margin), np.floor(points.max(axis=0) + margin) + 1
    # Clipped before they become integers: a point may lie anywhere.
    y0, y1 = np.clip([low[0], high[0]], limits.y, limits.y1)
    x0, x1 = np.clip([low[1], high[1]], limits.x, limits.x1)
    return Region.from_bounds(int(y0), int(x0), int(y1), int(x1))


def stroke(points: Points, radius: float, window: Region) -> Mask:
    """Return the pixels of a window no farther than `radius` from a path.

    Parameters
    ----------
    points : ndarray of float64, shape (n, 2)
        ``(y, x)`` of the path's corners, n > 0.
    radius : float
        In pixels.
    window : Region
        In pixels.

    Returns
    -------
    ndarray of bool, shape (window.height, window.width)
        True on the stroke.
    """
    mask = np.zeros((window.height, window.width), np.bool_)
    for start, end in zip(points[: max(1, len(points) - 1)], points[min(1, len(points) - 1) :], strict=True):
        parts = max(1, int(np.ceil(np.linalg.norm(end - start) / max(LONGEST_PART_PX, 4 * radius))))
        corners = start + (end - start) * np.linspace(0, 1, parts + 1)[:, None]
        for a, b in itertools.pairwise(corners):
            _add_segment(mask, a, b, radius, window)
    return mask


def _add_segment(mask: Mask, a: Points, b: Points, radius: float, window: Region) -> None:
    span = span_of(np.stack([a, b]), radius, window)
    if span.is_empty:
        return
    ys = np.arange(span.y, span.y1)[:, None] - a[0]
    xs = np.arange(span.x, span.x1)[None] - a[1]
    dy, dx = b - a
    along = np.clip((ys * dy + xs * dx) / max(dy * dy + dx * dx, ROUNDING_PX), 0, 1)
    near = (ys - along * dy) ** 2 + (xs - along * dx) ** 2 <= radius**2 + ROUNDING_PX
    mask[span.translate(-window.y, -window.x).slices] |= near


def polygon(vertices: Points, window: Region) -> Mask:
    """Return the pixels of a window whose centres lie inside a polygon by the even-odd rule.

    A centre exactly on an edge belongs to the polygon at its top and left edges only, so that polygons with a common
    edge share no pixel.

    Parameters
    ----------
    vertices : ndarray of float64, shape (n, 2)
        ``(y, x)``; the last is joined to the first.
    window : Region
        In pixels.

    Returns
    -------
    ndarray of bool, shape (window.height, window.width)
        True inside.
    """
    height, width = window.height, window.width
    toggles = np.zeros((height, width + 1), np.int64)
    for a, b in zip(vertices, np.roll(vertices, -1, axis=0), strict=True):
        upper, lower = (a, b) if a[0] <= b[0] else (b, a)
        top, bottom = np.clip(np.ceil([upper[0], lower[0]]), window.y, window.y1).astype(int)
        if top == bottom:
            continue
        rows = np.arange(top, bottom)
        crossings = upper[1] + (rows - upper[0]) * ((lower[1] - upper[1]) / (lower[0] - upper[0]))
        first = np.clip(np.ceil(crossings) - window.x, 0, width).astype(int)
        toggles[rows - window.y, first] += 1
    inside: Mask = (np.cumsum(toggles[:, :width], axis=1) & 1).astype(np.bool_)
    return inside


def inside_polygon(points: Points, vertices: Points) -> Mask:
    """Return for each point ``(y, x)`` of ``(n, 2)`` whether it lies inside a polygon; the rule is `polygon`'s."""
    odd = np.zeros(len(points), np.bool_)
    ys, xs = points[:, 0], points[:, 1]
    for a, b in zip(vertices, np.roll(vertices, -1, axis=0), strict=True):
        upper, lower = (a, b) if a[0] <= b[0] else (b, a)
        level = (ys >= upper[0]) & (ys < lower[0])
        slope = (lower[1] - upper[1]) / (lower[0] - upper[0]) if lower[0] > upper[0] else 0.0
        odd ^= level & (xs >= upper[1] + (ys - upper[0]) * slope)
    return odd
