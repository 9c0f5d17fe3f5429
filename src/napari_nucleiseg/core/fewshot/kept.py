"""Marks that lie in another view: a piece of that view's field is kept with each, and laid beside the view at hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from napari_nucleiseg.core.fewshot.field import FeatureField
from napari_nucleiseg.core.fewshot.options import LikeOptions, Mark, Proposals
from napari_nucleiseg.core.fewshot.search import find_the_like

# Steps of the field around a mark that are kept with it: what kernels look at.
AROUND = 3


@dataclass(frozen=True, slots=True, eq=False)
class KeptMark:
    """A mark with what the network said of its place, so that it counts wherever one looks.

    Parameters
    ----------
    features : ndarray of float32, shape (channels, rows, columns)
        A piece of the field that the mark was made in.
    mask : ndarray of bool, shape (y, x)
        What is marked, pixels of the view over the same piece.
    is_like : bool
        As of `Mark`.
    """

    features: NDArray[np.float32]
    mask: NDArray[np.bool_]
    is_like: bool


def keep(field: FeatureField, mask: NDArray[np.bool_], *, is_like: bool) -> KeptMark | None:
    """Keep a mark of a view for others.

    Parameters
    ----------
    field : FeatureField
        Of the view.
    mask : ndarray of bool, shape (y, x)
        What is marked, pixels of the view.
    is_like : bool
        As of `Mark`.

    Returns
    -------
    KeptMark or None
        None if nothing is marked.
    """
    ys, xs = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(ys):
        return None
    step_y, step_x = _whole_steps(field)
    _, rows, columns = field.features.shape
    top, left = max(0, int(ys[0]) // step_y - AROUND), max(0, int(xs[0]) // step_x - AROUND)
    bottom, right = min(rows, int(ys[-1]) // step_y + 1 + AROUND), min(columns, int(xs[-1]) // step_x + 1 + AROUND)
    piece = np.zeros(((bottom - top) * step_y, (right - left) * step_x), np.bool_)
    seen = mask[top * step_y : bottom * step_y, left * step_x : right * step_x]
    piece[: seen.shape[0], : seen.shape[1]] = seen
    return KeptMark(field.features[:, top:bottom, left:right].copy(), piece, is_like)


def find_across(
    field: FeatureField,
    candidates: NDArray[np.int32],
    marks: Sequence[Mark],
    kept: Sequence[KeptMark],
    options: LikeOptions | None = None,
) -> Proposals:
    """Propose what is like marks of this view and of others; see `find_the_like`.

    Each kept mark is laid below the view with the piece of field around it. What lies beside the pieces is a candidate
    of its own, so that nobody takes it for tissue; it is left out of what is returned.

    Parameters
    ----------
    field, candidates, marks, options
        As for `find_the_like`.
    kept : sequence of KeptMark
        Made in fields of the same network and layers.

    Returns
    -------
    Proposals
        Of the view alone.

    Raises
    ------
    DataError
        As `find_the_like`.
    """
    if not kept:
        return find_the_like(field, candidates, list(marks), options)
    quilt, places = _quilt(field, kept)
    height, width = quilt.shape
    filling = int(candidates.max(initial=0)) + 1
    wide = np.full((height, width), filling, np.int32)
    wide[: candidates.shape[0], : candidates.shape[1]] = candidates
    every = [_widened(mark, quilt.shape) for mark in marks]
    for one, (top, shown) in zip(kept, places, strict=True):
        mask = np.zeros((height, width), np.bool_)
        mask[top : top + shown.shape[0], : shown.shape[1]] = shown
        wide[top : top + shown.shape[0], : shown.shape[1]] = 0
        if shown.any():
            every.append(Mark(mask, one.is_like))
    return _without(find_the_like(quilt, wide, every, options), filling, field.shape)


def _without(found: Proposals, filling: int, shape: tuple[int, int]) -> Proposals:
    """Return what was found of the view alone."""
    here, every = found.ids != filling, found.all_ids != filling
    return replace(
        found,
        ids=found.ids[here],
        scores=found.scores[here],
        all_ids=found.all_ids[every],
        all_scores=found.all_scores[every],
        likeness=found.likeness[: shape[0], : shape[1]],
        like=found.like[found.like != filling],
        unlike=found.unlike[found.unlike != filling],
    )


def _quilt(field: FeatureField, kept: Sequence[KeptMark]) -> tuple[FeatureField, list[tuple[int, NDArray[np.bool_]]]]:
    """Return the field with all pieces below it, and first row and mask of each, view pixels."""
    step_y, step_x = _whole_steps(field)
    channels, rows, columns = field.features.shape
    total = rows + sum(one.features.shape[1] for one in kept)
    features = np.zeros((channels, total, columns), np.float32)
    features[:, :rows] = field.features
    places = []
    for one in kept:
        high, wide = one.features.shape[1], min(columns, one.features.shape[2])
        features[:, rows : rows + high, :wide] = one.features[:, :, :wide]
        places.append((rows * step_y, one.mask[:, : min(wide * step_x, field.shape[1])]))
        rows += high
    return replace(field, features=features, shape=(total * step_y, field.shape[1])), places


def _widened(mark: Mark, shape: tuple[int, int]) -> Mark:
    """Return a mark of the view as one of the view with what is laid below it."""
    if isinstance(mark.where, tuple):
        return mark
    mask = np.zeros(shape, np.bool_)
    mask[: mark.where.shape[0], : mark.where.shape[1]] = mark.where
    return Mark(mask, mark.is_like)


def _whole_steps(field: FeatureField) -> tuple[int, int]:
    """Return view pixels of one step, which are whole where a view is read at its network's pixel size."""
    step = field.step
    return max(1, round(step.y)), max(1, round(step.x))
