"""Make several nuclei of one: along a line, or from the pieces it is in."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from napari_nucleiseg.core.edits.change import (
    Edited,
    Ids,
    Mask,
    check_image,
    checked_id,
    checked_points,
    edit_of,
    whole,
)
from napari_nucleiseg.core.edits.masks import Patch, dilated, find, label, largest_first, patch_of
from napari_nucleiseg.core.edits.rasters import Points, span_of
from napari_nucleiseg.core.geometry import Region

# How far both ends of a cut are prolonged: a hand stops a little short of the outline.
OVERSHOOT_PX = 2.0
# Moves the line off the centres of pixels, where its side could not be told.
NUDGE_PX = (3.1e-5, 1.7e-5)
NEIGHBOURS = ((0, 1), (1, 0), (1, 1), (1, -1))
TOUCHING_PX = 1.5


def split(
    image: Ids,
    nucleus_id: int,
    line: NDArray[np.floating],
    new_ids: Iterable[int],
    *,
    smallest_share: float = 0.02,
    box: Region | None = None,
) -> Edited | None:
    """Cut a nucleus along a line; no pixel of it is lost.

    Two neighbouring pixels part where the line runs between their centres. The largest part keeps the id, as do pieces
    of the nucleus that the line does not cut; the others get new ids, larger parts first.

    Parameters
    ----------
    image : ndarray of uint32, shape (y, x)
        Instance map; 0 is background. It is not changed.
    nucleus_id : int
        The nucleus.
    line : ndarray of float, shape (n, 2)
        ``(y, x)`` in pixels, joined by straight lines; both ends are prolonged by two pixels.
    new_ids : iterable of int
        Ids not used in the map, read as far as needed; ``itertools.count(first)`` will do.
    smallest_share : float
        A part with a smaller share of the nucleus' pixels is a crumb of an unsteady line and stays with the part that
        it touches most, 0..1.
    box : Region, optional
        Holds the nucleus, in pixels of the map; None searches the whole map.

    Returns
    -------
    Edited or None
        None if the nucleus is not there or the line does not cut it in two.

    Raises
    ------
    ValueError
        If an argument has no meaning or there are too few new ids.
    """
    check_image(image)
    number = checked_id(nucleus_id)
    points = checked_points(line, "the corners of a line")
    if not 0 <= smallest_share <= 1:
        raise ValueError(f"a share lies between 0 and 1; {smallest_share} does not")
    patch = find(image, number, box)
    if patch is None:
        return None
    cut = _prolonged(points - (patch.box.y, patch.box.x))
    if cut is None:
        return None
    parts = _without_crumbs(patch.mask, _sides(patch.mask, cut), smallest_share)
    _, pieces = label(patch.mask)
    pairs = np.unique(np.stack([pieces[patch.mask], parts[patch.mask]]), axis=1)
    divided = pairs[1][np.bincount(pairs[0])[pairs[0]] > 1]
    if not len(divided):
        return None
    ordered = [part for part in largest_first(parts, int(parts.max())) if part in set(divided.tolist())]
    return _renamed(image, patch, parts, dict(zip(ordered[1:], _fresh(new_ids, len(ordered) - 1, number), strict=True)))


def steadied(line: NDArray[np.floating], tolerance_px: float) -> Points:
    """Return a line with fewer corners, as a steady hand would have drawn it.

    Where a drawn line strays less than the tolerance from a straight one, it becomes straight; else it keeps its way.

    Parameters
    ----------
    line : ndarray of float, shape (n, 2)
        ``(y, x)`` in pixels, joined by straight lines.
    tolerance_px : float
        No corner that is dropped lies farther from the line that is left; 0 or above.

    Returns
    -------
    ndarray of float64, shape (m, 2)
        Some corners of the line in their order, both ends among them.

    Raises
    ------
    ValueError
        If an argument has no meaning.
    """
    points = checked_points(line, "the corners of a line")
    if not (np.isfinite(tolerance_px) and tolerance_px >= 0):
        raise ValueError(f"a tolerance is a number of pixels, 0 or above, not {tolerance_px}")
    kept = np.zeros(len(points), np.bool_)
    kept[[0, -1] if len(points) else []] = True
    # The corner that strays most stays, and divides the rest in two; so on as long as any strays too far.
    parts = [(0, len(points) - 1)]
    while parts:
        first, last = parts.pop()
        if last - first < 2:
            continue
        away = _distances(points[first + 1 : last], points[first], points[last])
        corner = first + 1 + int(away.argmax())
        if away.max() > tolerance_px:
            kept[corner] = True
            parts += [(first, corner), (corner, last)]
    return points[kept]


def _distances(points: Points, a: Points, b: Points) -> Points:
    """Return how far points are from the straight way from one to another."""
    way = b - a
    length = float(way @ way)
    along = np.clip((points - a) @ way / length, 0, 1) if length > 0 else np.zeros(len(points))
    return np.asarray(np.linalg.norm(points - a - along[:, None] * way, axis=1))


def pieces(image: Ids, nucleus_id: int, *, box: Region | None = None) -> tuple[Patch, ...]:
    """Return the connected pieces of a nucleus, largest first; pieces that touch at a corner are one.

    Parameters
    ----------
    image : ndarray of uint32, shape (y, x)
        Instance map; 0 is background.
    nucleus_id : int
        The nucleus.
    box : Region, optional
        Holds the nucleus, in pixels of the map; None searches the whole map.

    Returns
    -------
    tuple of Patch
        Empty if the nucleus is not there.
    """
    check_image(image)
    patch = find(image, checked_id(nucleus_id), box)
    if patch is None:
        return ()
    count, numbers = label(patch.mask)
    found = (patch_of(patch.box, numbers == piece) for piece in largest_first(numbers, count))
    return tuple(piece for piece in found if piece is not None)


def keep_largest_piece(
    image: Ids, nucleus_id: int, new_ids: Iterable[int], *, box: Region | None = None
) -> Edited | None:
    """Make nuclei of their own of all pieces of a nucleus but the largest.

    Parameters
    ----------
    image : ndarray of uint32, shape (y, x)
        Instance map; 0 is background. It is not changed.
    nucleus_id : int
        The nucleus.
    new_ids : iterable of int
        Ids not used in the map, read as far as needed; larger pieces come first.
    box : Region, optional
        Holds the nucleus, in pixels of the map; None searches the whole map.

    Returns
    -------
    Edited or None
        None if the nucleus is not there or is in one piece.

    Raises
    ------
    ValueError
        If an argument has no meaning or there are too few new ids.
    """
    check_image(image)
    number = checked_id(nucleus_id)
    patch = find(image, number, box)
    if patch is None:
        return None
    count, numbers = label(patch.mask)
    others = largest_first(numbers, count)[1:]
    return _renamed(image, patch, numbers, dict(zip(others, _fresh(new_ids, len(others), number), strict=True)))


def _fresh(new_ids: Iterable[int], count: int, taken: np.uint32) -> list[np.uint32]:
    fresh = [checked_id(number) for number in itertools.islice(new_ids, count)]
    if len(fresh) < count:
        raise ValueError(f"{count} new ids are needed, but only {len(fresh)} were given")
    if len({taken, *fresh}) <= count:
        raise ValueError("new ids must differ from each other and from the nucleus' own")
    return fresh


def _renamed(image: Ids, patch: Patch, parts: NDArray[np.int32], names: dict[int, np.uint32]) -> Edited | None:
    after = image[patch.box.slices].copy()
    for part, name in names.items():
        after[parts == part] = name
    return edit_of(image, patch.box, after)


def _prolonged(points: Points) -> Points | None:
    """Drop points that repeat the one before and prolong both ends; None if no line is left."""
    if len(points) < 2:
        return None
    steps = np.linalg.norm(np.diff(points, axis=0), axis=1)
    points = points[np.append(steps > 0, values=True)] + NUDGE_PX
    if len(points) < 2:
        return None
    ends = []
    for end, inner in ((points[0], points[1]), (points[-1], points[-2])):
        ends.append(end + (end - inner) * (OVERSHOOT_PX / np.linalg.norm(end - inner)))
    return np.concatenate([ends[:1], points, ends[1:]])


def _sides(mask: Mask, line: Points) -> NDArray[np.int32]:
    """Number the parts 1..n that a mask falls into where neighbouring pixels across the line are parted."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    height, width = mask.shape
    nodes = np.full(mask.shape, -1, np.intp)
    nodes[mask] = np.arange(np.count_nonzero(mask))
    firsts, seconds = [], []
    for dy, dx in NEIGHBOURS:
        parted = _parted(mask, line, dy, dx)
        here = (slice(0, height - dy), slice(max(0, -dx), width - max(0, dx)))
        there = (slice(dy, height), slice(max(0, dx), width + min(0, dx)))
        linked = mask[here] & mask[there] & ~parted[here]
        firsts.append(nodes[here][linked])
        seconds.append(nodes[there][linked])
    first, second = np.concatenate(firsts), np.concatenate(seconds)
    size = int(np.count_nonzero(mask))
    links = coo_array((np.ones(len(first), np.int8), (first, second)), shape=(size, size))
    parts = np.zeros(mask.shape, np.int32)
    parts[mask] = connected_components(links, directed=False)[1] + 1
    return parts


def _parted(mask: Mask, line: Points, dy: int, dx: int) -> Mask:
    """Return for each pixel whether the line crosses the way from its centre to that of a neighbour."""
    parted = np.zeros(mask.shape, np.bool_)
    for a, b in itertools.pairwise(line):
        span = span_of(np.stack([a, b]), 2, whole(mask))
        ys, xs = np.ogrid[span.slices]
        vy, vx = b - a
        side_a, side_b = (dy * (end[1] - xs) - dx * (end[0] - ys) >= 0 for end in (a, b))
        own = vy * (xs - a[1]) - vx * (ys - a[0])
        other = own + (vy * dx - vx * dy)
        parted[span.slices] |= (side_a != side_b) & ((own >= 0) != (other >= 0))
    return parted


def _without_crumbs(mask: Mask, parts: NDArray[np.int32], smallest_share: float) -> NDArray[np.int32]:
    """Give parts below a share of the mask to the part they touch most; the largest of each piece is never given."""
    _, numbers = label(mask)
    areas = np.bincount(parts.ravel())
    crumbs = set((np.flatnonzero(areas[1:] < smallest_share * np.count_nonzero(mask)) + 1).tolist())
    ordered = largest_first(parts, len(areas) - 1)
    owner = {part: int(numbers[parts == part][0]) for part in ordered}
    # Reversed, so that the largest part of a piece is what remains.
    crumbs -= set({owner[part]: part for part in reversed(ordered)}.values())
    result = parts.copy()
    while crumbs:
        for crumb in sorted(crumbs):
            rim = dilated(result == crumb, TOUCHING_PX) & (numbers == owner[crumb])
            found = result[rim]
            found = found[~np.isin(found, [*crumbs])]
            if len(found):
                result[result == crumb] = np.bincount(found).argmax()
                crumbs.remove(crumb)
    return result
