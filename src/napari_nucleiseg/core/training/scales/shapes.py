"""What the attention is told about nuclei without labels: plump regions of haematoxylin with sharp rims."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from napari_nucleiseg.core.decoders.classical import parted
from napari_nucleiseg.core.decoders.component_tree import (
    StainLevels,
    haematoxylin_of,
    shapes_in,
    stain_levels,
)
from napari_nucleiseg.core.decoders.distance import interior_of

UNKNOWN = -1.0


def slide_levels(pictures: Iterable[NDArray[np.uint8]], mpp_um: float) -> StainLevels:
    """Measure the stain of a slide on some of its crops, so that a crop without a nucleus is not searched for one."""
    return stain_levels(haematoxylin_of(picture, mpp_um) for picture in pictures)


def instances_by_shape(image: NDArray[np.uint8], mpp_um: float, levels: StainLevels | None = None) -> NDArray[np.int32]:
    """Return nuclei by their shape, ids from 1, shape (y, x); -1 where stain is dense but of no such shape.

    Parameters
    ----------
    image : ndarray of uint8, shape (y, x, 3)
        RGB, the slide's own colours.
    mpp_um : float
        Micrometres per pixel.
    levels : StainLevels, optional
        Of the slide; default those of the picture.
    """
    stain = haematoxylin_of(image, mpp_um)
    levels = levels or stain_levels([stain])
    labels = shapes_in(stain, mpp_um, levels=levels).labels.copy()
    labels[(labels == 0) & (parted(stain > levels.threshold, mpp_um) > 0)] = -1
    return labels


def shape_labels(image: NDArray[np.uint8], mpp_um: float, levels: StainLevels) -> NDArray[np.float32]:
    """Return what is a nucleus by its shape.

    Parameters
    ----------
    image : ndarray of uint8, shape (y, x, 3)
        RGB, the slide's own colours.
    mpp_um : float
        Micrometres per pixel.
    levels : StainLevels
        Of the slide.

    Returns
    -------
    ndarray of float32, shape (1, y, x)
        1 nucleus, 0 none, also where two of them touch, `UNKNOWN` where stain is dense but of no such shape.
    """
    stain = haematoxylin_of(image, mpp_um)
    found = shapes_in(stain, mpp_um, levels=levels).labels
    is_nucleus = found > 0
    labels = is_nucleus.astype(np.float32)
    labels[~is_nucleus & (stain > levels.threshold)] = UNKNOWN
    # The rim of each nucleus, less the rim of all of them together.
    labels[interior_of(is_nucleus.astype(np.int32)) & ~interior_of(found) & is_nucleus] = 0
    return labels[None]
