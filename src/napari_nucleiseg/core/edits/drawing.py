"""Draw nuclei into an instance map: brush, eraser, polygon and bucket."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from napari_nucleiseg.core.edits.change import (
    Edited,
    Ids,
    check_image,
    checked_id,
    checked_points,
    checked_radius,
    edit_of,
    pixel_at,
    whole,
)
from napari_nucleiseg.core.edits.masks import component, largest_piece
from napari_nucleiseg.core.edits.rasters import polygon, span_of, stroke

SMALLEST_BRUSH_PX = 0.5
BACKGROUND = np.uint32(0)


def paint(
    image: Ids,
    nucleus_id: int,
    centres: NDArray[np.floating],
    radius: float,
    *,
    preserve: bool = False,
    only_over: int | None = None,
) -> Edited | None:
    """Paint a nucleus with a round brush along a path.

    Parameters
    ----------
    image : ndarray of uint32, shape (y, x)
        Instance map; 0 is background. It is not changed.
    nucleus_id : int
        What to paint, 1..2**32 - 1; it need not be in the map yet.
    centres : ndarray of float, shape (n, 2)
        ``(y, x)`` of the brush's centre, rounded to whole pixels and joined by straight lines. They may lie outside
        the map.
    radius : float
        Half the size of the brush in pixels: all pixels are painted whose centre is no farther from the path. The
        brush is at least one pixel wide.
    preserve : bool
        Leave other nuclei as they are.
    only_over : int, optional
        Paint only where the map holds this id; 0 is background.

    Returns
    -------
    Edited or None
        None if nothing changes.

    Raises
    ------
    ValueError
        If an argument has no meaning, or `preserve` is set and `only_over` is a nucleus.
    """
    if preserve and only_over:
        raise ValueError(f"other nuclei cannot be preserved and nucleus {only_over} be painted over at the same time")
    over = BACKGROUND if preserve or only_over == 0 else _id_or_none(only_over)
    return _brush(image, checked_id(nucleus_id), centres, radius, over)


def erase(image: Ids, centres: NDArray[np.floating], radius: float, *, only: int | None = None) -> Edited | None:
    """Erase with a round brush along a path.

    Parameters
    ----------
    image : ndarray of uint32, shape (y, x)
        Instance map; 0 is background. It is not changed.
    centres : ndarray of float, shape (n, 2)
        ``(y, x)`` in pixels; see `paint`.
    radius : float
        In pixels; see `paint`.
    only : int, optional
        Erase this nucleus alone.

    Returns
    -------
    Edited or None
        None if nothing changes. What is left of a nucleus may be in several pieces.
    """
    return _brush(image, BACKGROUND, centres, radius, _id_or_none(only))


def _id_or_none(nucleus_id: int | None) -> np.uint32 | None:
    return None if nucleus_id is None else checked_id(nucleus_id)


def _brush(
    image: Ids, value: np.uint32, centres: NDArray[np.floating], radius: float, over: np.uint32 | None
) -> Edited | None:
    check_image(image)
    points = np.floor(checked_points(centres, "the centres of a brush") + 0.5)
    radius = max(checked_radius(radius), SMALLEST_BRUSH_PX)
    if not len(points):
        return None
    window = span_of(points, radius, whole(image))
    if window.is_empty:
        return None
    where = stroke(points, radius, window)
    after = image[window.slices].copy()
    if over is not None:
        where &= after == over
    after[where] = value
    return edit_of(image, window, after)


def draw_polygon(
    image: Ids, nucleus_id: int, vertices: NDArray[np.floating], *, over_others: bool = False
) -> Edited | None:
    """Draw a new nucleus as a polygon.

    Parameters
    ----------
    image : ndarray of uint32, shape (y, x)
        Instance map; 0 is background. It is not changed.
    nucleus_id : int
        Of the new nucleus, 1..2**32 - 1. Where the map holds it already, it counts as free.
    vertices : ndarray of float, shape (n, 2)
        ``(y, x)`` in pixels; the last is joined to the first. A pixel is inside if its centre is, by the even-odd
        rule. The polygon may cross itself and leave the map.
    over_others : bool
        Take pixels from other nuclei too; else only background is taken.

    Returns
    -------
    Edited or None
        The largest connected piece of what could be taken; None if that is nothing, as with less than three vertices.
    """
    check_image(image)
    number = checked_id(nucleus_id)
    points = checked_points(vertices, "the vertices of a polygon")
    if len(points) < 3:
        return None
    window = span_of(points, 0, whole(image))
    if window.is_empty:
        return None
    where = polygon(points, window)
    after = image[window.slices].copy()
    if not over_others:
        where &= (after == BACKGROUND) | (after == number)
    after[largest_piece(where)] = number
    return edit_of(image, window, after)


def fill(image: Ids, nucleus_id: int, seed: tuple[float, float], *, open_background: bool = False) -> Edited | None:
    """Give a nucleus the connected pixels under a point that all hold the same id (the bucket).

    Parameters
    ----------
    image : ndarray of uint32, shape (y, x)
        Instance map; 0 is background. It is not changed.
    nucleus_id : int
        What to fill with, 1..2**32 - 1.
    seed : tuple of float
        ``(y, x)`` in pixels. On a nucleus, the piece under the point is taken; on background, what an outline
        (one that touches itself at corners will do) encloses.
    open_background : bool
        Fill also background that reaches the border of the map, where no outline holds it.

    Returns
    -------
    Edited or None
        None if nothing changes: the seed is outside the map, on the nucleus itself, or on open background.
    """
    check_image(image)
    number = checked_id(nucleus_id)
    at = pixel_at(seed, image)
    if at is None or image[at] == number:
        return None
    on_background = image[at] == BACKGROUND
    patch, reaches_border = component(image, at, connectivity=4 if on_background else 8)
    if on_background and reaches_border and not open_background:
        return None
    after = image[patch.box.slices].copy()
    after[patch.mask] = number
    return edit_of(image, patch.box, after)
