"""What of a picture is fitted at once: all of it, or some crops of a large one, so that memory is bounded."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from napari_nucleiseg.core.slides.stains import stain_densities
from napari_nucleiseg.core.training.clustering.config import ClusterConfig

NOT_SEEN = -1
CROP_PX = 128
TISSUE_SHARE = 0.25  # of the stain of the densest crop; crops with less are taken only where others do not suffice


@dataclass(frozen=True, slots=True, eq=False)
class Crops:
    """Crops of one picture, all of one size.

    Parameters
    ----------
    pixels : ndarray of uint8, shape (n, y, x, 3)
        RGB.
    places : tuple of tuple of int
        Top-left corner ``(y, x)`` of each in the picture.
    shape : tuple of int
        Height and width of the picture.
    """

    pixels: NDArray[np.uint8]
    places: tuple[tuple[int, int], ...]
    shape: tuple[int, int]

    @property
    def whole(self) -> bool:
        """Whether the one crop is the picture itself."""
        return self.pixels.shape[1:3] == self.shape

    def mosaic(self, labels: NDArray[np.int16]) -> NDArray[np.int16]:
        """Put labels ``(n, y, x)`` of the crops in their places; -1 elsewhere, shape of the picture."""
        canvas = np.full(self.shape, NOT_SEEN, np.int16)
        height, width = self.pixels.shape[1:3]
        for (y, x), part in zip(self.places, labels, strict=True):
            canvas[y : y + height, x : x + width] = part
        return canvas


def crops_of(image: NDArray[np.uint8], config: ClusterConfig) -> Crops:
    """Return the whole picture if its area is at most ``fit_px``, else crops that together are no larger.

    Crops do not overlap; they are drawn, seeded, from those that hold tissue.

    Parameters
    ----------
    image : ndarray of uint8, shape (y, x, 3)
        RGB.
    config : ClusterConfig
        Gives ``fit_px`` and the seed.
    """
    height, width = image.shape[:2]
    if height * width <= config.fit_px:
        return Crops(image[None], ((0, 0),), (height, width))
    side = min(CROP_PX, math.isqrt(config.fit_px))
    # A picture that is narrower than a crop still fills its share of the area.
    tall, wide = min(side, height), min(side, width)
    places = [(y, x) for y in range(0, height - tall + 1, tall) for x in range(0, width - wide + 1, wide)]
    count = max(1, min(config.fit_px // (tall * wide), len(places)))
    order = np.random.default_rng(config.seed).permutation(len(places))
    stain = np.array([_stain(image[y : y + tall, x : x + wide]) for y, x in places])
    bare = stain[order] < TISSUE_SHARE * stain.max()
    chosen = order[np.argsort(bare, kind="stable")][:count]
    taken = tuple(places[number] for number in sorted(chosen.tolist()))
    return Crops(np.stack([image[y : y + tall, x : x + wide] for y, x in taken]), taken, (height, width))


def _stain(crop: NDArray[np.uint8]) -> float:
    """Return the mean optical density of haematoxylin and eosin of a crop, seen coarsely."""
    coarse = np.asarray(cv2.resize(crop, (16, 16), interpolation=cv2.INTER_AREA), np.uint8)
    return float(stain_densities(coarse)[..., :2].mean())
