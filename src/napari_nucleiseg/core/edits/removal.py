"""Delete nuclei from an instance map, by their ids or all inside a polygon."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from napari_nucleiseg.core.edits.change import (
    Edited,
    Ids,
    check_image,
    checked_id,
    checked_points,
    edit_of,
    whole,
)
from napari_nucleiseg.core.edits.masks import find_any, run_starts
from napari_nucleiseg.core.edits.rasters import inside_polygon
from napari_nucleiseg.core.geometry import Region


def delete(image: Ids, ids: Iterable[int], *, box: Region | None = None) -> Edited | None:
    """Delete nuclei.

    Parameters
    ----------
    image : ndarray of uint32, shape (y, x)
        Instance map; 0 is background. It is not changed.
    ids : iterable of int
        Of the nuclei; those that are not in the map are passed over.
    box : Region, optional
        Holds all of them, in pixels of the map; None searches the whole map.

    Returns
    -------
    Edited or None
        None if none of them is there.
    """
    check_image(image)
    patch = find_any(image, np.array(sorted({checked_id(number) for number in ids}), np.uint32), box)
    if patch is None:
        return None
    after = image[patch.box.slices].copy()
    after[patch.mask] = 0
    return edit_of(image, patch.box, after)


def delete_inside(
    image: Ids, vertices: NDArray[np.floating], *, box: Region | None = None
) -> tuple[Edited, Ids] | None:
    """Delete all nuclei whose centroid lies inside a polygon.

    Parameters
    ----------
    image : ndarray of uint32, shape (y, x)
        Instance map; 0 is background. It is not changed.
    vertices : ndarray of float, shape (n, 2)
        ``(y, x)`` in pixels, even-odd rule; the last is joined to the first.
    box : Region, optional
        The part of the map to look at, in its pixels: it holds the polygon and all of the nuclei around it. A nucleus
        that the box cuts is judged by the part inside. None looks at the whole map.

    Returns
    -------
    tuple of Edited and ndarray of uint32, shape (n,), or None
        The edit and the deleted ids, ascending; None if no centroid is inside.
    """
    check_image(image)
    points = checked_points(vertices, "the vertices of a polygon")
    window = whole(image) if box is None else whole(image).intersect(box)
    if len(points) < 3 or window.is_empty:
        return None
    ids, centroids = _centroids(image, window)
    found = ids[inside_polygon(centroids, points)]
    edited = delete(image, found.tolist(), box=window)
    return None if edited is None else (edited, found)


def _centroids(image: Ids, window: Region) -> tuple[Ids, NDArray[np.float64]]:
    """Return the ids in a window and their centroids ``(n, 2)``, ``(y, x)`` in pixels of the map."""
    # A column of background at the end keeps runs from going on in the next row.
    flat = np.pad(image[window.slices], ((0, 0), (0, 1))).ravel()
    starts = run_starts(flat)
    lengths = np.diff(starts, append=flat.size)
    values = flat[starts]
    starts, lengths, values = starts[values > 0], lengths[values > 0], values[values > 0]
    ids, owner = np.unique(values, return_inverse=True)
    ys, xs = np.divmod(starts, window.width + 1)
    areas = np.bincount(owner, lengths, len(ids))
    sums = np.bincount(owner, ys * lengths, len(ids)), np.bincount(owner, (xs + (lengths - 1) / 2) * lengths, len(ids))
    return ids, np.stack(sums, axis=1) / areas[:, None] + (window.y, window.x)
