"""What an edit of an instance map is: a box, its pixels before and its pixels after."""

from __future__ import annotations

import operator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_nucleiseg.core.geometry import Region

Ids = NDArray[np.uint32]
Mask = NDArray[np.bool_]

LARGEST_ID = 2**32 - 1


@dataclass(frozen=True, slots=True, eq=False)
class Edited:
    """One change of an instance map.

    Parameters
    ----------
    box : Region
        Bounding box of the changed pixels, in pixels of the map that was given; not empty.
    before, after : ndarray of uint32, shape (box.height, box.width)
        All ids over the box, ``(y, x)``; 0 is background. Pixels where both agree were not changed.
    """

    box: Region
    before: Ids
    after: Ids

    @property
    def changed(self) -> Mask:
        """The pixels of the box that differ, bool ``(y, x)``."""
        changed: Mask = self.before != self.after
        return changed

    @property
    def ids(self) -> Ids:
        """Ids that gained or lost a pixel, ascending, uint32 ``(n,)``; background is not among them."""
        changed = self.changed
        found = np.unique(np.concatenate([self.before[changed], self.after[changed]]))
        return found[found > 0]


def apply(image: Ids, edited: Edited) -> Ids:
    """Return a copy of a map with an edit made in it; pixels that the edit did not change stay as they are now.

    Parameters
    ----------
    image : ndarray of uint32, shape (y, x)
        Instance map; 0 is background.
    edited : Edited
        With its box inside the map.

    Returns
    -------
    ndarray of uint32, shape (y, x)
        The changed copy.

    Raises
    ------
    ValueError
        If the box leaves the map, or if a pixel to be changed no longer holds the id it had before.
    """
    check_image(image)
    if not whole(image).contains(edited.box):
        raise ValueError(f"the edit's box {edited.box} leaves the map of {image.shape[0]} x {image.shape[1]} pixels")
    changed = edited.changed
    result = image.copy()
    part = result[edited.box.slices]
    if not np.array_equal(part[changed], edited.before[changed]):
        raise ValueError("the map has changed since: its pixels are not those that the edit found")
    np.copyto(part, edited.after, where=changed)
    return result


def inverse(edited: Edited) -> Edited:
    """Return the edit that takes an edit back."""
    return Edited(edited.box, edited.after, edited.before)


def whole(image: Ids | Mask) -> Region:
    """Return the region of all pixels of a map."""
    return Region(0, 0, image.shape[0], image.shape[1])


def edit_of(image: Ids, window: Region, after: Ids) -> Edited | None:
    """Compare the pixels of a window with what they are to become.

    Parameters
    ----------
    image : ndarray of uint32, shape (y, x)
        Instance map.
    window : Region
        Part of the map.
    after : ndarray of uint32, shape (window.height, window.width)
        Its new ids.

    Returns
    -------
    Edited or None
        Over the bounding box of the difference; None if there is none.
    """
    before = image[window.slices]
    inner = bounds_of(before != after)
    if inner is None:
        return None
    return Edited(inner.translate(window.y, window.x), before[inner.slices].copy(), after[inner.slices].copy())


def bounds_of(mask: Mask) -> Region | None:
    """Return the bounding box of the true pixels of a bool ``(y, x)`` mask; None if there are none."""
    rows = np.flatnonzero(mask.any(axis=1))
    if not len(rows):
        return None
    columns = np.flatnonzero(mask[rows[0] : rows[-1] + 1].any(axis=0))
    return Region.from_bounds(int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1)


def check_image(image: Ids) -> None:
    """Raise ValueError unless an array is an instance map."""
    if image.ndim != 2 or image.dtype != np.uint32:
        raise ValueError(f"an instance map is uint32 with axes (y, x), not {image.dtype} of shape {image.shape}")


def checked_id(nucleus_id: int) -> np.uint32:
    """Return an id as the map stores it; ValueError unless it is 1..2**32 - 1."""
    number = operator.index(nucleus_id)
    if not 1 <= number <= LARGEST_ID:
        raise ValueError(f"the id of a nucleus lies between 1 and {LARGEST_ID}; {number} does not")
    return np.uint32(number)


def checked_points(points: NDArray[np.floating], what: str) -> NDArray[np.float64]:
    """Return points as float64 ``(n, 2)``, ``(y, x)``; ValueError if the shape is another or a number is not finite."""
    found = np.asarray(points, np.float64)
    if found.size == 0:
        return np.zeros((0, 2))
    if found.ndim != 2 or found.shape[1] != 2:
        raise ValueError(f"{what} must be points (y, x) in an array of shape (n, 2), not {found.shape}")
    if not np.isfinite(found).all():
        raise ValueError(f"{what} must be finite numbers")
    return found


def checked_radius(radius: float) -> float:
    """Return a radius in pixels; ValueError unless it is finite and above 0."""
    if not (np.isfinite(radius) and radius > 0):
        raise ValueError(f"a radius must be a number of pixels above 0, not {radius}")
    return float(radius)


def pixel_at(point: tuple[float, float], image: Ids) -> tuple[int, int] | None:
    """Return the row and column of the pixel that covers a point ``(y, x)``; None outside the map.

    Raises
    ------
    ValueError
        If a coordinate is not finite.
    """
    y, x = point
    if not (np.isfinite(y) and np.isfinite(x)):
        raise ValueError(f"a point must have finite coordinates, not ({y}, {x})")
    row, column = int(np.floor(y + 0.5)), int(np.floor(x + 0.5))
    return (row, column) if whole(image).contains_point(row, column) else None
