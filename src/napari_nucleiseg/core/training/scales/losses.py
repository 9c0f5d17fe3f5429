"""Terms of the loss of scale classification through attention; all take A or its raw map ``(batch, 1, y, x)``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the name everyone knows it by

from napari_nucleiseg.core.training.losses import cross_entropy


def _quarter(x: Tensor) -> Tensor:
    return torch.rot90(x, 1, (2, 3))


def _three_quarters(x: Tensor) -> Tensor:
    return torch.rot90(x, 3, (2, 3))


def _half(x: Tensor) -> Tensor:
    return torch.rot90(x, 2, (2, 3))


def _across(x: Tensor) -> Tensor:
    return x.flip(3)


def _down(x: Tensor) -> Tensor:
    return x.flip(2)


def _transposed(x: Tensor) -> Tensor:
    return x.transpose(2, 3)


Transform = Callable[[Tensor], Tensor]
TRANSFORMS: tuple[tuple[Transform, Transform], ...] = (
    (_across, _across),
    (_down, _down),
    (_transposed, _transposed),
    (_quarter, _three_quarters),
    (_half, _half),
    (_three_quarters, _quarter),
)
"""The six mirror images and turns of square pictures, each with its inverse."""


def smoothness(attention: Tensor) -> Tensor:
    """Return the L1 total variation: mean difference to the pixel below plus mean difference to the pixel beside."""
    down = (attention[:, :, 1:] - attention[:, :, :-1]).abs().mean()
    across = (attention[:, :, :, 1:] - attention[:, :, :, :-1]).abs().mean()
    return down + across


def halved(x: Tensor) -> Tensor:
    """Return maps or pictures at half size (bilinear)."""
    return F.interpolate(x, scale_factor=0.5, mode="bilinear", align_corners=False)


def scale_equivariance(
    attention: Tensor, image: Tensor, level: Tensor, finest: int, look: Callable[[Tensor], Tensor]
) -> Tensor:
    """Return how far A of a picture at half size is from A at half size; mean over all magnifications but the lowest.

    Parameters
    ----------
    attention : Tensor
        A, ``(batch, 1, y, x)``.
    image : Tensor
        Normalised pictures ``(batch, 3, y, x)``.
    level : Tensor
        Magnification of each, ``(batch,)``, 0 is the lowest.
    finest : int
        The highest.
    look : callable
        Gives A of pictures, without gradient.
    """
    terms = []
    for number in range(1, finest + 1):
        chosen = level == number
        if bool(chosen.any()):
            terms.append(F.mse_loss(halved(attention[chosen]), look(halved(image[chosen]))))
    return torch.stack(terms).mean() if terms else attention.new_zeros(())


def haematoxylin_mismatch(confidence: Tensor, density: Tensor) -> Tensor:
    """Return one minus the correlation of confidence and haematoxylin, mean over pictures; 0 to 2.

    A correlation states no threshold: how many pixels count as nuclei stays the business of tau.
    """
    a, h = (values.flatten(1) - values.flatten(1).mean(dim=1, keepdim=True) for values in (confidence, density))
    norm: Tensor = (a.norm(dim=1) * h.norm(dim=1)).clamp(min=1e-6)
    return 1 - ((a * h).sum(dim=1) / norm).mean()


def self_training(raw: Tensor, views: Tensor, sure: float) -> Tensor:
    """Return the cross-entropy with what all views are sure of; other pixels do not count.

    Parameters
    ----------
    raw : Tensor
        Map before the sigmoid, ``(batch, 1, y, x)``.
    views : Tensor
        A of some views of each picture, turned back, ``(views, batch, 1, y, x)``, without gradient.
    sure : float
        Above it, or below one minus it, a pixel is sure.
    """
    low, high = views.amin(dim=0), views.amax(dim=0)
    known = ((low > sure) | (high < 1 - sure)).float()
    return cross_entropy(raw, (low > sure).float(), known)


def shape_mismatch(raw: Tensor, shape: Tensor) -> Tensor:
    """Return the cross-entropy with nuclei that are known by their shape; what is unknown does not count.

    Parameters
    ----------
    raw : Tensor
        Map before the sigmoid, ``(batch, 1, y, x)``.
    shape : Tensor
        1 nucleus, 0 none, negative unknown; of the same shape.
    """
    return cross_entropy(raw, shape.clamp(min=0), (shape >= 0).float())


@contextmanager
def statistics_kept(network: nn.Module) -> Iterator[None]:
    """Normalise by the batch inside the block, but leave the running statistics of batch normalisation as they are."""
    layers = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    kept = [layer.track_running_stats for layer in layers]
    for layer in layers:
        layer.track_running_stats = False
    try:
        yield
    finally:
        for layer, was in zip(layers, kept, strict=True):
            layer.track_running_stats = was
