"""Loss of each head, by name; all take maps ``(batch, channels, y, x)`` and ignore unannotated pixels.

Losses of monai, torchvision and others cannot pass over single pixels, and most pictures that people correct are
annotated in part: what they offer is written here with a weight of each pixel, and tested against monai's. That of
torchmetrics sees what is true in the place of what nobody annotated.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from napari_nucleiseg.core.models.zoo.contract import library

OFFSET_UNIT_PX = 8.0
# What a difference of a head without activation is measured in; of those that are not named, 1.
UNITS = {"offsets": OFFSET_UNIT_PX}
# Weights of the scales of MS-SSIM (Wang et al., Asilomar 2003), finest first; side of a window at each, pixels.
SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
SIMILARITY_SIDE = 11
BOUNDARY_PX = 7  # window in which a pixel's neighbours may be of the other class
HOVER_SIDE = 5  # of the kernel that takes the slope of distances
HeadLoss = Callable[[Tensor, Mapping[str, Tensor], "LossOptions"], Tensor]


@dataclass(frozen=True, slots=True)
class LossOptions:
    """What the losses of foreground heads are made of; see the fields of the same names of `TrainConfig`."""

    focal_gamma: float = 0.0
    dice: float = 1.0
    class_balance: bool = False
    terms: Mapping[str, float] = field(default_factory=dict)
    tversky_alpha: float = 0.3
    tversky_beta: float = 0.7


@dataclass(frozen=True, slots=True, eq=False)
class Foreground:
    """What a foreground head should say, and how much each pixel counts.

    Parameters
    ----------
    target : Tensor
        1 where it should say yes, ``(batch, 1, y, x)``.
    known : Tensor
        1 where it is annotated, same shape.
    weights : Tensor
        Of each pixel in cross-entropy; 0 where it is not annotated.
    ridge : Tensor
        Border weights between neighbours, in and outside of nuclei.
    options : LossOptions
        Numbers of the terms.
    """

    target: Tensor
    known: Tensor
    weights: Tensor
    ridge: Tensor
    options: LossOptions


Term = Callable[[Tensor, Foreground], Tensor]


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


def tversky(logits: Tensor, target: Tensor, weights: Tensor, alpha: float, beta: float) -> Tensor:
    """``1 - TP / (TP + alpha FP + beta FN)`` over the batch (Salehi et al., MLMI 2017).

    `alpha` and `beta` of 1/2 give Dice without squares, of 1 the Jaccard index.
    """
    probability = torch.sigmoid(logits)
    both = (probability * target * weights).sum()
    too_much = (probability * (1 - target) * weights).sum()
    missed = ((1 - probability) * target * weights).sum()
    return 1 - (both + 1) / (both + alpha * too_much + beta * missed + 1)


def intersection_over_union(logits: Tensor, target: Tensor, weights: Tensor) -> Tensor:
    """``1 - sum(p g) / (sum p + sum g - sum(p g))`` over the batch (Rahman and Wang, ISVC 2016)."""
    return tversky(logits, target, weights, 1.0, 1.0)


def structural(logits: Tensor, target: Tensor, known: Tensor) -> Tensor:
    """Return ``1 - MS-SSIM`` of probabilities and target (Wang et al., Asilomar 2003; U-Net 3+, ICASSP 2020).

    Similarities are brought to 0..1 by ``(1 + s) / 2``: cut off at zero, as is usual elsewhere, they would have no
    gradient just where a map is wrong. Pictures too small for five scales are seen at fewer.

    Raises
    ------
    MissingDependencyError
        If torchmetrics is not installed.
    """
    metrics = library("torchmetrics.functional.image", whose="the loss ms_ssim")
    # What nobody annotated is taken for right: it has no gradient then.
    seen = torch.where(known > 0, torch.sigmoid(logits), target)
    weights = scale_weights(min(logits.shape[2:]))
    similarity: Tensor = metrics.multiscale_structural_similarity_index_measure(
        seen, target, sigma=1.5, kernel_size=SIMILARITY_SIDE, data_range=1.0, betas=weights, normalize="simple"
    )
    return 1 - similarity


def scale_weights(side_px: int) -> tuple[float, ...]:
    """Return the weights of the scales at which a picture of this side can be compared, of sum 1."""
    # What torchmetrics wants: more than a window's pixels after dividing by the square of the steps.
    fitting = [n for n in range(1, 6) if side_px >= 2**n and side_px // max(1, n - 1) ** 2 >= SIMILARITY_SIDE]
    weights = SCALE_WEIGHTS[: max(fitting, default=1)]
    return tuple(weight / sum(weights) for weight in weights)


def boundary(logits: Tensor, target: Tensor, known: Tensor) -> Tensor:
    """Cross-entropy along outlines: each pixel counts by how many of its neighbours are of the other class.

    These are the position weights of Wei et al. (F3Net, AAAI 2020) without their constant, which is plain
    cross-entropy.
    """
    around = F.avg_pool2d(torch.cat([known, target * known], 1), BOUNDARY_PX, stride=1, padding=BOUNDARY_PX // 2)
    there, share = around.chunk(2, dim=1)
    mean = share / there.clamp(min=1e-6)
    return cross_entropy(logits, target, (mean - target).abs() * known)


def _balanced(raw: Tensor, aim: Foreground) -> Tensor:
    """Weighted cross-entropy of Ronneberger et al. (2015): w_c, and the ridge between neighbours on background."""
    weights = class_weights(aim.target, aim.known) + aim.ridge * (1 - aim.target)
    return cross_entropy(raw, aim.target, weights * aim.known)


TERMS: dict[str, Term] = {
    "cross_entropy": lambda raw, aim: cross_entropy(raw, aim.target, aim.weights),
    "weighted_cross_entropy": _balanced,
    "focal": lambda raw, aim: cross_entropy(raw, aim.target, aim.weights, aim.options.focal_gamma),
    "dice": lambda raw, aim: soft_dice(raw, aim.target, aim.known),
    "tversky": lambda raw, aim: tversky(
        raw, aim.target, aim.known, aim.options.tversky_alpha, aim.options.tversky_beta
    ),
    "iou": lambda raw, aim: intersection_over_union(raw, aim.target, aim.known),
    "ms_ssim": lambda raw, aim: structural(raw, aim.target, aim.known),
    "boundary": lambda raw, aim: boundary(raw, aim.target, aim.known),
}


def _summed(raw: Tensor, aim: Foreground) -> Tensor:
    """Return the weighted sum of the terms that are named, or of cross-entropy and Dice where none is."""
    options = aim.options
    if options.terms:
        return torch.stack([weight * TERMS[name](raw, aim) for name, weight in options.terms.items() if weight]).sum()
    loss = cross_entropy(raw, aim.target, aim.weights, options.focal_gamma)
    return loss + options.dice * soft_dice(raw, aim.target, aim.known)


def _foreground(raw: Tensor, batch: Mapping[str, Tensor], options: LossOptions) -> Tensor:
    known = batch["known"]
    return _summed(raw, Foreground(batch["nuclei"], known, known, batch["weights"], options))


def _separated(raw: Tensor, batch: Mapping[str, Tensor], options: LossOptions) -> Tensor:
    target, known, ridge = batch["separated"], batch["known"], batch["weights"]
    balance = class_weights(target, known) if options.class_balance else torch.ones_like(target)
    # w(x) = w_c(x) + the ridge between neighbours, which lies on background only (Ronneberger et al. 2015).
    weights = (balance + ridge * (1 - target)) * known
    return _summed(raw, Foreground(target, known, weights, ridge, options))


def _offsets(raw: Tensor, batch: Mapping[str, Tensor], _options: LossOptions) -> Tensor:
    inside = batch["nuclei"] * batch["known"]
    loss = F.smooth_l1_loss(raw / OFFSET_UNIT_PX, batch["offsets"] / OFFSET_UNIT_PX, reduction="none", beta=0.1)
    return weighted_mean(loss, inside.expand_as(loss)) * 2


def _distance(raw: Tensor, batch: Mapping[str, Tensor], _options: LossOptions) -> Tensor:
    loss = F.smooth_l1_loss(torch.sigmoid(raw), batch["distance"], reduction="none", beta=0.1)
    return weighted_mean(loss, batch["known"])


def _hover(raw: Tensor, batch: Mapping[str, Tensor], _options: LossOptions) -> Tensor:
    """Squared error of the distances everywhere, and of their slopes inside nuclei (Graham et al. 2019)."""
    apart, known = raw - batch["hover"], batch["known"]
    inside = batch["nuclei"] * known
    # A slope is taken from neighbours: all of them must be annotated.
    unknown = F.max_pool2d((known == 0).float(), HOVER_SIDE, stride=1, padding=HOVER_SIDE // 2)
    steeper = slopes(apart) ** 2
    there = (inside * (1 - unknown)).expand_as(steeper)
    return weighted_mean(apart**2, known.expand_as(apart)) + weighted_mean(steeper, there)


def slopes(hover: Tensor) -> Tensor:
    """Return the slope of vertical distances downwards and of horizontal ones to the right, ``(batch, 2, y, x)``.

    The kernel is that of the authors' code: a pixel at ``(y, x)`` from the middle counts ``y / (y^2 + x^2)``.
    """
    steps = torch.arange(HOVER_SIDE, device=hover.device, dtype=hover.dtype) - HOVER_SIDE // 2
    down = steps[:, None] / (steps[:, None] ** 2 + steps**2).clamp(min=1e-6)
    return F.conv2d(hover, torch.stack([down, down.T])[:, None], padding=HOVER_SIDE // 2, groups=2)


def _attention(raw: Tensor, batch: Mapping[str, Tensor], _options: LossOptions) -> Tensor:
    """Look where a person painted "look here", and not where they painted "do not"; every head of attention alike."""
    target, painted = batch["attention"].expand_as(raw), batch["painted"].expand_as(raw)
    return cross_entropy(raw, target, painted)


LOSSES: dict[str, HeadLoss] = {
    "nuclei": _foreground,
    "separated": _separated,
    "offsets": _offsets,
    "distance": _distance,
    "hover": _hover,
    "attention": _attention,
}


def presence(raw: Tensor, batch: Mapping[str, Tensor]) -> Tensor | None:
    """Cross-entropy of "is there any nucleus in this picture?"; None if the batch does not tell where nuclei are.

    Parameters
    ----------
    raw : Tensor
        The answer before its sigmoid, ``(batch, 1, 1, 1)``.
    batch : mapping of str to Tensor
        Of a picture that is annotated in part, only a nucleus is an answer.
    """
    target = batch["nuclei"] if "nuclei" in batch else batch.get("separated")
    if target is None:
        return None
    known = batch["known"]
    some = ((target * known).amax(dim=(1, 2, 3), keepdim=True) > 0).float()
    whole = (known.amin(dim=(1, 2, 3), keepdim=True) > 0).float()
    return cross_entropy(raw, some, torch.maximum(some, whole))


def side_losses(
    maps: Mapping[str, Tensor],
    batch: Mapping[str, Tensor],
    weights: Mapping[str, float],
    options: LossOptions,
    supervision: float,
) -> list[Tensor]:
    """Return the weighted losses of side outputs, which are called ``nuclei/1``, ``nuclei/2`` and so on.

    Parameters
    ----------
    maps, batch : mapping of str to Tensor
        What a network in training says, and what it should say.
    weights : mapping of str to float
        Of each head's loss.
    options : LossOptions
        Of the losses.
    supervision : float
        Level k counts this to the power of k as much as the output itself; 0 passes over side outputs.
    """
    found: list[Tensor] = []
    if not supervision:
        return found
    for key, value in maps.items():
        name, _, level = key.partition("/")
        if level.isdigit() and name in weights and name in LOSSES:
            share = weights[name] * supervision ** int(level)
            found.append(share * LOSSES[name](value.float(), batch, options))
    return found
