"""From model pixels to level 0: labels with smooth outlines, measured run by run, not pixel by pixel."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from napari_nucleiseg.core.decoders.measure import Measures, measure_runs
from napari_nucleiseg.core.geometry import Region
from napari_nucleiseg.core.inference.plan import TileGrid
from napari_nucleiseg.core.store.nuclei import LocalLabels


def grow(labels: NDArray[np.int32]) -> NDArray[np.int32]:
    """Grow all nuclei by a pixel into the background: the true outline may lie that far beyond the coarse one.

    Parameters
    ----------
    labels : ndarray of int32, shape (y, x)
        Ids below 2**24, all that were found, so that none grows over another.
    """
    narrow = _narrow(labels)
    grown = cv2.dilate(narrow, np.ones((3, 3), np.uint8))
    return cv2.copyTo(narrow, (labels > 0).view(np.uint8), grown).astype(np.int32)


def enlarge(
    labels: LocalLabels,
    gate: NDArray[np.uint8] | None,
    *,
    window_px: Region,
    box: Region,
    grid: TileGrid,
    threshold: float,
) -> LocalLabels:
    """Resample labels from model pixels to level 0 with outlines that follow the probability, not the pixels.

    Parameters
    ----------
    labels : ndarray of uint16 or int32, shape (y, x)
        Ids below 2**24 over `window_px`, model pixels.
    gate : ndarray of uint8, shape (y, x), or None
        Probability times 255 over the same; None leaves the outlines as nearest neighbours have them.
    window_px : Region
        In model pixels of the slide.
    box : Region
        In level-0 pixels: what to return.
    grid : TileGrid
        Relation of the two.
    threshold : float
        Probability on the outline.

    Returns
    -------
    ndarray of uint16 or, if an id is larger, int32, shape (box.height, box.width)
        Ids.
    """
    fine = _resampled(_narrow(labels), window_px, box, grid, smooth=False)
    if gate is not None:
        probability = _resampled(np.ascontiguousarray(gate), window_px, box, grid, smooth=True)
        # Bytes above t * 255 are those above its floor.
        np.multiply(fine, probability > np.uint8(threshold * 255), out=fine)
    return fine if fine.dtype == np.uint16 else fine.astype(np.int32)


def _narrow(labels: LocalLabels) -> NDArray[np.uint16] | NDArray[np.float32]:
    """Return ids below 2**24 in the smallest type that holds them and that cv2 can resample."""
    if labels.dtype == np.uint16:
        return labels.astype(np.uint16, copy=False)
    wide = labels.size and labels.max() > np.iinfo(np.uint16).max
    return labels.astype(np.float32) if wide else labels.astype(np.uint16)


def _resampled(pixels: NDArray[Any], window_px: Region, box: Region, grid: TileGrid, *, smooth: bool) -> NDArray[Any]:
    """Sample `pixels` (over `window_px`) at the centres of the level-0 pixels of `box`."""
    fy, fx = grid.downsample
    flags = cv2.INTER_LINEAR if smooth else cv2.INTER_NEAREST
    if fy == int(fy) and fx == int(fx):
        # cv2.resize does just that for whole factors, several times faster.
        whole = cv2.resize(pixels, None, fx=fx, fy=fy, interpolation=flags)
        y, x = box.y - window_px.y * int(fy), box.x - window_px.x * int(fx)
        return whole[y : y + box.height, x : x + box.width]
    # Centres to centres: level-0 pixel i lies at (i + 0.5) / f - 0.5 in model pixels.
    matrix = np.array(
        [
            [1 / fx, 0, (box.x + 0.5) / fx - 0.5 - window_px.x],
            [0, 1 / fy, (box.y + 0.5) / fy - 0.5 - window_px.y],
        ]
    )
    size = (box.width, box.height)
    return cv2.warpAffine(pixels, matrix, size, flags=flags | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REPLICATE)


def measure(labels: NDArray[np.integer], count: int) -> Measures:
    """Measure the ids 1..count of ``(y, x)`` labels from their runs along the rows: a few dozen a nucleus."""
    width = labels.shape[1]
    flat = np.ascontiguousarray(labels).ravel()
    starts = np.empty(flat.size, np.bool_)
    np.not_equal(flat[1:], flat[:-1], out=starts[1:])
    starts[::width] = True  # no run wraps into the next row
    begins = np.flatnonzero(starts)
    ends = np.append(begins[1:], flat.size)
    ids = flat[begins]
    inside = ids > 0
    ids, begins, ends = ids[inside].astype(np.int64) - 1, begins[inside], ends[inside]
    ys, x0 = np.divmod(begins, width)
    return measure_runs(ids, ys, x0, ends - begins, count)
