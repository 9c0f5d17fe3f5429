"""Measure an instance map in passes over pixels: areas, centroids, boxes, scores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from napari_nucleiseg.core.decoders.base import Instances, LabelledPixels, as_float32

SMOOTHING_UM = 0.4
Probability = TypeVar("Probability", NDArray[np.float32], NDArray[np.uint8])


def smooth_probability(probability: Probability, mpp_um: float) -> Probability:
    """Blur a probability map ``(y, x)`` by less than a pixel's neighbours: no pinholes, no one-pixel nuclei.

    The width was chosen on validation patients; what is thresholded and what outlines are cut from must be the same.
    """
    sigma = SMOOTHING_UM / mpp_um
    return cv2.GaussianBlur(np.ascontiguousarray(probability), (0, 0), sigma)  # type: ignore[return-value]


def smooth_foreground(
    stored: NDArray[np.uint8] | NDArray[np.float16] | NDArray[np.float32], mpp_um: float
) -> NDArray[np.float32]:
    """Return what `smooth_probability` makes of a map ``(y, x)`` in 0..1, kept as bytes (times 255) or as numbers.

    Bytes are converted while they are blurred, in half of the time.
    """
    if stored.dtype != np.uint8:
        return smooth_probability(as_float32(stored), mpp_um)
    sigma = SMOOTHING_UM / mpp_um
    # As wide as OpenCV makes it for numbers.
    kernel = cv2.getGaussianKernel(round(8 * sigma + 1) | 1, sigma, cv2.CV_32F)
    return np.asarray(cv2.sepFilter2D(np.ascontiguousarray(stored), cv2.CV_32F, kernel / 255, kernel), np.float32)


def centroids_of(labels: NDArray[np.int32]) -> NDArray[np.float32]:
    """Return the centroid ``(y, x)`` in pixels of each id, shape ``(labels.max() + 1, 2)``; row 0 is zeros."""
    flat = np.flatnonzero(labels)
    ids = labels.ravel()[flat]
    count = int(ids.max()) + 1 if ids.size else 1
    area = np.maximum(np.bincount(ids, minlength=count), 1)
    ys, xs = np.divmod(flat, labels.shape[1])
    centroids = np.stack([np.bincount(ids, ys, count), np.bincount(ids, xs, count)], axis=1) / area[:, None]
    return centroids.astype(np.float32)


def instances_of(labels: NDArray[np.int32], probability: NDArray[np.float32], min_area_px: float) -> Instances:
    """Drop nuclei smaller than `min_area_px`, renumber the rest 1..n and measure them.

    Parameters
    ----------
    labels : ndarray of int32, shape (y, x)
        Instance ids, 0 is background; gaps are allowed.
    probability : ndarray of float32, shape (y, x)
        Foreground probability, averaged into the score.
    min_area_px : float
        Smallest area to keep, in pixels.
    """
    flat = np.flatnonzero(labels)
    return instances_of_pixels(flat, labels.ravel()[flat], probability, min_area_px)


def instances_of_pixels(
    flat: NDArray[np.integer], ids: NDArray[np.int32], probability: NDArray[np.float32], min_area_px: float
) -> Instances:
    """Like `instances_of` for labels given as pixels.

    Parameters
    ----------
    flat : ndarray of integers, shape (m,)
        Raveled positions in ascending order.
    ids : ndarray of int32, shape (m,)
        Instance id at each position; 0 is background.
    probability : ndarray of float32, shape (y, x)
        Foreground probability.
    min_area_px : float
        Smallest area to keep, in pixels.
    """
    height, width = probability.shape
    ids = ids.astype(np.intp)  # an index from here on
    area = np.bincount(ids, minlength=1)
    keep = area >= max(min_area_px, 1)
    keep[0] = False
    count = int(keep.sum())
    renumber = np.zeros(len(area), np.int32)
    renumber[keep] = np.arange(1, count + 1, dtype=np.int32)
    numbers = renumber.take(ids)
    starts = _run_starts(flat, numbers, width)
    lengths = np.diff(starts, append=len(flat))
    sums = np.add.reduceat(probability.ravel().take(flat), starts) if len(starts) else np.zeros(0, np.float32)
    inside = numbers[starts] > 0
    run, lengths = numbers[starts][inside].astype(np.int64) - 1, lengths[inside]
    ys, xs = np.divmod(flat[starts][inside].astype(np.int64), width)
    measures = measure_runs(run, ys, xs, lengths, count)
    scores = np.bincount(run, sums[inside], count) / np.maximum(measures.areas, 1)
    return Instances(
        (height, width),
        LabelledPixels(flat, numbers),
        measures.centroids.astype(np.float32),
        measures.areas,
        measures.boxes,
        scores.astype(np.float32),
    )


def _run_starts(flat: NDArray[np.integer], ids: NDArray[np.int32], width: int) -> NDArray[np.intp]:
    """Return where in `flat` (raveled positions, ascending) a run of one id within one row begins."""
    begins = np.empty(len(flat), np.bool_)
    begins[:1] = True
    np.not_equal(flat[1:], flat[:-1] + 1, out=begins[1:])
    begins[1:] |= ids[1:] != ids[:-1]
    if len(flat):
        rows = np.arange(0, flat[-1] + 1, width, dtype=flat.dtype)
        begins[np.searchsorted(flat, rows)] = True
    return np.flatnonzero(begins)


@dataclass(frozen=True, slots=True, eq=False)
class Measures:
    """Measures of the ids 1..n of a label image, in its pixels; row i belongs to id i + 1.

    Parameters
    ----------
    areas : ndarray of int64, shape (n,)
        Pixels; 0 for an id that has none.
    centroids : ndarray of float64, shape (n, 2)
        ``(y, x)``.
    boxes : ndarray of int64, shape (n, 4)
        ``(y0, x0, y1, x1)`` half-open; meaningless for an id without pixels.
    """

    areas: NDArray[np.int64]
    centroids: NDArray[np.float64]
    boxes: NDArray[np.int64]


def measure_runs(
    run: NDArray[np.int64], ys: NDArray[np.int64], xs: NDArray[np.int64], lengths: NDArray[np.int64], count: int
) -> Measures:
    """Measure nuclei from their runs along the rows: a few dozen a nucleus instead of hundreds of pixels.

    Parameters
    ----------
    run, ys, xs, lengths : ndarray of int64, shape (m,)
        Id minus one, row, first column and number of pixels of each run, in raster order.
    count : int
        Number of ids.
    """
    areas = np.bincount(run, lengths, count).astype(np.int64)
    sums = np.bincount(run, ys * lengths, count), np.bincount(run, lengths * (xs + (lengths - 1) / 2), count)
    boxes = np.zeros((count, 4), np.int64)
    # In raster order a nucleus' first run has its top row, its last one the bottom row.
    boxes[run[::-1], 0] = ys[::-1]
    boxes[run, 2] = ys + 1
    # ufunc.at is fast only where all types agree.
    left, right = np.full(count, np.iinfo(np.int64).max), np.zeros(count, np.int64)
    np.minimum.at(left, run, xs)
    np.maximum.at(right, run, xs + lengths)
    boxes[:, 1], boxes[:, 3] = left, right
    return Measures(areas, np.stack(sums, axis=1) / np.maximum(areas, 1)[:, None], boxes)
