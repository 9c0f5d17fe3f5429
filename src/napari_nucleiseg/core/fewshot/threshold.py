"""Where the like ends: a threshold from all scores and the marks, and prototypes of what lies beyond it."""

from __future__ import annotations

import numpy as np
from skimage.filters import threshold_multiotsu, threshold_otsu

from napari_nucleiseg.core.fewshot.prototypes import Vectors, cosines, distances, unit

# Fewer scores have no two groups to be parted.
_LEAST_SCORES = 8
_DEFAULT = 0.5
_TINY = 1e-8
_ROUNDS = 10


def automatic_threshold(scores: Vectors, *, parted: bool) -> float:
    """Return a threshold above which a score is like.

    Parameters
    ----------
    scores : ndarray of float32, shape (n,)
        Of all candidates, 0..1.
    parted : bool
        Whether 1/2 already parts the sides; otherwise the upper of Otsu's two thresholds for three groups is taken (the
        like, what resembles it, the rest), or the middle between the highest score and the mean, if that is lower. What
        was refused does not move it: one hard case would take hundreds of others with it.
    """
    found = _DEFAULT
    if not parted and len(scores):
        found = float(scores.max() + scores.mean()) / 2
        # Scores that differ in their last digit leave no room for so many bins in 32 bits.
        counts, edges = np.histogram(scores.astype(np.float64), bins=128)
        if np.count_nonzero(counts) >= _LEAST_SCORES:
            middles = (edges[1:] + edges[:-1]) / 2
            found = min(found, float(threshold_multiotsu(hist=(counts, middles), classes=3)[1]))
    return found


def refined(vectors: Vectors, like: Vectors, unlike: Vectors, rounds: int) -> tuple[Vectors, Vectors]:
    """Let candidates that nobody marked help: means of both sides, found in turn with who belongs to which.

    Parameters
    ----------
    vectors : ndarray of float32, shape (n, channels)
        Of the candidates.
    like, unlike : ndarray of float32, shape (k, channels), (j, channels)
        Of what was marked; k is not 0.
    rounds : int
        At most so many; 0 takes the mean of the marks against the mean of the half that is least like them.

    Returns
    -------
    ndarray of float32, shape (1, channels), twice
        The marks weigh as much as all that joins them.
    """
    marked = like.mean(axis=0, keepdims=True)
    # In 32 bits, distances that differ in their last digit would leave no room for Otsu's bins.
    away = distances(vectors, marked)[:, 0].astype(np.float64)
    belongs = away <= np.median(away)
    near, far = marked, vectors[~belongs].mean(axis=0, keepdims=True) if (~belongs).any() else -marked
    if not (~belongs).any():
        return near, far
    if rounds:
        # A score that falls with the distance gives Otsu two groups where distances have a long tail.
        closeness = np.exp(-away / max(float(np.median(away)), _TINY))
        belongs = closeness > threshold_otsu(closeness)
    for _ in range(rounds):
        if belongs.all() or not belongs.any():
            break
        near = (vectors[belongs].mean(axis=0, keepdims=True) + marked) / 2
        far = vectors[~belongs].mean(axis=0, keepdims=True)
        others = np.concatenate((far, unlike))
        now = distances(vectors, near)[:, 0] < distances(vectors, others).min(axis=1)
        if np.array_equal(now, belongs):
            break
        belongs = now
    return near.astype(np.float32), far.astype(np.float32)


def ground_of(vectors: Vectors, like: Vectors) -> Vectors:
    """Return the mean of the half of the candidates that is least like the marks by direction, ``(1, channels)``."""
    if not len(vectors):
        return vectors
    near = cosines(vectors, like.mean(axis=0, keepdims=True))[:, 0]
    return np.asarray(vectors[near <= np.median(near)].mean(axis=0, keepdims=True), np.float32)


def spread_prototypes(vectors: Vectors, count: int) -> Vectors:
    """Return up to `count` means of groups of vectors ``(n, channels)`` by direction: k-means from far-apart seeds."""
    if not len(vectors):
        return vectors
    directions = unit(vectors)
    centre = unit(directions.mean(axis=0, keepdims=True))
    seeds = [int((directions @ centre[0]).argmin())]
    while len(seeds) < min(count, len(vectors)):
        seeds.append(int((directions @ directions[seeds].T).max(axis=1).argmin()))
    means = directions[seeds]
    for _ in range(_ROUNDS):
        nearest = (directions @ means.T).argmax(axis=1)
        means = unit(
            np.stack(
                [directions[nearest == k].mean(axis=0) if (nearest == k).any() else means[k] for k in range(len(means))]
            )
        )
    return means
