"""Instances of a border-weighted U-Net: touching nuclei are kept apart by learnt background, then labelled.

The weight map w(x) that makes a network learn the thin background between neighbours is that of Ronneberger et al.
(MICCAI 2015); objects are split further by a watershed on their distance transform and grown back by one pixel.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray
from skimage.segmentation import watershed

from napari_nucleiseg.core.decoders.base import DecodeOptions, Instances, Maps
from napari_nucleiseg.core.decoders.distance import interior_of
from napari_nucleiseg.core.decoders.measure import instances_of
from napari_nucleiseg.core.models.spec import HeadSpec

SEED_SIGMA_UM = 0.75
SEED_RADIUS_UM = 2.0
GROW_UM = 0.5
# Deeper inside no seed is told from its neighbours; a map without any background is infinitely deep.
DEEPEST_PX = 320


class BorderDecoder:
    """One probability map whose foreground leaves the border between touching nuclei out; see the module."""

    name = "border"
    heads = (HeadSpec("separated", 1, "sigmoid", "Nucleus probability, touching borders left out"),)
    as_stored: frozenset[str] = frozenset()
    revision = 1

    def decode(self, maps: Maps, mpp_um: float, options: DecodeOptions) -> Instances:
        """Find the nuclei; see `Decoder.decode`."""
        probability = np.ascontiguousarray(maps["separated"][0])
        core = probability > options.threshold
        distance = np.minimum(cv2.distanceTransform(core.astype(np.uint8), cv2.DIST_L2, 5), DEEPEST_PX)
        distance = cv2.GaussianBlur(distance, (0, 0), SEED_SIGMA_UM / mpp_um)
        radius = max(1, round(SEED_RADIUS_UM / mpp_um))
        disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
        seeds = (distance >= cv2.dilate(distance, disc)) & core
        _, markers = cv2.connectedComponents(seeds.astype(np.uint8), connectivity=8)
        grow = max(1, round(GROW_UM / mpp_um))
        around = cv2.dilate(core.astype(np.uint8), np.ones((2 * grow + 1, 2 * grow + 1), np.uint8)) > 0
        mask = core | (around & (probability > options.threshold / 2))
        relief = np.round(-distance * 100).astype(np.int16)
        labels = watershed(relief, markers, mask=mask).astype(np.int32)
        return instances_of(labels, probability, options.min_area_um2 / mpp_um**2)

    def targets(self, labels: NDArray[np.int32]) -> dict[str, NDArray[np.float32]]:
        """Foreground without the pixels at which two nuclei touch."""
        inside = labels > 0
        edge = inside & ~interior_of(labels)
        # Of the edge, only what faces another nucleus is left out; the outer outline stays foreground.
        if edge.any():
            kernel = np.ones((3, 3), np.uint8)
            as_float = labels.astype(np.float32)
            lowest = cv2.erode(np.where(inside, as_float, np.float32(1e9)), kernel)
            highest = cv2.dilate(as_float, kernel)
            inside = inside & ~((lowest != highest) & edge)
        return {"separated": inside[None].astype(np.float32)}


DECODER = BorderDecoder()
