"""Loss of each head, by name; all take maps ``(batch, channels, y, x)`` and ignore unannotated pixels."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

OFFSET_UNIT_PX = 8.0
HeadLoss = Callable[[Tensor, Mapping[str, Tensor], "LossOptions"], Tensor]


class LossOptions:
    """Weights of the terms: focal gamma, Dice weight, whether classes are balanced."""

    def __init__(self, focal_gamma: float = 0.0, dice: float = 1.0, *, class_balance: bool = False) -> None:
        self.focal_gamma = focal_gamma
        self.dice = dice
        self.class_balance = class_balance


def weighted_mean(values: Tensor, weights: Tensor) -> Tensor:
    """Return the mean of `values` under `weights`; zero where all weights are zero."""
    return (values * weights).sum() / weights.sum().clamp(min=1.0)


def cross_entropy(logits: Tensor, target: Tensor, weights: Tensor, gamma: float = 0.0) -> Tensor:
    """Weighted binary cross-entropy, with the focal factor ``(1 - p_t) ** gamma`` (Lin et al. 2017).

    ``gamma = 0`` is cross-entropy itself.
    """
    loss = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    if gamma:
        loss = loss * (1 - torch.exp(-loss)) ** gamma
    return weighted_mean(loss, weights)


def class_weights(target: Tensor, known: Tensor) -> Tensor:
    """Return w_c: weights of mean 1 under which foreground and background of the batch count the same.

    A class that fills less than one part in a hundred counts as if it filled that much.
    """
    share = weighted_mean(target, known).clamp(0.01, 0.99)
    return target * (0.5 / share) + (1 - target) * (0.5 / (1 - share))


def soft_dice(logits: Tensor, target: Tensor, weights: Tensor) -> Tensor:
    """``1 - 2 sum(p g) / (sum p^2 + sum g^2)`` over the batch (Milletari et al. 2016)."""
    probability = torch.sigmoid(logits)
    overlap = (probability * target * weights).sum()
    total = ((probability**2 + target**2) * weights).sum()
    return 1 - (2 * overlap + 1) / (total + 1)


def _foreground(raw: Tensor, batch: Mapping[str, Tensor], options: LossOptions) -> Tensor:
    loss = cross_entropy(raw, batch["nuclei"], batch["known"], options.focal_gamma)
    return loss + options.dice * soft_dice(raw, batch["nuclei"], batch["known"])


def _separated(raw: Tensor, batch: Mapping[str, Tensor], options: LossOptions) -> Tensor:
    target, known = batch["separated"], batch["known"]
    balance = class_weights(target, known) if options.class_balance else torch.ones_like(target)
    # w(x) = w_c(x) + the ridge between neighbours, which lies on background only (Ronneberger et al. 2015).
    weights = (balance + batch["weights"] * (1 - target)) * known
    loss = cross_entropy(raw, target, weights, options.focal_gamma)
    return loss + options.dice * soft_dice(raw, target, known)


def _offsets(raw: Tensor, batch: Mapping[str, Tensor], _options: LossOptions) -> Tensor:
    inside = batch["nuclei"] * batch["known"]
    loss = F.smooth_l1_loss(raw / OFFSET_UNIT_PX, batch["offsets"] / OFFSET_UNIT_PX, reduction="none", beta=0.1)
    return weighted_mean(loss, inside.expand_as(loss)) * 2


def _distance(raw: Tensor, batch: Mapping[str, Tensor], _options: LossOptions) -> Tensor:
    loss = F.smooth_l1_loss(torch.sigmoid(raw), batch["distance"], reduction="none", beta=0.1)
    return weighted_mean(loss, batch["known"])


def _attention(raw: Tensor, batch: Mapping[str, Tensor], _options: LossOptions) -> Tensor:
    """Look where a person painted "look here", and not where they painted "do not"; every head of attention alike."""
    target, painted = batch["attention"].expand_as(raw), batch["painted"].expand_as(raw)
    return cross_entropy(raw, target, painted)


LOSSES: dict[str, HeadLoss] = {
    "nuclei": _foreground,
    "separated": _separated,
    "offsets": _offsets,
    "distance": _distance,
    "attention": _attention,
}
