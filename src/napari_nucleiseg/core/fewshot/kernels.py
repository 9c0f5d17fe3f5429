"""Kernels made of what was marked, slid over the view: what stands around the middle of a mark counts, too.

In the spirit of Liu et al., Dynamic prototype convolution network (DPCN), CVPR 2022, without its training: kernels of
5 x 1, 1 x 5 and 3 x 3 steps, each channel its own, are cut around the middles of the marks.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from napari_nucleiseg.core.fewshot.prototypes import unit

KERNELS = ((5, 1), (1, 5), (3, 3))


def kernel_response(features: NDArray[np.float32], middles: NDArray[np.intp]) -> NDArray[np.float32]:
    """Return how well kernels cut from a field fit each place of it, ``(rows, columns)`` in 0..1.

    Parameters
    ----------
    features : ndarray of float32, shape (rows, columns, channels)
        Of the field.
    middles : ndarray of int, shape (k, 2)
        Row and column of the middle of each mark.

    Returns
    -------
    ndarray of float32
        Mean cosine over the steps of a kernel, averaged over kernels, brought from -1..1 to 0..1.
    """
    rows, columns, channels = features.shape
    directions = unit(features.reshape(-1, channels)).reshape(rows, columns, channels)
    total = np.zeros((rows, columns), np.float32)
    for height, width in KERNELS:
        offsets = [(y - height // 2, x - width // 2) for y in range(height) for x in range(width)]
        for dy, dx in offsets:
            ys = np.clip(middles[:, 0] + dy, 0, rows - 1)
            xs = np.clip(middles[:, 1] + dx, 0, columns - 1)
            weight = unit(directions[ys, xs].mean(axis=0, keepdims=True))[0]
            total += _moved(directions @ weight, dy, dx) / (len(offsets) * len(KERNELS))
    return np.clip((1 + total) / 2, 0, 1).astype(np.float32)


def _moved(values: NDArray[np.float32], dy: int, dx: int) -> NDArray[np.float32]:
    """Return what lies `dy`, `dx` steps further; beyond the view its rim is repeated."""
    framed = cv2.copyMakeBorder(values, abs(dy), abs(dy), abs(dx), abs(dx), cv2.BORDER_REPLICATE)
    top, left = abs(dy) + dy, abs(dx) + dx
    return np.asarray(framed[top : top + values.shape[0], left : left + values.shape[1]], np.float32)
