"""S3-Net (Karimijafarbigloo et al., ICCV workshops 2023): a small network that is fitted to one picture, unlabelled.

Each of its output channels is a cluster; a pixel belongs to the channel that is highest there. Fitted once, and told
which clusters are nuclei, it is a network like any other.
"""

from __future__ import annotations

from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from napari_nucleiseg.core.errors import ModelError
from napari_nucleiseg.core.models.deformable import FreeDeformation, PredictedDeformation
from napari_nucleiseg.core.models.registry import register_model
from napari_nucleiseg.core.models.spec import HeadSpec, ModelSpec

NEVER = -1e4  # a logit that no other is below
OTHER, CHOSEN = 0, 1


class Clusters(NamedTuple):
    """What the network says of a picture, each ``(batch, channels, y, x)``.

    `main` and `auxiliary` are logits, one channel a cluster; `features` is what both are made of.
    """

    main: Tensor
    auxiliary: Tensor
    features: Tensor


class InceptionAttention(nn.Module):
    """Large-kernel attention with three extents (ILKA): ``u * mix(3x3, 5x5 dilated 2, 7x7 dilated 3 of 5x5(u))``.

    Parameters
    ----------
    width : int
        Channels; 64 make 19,520 parameters.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.near = nn.Conv2d(width, width, 5, padding=2, groups=width)
        self.branches = nn.ModuleList(
            nn.Conv2d(width, width, kernel, padding=dilation * (kernel // 2), dilation=dilation, groups=width)
            for kernel, dilation in ((3, 1), (5, 2), (7, 3))
        )
        self.mix = nn.Conv2d(3 * width, width, 1)

    def forward(self, u: Tensor) -> Tensor:
        """Return `u` times its attention, same shape."""
        near = self.near(u)
        return u * cast("Tensor", self.mix(torch.cat([branch(near) for branch in self.branches], dim=1)))


class AttentionBlock(nn.Module):
    """``x + P2(ILKA(GELU(P1(x))))`` with 1x1 convolutions P1 and P2; 27,840 parameters at width 64."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 1)
        self.attention = InceptionAttention(width)
        self.last = nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's features, same shape as `x`."""
        return x + cast("Tensor", self.last(self.attention(F.gelu(self.first(x)))))


class S3Net(nn.Module):
    """Convolution, attention blocks, and two branches: a deformable one that clusters and a plain auxiliary one.

    Parameters
    ----------
    width : int
        Channels everywhere, and so the number of clusters to begin with.
    blocks : int
        Attention blocks.
    reach_px : float
        Largest predicted offset of the deformable convolution.
    free_height, free_width : int
        Above 0: offsets, masks and weights of that convolution are free parameters for a picture of this size, as
        published, instead of being predicted.
    """

    chosen: Tensor

    def __init__(
        self, width: int = 64, blocks: int = 2, reach_px: float = 8.0, free_height: int = 0, free_width: int = 0
    ) -> None:
        super().__init__()
        self.block_count, self.reach_px = blocks, reach_px
        self.is_free = bool(free_height and free_width)
        self.stem = nn.Sequential(nn.Conv2d(3, width, 3, padding=1), nn.BatchNorm2d(width))
        self.blocks = nn.Sequential(
            *(nn.Sequential(AttentionBlock(width), nn.BatchNorm2d(width)) for _ in range(blocks))
        )
        deformed = (
            FreeDeformation(width, width, free_height, free_width)
            if self.is_free
            else PredictedDeformation(width, width, reach_px)
        )
        self.deformed = nn.Sequential(deformed, nn.BatchNorm2d(width))
        self.main = nn.Sequential(nn.Conv2d(width, width, 1), nn.BatchNorm2d(width))
        self.auxiliary = nn.Sequential(nn.Conv2d(width, width, 1), nn.BatchNorm2d(width))
        self.register_buffer("chosen", torch.full((width,), OTHER, dtype=torch.uint8))
        # Until clusters are chosen it is the first, so that the network can also be trained with labels like any other.
        self.choose((0,))

    @property
    def width(self) -> int:
        """Number of channels, and of clusters at most."""
        return len(self.chosen)

    def choose(self, clusters: tuple[int, ...]) -> None:
        """Say which clusters are nuclei.

        Raises
        ------
        ModelError
            If one is no channel of this network.
        """
        wrong = [cluster for cluster in clusters if not 0 <= cluster < self.width]
        if wrong:
            raise ModelError(f"there is no cluster {wrong[0]}; clusters are numbered 0 to {self.width - 1}")
        self.chosen.fill_(OTHER)
        self.chosen[list(clusters)] = CHOSEN

    @torch.no_grad()
    def begin_smooth(self) -> None:
        """Let the 3x3 kernels of stem and deformable convolution begin as means, each over its nine taps.

        Random kernels answer to edges too, such as those of fibres.
        """
        kernels = [cast("nn.Conv2d", self.stem[0]).weight, cast("PredictedDeformation", self.deformed[0]).weight]
        for kernel in kernels:
            # Three times the mean of nine taps has the variance of one.
            kernel.copy_((3 * kernel.mean(dim=(2, 3), keepdim=True)).expand_as(kernel))

    def cluster_logits(self, x: Tensor) -> Tensor:
        """Return the logits of the clusters, ``(batch, width, y, x)``."""
        return cast("Tensor", self.main(self.deformed(self.blocks(self.stem(x)))))

    def clusters(self, x: Tensor) -> Clusters:
        """Return all that fitting needs of ``(batch, 3, y, x)``."""
        features = self.blocks(self.stem(x))
        return Clusters(self.main(self.deformed(features)), self.auxiliary(features), features)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Return the raw map ``nuclei``: log-odds of the likeliest chosen cluster against the likeliest other one.

        It is above 0 exactly where the highest channel is a chosen one, so that what is decoded at a threshold of 0.5
        is what the clusters show.
        """
        logits = self.cluster_logits(x).float()
        chosen = (self.chosen == CHOSEN).view(1, -1, 1, 1)
        inside = logits.masked_fill(~chosen, NEVER).amax(dim=1, keepdim=True)
        outside = logits.masked_fill(chosen, NEVER).amax(dim=1, keepdim=True)
        return {"nuclei": inside - outside}


def receptive_radius_px(blocks: int = 2, reach_px: float = 8.0) -> int:
    """Return how far, in pixels, an output pixel may look: stem, blocks (5x5 and 7x7 dilated 3), deformed 3x3."""
    # A bent tap is read between two pixels, hence one more than the kernel's own reach and the offset.
    return 1 + blocks * (2 + 9) + int(-(-(1 + reach_px) // 1)) + 1


@register_model(
    ModelSpec(
        name="s3net",
        title="S3-Net, fitted to one picture without labels",
        mpp_um=0.5,
        heads=(HeadSpec("nuclei", 1, "sigmoid", "Chosen clusters"),),
        decoder="watershed",
        # The mean colour of tissue becomes 0, which is also what convolutions see beyond the picture's border.
        mean=(0.70, 0.55, 0.70),
        std=(0.20, 0.22, 0.18),
        tile_px=512,
        halo_px=64,  # 33 px of receptive field and half a large nucleus
        size_multiple=16,
        paper="Karimijafarbigloo et al., ICCV workshops 2023, arXiv 2309.00143",
        receptive_field_px=2 * receptive_radius_px() + 1,
        good_for="One region of an unusual stain without any label: it is fitted to that picture alone.",
    )
)
def build(width: int = 64, blocks: int = 2, reach_px: float = 8.0) -> S3Net:
    """Build the network with predicted offsets."""
    return S3Net(width, blocks, reach_px)
