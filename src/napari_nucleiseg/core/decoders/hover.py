"""Instances of horizontal and vertical distances to the centre: where these jump, one nucleus ends and another begins.

The steps are those of HoVer-Net (Graham et al., Medical Image Analysis 2019), at whose 0.25 um per pixel the Sobel
kernel has a side of 21 pixels; sizes are micrometres here, so that they mean the same at every pixel size. Two things
differ. The original stretches distances and slopes of each picture to 0..1 by their least and largest; here the ends
are fixed, so that a nucleus is the same whatever else lies in its tile. And a piece without a marker stays a nucleus.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray
from skimage.segmentation import watershed

from napari_nucleiseg.core.decoders.base import DecodeOptions, Instances, Maps
from napari_nucleiseg.core.decoders.measure import centroids_of, instances_of, smooth_probability
from napari_nucleiseg.core.decoders.watershed import disk, with_bare_pieces
from napari_nucleiseg.core.models.spec import HeadSpec

# Width of the Gaussian that a Sobel kernel of 21 pixels of 0.25 um smooths with.
SOBEL_SIGMA_UM = 0.545
# Slopes of the maps per micrometre: where two nuclei touch (from 1 to -1, as a network smooths it), and inside a small
# nucleus.
JUMP, RISE = -0.9, 0.5
CERTAIN = 0.4  # a pixel less apart than this surely belongs to one nucleus
SMOOTHING_UM = 0.2  # what a Gaussian of 3 pixels of 0.25 um is
OPENING_RADIUS_UM = 0.5
LEAST_MARKER_UM2 = 0.625  # 10 pixels of 0.25 um
# Below this a Gaussian has no width that OpenCV could sample.
_NARROWEST_PX = 0.3


class HoverDecoder:
    """Foreground probability and distances to the centre; see the module."""

    name = "hover"
    heads = (
        HeadSpec("nuclei", 1, "sigmoid", "Nucleus probability"),
        HeadSpec("hover", 2, "none", "Vertical and horizontal distance to the centre", shown=False),
    )
    as_stored: frozenset[str] = frozenset()
    revision = 1

    def decode(self, maps: Maps, mpp_um: float, options: DecodeOptions) -> Instances:
        """Find the nuclei; see `Decoder.decode`."""
        probability = smooth_probability(np.ascontiguousarray(maps["nuclei"][0], np.float32), mpp_um)
        mask = large_pieces((probability > options.threshold).astype(np.uint8), LEAST_MARKER_UM2 / mpp_um**2)
        apart = separation(np.asarray(maps["hover"], np.float32), mpp_um)
        certain = filled((mask > 0) & (apart < CERTAIN)) & mask
        certain = cv2.morphologyEx(certain, cv2.MORPH_OPEN, disk(OPENING_RADIUS_UM / mpp_um)).astype(np.uint8)
        certain = large_pieces(certain, LEAST_MARKER_UM2 / mpp_um**2)
        markers = with_bare_pieces(certain, mask)
        energy = (apart - 1) * mask
        sigma = SMOOTHING_UM / mpp_um
        if sigma > _NARROWEST_PX:
            energy = np.asarray(cv2.GaussianBlur(energy, (0, 0), sigma), np.float32)
        relief = np.round(energy * 1000).astype(np.int16)
        labels = watershed(relief, markers, mask=mask > 0).astype(np.int32)
        return instances_of(labels, probability, options.min_area_um2 / mpp_um**2)

    def targets(self, labels: NDArray[np.int32]) -> dict[str, NDArray[np.float32]]:
        """Foreground, and how far below and right of its nucleus' centroid a pixel lies: -1 to 1 in each nucleus.

        Each side of the centroid has its own unit, the farthest pixel's distance, so that all of -1 to 1 is used.
        """
        height, width = labels.shape
        centroids = centroids_of(labels)
        ys, xs = np.mgrid[:height, :width].astype(np.float32)
        inside = labels > 0
        away = np.stack([ys - centroids[labels, 0], xs - centroids[labels, 1]]) * inside
        return {"nuclei": inside[None].astype(np.float32), "hover": _per_nucleus(away.astype(np.float32), labels)}


def _per_nucleus(away: NDArray[np.float32], labels: NDArray[np.int32]) -> NDArray[np.float32]:
    """Divide distances ``(2, y, x)`` by the largest of their sign and axis within each nucleus."""
    flat = np.flatnonzero(labels)
    ids = labels.ravel()[flat]
    found = np.zeros_like(away)
    for axis in range(2):
        values = away[axis].ravel()[flat]
        least = np.zeros(int(labels.max()) + 1, np.float32)
        most = least.copy()
        np.minimum.at(least, ids, values)
        np.maximum.at(most, ids, values)
        unit = np.where(values < 0, -least[ids], most[ids])
        found[axis].ravel()[flat] = values / np.maximum(unit, np.finfo(np.float32).tiny)
    return found


def separation(hover: NDArray[np.float32], mpp_um: float) -> NDArray[np.float32]:
    """Return how surely a pixel lies between two nuclei, 0 to 1.

    Parameters
    ----------
    hover : ndarray of float32, shape (2, y, x)
        Vertical and horizontal distance to the centre, -1 to 1.
    mpp_um : float
        Micrometres per pixel.

    Returns
    -------
    ndarray of float32, shape (y, x)
        The larger of both axes: 0 where a map rises as within a small nucleus, 1 where it falls from 1 to -1.
    """
    side = sobel_side(mpp_um)
    # The sum of a kernel's taps by their places: what it makes of a slope of one a pixel.
    scale = 1 / (2.0 ** (side - 2) * 2.0 ** (side - 1) * mpp_um)
    down = cv2.Sobel(np.clip(hover[0], -1, 1), cv2.CV_32F, 0, 1, ksize=side, scale=scale)
    across = cv2.Sobel(np.clip(hover[1], -1, 1), cv2.CV_32F, 1, 0, ksize=side, scale=scale)
    apart: NDArray[np.float32] = np.clip((RISE - np.minimum(down, across)) / (RISE - JUMP), 0, 1).astype(np.float32)
    return apart


def sobel_side(mpp_um: float) -> int:
    """Return the side in pixels of the Sobel kernel that smooths by `SOBEL_SIGMA_UM`: odd, 3 to 31."""
    # A binomial of n steps is as wide as a Gaussian of sigma^2 = n / 4; the derivative takes two of the taps.
    side = 4 * (SOBEL_SIGMA_UM / mpp_um) ** 2 + 2
    return min(max(2 * round((side - 1) / 2) + 1, 3), 31)


def large_pieces(mask: NDArray[np.uint8], least_px: float) -> NDArray[np.uint8]:
    """Return a mask ``(y, x)`` of 0 and 1 without its connected pieces of fewer than `least_px` pixels."""
    _, pieces, facts, _ = cv2.connectedComponentsWithStats(mask, connectivity=4)
    keep = facts[:, cv2.CC_STAT_AREA] >= least_px
    keep[0] = False
    kept: NDArray[np.bool_] = keep[pieces]
    return kept.astype(np.uint8)


def filled(mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Return a mask ``(y, x)`` as 0 and 1, with the holes that it surrounds filled."""
    _, outside = cv2.connectedComponents((~mask).astype(np.uint8), connectivity=4)
    edges = np.concatenate([outside[0], outside[-1], outside[:, 0], outside[:, -1]])
    is_hole = np.ones(int(outside.max()) + 1, np.bool_)
    is_hole[edges] = False
    is_hole[0] = False
    whole: NDArray[np.bool_] = mask | is_hole[outside]
    return whole.astype(np.uint8)


DECODER = HoverDecoder()
