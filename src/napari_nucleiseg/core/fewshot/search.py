"""Find the like: from a field of frozen features, candidate nuclei and a few marks to proposals. The public door."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from napari_nucleiseg.core.errors import DataError
from napari_nucleiseg.core.fewshot.candidates import candidates_of
from napari_nucleiseg.core.fewshot.field import (
    AUTO,
    FeatureField,
    FieldStep,
    colour_field,
    field_of,
    field_steps,
    layers_of,
)
from napari_nucleiseg.core.fewshot.kernels import kernel_response
from napari_nucleiseg.core.fewshot.marks import Meant, meaning
from napari_nucleiseg.core.fewshot.options import ALP, METHODS, NEAREST, PANET, SG_ONE, LikeOptions, Mark, Proposals
from napari_nucleiseg.core.fewshot.pooling import Cells, Pool, cells_of, pool_labels, pool_pixels
from napari_nucleiseg.core.fewshot.prototypes import METHODS as MATCHERS
from napari_nucleiseg.core.fewshot.prototypes import MOST_WINDOWS, REFUSED_SHARE, Support, Vectors, windows_in
from napari_nucleiseg.core.fewshot.threshold import automatic_threshold, ground_of, refined, spread_prototypes

__all__ = [
    "AUTO",
    "METHODS",
    "FeatureField",
    "FieldStep",
    "LikeOptions",
    "Mark",
    "Prepared",
    "Proposals",
    "candidates_of",
    "colour_field",
    "field_of",
    "field_steps",
    "find_the_like",
    "layers_of",
    "prepare",
]

# Of fewer candidates nobody can say what the others are.
LEAST_CANDIDATES = 4
# Standard deviation of the Gaussian that stands for a nucleus where there is none.
NUCLEUS_SIGMA_UM = 1.75


def find_the_like(
    field: FeatureField,
    candidates: NDArray[np.int32],
    marks: Sequence[Mark],
    options: LikeOptions | None = None,
    *,
    prepared: Prepared | None = None,
) -> Proposals:
    """Propose the candidates that are like what was marked.

    Parameters
    ----------
    field : FeatureField
        Features of the view, computed once by `field_of` and kept by the caller.
    candidates : ndarray of int32, shape (y, x)
        Instance map of the view at the view's pixel size (``field.shape``); 0 is background, ids may have gaps. What
        the segmentation found, or `candidates_of`. May be empty: then there is only the heatmap.
    marks : sequence of Mark
        At least one that is like.
    options : LikeOptions, optional
        Settings.
    prepared : Prepared, optional
        What `prepare` made of this very field and these very candidates, so that a further query costs less.

    Returns
    -------
    Proposals
        Ids with scores, the heatmap, the threshold used.

    Raises
    ------
    DataError
        If no mark is like, a mark lies beside the view, the map does not fit the view, or the options make no sense.
    """
    start = time.perf_counter()
    options = options or LikeOptions()
    if problem := options.validation_error():
        raise DataError(problem)
    if candidates.shape != field.shape:
        raise DataError(f"the candidates are {candidates.shape} px but the view {field.shape}; they must be equal")
    query = _query(field, candidates, marks, options, prepared or prepare(field, candidates))
    scores, likeness, threshold = _answer(query, options)
    found = Proposals(
        ids=np.zeros(0, np.int32),
        scores=np.zeros(0, np.float32),
        all_ids=query.pool.ids,
        all_scores=scores,
        likeness=field.on_view(likeness) if options.heatmap else np.zeros((0, 0), np.float32),
        threshold=threshold,
        like=query.like.ids,
        unlike=query.unlike.ids,
        seconds=0.0,
    )
    ids = found.above(threshold)
    of_ids = scores[np.searchsorted(query.pool.ids, ids)]
    return replace(found, ids=ids, scores=of_ids, seconds=time.perf_counter() - start)


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """What queries on one view share: made once for a field and its candidates.

    Parameters
    ----------
    grid : ndarray of float32, shape (rows, columns, channels)
        The field, channels last.
    cells : Cells
        Which step each pixel of the view lies in.
    pool : Pool
        How the candidates lie in the field.
    vectors : ndarray of float32, shape (candidates, channels)
        Mean features of each.
    """

    grid: NDArray[np.float32]
    cells: Cells
    pool: Pool
    vectors: Vectors


def prepare(field: FeatureField, candidates: NDArray[np.int32]) -> Prepared:
    """Return what queries on one view share.

    Raises
    ------
    DataError
        If the candidates do not fit the view.
    """
    if candidates.shape != field.shape:
        raise DataError(f"the candidates are {candidates.shape} px but the view {field.shape}; they must be equal")
    cells = cells_of(field)
    grid = np.ascontiguousarray(field.features.transpose(1, 2, 0))
    pool = pool_labels(candidates, cells)
    return Prepared(grid, cells, pool, pool.mean(grid.reshape(-1, field.channels)))


@dataclass(frozen=True, slots=True, eq=False)
class _Query:
    """All that a query works on.

    Parameters
    ----------
    grid : ndarray of float32, shape (rows, columns, channels)
        The field.
    step_um : float
        Micrometres of its step.
    pool : Pool
        How the candidates lie in it.
    vectors : ndarray of float32, shape (candidates, channels)
        Mean features of each.
    like, unlike : Meant
        What the marks mean.
    support : Support
        What the marks are as features.
    middles : ndarray of int, shape (k, 2)
        Row and column of the middle of each thing that is like.
    """

    grid: NDArray[np.float32]
    step_um: float
    pool: Pool
    vectors: Vectors
    like: Meant
    unlike: Meant
    support: Support
    middles: NDArray[np.intp]


def _query(
    field: FeatureField,
    candidates: NDArray[np.int32],
    marks: Sequence[Mark],
    options: LikeOptions,
    prepared: Prepared,
) -> _Query:
    grid, cells, pool, vectors = prepared.grid, prepared.cells, prepared.pool, prepared.vectors
    flat = grid.reshape(-1, field.channels)
    like, unlike = meaning(marks, candidates, field.view_mpp_um, options.disc_um)
    near, far = (np.asarray(pool_pixels(side.pixels, cells) @ flat, np.float32) for side in (like, unlike))
    counts = options.background and options.method in {PANET, ALP}
    between = _between(candidates, (like, unlike), cells) if counts else np.zeros(cells.grid, np.float32)
    # Where nothing was found, steps of the field stand for what is not meant.
    others = vectors[~np.isin(pool.ids, like.ids)] if len(pool) >= LEAST_CANDIDATES else flat[:: 1 + len(flat) // 1024]
    refused = far
    near, far = _both_sides(others, near, far, options)
    if between.any():
        weight = between.ravel()
        far = np.concatenate((far, ((weight @ flat) / weight.sum())[None])).astype(np.float32)
    local = options.method == ALP
    support = Support(
        like=near,
        unlike=far,
        like_windows=windows_in(grid, _mask(like, cells), options.window, most=MOST_WINDOWS) if local else near[:0],
        unlike_windows=windows_in(grid, np.maximum(_mask(unlike, cells), between), options.window, most=MOST_WINDOWS)
        if local
        else near[:0],
        refused=refused,
    )
    return _Query(grid, field.stride * field.mpp_um, pool, vectors, like, unlike, support, _middles(like, cells))


def _both_sides(others: Vectors, like: Vectors, unlike: Vectors, options: LikeOptions) -> tuple[Vectors, Vectors]:
    """Return the prototypes of both sides, by the marks and by what nobody marked."""
    if options.method == SG_ONE or not len(others):
        return like, unlike
    if options.method == NEAREST:
        near, far = refined(others, like, unlike, options.rounds)
        if len(unlike):
            far = (1 - REFUSED_SHARE) * far + REFUSED_SHARE * unlike.mean(axis=0, keepdims=True)
        return np.concatenate((near, like)), far.astype(np.float32)
    return like, np.concatenate((ground_of(others, like), unlike))


def _between(candidates: NDArray[np.int32], sides: tuple[Meant, Meant], cells: Cells) -> NDArray[np.float32]:
    """Return which share of each step belongs to no candidate and is not marked, ``(rows, columns)``."""
    free = candidates == 0
    for side in sides:
        for pixels in side.pixels:
            free.ravel()[pixels] = False
    return _share(np.flatnonzero(free), cells)


def _mask(side: Meant, cells: Cells) -> NDArray[np.float32]:
    pixels = np.unique(np.concatenate([np.zeros(0, np.int64), *side.pixels]))
    return _share(pixels, cells)


def _share(pixels: NDArray[np.integer], cells: Cells) -> NDArray[np.float32]:
    """Return which share of the pixels of each step is among `pixels`."""
    rows = np.bincount(cells.rows, minlength=cells.grid[0])
    columns = np.bincount(cells.columns, minlength=cells.grid[1])
    found = np.bincount(cells.at(pixels), minlength=cells.count).reshape(cells.grid)
    return (found / np.maximum(np.outer(rows, columns), 1)).astype(np.float32)


def _middles(side: Meant, cells: Cells) -> NDArray[np.intp]:
    width = len(cells.columns)
    found = []
    for pixels in side.pixels:
        ys, xs = np.divmod(pixels, width)
        found.append((cells.rows[round(float(ys.mean()))], cells.columns[round(float(xs.mean()))]))
    return np.array(found, np.intp).reshape(-1, 2)


def _answer(query: _Query, options: LikeOptions) -> tuple[Vectors, NDArray[np.float32], float]:
    """Return the scores of the candidates, the map over the field, the threshold; a second time with distractors."""
    scores, likeness = _judged(query, query.support, options)
    threshold = _threshold(scores, options)
    if not options.distractors:
        return scores, likeness, threshold
    rest = query.vectors[(scores <= threshold) & ~np.isin(query.pool.ids, query.like.ids)]
    others = spread_prototypes(rest, options.distractors)
    support = replace(query.support, unlike=np.concatenate((query.support.unlike, others)))
    scores, likeness = _judged(query, support, options)
    return scores, likeness, _threshold(scores, options)


def _judged(query: _Query, support: Support, options: LikeOptions) -> tuple[Vectors, NDArray[np.float32]]:
    """Return the scores of the candidates and the map of likeness over the field."""
    match = MATCHERS[options.method](support)
    scores = match(query.vectors)
    rows, columns, channels = query.grid.shape
    if options.whole and not options.heatmap and not options.kernels:
        return scores, np.zeros((0, 0), np.float32)
    grid = _neighbourhoods(query) if options.whole else query.grid
    likeness = match(grid.reshape(-1, channels)).reshape(rows, columns)
    if options.kernels:
        response = kernel_response(query.grid, query.middles)
        likeness = ((likeness + response) / 2).astype(np.float32)
        scores = ((scores + query.pool.mean(response.reshape(-1, 1))[:, 0]) / 2).astype(np.float32)
    if not options.whole:
        scores = query.pool.mean(likeness.reshape(-1, 1))[:, 0]
    return scores, likeness


def _neighbourhoods(query: _Query) -> NDArray[np.float32]:
    """Return the field's mean over a nucleus-sized neighbourhood of each step, so that places are judged as nuclei are.

    Features beside outputs that point to a nucleus's centre differ from one of its sides to the other.
    """
    sigma = NUCLEUS_SIGMA_UM / query.step_um
    parts = np.split(query.grid, range(4, query.grid.shape[2], 4), axis=2)
    smooth = [cv2.GaussianBlur(part, (0, 0), sigma, borderType=cv2.BORDER_REFLECT_101) for part in parts]
    return np.concatenate([part.reshape(*query.grid.shape[:2], -1) for part in smooth], axis=2)


def _threshold(scores: Vectors, options: LikeOptions) -> float:
    if options.threshold >= 0:
        return options.threshold
    return automatic_threshold(scores, parted=options.method == NEAREST)
