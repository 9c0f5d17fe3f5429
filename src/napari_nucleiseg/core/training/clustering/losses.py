"""What a clustering without labels is fitted by: its own decision, a transform, neighbours, coarse outlines."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from napari_nucleiseg.core.models.s3net import Clusters
from napari_nucleiseg.core.training.clustering.affine import AffineDraw, valid_share, warp
from napari_nucleiseg.core.training.clustering.config import ClusterConfig


class ClusterLosses(NamedTuple):
    """The terms of one step, each unweighted, 0 where it is switched off; `total` is their weighted sum.

    Each is a scalar Tensor.
    """

    total: Tensor
    pseudo_label: Tensor
    affine: Tensor
    spatial: Tensor
    boundary: Tensor

    def as_dict(self) -> dict[str, float]:
        """Return the terms as numbers by name."""
        return {name: float(value.detach()) for name, value in self._asdict().items()}


def pseudo_label_loss(main: Tensor) -> Tensor:
    """Cross-entropy of logits ``(batch, clusters, y, x)`` with their own highest channel."""
    return F.cross_entropy(main, main.detach().argmax(dim=1))


def rotated_consistency(main: Tensor, auxiliary: Tensor) -> Tensor:
    """Cross-entropy of the turned auxiliary logits with the decision of the turned main ones, as published.

    Both branches are turned by the same quarter turn after they were computed, so that each pixel still meets its
    own: the turn itself has no effect, and the term is the cross-entropy between the two branches.
    """
    turned, target = (torch.rot90(logits, 1, (2, 3)) for logits in (auxiliary, main.detach()))
    return F.cross_entropy(turned, target.argmax(dim=1))


def warped_consistency(main: Tensor, auxiliary: Tensor, theta: Tensor) -> Tensor:
    """Cross-entropy of the warped auxiliary logits with the decision of the warped main ones.

    Parameters
    ----------
    main, auxiliary : Tensor, shape (batch, clusters, y, x)
        Logits.
    theta : Tensor, shape (batch, 2, 3)
        Affine transform, see `warp`; its gradient comes from the auxiliary branch. Places that lie outside the
        picture do not count.
    """
    target = warp(main.detach(), theta.detach()).argmax(dim=1)
    inside = valid_share(theta.detach(), main.shape[2:])
    loss = F.cross_entropy(warp(auxiliary, theta), target, reduction="none")
    return (loss * inside).sum() / inside.sum().clamp(min=1.0)


def soft_spatial(main: Tensor) -> Tensor:
    """Mean difference between the soft assignments of pixels one below and one beside the other; 0..2.

    The difference of two assignments is half the sum over clusters of absolute differences, so 1 is another cluster.
    """
    share = torch.softmax(main, dim=1)
    down = (share[:, :, 1:] - share[:, :, :-1]).abs().sum(dim=1).mean()
    right = (share[:, :, :, 1:] - share[:, :, :, :-1]).abs().sum(dim=1).mean()
    return (down + right) / 2


def response_spatial(main: Tensor) -> Tensor:
    """Mean absolute difference between the logits of pixels one below and one beside the other (Kim et al. 2020).

    Unlike differences of the soft assignment it is felt from the first step, when no cluster stands out yet.
    """
    down = (main[:, :, 1:] - main[:, :, :-1]).abs().mean()
    right = (main[:, :, :, 1:] - main[:, :, :, :-1]).abs().mean()
    return down + right


def published_spatial(main: Tensor, seed: int) -> Tensor:
    """Edges of a randomly coloured label image, as published: a number without any gradient.

    The mean absolute differences of its 3x3 Sobel responses along x, along y and along both, colours in 0..1.
    """
    labels = main.detach().argmax(dim=1).cpu().numpy()
    colours = np.random.default_rng(seed).random((main.shape[1], 3), dtype=np.float32)
    total = 0.0
    for picture in colours[labels]:
        along_x, along_y, both = (cv2.Sobel(picture, cv2.CV_32F, *order, ksize=3) for order in ((1, 0), (0, 1), (1, 1)))
        differences = (along_y - along_x, both - along_x, both - along_y)
        total += float(sum(np.abs(difference).mean() for difference in differences))
    return main.new_tensor(total / len(labels))


def boundary_refinement(main: Tensor, beta: int) -> Tensor:
    """Mean difference between the soft assignment and itself shrunk and enlarged again; 0..1.

    It is least for maps without detail finer than `beta` pixels; on the hard decision it would have no gradient.

    Parameters
    ----------
    main : Tensor, shape (batch, clusters, y, x)
        Logits.
    beta : int
        Factor by which the assignment is shrunk (means of blocks) before it is enlarged (linearly).
    """
    share = torch.softmax(main, dim=1)
    size = share.shape[2:]
    coarse = F.avg_pool2d(share, min(beta, *size), ceil_mode=True, count_include_pad=False)
    again = F.interpolate(coarse, size=size, mode="bilinear", align_corners=False)
    return (again - share).abs().sum(dim=1).mean() / 2


def _spatial(main: Tensor, config: ClusterConfig, iteration: int) -> Tensor:
    if config.spatial == "published":
        return published_spatial(main, config.seed + iteration)
    return soft_spatial(main) if config.spatial == "soft" else response_spatial(main)


def cluster_losses(said: Clusters, config: ClusterConfig, draw: AffineDraw, iteration: int) -> ClusterLosses:
    """Return all terms and their weighted sum; a term with the weight 0 is not computed.

    Parameters
    ----------
    said : Clusters
        What the network says, in train mode.
    config : ClusterConfig
        Weights and forms of the terms.
    draw : AffineDraw
        Draws transforms where they are learned.
    iteration : int
        Number of the step, which seeds the colours of the published spatial term.
    """
    zero = said.main.new_zeros(())
    pseudo, affine, spatial, boundary = zero, zero, zero, zero
    if config.pseudo_label_weight:
        pseudo = pseudo_label_loss(said.main)
    if config.affine_weight and config.affine == "rotation":
        affine = rotated_consistency(said.main, said.auxiliary)
    elif config.affine_weight:
        affine = warped_consistency(said.main, said.auxiliary, draw(said.features.detach()))
    if config.spatial_weight:
        spatial = _spatial(said.main, config, iteration)
    if config.boundary_weight:
        boundary = boundary_refinement(said.main, config.boundary_beta)
    total = (
        config.pseudo_label_weight * pseudo
        + config.affine_weight * affine
        + config.spatial_weight * spatial
        + config.boundary_weight * boundary
    )
    return ClusterLosses(total, pseudo, affine, spatial, boundary)
