"""Nuclei without any learning: haematoxylin by colour deconvolution, Otsu's threshold, distance watershed.

The floor that every trained model must beat, and something to show where no weights are at hand.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from skimage.color import rgb2hed
from skimage.feature import peak_local_max
from skimage.filters import threshold_otsu
from skimage.segmentation import watershed

from napari_nucleiseg.core.decoders.base import Instances
from napari_nucleiseg.core.decoders.measure import instances_of


@dataclass(frozen=True, slots=True)
class ClassicalOptions:
    """Settings of `segment_classically`; the defaults were chosen on ten H&E images at 0.25 um/px.

    Parameters
    ----------
    smoothing_um : float
        Width (sigma) of the Gaussian over the haematoxylin channel.
    seed_distance_um : float
        Smallest distance between the centres of two nuclei.
    seed_smoothing_um : float
        Width (sigma) of the Gaussian over the distance map in which the centres are found.
    opening_um : float
        Radius below which specks and bridges are removed.
    largest_hole_um2 : float
        Holes up to this area are filled.
    min_area_um2 : float
        Nuclei smaller than this are dropped.
    weakest_stain : float
        Haematoxylin below this is never a nucleus, so that glass and noise stay empty.
    """

    smoothing_um: float = 0.375
    seed_distance_um: float = 1.5
    seed_smoothing_um: float = 0.25
    opening_um: float = 0.25
    largest_hole_um2: float = 12.5
    min_area_um2: float = 3.0
    weakest_stain: float = 0.015


def segment_classically(image: NDArray[np.uint8], mpp_um: float, options: ClassicalOptions | None = None) -> Instances:
    """Find nuclei in a picture of haematoxylin-stained tissue.

    Parameters
    ----------
    image : ndarray of uint8, shape (y, x, 3)
        RGB, bright field.
    mpp_um : float
        Micrometres per pixel.
    options : ClassicalOptions, optional
        Settings.

    Returns
    -------
    Instances
        Nuclei; the score is the share of haematoxylin above the threshold, 0..1.
    """
    options = options or ClassicalOptions()
    stain = cv2.GaussianBlur(rgb2hed(image)[..., 0].astype(np.float32), (0, 0), options.smoothing_um / mpp_um)
    threshold = max(float(threshold_otsu(stain)), options.weakest_stain)
    labels = parted(stain > threshold, mpp_um, options)
    certainty = np.clip(1 - threshold / np.maximum(stain, threshold), 0, 1).astype(np.float32)
    return instances_of(labels, certainty, options.min_area_um2 / mpp_um**2)


def parted(foreground: NDArray[np.bool_], mpp_um: float, options: ClassicalOptions | None = None) -> NDArray[np.int32]:
    """Clean a mask ``(y, x)`` and part what touches by a watershed of the distance to the background, from 1 on."""
    options = options or ClassicalOptions()
    mask = foreground.astype(np.uint8)
    radius = round(options.opening_um / mpp_um)
    if radius:
        disk = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
        mask = np.asarray(cv2.morphologyEx(mask, cv2.MORPH_OPEN, disk), np.uint8)
    mask = _fill_holes(mask, options.largest_hole_um2 / mpp_um**2)

    depth = cv2.distanceTransform(mask, cv2.DIST_L2, 5)
    depth = cv2.GaussianBlur(depth, (0, 0), options.seed_smoothing_um / mpp_um)
    apart = max(1, round(options.seed_distance_um / mpp_um))
    seeds = peak_local_max(depth, min_distance=apart, labels=mask.astype(np.int32), exclude_border=False)
    markers = np.zeros(mask.shape, np.int32)
    markers[tuple(seeds.T)] = np.arange(1, len(seeds) + 1)
    return watershed(-depth, markers, mask=mask.astype(bool)).astype(np.int32)  # type: ignore[no-any-return]


def _fill_holes(mask: NDArray[np.uint8], largest_px: float) -> NDArray[np.uint8]:
    """Fill background components up to `largest_px` pixels that do not touch the rim of the image."""
    height, width = mask.shape
    count, holes, stats, _ = cv2.connectedComponentsWithStats(1 - mask, connectivity=4)
    small = stats[:, cv2.CC_STAT_AREA] <= largest_px
    left, top = stats[:, cv2.CC_STAT_LEFT], stats[:, cv2.CC_STAT_TOP]
    small &= (left > 0) & (top > 0)
    small &= (left + stats[:, cv2.CC_STAT_WIDTH] < width) & (top + stats[:, cv2.CC_STAT_HEIGHT] < height)
    small[0] = False  # component 0 is the mask itself
    return np.where(small[holes], np.uint8(1), mask) if count > 1 else mask
