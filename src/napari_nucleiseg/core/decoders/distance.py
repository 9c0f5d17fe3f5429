"""Instances by watershed on a regressed distance to the nucleus' border, normalised per nucleus.

The regression of a distance map and the watershed on its maxima follow Naylor et al. (IEEE TMI 2019).
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray
from skimage.segmentation import watershed

from napari_nucleiseg.core.decoders.base import DecodeOptions, Instances, Maps
from napari_nucleiseg.core.decoders.measure import instances_of, smooth_probability
from napari_nucleiseg.core.models.spec import HeadSpec

SEED_LEVEL = 0.5
SEED_SIGMA_UM = 0.5


class DistanceDecoder:
    """Foreground probability and a distance map in 0..1; see the module."""

    name = "distance"
    heads = (
        HeadSpec("nuclei", 1, "sigmoid", "Nucleus probability"),
        HeadSpec("distance", 1, "sigmoid", "Distance to the border"),
    )
    as_stored: frozenset[str] = frozenset()
    revision = 1

    def decode(self, maps: Maps, mpp_um: float, options: DecodeOptions) -> Instances:
        """Find the nuclei; see `Decoder.decode`."""
        probability = smooth_probability(maps["nuclei"][0], mpp_um)
        distance = cv2.GaussianBlur(np.ascontiguousarray(maps["distance"][0]), (0, 0), SEED_SIGMA_UM / mpp_um)
        foreground = probability > options.threshold
        seeds = (distance > SEED_LEVEL) & foreground
        _, markers = cv2.connectedComponents(seeds.astype(np.uint8), connectivity=4)
        relief = np.round((1 - distance) * 1000).astype(np.int16)
        labels = watershed(relief, markers, mask=foreground).astype(np.int32)
        return instances_of(labels, probability, options.min_area_um2 / mpp_um**2)

    def targets(self, labels: NDArray[np.int32]) -> dict[str, NDArray[np.float32]]:
        """Foreground and the distance to the nucleus' border divided by its largest value in that nucleus."""
        inside = labels > 0
        distance = cv2.distanceTransform(interior_of(labels).astype(np.uint8), cv2.DIST_L2, 5)
        distance = distance + inside
        largest = np.ones(int(labels.max()) + 1, np.float32)
        np.maximum.at(largest, labels[inside], distance[inside])
        normalised = distance / largest[labels] * inside
        return {"nuclei": inside[None].astype(np.float32), "distance": normalised[None].astype(np.float32)}


def interior_of(labels: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Return the pixels whose four neighbours all belong to the same nucleus."""
    inside = labels > 0
    padded = np.pad(labels, 1, mode="edge")
    for dy, dx in ((0, 1), (2, 1), (1, 0), (1, 2)):
        shifted = padded[dy : dy + labels.shape[0], dx : dx + labels.shape[1]]
        inside &= shifted == labels
    return inside


DECODER = DistanceDecoder()
