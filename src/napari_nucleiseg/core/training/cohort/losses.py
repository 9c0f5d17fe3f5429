"""Losses of one slide, and how time becomes intervals for them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - the name everyone knows it by

from napari_nucleiseg.core.errors import DataError


def class_loss(logits: Tensor, target: int) -> Tensor:
    """Return the cross-entropy of logits ``(classes,)``."""
    return F.cross_entropy(logits[None], torch.tensor([target], device=logits.device))


def hazard_loss(logits: Tensor, interval: int, *, event: bool) -> Tensor:
    """Return the negative log likelihood of discrete hazards (Zadeh and Schmid, IEEE TPAMI 2021, with alpha 0).

    Parameters
    ----------
    logits : Tensor, shape (intervals,)
        Sigmoid of one is the probability that it happens in that interval to who came so far.
    interval : int
        In which it happened, or was last known not to have happened.
    event : bool
        Whether it happened.

    Returns
    -------
    Tensor
        ``-log h[interval] - sum(log(1 - h[:interval]))`` with an event, ``-sum(log(1 - h[:interval + 1]))`` without.
    """
    survived = interval if event else interval + 1
    loss = -F.logsigmoid(-logits[:survived]).sum()
    return loss - F.logsigmoid(logits[interval]) if event else loss


def survival_curve(logits: Tensor) -> Tensor:
    """Return the probability ``(intervals,)`` of getting through each interval and all before it."""
    return torch.exp(torch.cumsum(F.logsigmoid(-logits), dim=0))


def risk_of(logits: Tensor) -> Tensor:
    """Return how soon it is expected, larger is sooner: minus the sum of the survival curve."""
    return -survival_curve(logits).sum()


def quantile_edges(times: NDArray[np.float64], events: NDArray[np.bool_], intervals: int) -> tuple[float, ...]:
    """Return the times between intervals in each of which the same number of events lies.

    Parameters
    ----------
    times : ndarray of float64, shape (n,)
        Until the event, or until last known without it.
    events : ndarray of bool, shape (n,)
        Whether it happened.
    intervals : int
        Four are quartiles.

    Raises
    ------
    DataError
        If the events are too few or too many at the same time.
    """
    seen = times[events]
    edges = np.quantile(seen, np.arange(1, intervals) / intervals) if len(seen) else np.zeros(0)
    held = np.bincount(np.searchsorted(edges, seen, side="right"), minlength=intervals)
    if len(edges) < intervals - 1 or not held.all():
        fewer = "choose fewer intervals, " if intervals > 2 else ""  # there are no fewer than two
        raise DataError(
            f"{len(seen)} events are too few, or too many at the same time, for {intervals} intervals of time; "
            f"{fewer}give times in days rather than months or years, or label more slides with an event"
        )
    return tuple(map(float, edges))


def interval_of(time: float, edges: Sequence[float]) -> int:
    """Return the number of the interval that a time lies in; an edge belongs to the later one."""
    return int(np.searchsorted(np.asarray(edges), time, side="right"))
