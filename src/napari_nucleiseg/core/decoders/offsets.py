"""Instances by voting: each foreground pixel points at its nucleus' centre and joins the nearest peak of votes.

The idea is that of centre and offset regression (Cheng et al., Panoptic-DeepLab, CVPR 2020) with the votes
themselves in place of a centre heatmap. Every step passes over pixels, none over objects.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from napari_nucleiseg.core.decoders.base import DecodeOptions, Instances, Maps, as_float32
from napari_nucleiseg.core.decoders.measure import centroids_of, instances_of_pixels, smooth_foreground
from napari_nucleiseg.core.models.spec import HeadSpec

# Widths are micrometres, so that they mean the same at every pixel size.
VOTE_SIGMA_UM = 0.75
PEAK_RADIUS_UM = 1.25
MIN_VOTES_UM2 = 0.75  # area whose pixels must meet near a point for it to be a centre
CELL_UM = 1.0
MAX_REACH_UM = 3.0  # a pixel whose vote lands farther than this from any centre stays background


class OffsetDecoder:
    """Foreground probability and offsets to the centre; see the module."""

    name = "offsets"
    heads = (
        HeadSpec("nuclei", 1, "sigmoid", "Nucleus probability"),
        HeadSpec("offsets", 2, "none", "Offset to the centre", shown=False),
    )
    as_stored = frozenset({"nuclei", "offsets"})
    revision = 2

    def decode(self, maps: Maps, mpp_um: float, options: DecodeOptions) -> Instances:
        """Find the nuclei; see `Decoder.decode`."""
        probability = smooth_foreground(maps["nuclei"][0], mpp_um)
        height, width = probability.shape
        # Indices of numpy's own width: any other is converted at each use.
        flat = np.flatnonzero(probability > options.threshold)
        # Votes are counted in cells of about a micrometre: finer than any two centres lie apart, a quarter of the work.
        cell = max(1, round(CELL_UM / mpp_um))
        rows, columns = -(-height // cell), -(-width // cell)
        ys, xs = np.divmod(flat.astype(np.int32), np.int32(width))
        offset_y, offset_x = maps["offsets"].reshape(2, -1)
        vote_y = _to_cell(ys + as_float32(offset_y.take(flat)), cell, rows)
        vote_x = _to_cell(xs + as_float32(offset_x.take(flat)), cell, columns)
        landed = (vote_y * np.int32(columns) + vote_x).astype(np.intp)
        votes = np.bincount(landed, minlength=rows * columns).astype(np.float32).reshape(rows, columns)
        owner = nearest_peak(votes, cell * mpp_um, mpp_um)
        return instances_of_pixels(flat, owner.ravel().take(landed), probability, options.min_area_um2 / mpp_um**2)

    def targets(self, labels: NDArray[np.int32]) -> dict[str, NDArray[np.float32]]:
        """Foreground and offsets (pixels) to the centroid of the nucleus each pixel lies in."""
        centroids = centroids_of(labels)
        height, width = labels.shape
        ys, xs = np.mgrid[:height, :width].astype(np.float32)
        inside = labels > 0
        offsets = np.stack([centroids[labels, 0] - ys, centroids[labels, 1] - xs]) * inside
        return {"nuclei": inside[None].astype(np.float32), "offsets": offsets.astype(np.float32)}


def _to_cell(position: NDArray[np.float32], cell: int, count: int) -> NDArray[np.int32]:
    """Return the index of the cell each position lies in, kept within ``0..count - 1``."""
    index: NDArray[np.int32] = np.clip((position + np.float32(0.5)) * np.float32(1 / cell), 0, count - 1).astype(
        np.int32
    )
    return index


def nearest_peak(votes: NDArray[np.float32], cell_um: float, mpp_um: float) -> NDArray[np.int32]:
    """Return for each cell the id (1..n) of the nearest peak of votes within reach, else 0.

    Parameters
    ----------
    votes : ndarray of float32, shape (y, x)
        Pixels that point into each cell.
    cell_um, mpp_um : float
        Side of a cell and of a pixel, micrometres.
    """
    sigma = VOTE_SIGMA_UM / cell_um
    smooth = cv2.GaussianBlur(votes, (0, 0), sigma)
    radius = max(1, round(PEAK_RADIUS_UM / cell_um))
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
    # The blurred height of m pixels voting for one point is m / (2 pi sigma^2).
    floor = MIN_VOTES_UM2 / mpp_um**2 / (2 * np.pi * sigma**2)
    peaks = (smooth >= cv2.dilate(smooth, disc)) & (smooth > floor)
    peak_ids = np.asarray(cv2.connectedComponents(peaks.astype(np.uint8), connectivity=8)[1], dtype=np.int32)
    # Ten times as quick as to ask for rows and columns.
    at = np.flatnonzero(peaks)
    ys, xs = np.divmod(at, votes.shape[1])
    return _discs(ys, xs, peak_ids.ravel().take(at), votes.shape, MAX_REACH_UM / cell_um)


def _discs(
    ys: NDArray[np.intp], xs: NDArray[np.intp], ids: NDArray[np.int32], shape: tuple[int, ...], reach: float
) -> NDArray[np.int32]:
    """Paint a disc of radius `reach` around each point; where discs meet, the nearest point's id is on top."""
    side = math.floor(reach)
    width = shape[1] + 2 * side
    canvas = np.zeros((shape[0] + 2 * side) * width, np.int32)
    at = (ys + side) * width + xs + side
    steps = [(y, x) for y in range(-side, side + 1) for x in range(-side, side + 1) if y * y + x * x <= reach**2]
    # From far to near: what is painted later covers. A few dozen passes over points, none over pixels.
    for y, x in sorted(steps, key=lambda step: -(step[0] ** 2 + step[1] ** 2)):
        canvas[at + (y * width + x)] = ids
    return canvas.reshape(-1, width)[side : side + shape[0], side : side + shape[1]]


DECODER = OffsetDecoder()
