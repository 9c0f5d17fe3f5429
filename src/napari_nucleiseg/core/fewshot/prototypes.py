"""How like is one vector of features to those marked: SG-One, PANet, ALPNet, and the plain distance to the mean.

Zhang et al., SG-One, IEEE T. Cybernetics 2020; Wang et al., PANet, ICCV 2019; Ouyang et al., Self-supervision with
superpixels (ALPNet), ECCV 2020. Written from the papers; the features are frozen.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]
# From vectors (n, channels) to scores (n,) in 0..1.
Matcher = Callable[[Vectors], Vectors]
# What ALPNet multiplies cosines by before a softmax, and PANet, too.
SHARPNESS = 20.0
_TINY = 1e-8
# How much refused nuclei weigh beside all that nobody marked: a quarter served best, with three refused of hundreds.
REFUSED_SHARE = 0.25
# Of windows of the other side, so many at most, evenly spread: ALPNet's grid of 8 x 8 has as many.
MOST_WINDOWS = 64


@dataclass(frozen=True, slots=True, eq=False)
class Support:
    """What was marked, as features.

    Parameters
    ----------
    like : ndarray of float32, shape (k, channels)
        Mean features of each thing that is like; k is not 0.
    unlike : ndarray of float32, shape (j, channels)
        Prototypes of the other side: what is marked as not, the background, distractors; j may be 0.
    like_windows, unlike_windows : ndarray of float32, shape (n, channels)
        Mean features of windows that lie wholly in either; for ALPNet.
    refused : ndarray of float32, shape (n, channels)
        What is marked as not, one by one; for `nearest`, in whose mean of the other side it has a share as well.
    """

    like: Vectors
    unlike: Vectors
    like_windows: Vectors
    unlike_windows: Vectors
    refused: Vectors


def sg_one(support: Support) -> Matcher:
    """Cosine to the mean of the marks, brought to 0..1; the nearest of the other side, if it is like, takes from it.

    SG-One averages the vectors of several marks. It knows no other side: what is taken is ours.
    """
    target = support.like.mean(axis=0, keepdims=True)

    def match(queries: Vectors) -> Vectors:
        near = cosines(queries, target)[:, 0]
        if len(support.unlike):
            near = near - REFUSED_SHARE * np.maximum(cosines(queries, support.unlike).max(axis=1), 0)
        return np.clip((1 + near) / 2, 0, 1).astype(np.float32)

    return match


def panet(support: Support) -> Matcher:
    """Cosine to a prototype of each side; the nearest of the other side speaks for it."""
    target = support.like.mean(axis=0, keepdims=True)

    def match(queries: Vectors) -> Vectors:
        near = cosines(queries, target)[:, 0]
        far = cosines(queries, support.unlike).max(axis=1) if len(support.unlike) else np.zeros_like(near)
        return two_sides(near, far)

    return match


def alp(support: Support) -> Matcher:
    """Adaptive local prototypes: windows inside of the marks beside the global one, windows of the rest against them.

    Each side's answer is the sum of ``softmax(s) * s`` over its prototypes, ``s`` 20 times the cosine.
    """
    own = np.concatenate((support.like.mean(axis=0, keepdims=True), support.like_windows))
    other = np.concatenate((support.unlike, support.unlike_windows))

    def match(queries: Vectors) -> Vectors:
        near = _weighed(queries, own)
        far = _weighed(queries, other) if len(other) else np.zeros_like(near)
        return two_sides(near / SHARPNESS, far / SHARPNESS)

    return match


def nearest(support: Support) -> Matcher:
    """Distance to the mean of the like beside that to the mean of the rest: 1/2 where they are equal.

    The first vector of either side is its mean. Distractors, the others of the other side, count against the nearest
    single mark. What was refused may lie close to what is like: it pushes away only what is less than half as far from
    it as from any mark.
    """

    def match(queries: Vectors) -> Vectors:
        near = distances(queries, support.like)
        if not len(support.unlike):
            return np.asarray(1 / (1 + near[:, 0]), np.float32)
        far, single = distances(queries, support.unlike), near.min(axis=1)
        found = _share(far[:, 0], near[:, 0])
        if far.shape[1] > 1:
            found = np.minimum(found, _share(far[:, 1:].min(axis=1), single))
        if len(support.refused):
            found = np.minimum(found, _share(distances(queries, support.refused).min(axis=1), single / 2))
        return found

    return match


def _share(far: Vectors, near: Vectors) -> Vectors:
    return np.asarray(far / np.maximum(near + far, _TINY), np.float32)


METHODS: dict[str, Callable[[Support], Matcher]] = {"sg-one": sg_one, "panet": panet, "alp": alp, "nearest": nearest}


def cosines(queries: Vectors, prototypes: Vectors) -> Vectors:
    """Return the cosine of each query to each prototype, ``(queries, prototypes)``; 0 where a vector is 0."""
    return np.asarray(np.clip(unit(queries) @ unit(prototypes).T, -1, 1), np.float32)


def distances(queries: Vectors, prototypes: Vectors) -> Vectors:
    """Return the distance of each query to each prototype, ``(queries, prototypes)``."""
    squares = [np.einsum("ij,ij->i", part, part) for part in (queries, prototypes)]
    found = squares[0][:, None] + squares[1][None] - 2 * queries @ prototypes.T
    return np.asarray(np.sqrt(np.maximum(found, 0)), np.float32)


def unit(vectors: Vectors) -> Vectors:
    """Return vectors ``(n, channels)`` of length 1; zeros stay zeros."""
    lengths = np.sqrt(np.einsum("ij,ij->i", vectors, vectors))
    return np.asarray(vectors / np.maximum(lengths, _TINY)[:, None], np.float32)


def two_sides(near: Vectors, far: Vectors) -> Vectors:
    """Return how much the first of two cosines exceeds the second, brought from -2..2 to 0..1.

    It has the order of PANet's softmax of 20 times the cosines and is 1/2 where that is, but does not saturate: next to
    all of its values would be 0 or 1, and no threshold among them could be moved.
    """
    return np.clip(0.5 + (near - far) / 4, 0, 1).astype(np.float32)


def _weighed(queries: Vectors, prototypes: Vectors) -> Vectors:
    similar = SHARPNESS * cosines(queries, prototypes)
    weights = np.exp(similar - similar.max(axis=1, keepdims=True))
    return np.asarray((weights * similar).sum(axis=1) / weights.sum(axis=1), np.float32)


def windows_in(features: Vectors, mask: NDArray[np.float32], side: int, *, most: int = 0) -> Vectors:
    """Return the mean features of the windows of a grid that lie in a mask.

    Parameters
    ----------
    features : ndarray of float32, shape (rows, columns, channels)
        Of the field.
    mask : ndarray of float32, shape (rows, columns)
        Which share of each step is meant, 0..1.
    side : int
        Of a window, in steps.
    most : int
        Of more windows every n-th is taken; 0 takes all.

    Returns
    -------
    ndarray of float32, shape (n, channels)
        Of windows whose share is above 0.95, as ALPNet has it; possibly none.
    """
    rows, columns = (length // side for length in mask.shape)
    shape = rows, side, columns, side
    shares = mask[: rows * side, : columns * side].reshape(shape).mean(axis=(1, 3))
    at = np.argwhere(shares > 0.95)
    if most and len(at) > most:
        at = at[np.linspace(0, len(at) - 1, most).astype(np.intp)]
    found = [features[y * side : (y + 1) * side, x * side : (x + 1) * side].mean(axis=(0, 1)) for y, x in at.tolist()]
    return np.array(found, np.float32).reshape(len(found), features.shape[-1])
