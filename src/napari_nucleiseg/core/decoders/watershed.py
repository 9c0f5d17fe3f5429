"""Instances of one foreground map: cleaned by morphology, parted by a watershed on the distance to the background.

The steps and sizes are those that Sahasrabudhe et al. (MICCAI 2020) use on attention maps of 0.25 um per pixel; here
sizes are micrometres, so that they mean the same at every pixel size. A piece without a centre stays a nucleus.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray
from skimage.segmentation import watershed

from napari_nucleiseg.core.decoders.base import DecodeOptions, Instances, Maps
from napari_nucleiseg.core.decoders.measure import instances_of
from napari_nucleiseg.core.models.spec import HeadSpec

# 2, 1, 1 and 7 pixels of 0.25 um.
CLEANING_UM = (0.5, 0.25)
SMOOTHING_UM = 0.25
CENTRE_RADIUS_UM = 1.75
# Below half a pixel a Gaussian has no width that OpenCV could sample.
_NARROWEST_PX = 0.3


class WatershedDecoder:
    """One probability map; see the module."""

    name = "watershed"
    heads = (HeadSpec("nuclei", 1, "sigmoid", "Nucleus probability"),)
    as_stored: frozenset[str] = frozenset()
    revision = 1

    def decode(self, maps: Maps, mpp_um: float, options: DecodeOptions) -> Instances:
        """Find the nuclei; see `Decoder.decode`."""
        probability = np.ascontiguousarray(maps["nuclei"][0], np.float32)
        mask = (probability > options.threshold).astype(np.uint8)
        for radius_um in CLEANING_UM:
            brush = disk(radius_um / mpp_um)
            mask = cv2.morphologyEx(mask, cv2.MORPH_OPEN, brush).astype(np.uint8)
            mask = cv2.morphologyEx(mask, cv2.MORPH_CLOSE, brush).astype(np.uint8)
        labels = part(mask, mpp_um)
        return instances_of(labels, probability, options.min_area_um2 / mpp_um**2)

    def targets(self, labels: NDArray[np.int32]) -> dict[str, NDArray[np.float32]]:
        """Return the foreground, 1 inside nuclei."""
        return {"nuclei": (labels > 0)[None].astype(np.float32)}


def part(mask: NDArray[np.uint8], mpp_um: float) -> NDArray[np.int32]:
    """Part touching nuclei of a foreground mask by a watershed on the distance to the background.

    Parameters
    ----------
    mask : ndarray of uint8, shape (y, x)
        1 inside nuclei.
    mpp_um : float
        Micrometres per pixel.

    Returns
    -------
    ndarray of int32, shape (y, x)
        Ids from 1, with gaps; all of the mask is labelled.
    """
    distance = cv2.distanceTransform(mask, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    sigma = SMOOTHING_UM / mpp_um
    if sigma > _NARROWEST_PX:
        distance = cv2.GaussianBlur(distance, (0, 0), sigma)
    peaks = (distance >= cv2.dilate(distance, disk(CENTRE_RADIUS_UM / mpp_um))) & (mask > 0)
    markers = with_bare_pieces(peaks.astype(np.uint8), mask)
    labels: NDArray[np.int32] = watershed(-distance, markers, mask=mask > 0).astype(np.int32)
    return labels


def with_bare_pieces(centres: NDArray[np.uint8], mask: NDArray[np.uint8]) -> NDArray[np.int32]:
    """Number the centres of nuclei, and the pieces of the foreground that hold none: each is its own marker.

    A small piece beside a large one may hold no maximum of its neighbourhood.

    Parameters
    ----------
    centres, mask : ndarray of uint8, shape (y, x)
        1 at centres, which lie inside nuclei; 1 inside nuclei.

    Returns
    -------
    ndarray of int32, shape (y, x)
        Ids from 1, with gaps; 0 elsewhere.
    """
    count, markers = cv2.connectedComponents(centres, connectivity=8)
    _, pieces = cv2.connectedComponents(mask, connectivity=4)
    bare = np.ones(int(pieces.max()) + 1, np.bool_)
    bare[pieces[centres > 0]] = False
    bare[0] = False
    return np.where(bare[pieces], pieces + count, markers).astype(np.int32)


def disk(radius_px: float) -> NDArray[np.uint8]:
    """Return a disk of any radius, shape ``(2 n + 1, 2 n + 1)``: 1 where the distance to the centre is no larger."""
    reach = int(radius_px + 1e-6)
    steps = np.arange(-reach, reach + 1)
    inside: NDArray[np.bool_] = steps[:, None] ** 2 + steps**2 <= radius_px**2 + 1e-6
    return inside.astype(np.uint8)


DECODER = WatershedDecoder()
