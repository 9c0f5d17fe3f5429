"""Candidates without any learning: whatever could be a nucleus at any contrast, and pieces of what is none.

What is found with a model's usual threshold holds next to no mistakes to choose among. Here are too many on purpose:
regions of the tree of thresholds with loose settings, and superpixels as large as nuclei between them.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray
from skimage.segmentation import slic

from napari_nucleiseg.core.decoders.component_tree import ShapeOptions, segment_by_shape
from napari_nucleiseg.core.fewshot.field import check_picture, scaled

# Finer pixels cost time and give no other candidates.
FINEST_UM = 0.25
LOOSE = ShapeOptions(
    faintest=0.05, least_solidity=0.75, least_roundness=0.25, least_edge=0.04, piece_solidity=0.7,
    least_piece_density=0.02,
)  # fmt: skip
# Side of a superpixel: that of a square as large as a nucleus.
SUPERPIXEL_UM = 7.0
_COMPACTNESS = 10.0
_LEAST_SHARE = 0.3


def candidates_of(
    image: NDArray[np.uint8],
    mpp_um: float,
    known: NDArray[np.int32] | None = None,
    *,
    superpixels: bool = True,
) -> NDArray[np.int32]:
    """Return candidates of a view, none of which overlap.

    Parameters
    ----------
    image : ndarray of uint8, shape (y, x, 3)
        RGB of the view.
    mpp_um : float
        Micrometres per pixel.
    known : ndarray of int32, shape (y, x), optional
        Nuclei that were found: they keep their ids and pixels, others get ids above theirs.
    superpixels : bool
        Whether what belongs to no candidate is parted into pieces as large as nuclei.

    Returns
    -------
    ndarray of int32, shape (y, x)
        Ids from 1 on; 0 is what belongs to none.

    Raises
    ------
    DataError
        If it is no picture or its pixel size makes no sense.
    """
    check_picture(image, mpp_um)
    shape = scaled((image.shape[0], image.shape[1]), min(1.0, mpp_um / FINEST_UM))
    mpp = mpp_um * image.shape[0] / shape[0]
    small = image
    if shape != image.shape[:2]:
        small = np.asarray(cv2.resize(image, shape[::-1], interpolation=cv2.INTER_AREA), np.uint8)
    labels = segment_by_shape(small, mpp, LOOSE).labels.astype(np.int32)
    if shape != image.shape[:2]:
        labels = _enlarged(labels, (image.shape[0], image.shape[1]))
    if known is not None:
        labels = _behind(known, labels)
    return _with_superpixels(image, mpp_um, labels) if superpixels else labels


def _enlarged(labels: NDArray[np.int32], shape: tuple[int, int]) -> NDArray[np.int32]:
    ys, xs = (np.arange(size) * length // size for size, length in zip(shape, labels.shape, strict=True))
    return labels[np.ix_(ys, xs)]


def _behind(known: NDArray[np.int32], labels: NDArray[np.int32]) -> NDArray[np.int32]:
    """Put labels behind known nuclei; those of which most is hidden are left out."""
    free = np.where(known > 0, 0, labels)
    counts, left = np.bincount(labels.ravel()), np.bincount(free.ravel(), minlength=int(labels.max()) + 1)
    keep = left > counts / 2
    keep[0] = False
    numbers = np.cumsum(keep, dtype=np.int64) * keep
    highest = int(known.max())
    return np.where(free > 0, np.where(keep[free], numbers[free] + highest, 0), known).astype(np.int32)


def _with_superpixels(image: NDArray[np.uint8], mpp_um: float, labels: NDArray[np.int32]) -> NDArray[np.int32]:
    """Add pieces of what belongs to no label, as large as nuclei; slivers are left out."""
    shape = scaled(labels.shape, min(1.0, mpp_um))  # superpixels need no more than a pixel a micrometre
    small = np.asarray(cv2.resize(image, shape[::-1], interpolation=cv2.INTER_AREA), np.uint8)
    mpp = mpp_um * labels.shape[0] / shape[0]
    count = max(1, round(shape[0] * shape[1] * mpp**2 / SUPERPIXEL_UM**2))
    pieces = _enlarged(slic(small, count, _COMPACTNESS, start_label=1).astype(np.int32), labels.shape)
    free = np.where(labels > 0, 0, pieces)
    areas = np.bincount(free.ravel(), minlength=int(pieces.max()) + 1)
    keep = areas * mpp_um**2 >= _LEAST_SHARE * SUPERPIXEL_UM**2
    keep[0] = False
    numbers = np.cumsum(keep, dtype=np.int64) * keep + int(labels.max()) * keep
    return np.where(labels > 0, labels, numbers[free]).astype(np.int32)
