"""How well slides are ranked: AUC and Harrell's c-index, with bootstrap intervals, in plain numpy.

Both count pairs: of all pairs that can be told apart by the truth, the share that the scores put in the right order.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_AT_ONCE = 64


@dataclass(frozen=True, slots=True, eq=False)
class Pairs:
    """Which pairs count, and what each is worth.

    Parameters
    ----------
    counted : ndarray of float32, shape (n, n)
        1 where the truth says that the row comes before the column.
    credit : ndarray of float32, shape (n, n)
        1 of these where the scores say so too, 0.5 where they are equal.
    """

    counted: NDArray[np.float32]
    credit: NDArray[np.float32]

    def share(self, weights: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return the share in the right order where each slide is there so many times.

        Parameters
        ----------
        weights : ndarray of float32, shape (times, n)
            How often each slide is there.

        Returns
        -------
        ndarray of float64, shape (times,)
            0..1; NaN where no pair counts.
        """
        right = np.einsum("ti,ti->t", weights @ self.credit, weights, dtype=np.float64)
        counted = np.einsum("ti,ti->t", weights @ self.counted, weights, dtype=np.float64)
        return _ratio(right, counted)


def class_pairs(
    labels: NDArray[np.int64], scores: NDArray[np.float64], folds: NDArray[np.int64] | None = None
) -> tuple[Pairs, ...]:
    """Return the pairs of each class against all others.

    Parameters
    ----------
    labels : ndarray of int64, shape (n,)
        True class.
    scores : ndarray of float64, shape (n, classes)
        Larger is likelier.
    folds : ndarray of int64, shape (n,), optional
        Slides of different folds make no pair: they were judged by different networks, whose scores are not alike.
    """
    return tuple(
        _pairs((labels[:, None] == one) & (labels[None] != one), scores[:, one], folds)
        for one in range(scores.shape[1])
    )


def survival_pairs(
    times: NDArray[np.float64],
    events: NDArray[np.bool_],
    risks: NDArray[np.float64],
    folds: NDArray[np.int64] | None = None,
) -> tuple[Pairs, ...]:
    """Return the pairs of which is known who was first (Harrell et al., JAMA 1982).

    The first had the event; the other had it later, or was without it at that time or later.

    Parameters
    ----------
    times, events
        See `losses.quantile_edges`.
    risks : ndarray of float64, shape (n,)
        Larger is sooner.
    folds : ndarray of int64, shape (n,), optional
        See `class_pairs`.
    """
    later = (times[:, None] < times[None]) | ((times[:, None] == times[None]) & ~events[None])
    return (_pairs(events[:, None] & later, risks, folds),)


def _pairs(first: NDArray[np.bool_], scores: NDArray[np.float64], folds: NDArray[np.int64] | None) -> Pairs:
    if folds is not None:
        first = first & (folds[:, None] == folds[None])
    difference = scores[:, None] - scores[None]
    credit = np.where(difference > 0, 1.0, np.where(difference == 0, 0.5, 0.0))
    return Pairs(first.astype(np.float32), (first * credit).astype(np.float32))


def score_of(pairs: Sequence[Pairs]) -> float:
    """Return the mean over classes of the share in the right order; those without a pair are left out.

    Returns
    -------
    float
        The macro AUC (one against the rest) of `class_pairs`, the c-index of `survival_pairs`; NaN without a pair.
    """
    return float(_shares(pairs, np.ones((1, len(pairs[0].counted)), np.float32))[0])


def bootstrap_interval(
    pairs: Sequence[Pairs], patients: Sequence[str], *, rounds: int = 1000, seed: int = 0, level: float = 0.95
) -> tuple[float, float]:
    """Return between what the score lies when patients are drawn anew, with replacement: a percentile interval.

    Parameters
    ----------
    pairs : sequence of Pairs
        See `score_of`.
    patients : sequence of str, length n
        Slides of one patient are drawn together.
    rounds : int
        Draws; those in which no pair counts are left out.
    seed : int
        Of the draws.
    level : float
        Share of the draws inside.
    """
    numbers = np.unique(np.asarray(patients), return_inverse=True)[1]
    count = int(numbers.max()) + 1
    rng = np.random.default_rng(seed)
    found: list[NDArray[np.float64]] = []
    for start in range(0, rounds, _AT_ONCE):
        drawn = rng.multinomial(count, np.full(count, 1 / count), size=min(_AT_ONCE, rounds - start))
        found.append(_shares(pairs, drawn[:, numbers].astype(np.float32)))
    scores = np.concatenate(found)
    scores = scores[np.isfinite(scores)]
    if not len(scores):
        return math.nan, math.nan
    low, high = np.quantile(scores, ((1 - level) / 2, (1 + level) / 2))
    return float(low), float(high)


def _shares(pairs: Sequence[Pairs], weights: NDArray[np.float32]) -> NDArray[np.float64]:
    shares = np.stack([one.share(weights) for one in pairs])
    there = np.isfinite(shares)
    total, counted = np.where(there, shares, 0).sum(axis=0), there.sum(axis=0)
    return _ratio(total, counted)


def _ratio(part: NDArray[np.float64], whole: NDArray[np.float64] | NDArray[np.int64]) -> NDArray[np.float64]:
    """Divide; NaN by nothing."""
    out = np.full(len(part), math.nan)
    np.divide(part, whole, out=out, where=whole > 0)
    return out
