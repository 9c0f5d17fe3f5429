"""The border weight map of the original U-Net (Ronneberger et al., MICCAI 2015), and numbers without gaps for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

# Up to here ids are left as they are: any loop over all numbers to the largest is short, and float32 holds them.
_SMALL_ID = 1 << 16


def numbered(labels: NDArray[np.integer[Any] | np.bool_]) -> NDArray[np.int32]:
    """Return labels with numbers that loops over ids, int32 and float32 can take.

    Parameters
    ----------
    labels : ndarray of integers
        Instance ids of any size, 0 is background; below 0 is not annotated. Our own exports have ids up to 2**32.

    Returns
    -------
    ndarray of int32
        Numbers 1 to n in the order of the ids, 0 where they are, -1 below. Where no id is above 2**16 and none below
        -1, all are as they were.
    """
    if not labels.size or (labels.min() >= -1 and labels.max() <= _SMALL_ID):
        return labels.astype(np.int32)
    found = np.where(labels < 0, -1, 0).astype(np.int32)
    inside = labels > 0
    found[inside] = np.unique(labels[inside], return_inverse=True)[1] + 1
    return found


def border_weights(labels: NDArray[np.integer[Any]], w0: float = 10.0, sigma_px: float = 5.0) -> NDArray[np.float32]:
    """Return ``w0 * exp(-(d1 + d2)^2 / (2 sigma^2))``.

    Parameters
    ----------
    labels : ndarray of integers, shape (y, x)
        Instance ids; 0 is background.
    w0, sigma_px : float
        Height and width of the ridge between neighbours.

    Returns
    -------
    ndarray of float32, shape (y, x)
        The border term; add the class balance w_c to get w(x). Zero everywhere if there are fewer than two nuclei.
        d1 and d2 are the distances to the nearest and second nearest nucleus.

    Notes
    -----
    The method weighs background only. Which pixels are background is the target's business: where two nuclei touch,
    the gap that the network is to learn is cut out of them, so the map goes on into nuclei (there d1 is zero) and the
    loss takes it where the target says background.
    """
    height, width = labels.shape
    labels = numbered(labels)
    boxes: Sequence[tuple[slice, ...] | None] = ndimage.find_objects(np.maximum(labels, 0))
    if w0 == 0 or sum(box is not None for box in boxes) < 2:
        return np.zeros((height, width), np.float32)
    # Beyond 4 sigma the term is below w0 * exp(-8): distances are needed in a window only.
    reach = int(np.ceil(4 * sigma_px))
    nearest = np.full((height, width), np.inf, np.float32)
    second = nearest.copy()
    for index, box in enumerate(boxes, start=1):
        if box is None:
            continue
        y0, x0 = max(box[0].start - reach, 0), max(box[1].start - reach, 0)
        window = (slice(y0, box[0].stop + reach), slice(x0, box[1].stop + reach))
        outside = (labels[window] != index).astype(np.uint8)
        distance = cv2.distanceTransform(outside, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
        first = nearest[window]
        second[window] = np.minimum(second[window], np.maximum(first, distance))
        nearest[window] = np.minimum(first, distance)
    total = np.minimum(nearest + second, 1e6)
    return np.asarray(w0 * np.exp(-(total**2) / (2 * sigma_px**2)), dtype=np.float32)
