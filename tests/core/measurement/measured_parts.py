"""Label images, slides that lie in memory, and what a tile writes of them."""

import cv2
import numpy as np
from skimage.measure import regionprops_table

from napari_nucleiseg.core.geometry import YX, Region
from napari_nucleiseg.core.slides.pyramid import Slide
from napari_nucleiseg.core.store.nuclei import TileNuclei


def blobs(shape, count, seed=0, largest=9):
    """Ellipses, many of them touching or lying over each other, some cut by the rim."""
    rng = np.random.default_rng(seed)
    image = np.zeros(shape, np.int32)
    for number in range(1, count + 1):
        centre = int(rng.integers(0, shape[1])), int(rng.integers(0, shape[0]))
        axes = int(rng.integers(2, largest)), int(rng.integers(2, largest))
        cv2.ellipse(image, centre, axes, float(rng.integers(180)), 0, 360, number, -1)
    return image


def slide_of(picture, mpp_um=YX(0.5, 0.25), fingerprint="slide"):
    return Slide("/slides/a.svs", (picture,), (YX(1, 1),), mpp_um, fingerprint=fingerprint)


def tile_of_labels(labels, mpp_um):
    ids = np.unique(labels[labels > 0])
    dense = np.where(labels > 0, np.searchsorted(ids, labels) + 1, 0).astype(np.int32)
    found = regionprops_table(dense, properties=("area", "centroid", "bbox"))
    whole = Region(0, 0, *labels.shape)
    return TileNuclei(
        0,
        whole,
        whole,
        dense,
        np.stack([found["centroid-0"], found["centroid-1"]], axis=1).astype(np.float64),
        (found["area"] * mpp_um.y * mpp_um.x).astype(np.float32),
        np.stack([found[f"bbox-{side}"] for side in range(4)], axis=1).astype(np.int64),
        np.ones(len(ids), np.float32),
    )
