"""How well a head attends to what was painted, patch by patch, and how far the encoder has moved otherwise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from napari_nucleiseg.core.teaching.heads.losses import spread_of
from napari_nucleiseg.core.teaching.heads.painted import PaintedPatch
from napari_nucleiseg.core.teaching.heads.tail import Tail

Numbers = NDArray[np.float64]
COLUMNS = ("score", "look", "ratio", "avoid", "auroc")
DRAWS = 1000


@dataclass(frozen=True, slots=True)
class HeadScores:
    """How a head looks at painted patches, means over them; NaN where none says anything.

    Parameters
    ----------
    score : float
        What heads are chosen by, 0..1: the share of attention that is right, see `losses.paint_losses`.
    look : float
        Share of the attention to a patch that lies on what is painted "look here", 0..1.
    ratio : float
        The same divided by what a uniform map would give: above 1 it is sought.
    avoid : float
        Share that lies on "do not look", 0..1.
    auroc : float
        Whether tokens to look at have more attention than those to avoid (than all others where nothing is to be
        avoided), 0..1; 0.5 is chance. Tokens count by the share that is painted.
    patches : int
        Measured on.
    """

    score: float
    look: float
    ratio: float
    avoid: float
    auroc: float
    patches: int

    def as_dict(self) -> dict[str, float | None]:
        """Return the scores for cards and logs; None for what is not known."""
        return {name: None if np.isnan(value) else round(value, 4) for name, value in asdict(self).items()}


@dataclass(frozen=True, slots=True)
class HeadGain:
    """What the score has gained on held-out patches.

    Parameters
    ----------
    score : float
        Mean difference, positive is better.
    low, high : float
        90 % interval, by resampling patches; neighbours in one place are alike, so that it is rather too narrow.
    not_worse : float
        Share of the resamplings in which the new head is at least as good.
    """

    score: float
    low: float
    high: float
    not_worse: float


@dataclass(frozen=True, slots=True)
class Drift:
    """How far an encoder has moved on patches that nobody painted and nothing was learnt from.

    Parameters
    ----------
    cosine : float
        Mean of 1 less the cosine of new to former features.
    change : float
        Mean squared distance of new to former features, as a share of the former's variance from patch to patch.
    tokens : float
        Distance of new to former tokens, relative to their length: root of the ratio of mean squares.
    heads : float
        Mean over all other heads of the layers taught, and patches: how much attention has moved elsewhere, 0..1
        (total variation).
    worst_head : float
        The same of the other head that moved most.
    patches : int
        Measured on.
    """

    cosine: float = 0.0
    change: float = 0.0
    tokens: float = 0.0
    heads: float = 0.0
    worst_head: float = 0.0
    patches: int = 0

    def is_within(self, cosine: float, change: float) -> bool:
        """Whether features have stayed near enough to what they were."""
        return self.cosine <= cosine and self.change <= change

    def as_dict(self) -> dict[str, float]:
        """Return the numbers for cards and logs."""
        return {name: round(value, 5) for name, value in asdict(self).items()}


def measured(attention: Numbers, patches: Sequence[PaintedPatch], unpainted: float) -> Numbers:
    """Measure a head on painted patches.

    Parameters
    ----------
    attention : ndarray, shape (patches, n)
        What its class token attends to, row by row.
    patches : sequence of PaintedPatch
        The same.
    unpainted : float
        See `losses.paint_losses`.

    Returns
    -------
    ndarray of float64, shape (patches, 5)
        In the order of `COLUMNS`; NaN where a patch says nothing.
    """
    rows = [_row(*args, unpainted) for args in zip(attention, patches, strict=True)]
    return np.array(rows, np.float64).reshape(-1, len(COLUMNS))


def scores_of(rows: Numbers) -> HeadScores:
    """Return the means of what `measured` gave."""
    known = ~np.isnan(rows)
    sums, counts = np.where(known, rows, 0).sum(axis=0), known.sum(axis=0)
    means = np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)
    return HeadScores(**dict(zip(COLUMNS, means.tolist(), strict=True)), patches=len(rows))


def gain_of(before: Numbers, after: Numbers, seed: int) -> HeadGain:
    """Return what the score gained from `before` to `after` on the same patches, both as of `measured`."""
    gained = after[:, 0] - before[:, 0]
    rng = np.random.default_rng(seed)
    means = gained[rng.integers(len(gained), size=(DRAWS, len(gained)))].mean(axis=1)
    low, high = np.quantile(means, (0.05, 0.95)).tolist()
    return HeadGain(float(gained.mean()), low, high, float((means >= 0).mean()))


def drift_of(now: Tail, before: Tail, place: tuple[int, int]) -> Drift:
    """Return how far an encoder has moved.

    Parameters
    ----------
    now, before : Tail
        Of the same patches.
    place : tuple of int
        Layer in the tail, and number, of the head that was taught.
    """
    features = torch.nn.functional.cosine_similarity(now.features.double(), before.features.double(), dim=1)
    moved = (now.features - before.features).double().square().sum(dim=1).mean()
    length = before.tokens.double().square().mean()
    tokens = ((now.tokens - before.tokens).double().square().mean() / length).sqrt()
    elsewhere = _moved(now.attention, before.attention)
    elsewhere[place] = torch.nan
    others = elsewhere[~elsewhere.isnan()]
    return Drift(
        max(0.0, float(1 - features.mean())),
        float(moved) / spread_of(before.features),
        float(tokens),
        float(others.mean()) if len(others) else 0.0,
        float(others.max()) if len(others) else 0.0,
        len(now.features),
    )


def _moved(now: torch.Tensor, before: torch.Tensor) -> torch.Tensor:
    """Return the total variation between what heads attend to, means over patches, ``(layers, heads)``."""
    apart = (now - before).double()
    to_class = apart.sum(dim=-1).abs()
    return ((apart.abs().sum(dim=-1) + to_class) / 2).mean(dim=0)


def _row(attention: Numbers, patch: PaintedPatch, unpainted: float) -> tuple[float, ...]:
    weights = attention / max(float(attention.sum()), 1e-12)
    look, avoid = (part.ravel().astype(np.float64) for part in (patch.look, patch.avoid))
    rest = np.clip(1 - look - avoid, 0, None)
    right, wrong = float(look @ weights), float(avoid @ weights)
    if not look.any():
        return 1 - wrong, np.nan, np.nan, wrong, np.nan
    score = right / max(right + wrong + unpainted * float(rest @ weights), 1e-12)
    ratio = right / float(look.mean())
    others = avoid if avoid.any() else rest
    return score, right, ratio, wrong if avoid.any() else np.nan, _auroc(weights, look, others)


def _auroc(values: Numbers, positive: Numbers, negative: Numbers) -> float:
    """Return the area under the ROC curve of values whose positives and negatives have weights; NaN without either."""
    _, order = np.unique(values, return_inverse=True)
    ups, downs = np.bincount(order, positive), np.bincount(order, negative)
    total = ups.sum() * downs.sum()
    below = np.cumsum(downs) - downs
    return float((ups * (below + downs / 2)).sum() / total) if total > 0 else np.nan
