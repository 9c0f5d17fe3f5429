"""Merge nuclei into one that hangs together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from napari_nucleiseg.core.edits.change import Edited, Ids, Mask, check_image, checked_id, edit_of, whole
from napari_nucleiseg.core.edits.masks import around, dilated, eroded, filled, find_any, label
from napari_nucleiseg.core.edits.rasters import stroke
from napari_nucleiseg.core.errors import NucleiSegError
from napari_nucleiseg.core.geometry import Region

BRIDGE_RADIUS_PX = 1.0


def merge(
    image: Ids, ids: Iterable[int], *, seam_px: int = 4, reach_px: float = 20.0, box: Region | None = None
) -> Edited | None:
    """Merge nuclei into the one with the lowest id.

    Background between two of them is closed where the seam is narrow, and holes that arise so are filled. Pieces that
    still do not touch are joined by a bridge three pixels wide between their nearest points. Other nuclei lose nothing.

    Parameters
    ----------
    image : ndarray of uint32, shape (y, x)
        Instance map; 0 is background. It is not changed.
    ids : iterable of int
        Of the nuclei; those that are not in the map are passed over. Each may be in several pieces.
    seam_px : int
        Widest seam of background that is closed, pixels; 0 closes none.
    reach_px : float
        Longest distance that is bridged, pixels between centres.
    box : Region, optional
        Holds all of them, in pixels of the map; None searches the whole map.

    Returns
    -------
    Edited or None
        None if less than two of the nuclei are in the map.

    Raises
    ------
    NucleiSegError
        If pieces lie farther apart than `reach_px`, or another nucleus lies between them.
    ValueError
        If an argument has no meaning.
    """
    check_image(image)
    if seam_px < 0 or not reach_px >= 0:
        raise ValueError(f"the seam and the reach cannot be negative ({seam_px} and {reach_px} pixels)")
    patch = find_any(image, np.array(sorted({checked_id(number) for number in ids}), np.uint32), box)
    if patch is None:
        return None
    window, mask = around(patch, int(BRIDGE_RADIUS_PX) + 1, image)
    part = image[window.slices]
    present = np.unique(part[mask])
    if len(present) < 2:
        return None
    for start, end in _links(mask):
        gap = float(np.linalg.norm(end - start))
        if gap > reach_px:
            raise NucleiSegError(
                f"These nuclei lie {gap:.0f} pixels apart; at most {reach_px:.0f} are bridged. "
                "Draw the part between them first."
            )
    free = mask | (part == 0)
    joined = _bridged(mask | (_seams(part, present, mask, seam_px) & free), free)
    own_holes = np.zeros_like(mask)
    for number in present:
        own_holes |= filled(part == number) & (part == 0)
    joined |= filled(joined) & free & ~own_holes
    after = part.copy()
    after[joined] = present[0]
    return edit_of(image, window, after)


def _links(mask: Mask) -> Iterator[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Yield the nearest points ``(y, x)`` of pieces that do not touch, until all hang together."""
    from scipy.spatial import KDTree

    _, pieces = label(mask)
    points = np.argwhere(mask).astype(np.float64)
    owner = pieces[mask]
    reached = owner == 1
    while not reached.all():
        rest = points[~reached]
        gaps, nearest = (np.asarray(found) for found in KDTree(points[reached]).query(rest))
        closest = int(np.argmin(gaps))
        yield points[reached][nearest[closest]], rest[closest]
        reached |= owner == owner[~reached][closest]


def _seams(part: Ids, present: Ids, mask: Mask, width: int) -> Mask:
    """Return what a closing adds near at least two pieces: the seams, not the dents of each piece's own outline."""
    if not width:
        return mask
    near = np.zeros(mask.shape, np.int32)
    for number in present:
        count, pieces = label(part == number)
        for piece in range(1, count + 1):
            near += dilated(pieces == piece, width)
    disc = (width + 1) / 2
    margin = int(disc) + 1
    # Dilating must not meet the end of the array.
    closed = eroded(dilated(np.pad(mask, margin), disc), disc)[margin:-margin, margin:-margin]
    return closed & (near >= 2)


def _bridged(mask: Mask, free: Mask) -> Mask:
    """Join the pieces of a mask by bridges over free pixels."""
    joined = mask.copy()
    for link in _links(mask):
        joined |= stroke(np.stack(link), BRIDGE_RADIUS_PX, whole(mask)) & free
    if label(joined)[0] > 1:
        raise NucleiSegError(
            "Another nucleus lies between these. Merge it with them, or draw the part between them first."
        )
    return joined
