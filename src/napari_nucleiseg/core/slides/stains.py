"""How much of each stain is in a pixel: optical densities of haematoxylin and eosin (Ruifrok and Johnston 2001)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# Optical density of haematoxylin, eosin and the residual, unit rows (Ruifrok & Johnston 2001).
STAINS = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]], np.float32)
STAINS /= np.linalg.norm(STAINS, axis=1, keepdims=True)
UNMIX = np.linalg.inv(STAINS).astype(np.float32)
DENSITY = -np.log((np.arange(256, dtype=np.float32) + 1) / 256)
"""Optical density (natural logarithm) of each of the 256 levels of a channel; 255 is glass."""


def stain_densities(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the optical density of haematoxylin, eosin and the residual, not negative.

    Parameters
    ----------
    pixels : ndarray of uint8, shape (..., 3)
        RGB.

    Returns
    -------
    ndarray of float32, shape (..., 3)
        Natural logarithms.
    """
    return np.maximum(DENSITY[pixels] @ UNMIX, 0)
