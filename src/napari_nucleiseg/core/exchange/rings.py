"""The outlines of features as rings of numbers, checked, and what can be told of rings without drawing them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_nucleiseg.core.exchange.digits import Digits, numbers_of
from napari_nucleiseg.core.exchange.rasterise import Rings

# Much farther than any slide is large.
FARTHEST_PX = 1e12

# Lists of [x, y].
RingLists = list[Any]
# A list of polygons, each a list of rings, the first the outer one; or the text of one polygon of one ring.
Outline = list[RingLists] | Digits

# Rings and for each 1, or -1 for a hole.
SignedRings = tuple[Rings, NDArray[np.float64]]


def rings_of(outlines: Sequence[Outline]) -> SignedRings | None:
    """Return the rings of some outlines, or None if something in them is no finite number."""
    is_text = [isinstance(outline, Digits) for outline in outlines]
    if all(is_text):
        return _of_texts([outline for outline in outlines if isinstance(outline, Digits)])
    lists = _of_lists([outline for outline in outlines if not isinstance(outline, Digits)])
    if lists is None or not any(is_text):
        return lists
    texts = _of_texts([outline for outline in outlines if isinstance(outline, Digits)])
    if texts is None:
        return None
    places = np.flatnonzero(is_text), np.flatnonzero(~np.array(is_text))
    return _mixed(texts, lists, places)


def chosen(rings: Rings, signs: NDArray[np.float64], good: NDArray[np.bool_]) -> SignedRings:
    """Return the rings of some shapes only, the shapes numbered anew."""
    kept = good[rings.owners]
    lengths = np.diff(rings.starts)
    points = rings.points[np.repeat(kept, lengths)]
    ranks = np.cumsum(good) - 1
    return Rings(points, _starts(lengths[kept]), ranks[rings.owners[kept]]), signs[kept]


def near(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return points ``(n, 2)`` of which none lies so far away that nothing can be computed with it."""
    if points.min(initial=0) >= -FARTHEST_PX and points.max(initial=0) <= FARTHEST_PX:
        return points
    return np.clip(points, -FARTHEST_PX, FARTHEST_PX)


def areas_of(rings: Rings) -> NDArray[np.float64]:
    """Return the shoelace area of each ring, near its first point so that no digits are lost."""
    lengths = np.diff(rings.starts)
    points = rings.points - np.repeat(rings.points[rings.starts[:-1]], lengths, axis=0)
    # The first point is nought, so what joins the last to it adds nothing.
    x, y = points[:, 0], points[:, 1]
    products = np.zeros(len(points))
    np.multiply(x[:-1], y[1:], out=products[:-1])
    products[:-1] -= x[1:] * y[:-1]
    areas: NDArray[np.float64] = np.add.reduceat(products, rings.starts[:-1])
    return areas / 2


def _of_texts(texts: Sequence[Digits]) -> SignedRings | None:
    lengths = np.array([text.points for text in texts], np.int64)
    numbers = numbers_of([text.text for text in texts])
    if numbers is None or len(numbers) != 2 * int(lengths.sum()) or not np.isfinite(numbers).all():
        return None
    return Rings(numbers.reshape(-1, 2), _starts(lengths), np.arange(len(texts))), np.ones(len(texts))


def _of_lists(outlines: Sequence[list[RingLists]]) -> SignedRings | None:
    polygons = [polygon for outline in outlines for polygon in outline]
    rings = list(itertools.chain.from_iterable(polygons))
    try:
        lengths = list(map(len, rings))
        sizes = set(map(len, itertools.chain.from_iterable(rings)))
        flat = itertools.chain.from_iterable(itertools.chain.from_iterable(rings))
        if sizes - {2}:
            flat = itertools.chain.from_iterable(point[:2] for point in itertools.chain.from_iterable(rings))
        numbers = np.fromiter(flat, np.float64)
    except (TypeError, ValueError, OverflowError, KeyError):
        return None
    if len(numbers) != 2 * sum(lengths) or not np.isfinite(numbers).all():
        return None
    counts = [sum(map(len, outline)) for outline in outlines]
    signs = np.full(len(rings), -1.0)
    signs[np.cumsum([0, *map(len, polygons)])[:-1]] = 1
    owners = np.repeat(np.arange(len(outlines)), counts)
    return Rings(numbers.reshape(-1, 2), _starts(np.array(lengths, np.int64)), owners), signs


def _mixed(one: SignedRings, other: SignedRings, places: tuple[NDArray[np.int64], NDArray[np.int64]]) -> SignedRings:
    """Put rings of two kinds in the order of their outlines, which have these places."""
    both = [(rings, signs, where[rings.owners]) for (rings, signs), where in zip((one, other), places, strict=True)]
    owners = np.concatenate([where for _, _, where in both])
    order = np.argsort(owners, kind="stable")
    lengths = np.concatenate([np.diff(rings.starts) for rings, _, _ in both])
    firsts = _starts(lengths)[:-1][order]
    lengths = lengths[order]
    starts = _starts(lengths)
    taken = np.arange(int(starts[-1])) + np.repeat(firsts - starts[:-1], lengths)
    points = np.concatenate([rings.points for rings, _, _ in both])[taken]
    return Rings(points, starts, owners[order]), np.concatenate([signs for _, signs, _ in both])[order]


def _starts(lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
