"""The default network: a residual U-Net with a stride-2 stem whose outputs are shuffled back to full resolution."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the name everyone knows it by

from napari_nucleiseg.core.models.registry import register_model
from napari_nucleiseg.core.models.spec import HeadSpec, ModelSpec

HEADS = (
    HeadSpec("nuclei", 1, "sigmoid", "Nucleus probability"),
    HeadSpec("offsets", 2, "none", "Offset to the centre", shown=False),
    HeadSpec("distance", 1, "sigmoid", "Distance to the border"),
    HeadSpec("separated", 1, "sigmoid", "Nucleus probability, touching borders left out"),
)
STEM = 2
MOST_DEPTH = 4  # sides of tiles are multiples of STEM * 2 ** MOST_DEPTH
OFFSET_UNIT_PX = 8.0  # the size of a typical offset: the network works with numbers near one


def _conv(inputs: int, outputs: int, kernel: int = 3) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with a skip; ``(batch, inputs, y, x)`` to ``(batch, outputs, y, x)``."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.first = _conv(inputs, outputs)
        self.second = nn.Sequential(nn.Conv2d(outputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs))
        self.skip = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's features, same height and width."""
        return F.relu(self.second(self.first(x)) + self.skip(x), inplace=True)


class DetailPath(nn.Module):
    """Corrects the shuffled maps at full resolution, where the outline of a nucleus is seen.

    The last convolution starts at zero: weights made without this path say the same with it until it is trained.

    Parameters
    ----------
    features : int
        Channels of the features at half resolution.
    detail : int
        Channels at full resolution.
    outputs : int
        Channels of all heads.
    """

    def __init__(self, features: int, detail: int, outputs: int) -> None:
        super().__init__()
        self.image = _conv(3, detail)
        self.lift = nn.Conv2d(features, detail * STEM**2, 1)
        self.join = nn.Sequential(_conv(2 * detail, detail), _conv(detail, detail))
        self.last = nn.Conv2d(detail, outputs, 1)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)  # type: ignore[arg-type]

    def forward(self, image: Tensor, features: Tensor) -> Tensor:
        """Return what to add to the maps ``(batch, outputs, y, x)``."""
        lifted = F.pixel_shuffle(self.lift(features), STEM)
        return cast("Tensor", self.last(self.join(torch.cat([self.image(image), lifted], dim=1))))


class NucleiUNet(nn.Module):
    """Residual U-Net; input ``(batch, 3, y, x)`` with sides divisible by ``2 ** depth * 2``.

    Parameters
    ----------
    width : int
        Channels of the finest level.
    depth : int
        Number of poolings below the stem, 4 at most.
    widest : int
        Upper limit of channels at the coarse levels.
    detail : int
        Channels of the path at full resolution; 0 leaves it out.
    """

    def __init__(self, width: int = 32, depth: int = 4, widest: int = 192, detail: int = 0) -> None:
        super().__init__()
        if not 0 <= depth <= MOST_DEPTH:
            raise ValueError(f"depth must lie between 0 and {MOST_DEPTH}, the poolings that its tiles are made for")
        widths = [min(width * 2**level, widest) for level in range(depth + 1)]
        self.stem = _conv(3 * STEM**2, width)
        self.encoder = nn.ModuleList(
            ResidualBlock(widths[max(level - 1, 0)], widths[level]) for level in range(depth + 1)
        )
        self.reduce = nn.ModuleList(
            nn.Conv2d(widths[level + 1], widths[level], 1, bias=False) for level in range(depth)
        )
        self.decoder = nn.ModuleList(ResidualBlock(widths[level], widths[level]) for level in range(depth))
        channels = sum(head.channels for head in HEADS)
        last = nn.Conv2d(width, channels * STEM**2, 1)
        nn.init.normal_(last.weight, std=0.01)
        self.head = nn.Sequential(_conv(width, width), last)
        self.detail = DetailPath(width, detail, channels) if detail else None

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Return the raw maps of all heads, each ``(batch, channels, y, x)``."""
        image = x
        x = self.stem(F.pixel_unshuffle(x, STEM))
        skips: list[Tensor] = []
        for level, block in enumerate(self.encoder):
            x = block(F.max_pool2d(x, 2) if level else x)
            skips.append(x)
        for level in reversed(range(len(self.decoder))):
            x = F.interpolate(self.reduce[level](x), scale_factor=2.0, mode="nearest") + skips[level]
            x = self.decoder[level](x)
        features = self.head[0](x)
        maps = F.pixel_shuffle(self.head[1](features).float(), STEM)
        if self.detail is not None:
            maps = maps + self.detail(image, features).float()
        parts = torch.split(maps, [head.channels for head in HEADS], dim=1)
        return {
            head.name: part * OFFSET_UNIT_PX if head.activation == "none" else part
            for head, part in zip(HEADS, parts, strict=True)
        }


SPEC = ModelSpec(
    name="nuclei",
    title="Nuclei in H&E, residual U-Net at 0.5 µm/px",
    mpp_um=0.5,
    heads=HEADS,
    decoder="offsets",
    mean=(0.70, 0.55, 0.70),
    std=(0.20, 0.22, 0.18),
    tile_px=1024,
    halo_px=48,
    size_multiple=STEM * 2**MOST_DEPTH,
    paper="Ronneberger et al., MICCAI 2015, arXiv 1505.04597; Cheng et al., CVPR 2020, arXiv 1911.10194 (offsets)",
    receptive_field_px=382,
    stride=32,
    good_for="Nuclei in H&E on whole slides: what the program comes with; quick without a graphics card.",
)


@register_model(SPEC)
def build(width: int = 32, depth: int = 4, widest: int = 192, detail: int = 0) -> NucleiUNet:
    """Build the default network."""
    return NucleiUNet(width, depth, widest, detail)


@register_model(
    replace(
        SPEC,
        name="nuclei-fine",
        title="Nuclei in H&E, residual U-Net at 0.25 µm/px",
        mpp_um=0.25,
        tile_px=2048,  # the same micrometres as above
        halo_px=96,
        good_for="Small and crowded nuclei of 40x scans: sharper outlines, for four times the work.",
    )
)
def build_fine(width: int = 32, depth: int = 4, widest: int = 192, detail: int = 0) -> NucleiUNet:
    """Build the same network for twice as fine pixels: four times the work, sharper outlines."""
    return NucleiUNet(width, depth, widest, detail)
