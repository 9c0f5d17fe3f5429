"""How the like is found: marks, settings, what comes out. Declared once, for the window, the shell and Python."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

NEAREST, SG_ONE, PANET, ALP = METHODS = ("nearest", "sg-one", "panet", "alp")


@dataclass(frozen=True, slots=True, eq=False)
class Mark:
    """Something that a person has marked in a view.

    Parameters
    ----------
    where : tuple of float, or ndarray of bool, shape (y, x)
        A point ``(y, x)`` in pixels of the view (whole numbers are centres of pixels), or a mask of the whole view. A
        point means the candidate nucleus under it, or a disc of `LikeOptions.disc_um` where there is none. A mask
        means the candidates that lie in it by more than half; itself where there are none.
    is_like : bool
        True: find such; False: such are none.
    """

    where: tuple[float, float] | NDArray[np.bool_]
    is_like: bool = True


@dataclass(frozen=True, slots=True)
class LikeOptions:
    """What a person may turn; every change costs one query, never a new field.

    Parameters
    ----------
    method : str
        nearest (distances to a mean of each side, which candidates that nobody marked help to find), sg-one (cosine to
        the mean of the marks), panet (cosines to a prototype of each side) or alp (local prototypes beside the global
        one).
    threshold : float
        Score above which a candidate is proposed, 0..1; below 0 it is found from the scores and the marks.
    background : bool
        Of panet and alp: what lies outside of all candidates is a prototype of the other side, beside the mean of the
        half of the candidates that is least like the marks.
    rounds : int
        Of nearest: how often means and who belongs to them are found in turn; 0 for the marks alone.
    distractors : int
        Prototypes of candidates that are least like the marks, on the other side (spirit of NTRENet); 0 for none.
    kernels : bool
        Add what kernels made of the marks' own surroundings find: 5 x 1, 1 x 5, 3 x 3 (spirit of DPCN).
    window : int
        Of alp: side of the windows that local prototypes are pooled from, in steps of the field.
    whole : bool
        Judge a candidate by its mean features; otherwise by the mean of the map over its pixels.
    disc_um : float
        Radius of what a point marks where no candidate lies.
    heatmap : bool
        Whether the map of likeness is made, which takes most of the time of a query.
    """

    method: str = NEAREST
    threshold: float = -1.0
    background: bool = True
    rounds: int = 0
    distractors: int = 0
    kernels: bool = False
    window: int = 2
    whole: bool = True
    disc_um: float = 4.0
    heatmap: bool = True

    def validation_error(self) -> str | None:
        """Return what is wrong with the values as a sentence, or None."""
        if self.method not in METHODS:
            return f"there is no method called {self.method}; there are {', '.join(METHODS)}"
        if self.threshold > 1:
            return f"the threshold must lie between 0 and 1, not {self.threshold}; below 0 it is found"
        if min(self.distractors, self.rounds) < 0 or self.window < 1:
            return "distractors and rounds cannot be fewer than 0, and a window has a side of at least 1"
        if not self.disc_um > 0:
            return f"the radius of a marked point must be above 0 um, not {self.disc_um}"
        return None


@dataclass(frozen=True, slots=True, eq=False)
class Proposals:
    """What is like the marks.

    Parameters
    ----------
    ids : ndarray of int32, shape (n,)
        Candidates proposed, the most similar first; those marked as like are among them, those marked as not are not.
    scores : ndarray of float32, shape (n,)
        How similar each of `ids` is, 0..1.
    all_ids : ndarray of int32, shape (m,)
        All candidates, ascending.
    all_scores : ndarray of float32, shape (m,)
        How similar each of `all_ids` is, 0..1.
    likeness : ndarray of float32, shape (y, x)
        How similar each place of the view is, 0..1, for a heatmap; the view's pixels. Without `LikeOptions.heatmap` it
        is empty, ``(0, 0)``.
    threshold : float
        What a score had to exceed.
    like, unlike : ndarray of int32
        Candidates that the marks mean, ascending.
    seconds : float
        Wall clock of the query.
    """

    ids: NDArray[np.int32]
    scores: NDArray[np.float32]
    all_ids: NDArray[np.int32]
    all_scores: NDArray[np.float32]
    likeness: NDArray[np.float32]
    threshold: float
    like: NDArray[np.int32]
    unlike: NDArray[np.int32]
    seconds: float

    def __len__(self) -> int:
        return len(self.ids)

    def above(self, threshold: float) -> NDArray[np.int32]:
        """Return what would be proposed at another threshold, the most similar first; costs no query."""
        keep = ((self.all_scores > threshold) | np.isin(self.all_ids, self.like)) & ~np.isin(self.all_ids, self.unlike)
        found = np.flatnonzero(keep)
        return self.all_ids[found[np.argsort(-self.all_scores[found], kind="stable")]]
