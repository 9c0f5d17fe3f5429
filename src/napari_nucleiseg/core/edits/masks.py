"""Masks of single nuclei: where they lie, their pieces and holes, and growing or shrinking them by a distance.

Pieces that touch at a corner are one (8-connected), as in the outlines that are exported; so background is 4-connected.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from napari_nucleiseg.core.edits.change import Ids, Mask, bounds_of, whole
from napari_nucleiseg.core.geometry import Region

# Distances are square roots in float32; the nearest other distance between pixels is much farther away than this.
ROUNDING_PX = 1e-4
FIRST_REACH_PX = 64


@dataclass(frozen=True, slots=True, eq=False)
class Patch:
    """A set of pixels.

    Parameters
    ----------
    box : Region
        In pixels of the map.
    mask : ndarray of bool, shape (box.height, box.width)
        ``(y, x)``; true inside.
    """

    box: Region
    mask: Mask


def patch_of(window: Region, mask: Mask) -> Patch | None:
    """Return a mask over a window, cropped to its true pixels; None if there are none."""
    inner = bounds_of(mask)
    return None if inner is None else Patch(inner.translate(window.y, window.x), mask[inner.slices].copy())


def find(image: Ids, nucleus_id: np.uint32, box: Region | None) -> Patch | None:
    """Return all pixels of a nucleus.

    Parameters
    ----------
    image : ndarray of uint32, shape (y, x)
        Instance map.
    nucleus_id : uint32
        The nucleus.
    box : Region, optional
        Where to look, in pixels of the map; it holds the whole nucleus. None looks everywhere.

    Returns
    -------
    Patch or None
        Over the bounding box; None if the nucleus is not there.
    """
    window = whole(image) if box is None else whole(image).intersect(box)
    return patch_of(window, image[window.slices] == nucleus_id)


def find_any(image: Ids, ids: Ids, box: Region | None) -> Patch | None:
    """Like `find` for the pixels of several nuclei together; ids are looked up once a run of equal pixels."""
    window = whole(image) if box is None else whole(image).intersect(box)
    if window.is_empty or not len(ids):
        return None
    flat = image[window.slices].ravel()
    starts = run_starts(flat)
    hit = np.repeat(np.isin(flat[starts], ids), np.diff(starts, append=flat.size))
    return patch_of(window, hit.reshape(window.height, window.width))


def run_starts(flat: Ids) -> NDArray[np.intp]:
    """Return where in a raveled map, not empty, a run of equal ids begins."""
    begins = np.empty(flat.size, np.bool_)
    begins[0] = True
    np.not_equal(flat[1:], flat[:-1], out=begins[1:])
    return np.flatnonzero(begins)


def around(patch: Patch, margin: int, image: Ids) -> tuple[Region, Mask]:
    """Return the window that is wider than a patch by a margin, cut at the map's border, and the mask over it."""
    window = patch.box.expand(margin).intersect(whole(image))
    mask = np.zeros((window.height, window.width), np.bool_)
    mask[patch.box.translate(-window.y, -window.x).slices] = patch.mask
    return window, mask


def label(mask: Mask, connectivity: int = 8) -> tuple[int, NDArray[np.int32]]:
    """Number the pieces of a mask 1..n; returns n and an int32 ``(y, x)`` array with 0 outside."""
    if not mask.size:
        return 0, np.zeros(mask.shape, np.int32)
    count, pieces = cv2.connectedComponents(np.ascontiguousarray(mask).view(np.uint8), connectivity=connectivity)
    return count - 1, np.asarray(pieces, np.int32)


def largest_first(pieces: NDArray[np.int32], count: int) -> list[int]:
    """Return the numbers 1..count of pieces by their area, largest first; of equals the one with the lower number."""
    areas = np.bincount(pieces.ravel(), minlength=count + 1)[1:]
    return [int(number) + 1 for number in np.argsort(-areas, kind="stable")]


def largest_piece(mask: Mask) -> Mask:
    """Return the piece of a mask that has most pixels."""
    count, pieces = label(mask)
    return mask if count < 2 else pieces == largest_first(pieces, count)[0]


def touching(mask: Mask, seeds: Mask) -> Mask:
    """Return the pieces of a mask that share a pixel with `seeds`."""
    count, pieces = label(mask)
    kept = np.zeros(count + 1, np.bool_)
    kept[pieces[seeds]] = True
    kept[0] = False
    return kept[pieces]


def component(image: Ids, seed: tuple[int, int], connectivity: int) -> tuple[Patch, bool]:
    """Return the connected pixels that hold the same id as the seed, and whether they reach the map's border.

    The window looked at is widened until the component ends inside it.

    Parameters
    ----------
    image : ndarray of uint32, shape (y, x)
        Instance map.
    seed : tuple of int
        Row and column inside the map.
    connectivity : int
        4 or 8.
    """
    everything = whole(image)
    reach = FIRST_REACH_PX
    while True:
        window = Region(seed[0], seed[1], 1, 1).expand(reach).intersect(everything)
        same = (image[window.slices] == image[seed]).view(np.uint8)
        cv2.floodFill(same, None, (seed[1] - window.x, seed[0] - window.y), (2.0,), flags=connectivity)
        mask = same == 2
        inner = bounds_of(mask) or whole(mask)
        box = inner.translate(window.y, window.x)
        if window.contains(everything.intersect(box.expand(1))):
            return Patch(box, mask[inner.slices].copy()), not everything.contains(box.expand(1))
        reach *= 4


def filled(mask: Mask) -> Mask:
    """Return a mask with its holes filled; what is open to the border of the array is no hole."""
    outside = np.pad(~mask, 1, constant_values=True).view(np.uint8)
    cv2.floodFill(outside, None, (0, 0), (2.0,), flags=4)
    inside: Mask = outside[1:-1, 1:-1] != 2
    return inside


def dilated(mask: Mask, radius: float) -> Mask:
    """Return the pixels no farther than `radius` pixels (between centres) from a true pixel."""
    if not mask.any():
        return mask.copy()
    return distance_to(mask) <= radius + ROUNDING_PX


def eroded(mask: Mask, radius: float) -> Mask:
    """Return the pixels farther than `radius` pixels from every false one; beyond the array nothing is false."""
    if mask.all():
        return mask.copy()
    return distance_to(~mask) > radius + ROUNDING_PX


def distance_to(mask: Mask) -> NDArray[np.float32]:
    """Return the exact distance in pixels from each pixel to the nearest true one, of which there must be one."""
    apart = np.ascontiguousarray(~mask).view(np.uint8)
    return np.asarray(cv2.distanceTransform(apart, cv2.DIST_L2, cv2.DIST_MASK_PRECISE), np.float32)
