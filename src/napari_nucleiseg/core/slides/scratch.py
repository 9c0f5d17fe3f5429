"""Memory that a thread uses again and again: the system clears what it hands out, which takes time."""

from __future__ import annotations

import threading

import numpy as np
from numpy.typing import NDArray

_here = threading.local()


def scratch(shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    """Return an array of any content, uint8, which is this thread's until it asks for the next one.

    Parameters
    ----------
    shape : tuple of int
        ``(height, width, samples)``.
    """
    size = shape[0] * shape[1] * shape[2]
    kept: NDArray[np.uint8] | None = getattr(_here, "bytes", None)
    if kept is None or len(kept) < size:
        kept = _here.bytes = np.empty(size, np.uint8)
    return kept[:size].reshape(shape)
