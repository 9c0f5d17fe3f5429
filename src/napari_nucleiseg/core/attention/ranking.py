"""Which heads look at nuclei: every head of every layer compared with where nuclei are known to be."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from napari_nucleiseg.core.errors import DataError

# A token counts as one of nuclei from this part of its area on, and as one of tissue from that.
LEAST_NUCLEI, LEAST_TISSUE = 0.25, 0.5
# Fractions of areas are sums of float32.
_ROUNDING = 1e-5

Measure = Literal["auroc", "average_precision", "gain"]


class Shares(NamedTuple):
    """Parts of a whole, each 0..1; they sum to 1."""

    nuclei: float
    other_tissue: float
    glass: float


@dataclass(frozen=True, slots=True)
class HeadScore:
    """How well a head tells tokens of nuclei from others.

    Parameters
    ----------
    layer, head : int
        From 0, first layer first.
    auroc : float
        Chance that a token of nuclei is attended to more than another one, ties half; 0..1, 0.5 is chance.
    average_precision : float
        Mean precision over the tokens of nuclei, 0..1; chance is their share of the tokens.
    attention : Shares
        Where its attention goes, a token's split by the areas in it.
    uniform : Shares
        Where attention would go that is the same everywhere.
    """

    layer: int
    head: int
    auroc: float
    average_precision: float
    attention: Shares
    uniform: Shares

    @property
    def gain(self) -> float:
        """How many times as much attention goes to nuclei as if it were the same everywhere."""
        return self.attention.nuclei / self.uniform.nuclei


def area_fractions(mask: NDArray[np.bool_], rows: int, columns: int) -> NDArray[np.float32]:
    """Return how much of each token's area a mask covers.

    Parameters
    ----------
    mask : ndarray of bool, shape (y, x)
        A picture of what the tokens cover, at any pixel size that is no coarser than they are.
    rows, columns : int
        Tokens down and across; they need not divide the mask's sides.

    Returns
    -------
    ndarray of float32, shape (rows, columns)
        0..1.

    Raises
    ------
    DataError
        If the mask has fewer pixels than there are tokens.
    """
    if mask.ndim != 2 or mask.shape[0] < rows or mask.shape[1] < columns or min(rows, columns) < 1:
        raise DataError(
            f"a mask of {mask.shape} pixels is too coarse for {rows} x {columns} tokens; read it at a finer level"
        )
    covered = cv2.resize(mask.astype(np.float32), (columns, rows), interpolation=cv2.INTER_AREA)
    return np.clip(covered, 0, 1).astype(np.float32)


def rank_heads(
    attention: NDArray[np.floating],
    nuclei_fraction: NDArray[np.floating],
    tissue_fraction: NDArray[np.floating] | None = None,
    *,
    least_nuclei: float = LEAST_NUCLEI,
    tissue_only: bool = True,
) -> tuple[HeadScore, ...]:
    """Compare all heads with a mask of nuclei.

    Parameters
    ----------
    attention : ndarray of float, shape (layers, heads, rows, columns)
        0 or more, of a view; tokens that are NaN in some head are left out.
    nuclei_fraction : ndarray of float, shape (rows, columns)
        Part of a token's area that is nuclei, 0..1 (see `area_fractions`).
    tissue_fraction : ndarray of float, shape (rows, columns), optional
        Part of a token's area that is tissue, 0..1, nuclei included; without it all is tissue.
    least_nuclei : float
        A token counts as one of nuclei from this part of its area on; above 0 and at most 1.
    tissue_only : bool
        Whether AUROC and average precision are those of the tokens of which at least half is tissue, or nuclei enough;
        glass is easily told from nuclei. Shares are always those of all tokens.

    Returns
    -------
    tuple of HeadScore
        Best AUROC first.

    Raises
    ------
    DataError
        If shapes or values have no meaning, or there are no tokens of nuclei or no others to compare.
    """
    values, nuclei, tissue = _flat(attention, nuclei_fraction, tissue_fraction)
    if not 0 < least_nuclei <= 1:
        raise DataError(
            f"the least part of a token that is nuclei lies above 0 and at most at 1, not at {least_nuclei}"
        )
    positive = nuclei >= least_nuclei
    chosen = (tissue >= LEAST_TISSUE) | positive if tissue_only else np.ones_like(positive)
    _must_differ(positive[chosen], least_nuclei)
    aurocs, precisions = told_apart(values[:, chosen], positive[chosen])
    parts = np.stack((nuclei, tissue - nuclei, 1 - tissue))
    total = values.sum(axis=1)
    if not (total > 0).all():
        raise DataError("a head that attends to nothing cannot be compared; compute the attention of this view again")
    shares = values @ parts.T / total[:, None]
    uniform = Shares(*parts.mean(axis=1).tolist())
    found = []
    for i in range(len(values)):
        layer, head = divmod(i, attention.shape[1])
        share = Shares(*shares[i].tolist())
        found.append(HeadScore(layer, head, float(aurocs[i]), float(precisions[i]), share, uniform))
    return ordered(found)


def ordered(found: Iterable[HeadScore], by: Measure = "auroc") -> tuple[HeadScore, ...]:
    """Sort heads, best first; equal ones by layer and head."""
    return tuple(sorted(found, key=lambda each: (-getattr(each, by), each.layer, each.head)))


def told_apart(
    values: NDArray[np.floating], positive: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return AUROC and average precision of many scores against one target, with equal scores as one step.

    Parameters
    ----------
    values : ndarray of float, shape (k, n)
        Scores of the same n things.
    positive : ndarray of bool, shape (n,)
        What is to be told from the rest; neither none nor all.

    Returns
    -------
    auroc, average_precision : ndarray of float64, shape (k,)
        0..1.
    """
    count, positives = positive.size, int(positive.sum())
    order = np.argsort(-values, axis=1)
    down = np.take_along_axis(values, order, axis=1)
    hits = positive[order]
    places = np.broadcast_to(np.arange(count), down.shape)
    differs = down[:, 1:] != down[:, :-1]
    # First and last place of the step of equal scores that each place lies in.
    first, last = places.copy(), places.copy()
    first[:, 1:][~differs] = 0
    last[:, :-1][~differs] = count
    first = np.maximum.accumulate(first, axis=1)
    last = np.minimum.accumulate(last[:, ::-1], axis=1)[:, ::-1]
    ranks = count - (first + last) / 2
    auroc = (np.where(hits, ranks, 0).sum(axis=1) - positives * (positives + 1) / 2) / (positives * (count - positives))
    found = np.take_along_axis(np.cumsum(hits, axis=1), last, axis=1)
    precision = np.where(hits, found / (last + 1), 0).sum(axis=1) / positives
    return np.asarray(auroc, np.float64), np.asarray(precision, np.float64)


def _flat(
    attention: NDArray[np.floating], nuclei: NDArray[np.floating], tissue: NDArray[np.floating] | None
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Check what is compared and return what is known of it: ``(layers * heads, n)``, ``(n,)``, ``(n,)``."""
    broad = np.ones(nuclei.shape) if tissue is None else tissue
    if attention.ndim != 4 or not attention.size or attention.shape[2:] != nuclei.shape or broad.shape != nuclei.shape:
        raise DataError(
            f"attention of {attention.shape} (layers, heads, rows, columns) does not fit nuclei of {nuclei.shape} and "
            f"tissue of {broad.shape}; give all of the same tokens"
        )
    values = attention.reshape(-1, nuclei.size).astype(np.float64)
    inside = nuclei.ravel().astype(np.float64)
    around = np.maximum(broad.ravel().astype(np.float64), inside)
    known = ~np.isnan(values).any(axis=0)
    values, inside, around = values[:, known], inside[known], around[known]
    if not known.any():
        raise DataError("no token of this view is known in every head; wait until the patches were looked at")
    if not np.isfinite(values).all() or values.min() < 0:
        raise DataError("attention is 0 or more and finite; rank heads by raw attention or percentiles")
    if not (inside.min() >= -_ROUNDING and around.max() <= 1 + _ROUNDING):
        raise DataError("parts of a token's area lie between 0 and 1; give fractions, not counts of pixels")
    return values, np.clip(inside, 0, 1), np.clip(around, 0, 1)


def _must_differ(positive: NDArray[np.bool_], least: float) -> None:
    if not positive.any():
        raise DataError(
            f"no token of this view is covered by nuclei to {least:.0%} or more; move to where nuclei were found, or "
            "look at a larger part of them"
        )
    if positive.all():
        raise DataError(
            f"every token of this view is covered by nuclei to {least:.0%} or more, so that there is nothing to tell "
            "them from; choose a larger view, or raise that share"
        )
