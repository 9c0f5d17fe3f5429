"""From attention as a network gives it to what is shown of it, 0..1.

What a head attends to depends on the input far more than on the place in it, so that its bare numbers say little beside
each other. HIPT (Chen et al., CVPR 2022, https://arxiv.org/abs/2206.02647) shows percentiles within each input: then an
empty input spans as much as one full of tissue, which is why glass can be left out.
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from napari_nucleiseg.core.errors import DataError

Scale = Literal["raw", "share", "percentile"]
SCALES: tuple[Scale, ...] = get_args(Scale)


def scaled(
    maps: NDArray[np.floating],
    scale: Scale,
    *,
    tissue: NDArray[np.bool_] | None = None,
    glass: float = np.nan,
) -> NDArray[np.float32]:
    """Scale maps of attention, each input by itself.

    Parameters
    ----------
    maps : ndarray of float, shape (..., rows, columns)
        Attention 0..1 of inputs: the last two axes are the tokens of one input (a patch of 256 px, or a whole region).
        NaN, where nothing is known yet, stays NaN and does not count.
    scale : {"raw", "share", "percentile"}
        ``raw`` leaves it as it is; ``share`` divides by its sum over the input, so that the class token no longer
        counts; ``percentile`` is the rank among the input's tokens over their number, ties at their mean rank.
    tissue : ndarray of bool, optional
        True for tokens on tissue, broadcast to `maps`. Others count for no sum and no rank.
    glass : float
        Value of tokens that are not on tissue: NaN or 0.

    Returns
    -------
    ndarray of float32, shape (..., rows, columns)
        0..1. Inputs that attend to nothing have shares of 0.

    Raises
    ------
    DataError
        If there is no such scale, or the mask does not fit the maps.
    """
    if scale not in SCALES:
        raise DataError(f"there is no scale called {scale}; choose one of {', '.join(SCALES)}")
    if maps.ndim < 2:
        raise DataError(f"a map of attention has rows and columns; one of shape {maps.shape} has not")
    on_tissue = _broadcast(tissue, maps.shape)
    known = ~np.isnan(maps)
    counted = known if on_tissue is None else known & on_tissue
    if scale == "raw":
        values = maps.astype(np.float32)
    elif scale == "share":
        values = _shares(maps, counted)
    else:
        values = _percentiles(maps, counted)
    values[~known] = np.nan
    if on_tissue is not None:
        values[~on_tissue] = glass
    return values


def _broadcast(tissue: NDArray[np.bool_] | None, shape: tuple[int, ...]) -> NDArray[np.bool_] | None:
    if tissue is None:
        return None
    try:
        return np.broadcast_to(tissue.astype(np.bool_), shape)
    except ValueError as error:
        raise DataError(
            f"a tissue mask of {tissue.shape} does not fit maps of {shape}; give one of the same tokens"
        ) from error


def _shares(maps: NDArray[np.floating], counted: NDArray[np.bool_]) -> NDArray[np.float32]:
    kept = np.where(counted, maps, 0)
    total = kept.sum(axis=(-2, -1), keepdims=True, dtype=np.float64)
    shares: NDArray[np.float64] = np.divide(kept, total, out=np.zeros(maps.shape, np.float64), where=total > 0)
    return shares.astype(np.float32)


def _percentiles(maps: NDArray[np.floating], counted: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Rank each input's tokens; those left out come behind all others, where they move no rank."""
    flat = np.where(counted, maps, np.inf).reshape(-1, maps.shape[-2] * maps.shape[-1])
    counts = np.maximum(counted.reshape(flat.shape).sum(axis=1, keepdims=True), 1)
    ranks = np.asarray(rankdata(flat, axis=1), np.float64)
    shares: NDArray[np.float64] = ranks / counts
    return shares.astype(np.float32).reshape(maps.shape)
