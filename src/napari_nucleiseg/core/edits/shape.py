"""Change the outline of one nucleus: fill its holes, smooth it, grow it, shrink it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from napari_nucleiseg.core.edits.change import (
    Edited,
    Ids,
    Mask,
    check_image,
    checked_id,
    checked_radius,
    edit_of,
)
from napari_nucleiseg.core.edits.masks import around, dilated, eroded, filled, find, label, touching
from napari_nucleiseg.core.geometry import Region

# Given the nucleus and what it may take (itself and background), returns the new nucleus or None.
Reshape = Callable[[Mask, Mask], Mask | None]


def fill_holes(image: Ids, nucleus_id: int, *, box: Region | None = None) -> Edited | None:
    """Fill the holes of a nucleus; other nuclei that lie in a hole stay.

    Parameters
    ----------
    image : ndarray of uint32, shape (y, x)
        Instance map; 0 is background. It is not changed.
    nucleus_id : int
        The nucleus.
    box : Region, optional
        Holds the nucleus, in pixels of the map; None searches the whole map.

    Returns
    -------
    Edited or None
        None if the nucleus is not there or has no hole. What is open to the border of the map is no hole.
    """
    return _reshaped(image, nucleus_id, box, 1, lambda mask, free: filled(mask) & free)


def grow(image: Ids, nucleus_id: int, radius: float, *, box: Region | None = None) -> Edited | None:
    """Grow a nucleus into the background around it, never into or beyond its neighbours.

    Parameters
    ----------
    image : ndarray of uint32, shape (y, x)
        Instance map; 0 is background. It is not changed.
    nucleus_id : int
        The nucleus.
    radius : float
        How far, in pixels between centres; 1 adds the four neighbours of each pixel.
    box : Region, optional
        Holds the nucleus (not what it grows into), in pixels of the map; None searches the whole map.

    Returns
    -------
    Edited or None
        None if the nucleus is not there or cannot grow.
    """
    reach = checked_radius(radius)
    return _reshaped(
        image, nucleus_id, box, int(reach) + 1, lambda mask, free: touching(dilated(mask, reach) & free, mask)
    )


def shrink(image: Ids, nucleus_id: int, radius: float, *, box: Region | None = None) -> Edited | None:
    """Shrink a nucleus from its outline and its holes, not from where the map's border cuts it.

    Parameters
    ----------
    image : ndarray of uint32, shape (y, x)
        Instance map; 0 is background. It is not changed.
    nucleus_id : int
        The nucleus.
    radius : float
        How far, in pixels between centres; 1 removes the pixels with one of their four neighbours outside.
    box : Region, optional
        Holds the nucleus, in pixels of the map; None searches the whole map.

    Returns
    -------
    Edited or None
        None if the nucleus is not there, or nothing of it would be left. A neck may give way; see `pieces`.
    """
    reach = checked_radius(radius)
    return _reshaped(image, nucleus_id, box, int(reach) + 1, lambda mask, _: eroded(mask, reach))


def smooth(image: Ids, nucleus_id: int, radius: float, *, box: Region | None = None) -> Edited | None:
    """Round a nucleus off: opening, then closing, with a disc.

    Spurs and dents narrower than the disc go. A disc that would remove the nucleus, or break it into more pieces than
    it has, is made smaller by a pixel until it does not.

    Parameters
    ----------
    image : ndarray of uint32, shape (y, x)
        Instance map; 0 is background. It is not changed.
    nucleus_id : int
        The nucleus.
    radius : float
        Of the disc, pixels.
    box : Region, optional
        Holds the nucleus, in pixels of the map; None searches the whole map.

    Returns
    -------
    Edited or None
        Only background is taken. None if the nucleus is not there or is smooth already.
    """
    reach = checked_radius(radius)

    def rounded(mask: Mask, free: Mask) -> Mask | None:
        count, _ = label(mask)
        for step in range(int(reach)):
            disc = reach - step
            # Beyond the map's border a nucleus goes on as it does at the border, so that its cut is not rounded.
            margin = int(2 * disc) + 2
            opened = dilated(eroded(np.pad(mask, margin, mode="edge"), disc), disc)
            closed = eroded(dilated(opened, disc), disc)[margin:-margin, margin:-margin] & free
            if 1 <= label(closed)[0] <= count:
                return closed
        return None

    return _reshaped(image, nucleus_id, box, int(reach) + 1, rounded)


def _reshaped(image: Ids, nucleus_id: int, box: Region | None, margin: int, reshape: Reshape) -> Edited | None:
    check_image(image)
    number = checked_id(nucleus_id)
    patch = find(image, number, box)
    if patch is None:
        return None
    window, mask = around(patch, margin, image)
    after = image[window.slices].copy()
    shape = reshape(mask, mask | (after == 0))
    if shape is None or not shape.any():
        return None
    after[mask] = 0
    after[shape] = number
    return edit_of(image, window, after)
