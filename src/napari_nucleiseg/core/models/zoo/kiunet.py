"""KiU-Net (Valanarasu et al., MICCAI 2020): a U-Net beside a branch that enlarges the picture instead of pooling it."""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn

from napari_nucleiseg.core.models.registry import register_model
from napari_nucleiseg.core.models.zoo.contract import OUTPUTS, calm_last, split_heads, zoo_spec
from napari_nucleiseg.core.models.zoo.fcn import convolution

LEVELS = 3


def _step(inputs: int, outputs: int, *, up: bool) -> nn.Sequential:
    """Return a 3x3 convolution, twice or half the size, batch normalisation and ReLU."""
    size: nn.Module = nn.Upsample(scale_factor=2.0, mode="bilinear", align_corners=False) if up else nn.MaxPool2d(2)
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), size, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)
    )


class CrossFusion(nn.Module):
    """Cross-residual fusion block: each branch is given the other's features, convolved and resized.

    Parameters
    ----------
    channels : int
        Of both branches.
    ratio : int
        Size of the enlarging branch in that of the pooling one.
    """

    def __init__(self, channels: int, ratio: int) -> None:
        super().__init__()
        self.of_small = nn.Sequential(
            convolution(channels, channels),
            nn.Upsample(scale_factor=float(ratio), mode="bilinear", align_corners=False),
        )
        self.of_large = nn.Sequential(
            convolution(channels, channels),
            nn.Upsample(scale_factor=1 / ratio, mode="bilinear", align_corners=False),
        )

    def forward(self, small: Tensor, large: Tensor) -> tuple[Tensor, Tensor]:
        """Return both, ``(batch, channels, y, x)`` each of its own size."""
        return small + self.of_large(large), large + self.of_small(small)


class KiUNet(nn.Module):
    """Two branches of three levels that are fused at each; input sides divisible by 8.

    One branch pools three times, the other enlarges the picture up to eightfold: its features take 64 times the area of
    the picture, two gigabytes for 128 x 128 pixels with all that is kept for the gradient. Train it with crops of 128
    pixels and small batches.

    Parameters
    ----------
    width : int
        Channels of the first level, doubled at each; 16 in the paper.
    """

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        down = [3, *(width * 2**level for level in range(LEVELS))]
        up = [*reversed(down[1:]), max(width // 2, 1)]
        self.u_down = nn.ModuleList(_step(down[i], down[i + 1], up=False) for i in range(LEVELS))
        self.ki_up = nn.ModuleList(_step(down[i], down[i + 1], up=True) for i in range(LEVELS))
        self.u_up = nn.ModuleList(_step(up[i], up[i + 1], up=True) for i in range(LEVELS))
        self.ki_down = nn.ModuleList(_step(up[i], up[i + 1], up=False) for i in range(LEVELS))
        self.fuse_down = nn.ModuleList(CrossFusion(down[i + 1], 4 ** (i + 1)) for i in range(LEVELS))
        self.fuse_up = nn.ModuleList(CrossFusion(up[i + 1], 4 ** (LEVELS - 1 - i)) for i in range(LEVELS - 1))
        self.last = nn.Conv2d(up[-1], OUTPUTS, 1)
        calm_last(self.last)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Return the raw maps of all heads, each ``(batch, channels, y, x)``."""
        small = large = x
        skips: list[tuple[Tensor, Tensor]] = []
        for pool, enlarge, fuse in zip(self.u_down, self.ki_up, self.fuse_down, strict=True):
            small, large = fuse(pool(small), enlarge(large))
            skips.append((small, large))
        for level, fuse in enumerate(self.fuse_up):
            small, large = fuse(self.u_up[level](small), self.ki_down[level](large))
            skip = skips[LEVELS - 2 - level]
            small, large = small + skip[0], large + skip[1]
        joined = cast("Tensor", self.u_up[-1](small) + self.ki_down[-1](large))
        return split_heads(self.last(joined))


@register_model(
    zoo_spec(
        "kiu-net",
        "KiU-Net: a U-Net beside a branch that enlarges the picture eightfold",
        paper="Valanarasu et al., MICCAI 2020, arXiv 2006.04878; IEEE TMI 2022, doi 10.1109/TMI.2021.3130469",
        tile_px=64,  # with the halo the 128 pixels of the paper: features take 64 times that area
        halo_px=32,
        size_multiple=8,
        receptive_field_px=74,
        stride=2**LEVELS,
        good_for="Small nuclei and sharp outlines in single fields of view: its features take 64 times the area of a "
        "picture, so tiles are small and whole slides take very long.",
    )
)
def build(width: int = 16) -> KiUNet:
    """Build KiU-Net."""
    return KiUNet(width)
