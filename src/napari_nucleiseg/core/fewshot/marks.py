"""What marks mean: pixels of the view and candidates, for each side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from napari_nucleiseg.core.errors import DataError
from napari_nucleiseg.core.fewshot.options import Mark


@dataclass(frozen=True, slots=True, eq=False)
class Meant:
    """What the marks of one side mean.

    Parameters
    ----------
    pixels : list of ndarray of int64
        Raveled positions in the view, for each nucleus, disc or region that was marked.
    ids : ndarray of int32
        Candidates among them, ascending.
    """

    pixels: list[NDArray[np.int64]]
    ids: NDArray[np.int32]


def meaning(marks: Sequence[Mark], candidates: NDArray[np.int32], mpp_um: float, disc_um: float) -> tuple[Meant, Meant]:
    """Return what is marked as like, and as not.

    Parameters
    ----------
    marks : sequence of Mark
        In pixels of the view; of a nucleus that is marked as both, the last word counts.
    candidates : ndarray of int32, shape (y, x)
        Instance map of the view.
    mpp_um : float
        Micrometres per pixel of the view.
    disc_um : float
        Radius of what a point marks where no candidate lies.

    Raises
    ------
    DataError
        If a mark lies beside the view or is an empty mask, or none is like.
    """
    sides: dict[int, bool] = {}
    areas: tuple[list[NDArray[np.int64]], list[NDArray[np.int64]]] = ([], [])
    for mark in marks:
        ids, rest = _meant(mark, candidates, mpp_um, disc_um)
        for number in ids:
            sides.pop(number, None)
            sides[number] = mark.is_like
        if rest.size:
            areas[0 if mark.is_like else 1].append(rest)
    like = [number for number, is_like in sides.items() if is_like]
    unlike = [number for number, is_like in sides.items() if not is_like]
    if not like and not areas[0]:
        raise DataError("mark at least one nucleus that the others shall be like")
    pixels = _pixels_of(candidates, [*like, *unlike])
    return (
        Meant([*(pixels[number] for number in like), *areas[0]], np.array(sorted(like), np.int32)),
        Meant([*(pixels[number] for number in unlike), *areas[1]], np.array(sorted(unlike), np.int32)),
    )


def _pixels_of(candidates: NDArray[np.int32], ids: Sequence[int]) -> dict[int, NDArray[np.int64]]:
    """Return the raveled pixels of some candidates."""
    if not ids:
        return {}
    flat = np.flatnonzero(np.isin(candidates, ids))
    values = candidates.ravel()[flat]
    return {number: flat[values == number] for number in ids}


def _meant(
    mark: Mark, candidates: NDArray[np.int32], mpp_um: float, disc_um: float
) -> tuple[list[int], NDArray[np.int64]]:
    """Return the candidates that a mark means; pixels where it means none."""
    if isinstance(mark.where, np.ndarray):
        return _meant_by_mask(mark.where, candidates)
    y, x = (int(np.floor(place + 0.5)) for place in mark.where)
    height, width = candidates.shape
    if not (0 <= y < height and 0 <= x < width):
        raise DataError(f"the mark at {mark.where} lies beside the view of {height} x {width} px")
    if number := int(candidates[y, x]):
        return [number], np.zeros(0, np.int64)
    disc = np.zeros(candidates.shape, np.uint8)
    cv2.circle(disc, (x, y), max(1, round(disc_um / mpp_um)), 1, cv2.FILLED)
    # What belongs to a candidate was not meant: the point lies beside it.
    free = np.flatnonzero((disc > 0) & (candidates == 0))
    return [], free.astype(np.int64)


def _meant_by_mask(mask: NDArray[np.bool_], candidates: NDArray[np.int32]) -> tuple[list[int], NDArray[np.int64]]:
    if mask.shape != candidates.shape:
        raise DataError(f"a marked region has the shape {mask.shape}, the view {candidates.shape}; they must be equal")
    marked = mask.astype(bool)
    inside, counts = np.unique(candidates[marked], return_counts=True)
    if not counts.size:
        raise DataError("a marked region is empty; draw it around one nucleus or several")
    found, wanted = inside[inside > 0], counts[inside > 0]
    totals = dict(zip(*np.unique(candidates[np.isin(candidates, found)], return_counts=True), strict=True))
    ids = [int(number) for number, count in zip(found, wanted, strict=True) if count > totals[number] / 2]
    return (ids, np.zeros(0, np.int64)) if ids else ([], np.flatnonzero(marked).astype(np.int64))
