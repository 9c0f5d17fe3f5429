"""U-Net 3+ (Huang et al., ICASSP 2020): every level of the decoder sees all scales; side outputs; a gate."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from napari_nucleiseg.core.models.nuclei_unet import HEADS
from napari_nucleiseg.core.models.registry import register_model
from napari_nucleiseg.core.models.zoo.contract import (
    OUTPUTS,
    PRESENT,
    calm_last,
    split_heads,
    with_side_outputs,
    zoo_spec,
)
from napari_nucleiseg.core.models.zoo.fcn import convolution

LEVELS = 5
# What one pixel of the maps sees where the gate is left out of account.
MAPS_FIELD_PX = 236
# Raw value of a map of probability where the gate is closed: a probability of 2e-9.
_CLOSED = -20.0


def _resized(level: int, wanted: int) -> nn.Module:
    """Return what brings a map of `level`, 0 the finest, to the size of level `wanted`."""
    if level < wanted:
        return nn.MaxPool2d(2 ** (wanted - level))
    if level > wanted:
        return nn.Upsample(scale_factor=float(2 ** (level - wanted)), mode="bilinear", align_corners=False)
    return nn.Identity()


class FullScale(nn.Module):
    """One level of the decoder: a convolution of each of the five scales, joined by another.

    Parameters
    ----------
    level : int
        Which, 0 the finest.
    inputs : sequence of int
        Channels of what comes of each level, the finest first.
    width : int
        Channels that each level contributes; 64 in the paper.
    """

    def __init__(self, level: int, inputs: Sequence[int], width: int) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            nn.Sequential(_resized(source, level), convolution(channels, width))
            for source, channels in enumerate(inputs)
        )
        self.join = convolution(len(inputs) * width, len(inputs) * width)

    def forward(self, sources: list[Tensor]) -> Tensor:
        """Return ``(batch, 5 * width, y, x)`` of the features of each level, the finest first."""
        parts = [branch(source) for branch, source in zip(self.branches, sources, strict=True)]
        return cast("Tensor", self.join(torch.cat(parts, dim=1)))


class ClassGuide(nn.Module):
    """Says of the coarsest features whether there is any nucleus: raw, ``(batch, 1, 1, 1)``.

    Two classes, each the largest score of the picture; what is returned is "some" less "none", so its sigmoid is the
    softmax of both and its sign is the choice. It starts with "some" whatever it sees, so that a network that was never
    taught to answer leaves nothing out.

    Parameters
    ----------
    channels : int
        Of the coarsest features.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.classes = nn.Sequential(nn.Dropout(0.5), nn.Conv2d(channels, 2, 1))
        last = cast("nn.Conv2d", self.classes[1])
        nn.init.zeros_(last.weight)
        with torch.no_grad():
            cast("Tensor", last.bias).copy_(torch.tensor([-1.0, 1.0]))

    def forward(self, x: Tensor) -> Tensor:
        """Return the raw answer; above 0 is yes."""
        none, some = self.classes(x).float().amax(dim=(2, 3), keepdim=True).split(1, dim=1)
        return cast("Tensor", some - none)


class UNet3Plus(nn.Module):
    """Five levels with full-scale skips; input sides divisible by 16.

    While training it returns side outputs of the four coarser levels (``nuclei/1`` and so on) and the raw answer of the
    class-guided module (`contract.PRESENT`), to be taught by whether the picture holds a nucleus. Once trained that
    answer is a gate: where it is no, no pixel is a nucleus. The published code multiplies raw maps by 0 or 1 instead,
    which makes closed maps a probability of one half.

    Parameters
    ----------
    width : int
        Channels of the first level and of each skip; 64 in the paper.
    guided : bool
        Whether there is a class-guided module.
    """

    closed: Tensor

    def __init__(self, width: int = 64, guided: bool = True) -> None:
        super().__init__()
        channels = [width * 2**level for level in range(LEVELS)]
        self.pool = nn.MaxPool2d(2)
        self.encoder = nn.ModuleList(
            nn.Sequential(convolution(inputs, outputs), convolution(outputs, outputs))
            for inputs, outputs in zip((3, *channels), channels, strict=False)
        )
        joined = LEVELS * width
        self.decoder = nn.ModuleList(
            FullScale(
                level,
                [*channels[: level + 1], *(joined for _ in range(level + 2, LEVELS)), channels[-1]],
                width,
            )
            for level in range(LEVELS - 1)
        )
        self.sides = nn.ModuleList(
            nn.Sequential(nn.Conv2d(joined if level < LEVELS - 1 else channels[-1], OUTPUTS, 3, padding=1))
            for level in range(LEVELS)
        )
        for level, side in enumerate(self.sides):
            calm_last(side[0])  # type: ignore[index] # a sequence
            cast("nn.Sequential", side).append(_resized(level, 0))
        self.guide = ClassGuide(channels[-1]) if guided else None
        values = [_CLOSED if head.activation == "sigmoid" else 0.0 for head in HEADS for _ in range(head.channels)]
        self.register_buffer("closed", torch.tensor(values).view(1, -1, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Return the raw maps of all heads, each ``(batch, channels, y, x)``; while training side outputs as well."""
        levels: list[Tensor] = []
        for level, block in enumerate(self.encoder):
            x = block(self.pool(x) if level else x)
            levels.append(x)
        for level in reversed(range(LEVELS - 1)):
            levels[level] = self._decoded(level, levels)
        present = None if self.guide is None else self.guide(x)
        if not self.training:
            raw = self.sides[0](levels[0])
            return split_heads(raw if present is None else torch.where(present > 0, raw, self.closed.to(raw.dtype)))
        maps = with_side_outputs([side(one) for side, one in zip(self.sides, levels, strict=True)], training=True)
        return maps if present is None else maps | {PRESENT: present}

    def _decoded(self, level: int, levels: list[Tensor]) -> Tensor:
        return cast("Tensor", self.decoder[level](levels))


@register_model(
    zoo_spec(
        "unet-3plus",
        "U-Net 3+: full-scale skips, side outputs, a gate for pictures without nuclei",
        paper="Huang et al., ICASSP 2020, arXiv 2004.08790",
        tile_px=512,  # 320 channels at full size: a tile of 1024 would take gigabytes
        receptive_field_px=0,  # the gate sees all of it; see MAPS_FIELD_PX
        stride=2 ** (LEVELS - 1),
        good_for="Nuclei of very different sizes, and tissue that often holds none; slow, and hungry for memory.",
    )
)
def build(width: int = 64, guided: bool = True) -> UNet3Plus:
    """Build U-Net 3+."""
    return UNet3Plus(width, guided)
