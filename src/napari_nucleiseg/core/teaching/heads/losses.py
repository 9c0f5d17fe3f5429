"""What a head is taught by: attention where people want it, and everything else as it was."""

from __future__ import annotations

import torch
from torch import Tensor

from napari_nucleiseg.core.teaching.heads.tail import Tail

_LEAST = 1e-8


def paint_losses(attention: Tensor, look: Tensor, avoid: Tensor, unpainted: float) -> tuple[Tensor, Tensor]:
    """Return how far a head is from what was painted, and how unevenly it looks at what it should look at.

    With ``a`` the head's attention, divided by its sum over the patch's tokens, and ``l``, ``d`` and ``u = 1 - l - d``
    the shares of each token that are painted "look here", "do not look" and not at all::

        L = sum(l a)    D = sum(d a)    U = sum(u a)
        loss = -log(L / (L + D + w U))    where anything is painted "look here"
        loss = -log(1 - D)                where there is only "do not look"

    ``w`` (`unpainted`) lies below 1, for people paint some of what they mean: unpainted tissue draws attention away
    from what was painted, and yet is no mistake. Because attention is divided by its sum, nothing is gained by giving
    it to the class token; because tokens count by the share that is painted, L cannot exceed the largest ``l``.

    The second loss is the Kullback-Leibler divergence of attention among the painted tokens from an even map of them,
    ``sum(t log(t L / (l a)))`` with ``t = l / sum(l)``: with weight 1 the two together are the cross-entropy to that
    map.

    Parameters
    ----------
    attention : Tensor, shape (batch, n)
        Of the class token to each token.
    look, avoid : Tensor, shape (batch, n)
        Shares that are painted, 0..1.
    unpainted : float
        ``w``, 0..1.

    Returns
    -------
    tuple of Tensor
        Means over the batch, scalars.
    """
    share = _attended(attention, look, avoid, unpainted)
    found = look.sum(dim=1) > 0
    even = look / look.sum(dim=1, keepdim=True).clamp_min(_LEAST)
    among = look * attention
    among = among / among.sum(dim=1, keepdim=True).clamp_min(_LEAST)
    apart = (even * (even.clamp_min(_LEAST).log() - among.clamp_min(_LEAST).log())).sum(dim=1)
    return -share.clamp_min(_LEAST).log().mean(), (apart * found).sum() / found.sum().clamp_min(1)


def _attended(attention: Tensor, look: Tensor, avoid: Tensor, unpainted: float) -> Tensor:
    """Return the share of attention that is right in each patch, ``(batch,)`` in 0..1."""
    attention = attention / attention.sum(dim=1, keepdim=True).clamp_min(_LEAST)
    right, wrong = (look * attention).sum(dim=1), (avoid * attention).sum(dim=1)
    rest = ((1 - look - avoid).clamp_min(0) * attention).sum(dim=1)
    sought = right / (right + wrong + unpainted * rest).clamp_min(_LEAST)
    return torch.where(look.sum(dim=1) > 0, sought, 1 - wrong)


def anchor_losses(now: Tail, before: Tail, spread: tuple[float, float], place: tuple[int, int]) -> dict[str, Tensor]:
    """Return how far everything else has moved from what it was, each a scalar.

    Parameters
    ----------
    now, before : Tail
        Of the same patches.
    spread : tuple of float
        Variance of the former features from patch to patch and of the former tokens from token to token: the units of
        ``features`` and ``tokens``.
    place : tuple of int
        Layer in the tail, and number, of the head that may change.

    Returns
    -------
    dict of str to Tensor
        ``features`` and ``tokens``: mean squared distances. ``heads``: mean over the other heads of the
        Kullback-Leibler divergence of what the class token attends to, the class token itself included.
    """
    moved = [
        (new - old).square().sum(dim=-1).mean() / unit
        for new, old, unit in zip(now[:2], before[:2], spread, strict=True)
    ]
    apart = _divergence(before.attention, now.attention)
    others = torch.ones(apart.shape[1:], dtype=torch.bool, device=apart.device)
    others[place] = False
    heads = apart[:, others].mean() if others.any() else apart.new_zeros(())
    return {"features": moved[0], "tokens": moved[1], "heads": heads}


def spread_of(values: Tensor) -> float:
    """Return the variance of vectors, summed over their numbers; values ``(n, embed)``. Never 0."""
    values = values.double()
    return max(float((values - values.mean(dim=0)).square().sum(dim=1).mean()), _LEAST)


def _divergence(before: Tensor, now: Tensor) -> Tensor:
    """Return the Kullback-Leibler divergence along the last axis; what is missing to 1 lies on the class token."""
    before, now = (
        torch.cat((part, (1 - part.sum(dim=-1, keepdim=True)).clamp_min(0)), dim=-1).clamp_min(_LEAST)
        for part in (before, now)
    )
    return (before * (before.log() - now.log())).sum(dim=-1)
