"""Propose a nucleus that the segmentation missed, from the model's foreground map around a point."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from napari_nucleiseg.core.edits.change import Edited, Ids, Mask, check_image, checked_id, edit_of, pixel_at, whole
from napari_nucleiseg.core.edits.masks import (
    Patch,
    around,
    dilated,
    distance_to,
    eroded,
    filled,
    label,
    largest_piece,
    patch_of,
    touching,
)
from napari_nucleiseg.core.geometry import Region

# Below this probability the model says nothing of a point.
WEAKEST_FOREGROUND = 0.02
SHARE_OF_SEED = 0.5
# A neck this much narrower (on each side, pixels) than the two bulges that it joins is where two nuclei meet.
NECK_PX = 1.5


def propose(
    foreground: NDArray[np.float32],
    image: Ids,
    seed: tuple[float, float],
    *,
    level: float | None = None,
    limit_px: float = 40.0,
) -> Patch | None:
    """Propose the outline of a nucleus around a point where there is none yet.

    It is the connected foreground around the point, cut at necks against its neighbours (a watershed on the distance
    to the outline, in which nuclei that exist are basins of their own), with its holes filled.

    Parameters
    ----------
    foreground : ndarray of float32, shape (y, x)
        Probability that a pixel belongs to a nucleus, 0..1, on the map's own grid.
    image : ndarray of uint32, shape (y, x)
        Instance map; 0 is background.
    seed : tuple of float
        ``(y, x)`` in pixels.
    level : float, optional
        Least probability inside, above 0 and at most 1. None takes half of the probability at the seed.
    limit_px : float
        Nothing farther than this from the seed is taken; at least 1.

    Returns
    -------
    Patch or None
        The pixels, none of which belongs to a nucleus. None if the seed is outside the map, on a nucleus, or where
        the probability is below the level or nearly 0.

    Raises
    ------
    ValueError
        If an argument has no meaning.
    """
    check_image(image)
    if foreground.shape != image.shape:
        raise ValueError(f"foreground {foreground.shape} and instance map {image.shape} must have the same shape")
    if level is not None and not 0 < level <= 1:
        raise ValueError(f"the level lies above 0 and at most at 1; {level} does not")
    if not (math.isfinite(limit_px) and limit_px >= 1):
        raise ValueError(f"the limit must be at least one pixel, not {limit_px}")
    at = pixel_at(seed, image)
    if at is None or image[at] or not foreground[at] >= max(WEAKEST_FOREGROUND, level or 0):
        return None
    least = SHARE_OF_SEED * float(foreground[at]) if level is None else level
    window = Region(at[0], at[1], 1, 1).expand(int(limit_px)).intersect(whole(image))
    nuclei = image[window.slices]
    ys, xs = np.ogrid[window.slices]
    disc = (ys - at[0]) ** 2 + (xs - at[1]) ** 2 <= limit_px**2
    free = (foreground[window.slices] >= least) & (nuclei == 0) & disc
    here = (at[0] - window.y, at[1] - window.x)
    basin = _basin(free, nuclei, here)
    return patch_of(window, touching(filled(basin) & (nuclei == 0) & disc, _point(free, here)))


def _point(like: Mask, at: tuple[int, int]) -> Mask:
    mask = np.zeros_like(like)
    mask[at] = True
    return mask


def _basin(free: Mask, nuclei: Ids, seed: tuple[int, int]) -> Mask:
    """Return the free pixels around the seed, up to the necks towards other bulges and towards nuclei."""
    own = touching(free, _point(free, seed))
    numbers = np.unique(nuclei, return_inverse=True)[1].reshape(nuclei.shape).astype(np.int32)
    # A neighbour counts with the rim of foreground that its outline left over.
    found = _bulge(own | (nuclei > 0), own, numbers, seed)
    if found is None:
        # There is no neck between the seed and a nucleus: the nucleus' outline is the only border.
        found = _bulge(own, own, np.zeros_like(numbers), seed)
    return own if found is None else touching(found & own, _point(free, seed))


def _bulge(region: Mask, own: Mask, markers: NDArray[np.int32], seed: tuple[int, int]) -> Mask | None:
    """Return the part of a region, cut at its necks, that the seed lies in; None if it is that of a marker."""
    from skimage.morphology import h_maxima
    from skimage.segmentation import watershed

    # A border of background, so that an outline at the window's edge is one too.
    depth = distance_to(~np.pad(region, 1))[1:-1, 1:-1]
    peaks = label(np.asarray(h_maxima(depth, NECK_PX), np.bool_) & own)[1]
    known = int(markers.max())
    basins = watershed(-depth, np.where(peaks > 0, peaks + known, markers), mask=region)
    mine = int(basins[seed])
    return np.asarray(basins == mine, np.bool_) if mine > known else None


def resize(patch: Patch, steps: int, *, image: Ids | None = None) -> Patch | None:
    """Grow or shrink a set of pixels by whole pixels.

    Steps do not add up exactly: a wheel should resize the first proposal by the sum of its steps.

    Parameters
    ----------
    patch : Patch
        For example a proposal. It is not changed.
    steps : int
        Pixels to grow by; negative ones shrink.
    image : ndarray of uint32, shape (y, x), optional
        Instance map: growing takes only its background, never beyond a nucleus, and shrinking spares its border.
        Without it, nothing bounds the patch, and its box may leave the map.

    Returns
    -------
    Patch or None
        In one piece if the patch is, the largest that is left when shrinking. None if nothing is left.
    """
    if steps == 0:
        return patch
    margin = abs(steps) + 1
    if image is None:
        window, mask = patch.box.expand(margin), np.pad(patch.mask, margin)
        free = np.ones_like(mask)
    else:
        check_image(image)
        if not whole(image).contains(patch.box):
            raise ValueError(f"the box {patch.box} leaves the map of {image.shape[0]} x {image.shape[1]} pixels")
        window, mask = around(patch, margin, image)
        free = mask | (image[window.slices] == 0)
    if steps < 0:
        return patch_of(window, largest_piece(eroded(mask, -steps)))
    return patch_of(window, touching(dilated(mask, steps) & free, mask))


def place(image: Ids, nucleus_id: int, patch: Patch) -> Edited | None:
    """Make a nucleus of a set of pixels, such as a proposal, where the map is background.

    Parameters
    ----------
    image : ndarray of uint32, shape (y, x)
        Instance map; 0 is background. It is not changed.
    nucleus_id : int
        Of the new nucleus, 1..2**32 - 1.
    patch : Patch
        The pixels; those outside the map are passed over.

    Returns
    -------
    Edited or None
        None if no pixel is free.
    """
    check_image(image)
    number = checked_id(nucleus_id)
    window = patch.box.intersect(whole(image))
    if window.is_empty:
        return None
    after = image[window.slices].copy()
    mask = patch.mask[window.translate(-patch.box.y, -patch.box.x).slices]
    after[mask & (after == 0)] = number
    return edit_of(image, window, after)
