"""Outlines of nuclei as polygons that run between pixels, so that filling them gives back the same pixels."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

Ring = NDArray[np.float64]
# One polygon: its outer ring, then its holes.
Polygon = list[Ring]


def polygons_of(mask: NDArray[np.bool_], tolerance_px: float = 0.0) -> list[Polygon]:
    """Trace the outline of a mask through the middles of the pixel edges between inside and outside.

    Parameters
    ----------
    mask : ndarray of bool, shape (y, x)
        One nucleus; may have several parts and holes. Parts that touch at a corner count as one.
    tolerance_px : float
        How far the outline may be simplified; 0 keeps it exact: a pixel is inside if its centre is.

    Returns
    -------
    list of Polygon
        One a part. Each ring is float64 ``(n, 2)`` as ``(x, y)``, in pixels from the mask's top-left corner (a
        pixel covers ``[x, x + 1)``), closed: the last point is the first.
    """
    # On a grid twice as fine, where a pixel covers the 3 x 3 points from corner to corner, the outermost
    # points of the mask lie exactly on pixel edges: even coordinates are corners, odd ones middles.
    height, width = mask.shape
    points = np.zeros((2 * height + 1, 2 * width + 1), np.uint8)
    points[1::2, 1::2] = mask
    points = np.asarray(cv2.dilate(points, np.ones((3, 3), np.uint8)), np.uint8)
    rings, tree = cv2.findContours(points, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    polygons: dict[int, Polygon] = {}
    for index, contour in enumerate(rings):
        ring = np.asarray(contour[:, 0, :], np.int32)
        parent = int(tree[0][index][3])
        if parent < 0:
            polygons.setdefault(index, []).insert(0, _closed(ring, tolerance_px))
        else:
            polygons.setdefault(parent, []).append(_closed(ring, tolerance_px))
    return list(polygons.values())


def _closed(points: NDArray[np.int32], tolerance_px: float) -> Ring:
    """Keep the middles of edges, drop points on straight lines, simplify, close the ring."""
    middles = points[(points.sum(axis=1) & 1).astype(bool)]
    step = middles - np.roll(middles, 1, axis=0)
    ahead = np.roll(step, -1, axis=0)
    corners = middles[step[:, 0] * ahead[:, 1] != step[:, 1] * ahead[:, 0]]
    if tolerance_px > 0:
        simple = cv2.approxPolyDP(corners[:, None].astype(np.float32), 2 * tolerance_px, closed=True)[:, 0]
        if len(simple) >= 4:
            corners = simple.astype(np.int32)
    return np.concatenate([corners, corners[:1]]) / 2.0
