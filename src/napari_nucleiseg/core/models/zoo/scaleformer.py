"""ScaleFormer (Huang et al., IJCAI 2022): attention along rows and columns at each scale, then among the scales."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from napari_nucleiseg.core.models.registry import register_model
from napari_nucleiseg.core.models.zoo.contract import OUTPUTS, calm_last, split_heads, zoo_spec
from napari_nucleiseg.core.models.zoo.fcn import convolution

SIDE_PX = 224  # of the paper's pictures: the biases are learned for it
STRIDES = (4, 8, 16, 32)
BLOCKS = (2, 2, 2, 1)
HEADS = 8
_WIDTHS = (4, 8, 16, 16)  # channels of each scale in widths; the encoder has two finer ones of 1 and 2
_INTER_WIDTHS = 4  # 256 channels among the scales


def _depthwise(channels: int) -> nn.Conv2d:
    return nn.Conv2d(channels, channels, 3, padding=1, groups=channels)


class ChannelNorm(nn.LayerNorm):
    """Layer normalisation over the channels of ``(batch, channels, y, x)``."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the normalised maps."""
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class ResidualDouble(nn.Module):
    """Two 3x3 convolutions and a 1x1 one around which there is a skip; keeps height and width."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.both = nn.Sequential(
            convolution(inputs, outputs), nn.Conv2d(outputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs)
        )
        self.mix = nn.Sequential(nn.Conv2d(outputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(batch, outputs, y, x)``."""
        x = self.both(x)
        return F.relu(x + self.mix(x))


class AxisWeights(nn.Module):
    """Who attends to whom along one axis: queries and keys are means over the other axis, each place has a bias.

    The biases are learned for pictures of 224 pixels, as in the paper, and belong to relative places: for another
    length they are interpolated bilinearly over both places, while training and after.

    Parameters
    ----------
    channels, length : int
        Of the maps; of the axis for which the biases are learned.
    pooled : int
        Axis of ``(batch, channels, y, x)`` to average over: 3 for attention among rows, 2 among columns.
    """

    def __init__(self, channels: int, length: int, pooled: int) -> None:
        super().__init__()
        self.pooled = pooled
        self.scale = (channels // HEADS) ** -0.5
        self.query, self.key = _depthwise(channels), _depthwise(channels)
        self.query_heads, self.key_heads = nn.Linear(channels, channels), nn.Linear(channels, channels)
        self.bias = nn.Parameter(torch.zeros(1, HEADS, length, length))

    def forward(self, x: Tensor) -> Tensor:
        """Return weights ``(batch, heads, length, length)`` whose last axis sums to one."""
        query = self._tokens(self.query_heads, self.query(x))
        key = self._tokens(self.key_heads, self.key(x))
        length = query.shape[2]
        bias = F.interpolate(self.bias, size=(length, length), mode="bilinear", align_corners=False)
        return torch.softmax(query @ key.transpose(2, 3) * self.scale + bias, dim=3)

    def _tokens(self, project: nn.Linear, x: Tensor) -> Tensor:
        """Return ``(batch, heads, length, channels / heads)``."""
        tokens = project(x.mean(dim=self.pooled).transpose(1, 2))
        return cast("Tensor", tokens.unflatten(2, (HEADS, -1)).transpose(1, 2))


class DualAxisAttention(nn.Module):
    """Attention among rows, then among columns; ``(batch, channels, y, x)`` to the same.

    Parameters
    ----------
    channels : int
        Divisible by the 8 heads.
    length : int
        Height and width for which the biases are learned.
    """

    def __init__(self, channels: int, length: int) -> None:
        super().__init__()
        self.rows, self.columns = AxisWeights(channels, length, 3), AxisWeights(channels, length, 2)
        self.value = nn.Sequential(_depthwise(channels), nn.Conv2d(channels, channels, 1))
        self.out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return what is attended to."""
        value = self.value(x).unflatten(1, (HEADS, -1))
        value = torch.einsum("nhij,nhcjx->nhcix", self.rows(x), value)
        value = torch.einsum("nhij,nhcyj->nhcyi", self.columns(x), value)
        return cast("Tensor", self.out(value.flatten(1, 2)))


class ScaleBlock(nn.Module):
    """A transformer block of one scale: dual-axis attention, then layers four times wider with a 3x3 convolution."""

    def __init__(self, channels: int, length: int) -> None:
        super().__init__()
        self.attend = nn.Sequential(ChannelNorm(channels), DualAxisAttention(channels, length))
        self.widen = nn.Sequential(ChannelNorm(channels), nn.Conv2d(channels, 4 * channels, 1))
        self.local = _depthwise(4 * channels)
        self.narrow = nn.Sequential(ChannelNorm(4 * channels), nn.GELU(), nn.Conv2d(4 * channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(batch, channels, y, x)``."""
        x = x + self.attend(x)
        wide = self.widen(x)
        return cast("Tensor", x + self.narrow(wide + self.local(wide)))


class AmongScales(nn.Module):
    """Attention among all that four scales say of the same 32 x 32 pixels: 64 + 16 + 4 + 1 tokens.

    Parameters
    ----------
    channels : sequence of int
        Of each scale, the finest first.
    dim : int
        Channels of a token; 256 in the paper.
    """

    def __init__(self, channels: tuple[int, ...], dim: int) -> None:
        super().__init__()
        self.windows = [STRIDES[-1] // stride for stride in STRIDES]
        self.into = nn.ModuleList(nn.Conv2d(one, dim, 1) for one in channels)
        self.back = nn.ModuleList(nn.Conv2d(dim, one, 1) for one in channels)
        self.before, self.after = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.query_key_value, self.out = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.wide = nn.Sequential(
            nn.Linear(dim, 4 * dim), nn.GELU(), nn.Dropout(0.1), nn.Linear(4 * dim, dim), nn.Dropout(0.1)
        )

    def forward(self, scales: list[Tensor]) -> list[Tensor]:
        """Return the maps of each scale, of the same shapes."""
        folded = [
            F.pixel_unshuffle(into(x), side).unflatten(1, (-1, side * side)).permute(0, 3, 4, 2, 1)
            for into, x, side in zip(self.into, scales, self.windows, strict=True)
        ]  # (batch, rows, columns, tokens, dim) each
        tokens = torch.cat(folded, dim=3)
        tokens = tokens + self._attended(self.before(tokens))
        tokens = tokens + self.wide(self.after(tokens))
        parts = tokens.split([side * side for side in self.windows], dim=3)
        return [
            back(F.pixel_shuffle(part.permute(0, 4, 3, 1, 2).flatten(1, 2), side))
            for back, part, side in zip(self.back, parts, self.windows, strict=True)
        ]

    def _attended(self, tokens: Tensor) -> Tensor:
        parts = self.query_key_value(tokens.flatten(0, 2)).unflatten(2, (3, HEADS, -1))
        query, key, value = parts.permute(2, 0, 3, 1, 4).unbind(0)
        found = F.scaled_dot_product_attention(query, key, value)
        return cast("Tensor", self.out(found.transpose(1, 2).flatten(2)).view(tokens.shape))


class ScaleFormer(nn.Module):
    """A convolutional encoder whose four coarser scales are joined by transformers; input sides divisible by 32.

    The biases of its attention are learned for pictures of 224 pixels and interpolated for others, see `AxisWeights`.
    Each row and column attends to all others of the picture, so what is found depends on all of it: the spec's tile
    makes pictures of 256 pixels, which is how large crops are by default, and the network should be trained with crops
    of that size. Two slips of the published code are not repeated: weights of columns that sum to one over the wrong
    axis, and a reshape that mixes channels with places.

    Parameters
    ----------
    width : int
        Channels of the finest scale, even; 64 in the paper.
    """

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        if width % 2:
            raise ValueError(f"width must be even, so that the {HEADS} heads share the channels, not {width}")
        channels = tuple(width * widths for widths in _WIDTHS)
        encoded = (3, width, 2 * width, *channels[:3])
        self.pool = nn.MaxPool2d(2)
        self.encoder = nn.ModuleList(ResidualDouble(encoded[i], encoded[i + 1]) for i in range(5))
        self.scales = nn.ModuleList(
            nn.Sequential(*(ScaleBlock(one, SIDE_PX // stride) for _ in range(blocks)))
            for one, stride, blocks in zip(channels, STRIDES, BLOCKS, strict=True)
        )
        self.shrink = nn.ModuleList(_halved(one) for one in channels[:3])
        self.join = nn.ModuleList(nn.Conv2d(channels[i + 1] + 2 * channels[i], channels[i + 1], 1) for i in range(3))
        self.among = AmongScales(channels, width * _INTER_WIDTHS)
        self.skips = nn.ModuleList(nn.Conv2d(2 * one, one, 1) for one in channels)
        joined = ((32, 8), (16, 4), (8, 2), (4, 1))  # of what is below and of the skip together, and after; in widths
        self.decoder = nn.ModuleList(_double(one * width, other * width) for one, other in joined)
        self.finest = _double(width, width)
        self.up = nn.Upsample(scale_factor=2.0, mode="bilinear", align_corners=False)
        self.last = nn.Conv2d(width, OUTPUTS, 3, padding=1)
        calm_last(self.last)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Return the raw maps of all heads, each ``(batch, channels, y, x)``."""
        features: list[Tensor] = []
        for level, block in enumerate(self.encoder):
            x = block(self.pool(x) if level else x)
            features.append(x)
        features.append(self.pool(x))
        seen = self.among(self._within(features[2:]))
        skips = [skip(torch.cat(pair, dim=1)) for skip, *pair in zip(self.skips, seen, features[2:], strict=True)]
        x = skips.pop()
        for block, skip in zip(self.decoder, (*reversed(skips), features[1]), strict=True):
            x = block(torch.cat([self.up(x), skip], dim=1))
        return split_heads(self.last(self.finest(self.up(x))))

    def _within(self, features: list[Tensor]) -> list[Tensor]:
        """Return the features of each scale after attention within it; each is given what the finer one made."""
        seen = [cast("Tensor", self.scales[0](features[0]))]
        for scale, shrink, join, feature in zip(self.scales[1:], self.shrink, self.join, features[1:], strict=True):
            seen.append(scale(join(torch.cat([feature, shrink(seen[-1])], dim=1))))
        return seen


def _double(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(convolution(inputs, outputs), convolution(outputs, outputs))


def _halved(channels: int) -> nn.Sequential:
    """Return a 2x2 convolution of stride 2 to twice the channels, batch normalisation and ReLU."""
    return nn.Sequential(
        nn.Conv2d(channels, 2 * channels, 2, stride=2, bias=False), nn.BatchNorm2d(2 * channels), nn.ReLU(inplace=True)
    )


@register_model(
    zoo_spec(
        "scaleformer",
        "ScaleFormer: convolutions with attention within and among four scales",
        paper="Huang et al., IJCAI 2022, arXiv 2207.14552",
        tile_px=160,  # with the halo 256 pixels, as crops are by default: attention depends on the size
        receptive_field_px=0,
        stride=STRIDES[-1],
        good_for="Fields where the tissue around helps to tell what is a nucleus; it needs much data and is slow.",
    )
)
def build(width: int = 64) -> ScaleFormer:
    """Build ScaleFormer."""
    return ScaleFormer(width)
