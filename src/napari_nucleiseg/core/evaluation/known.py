"""Predictions where only part of a picture was annotated: what lies where nobody looked does not count."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def mostly_inside(predicted: NDArray[np.int32], known: NDArray[np.bool_]) -> NDArray[np.int32]:
    """Drop nuclei that lie for the greater part where nobody looked, and of the others what lies there.

    Parameters
    ----------
    predicted : ndarray of int32, shape (y, x)
        Instance map, 0 is background.
    known : ndarray of bool, shape (y, x)
        Where the truth says anything.
    """
    if known.all():
        return predicted
    total = np.bincount(predicted.ravel())
    inside = np.bincount(predicted[known].ravel(), minlength=len(total))
    keep = 2 * inside > total
    keep[0] = False
    return np.where(known & keep[predicted], predicted, 0)
