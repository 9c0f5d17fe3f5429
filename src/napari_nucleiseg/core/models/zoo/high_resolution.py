"""Networks that keep a fine stream beside coarser ones: of windowed attention (HRSTNet) and of convolutions (HRNet)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the name everyone knows it by

from napari_nucleiseg.core.errors import ModelError
from napari_nucleiseg.core.models.registry import register_model
from napari_nucleiseg.core.models.zoo.contract import OUTPUTS, OnHeads, as_module, calm_last, library, zoo_spec

PATCH_PX = 4
STREAMS = (2, 3, 4)
Streams = list[Tensor]


class WindowAttention(nn.Module):
    """Attention among the tokens of a window, with a learned bias for each offset (Liu et al., ICCV 2021).

    Parameters
    ----------
    channels, heads : int
        Channels are shared among the heads.
    window : int
        Side of a window in tokens.
    """

    def __init__(self, channels: int, heads: int, window: int) -> None:
        super().__init__()
        self.heads = heads
        self.query_key_value = nn.Linear(channels, 3 * channels)
        self.last = nn.Linear(channels, channels)
        self.bias = nn.Parameter(nn.init.trunc_normal_(torch.empty(heads, (2 * window - 1) ** 2), std=0.02))
        place = torch.arange(window)
        offset = place[:, None] - place[None] + window - 1  # of two places on one axis, from 0
        of_pairs = offset[:, None, :, None] * (2 * window - 1) + offset[None, :, None, :]
        self.offsets: Tensor
        self.register_buffer("offsets", of_pairs.reshape(window**2, window**2), persistent=False)

    def forward(self, x: Tensor, apart: Tensor) -> Tensor:
        """Let the tokens of each window attend to each other.

        Parameters
        ----------
        x : Tensor, shape (batch, windows, tokens, channels)
            Floating point.
        apart : Tensor, shape (windows, tokens, tokens)
            True for two tokens that may not attend to each other.

        Returns
        -------
        Tensor
            As `x`.
        """
        batch, windows, tokens, channels = x.shape
        parts = self.query_key_value(x).view(batch, windows, tokens, 3, self.heads, channels // self.heads)
        query, key, value = parts.permute(3, 0, 1, 4, 2, 5).reshape(3, batch, windows * self.heads, tokens, -1)
        bias = self.bias[:, self.offsets].to(query.dtype)
        bias = bias.masked_fill(apart[:, None], -torch.inf).reshape(1, windows * self.heads, tokens, tokens)
        found = F.scaled_dot_product_attention(query, key, value, attn_mask=bias)
        found = found.view(batch, windows, self.heads, tokens, -1).transpose(2, 3).reshape(x.shape)
        return cast("Tensor", self.last(found))


class SwinBlock(nn.Module):
    """Attention in windows, then a perceptron, both behind a normalisation and beside a skip; any height and width.

    Parameters
    ----------
    channels, heads, window : int
        As for `WindowAttention`.
    shifted : bool
        Whether windows are shifted by half of their side; what meets only by going round the edge stays apart.
    drop_path : float
        Share of pictures whose branches are skipped while training.
    """

    def __init__(self, channels: int, heads: int, window: int, *, shifted: bool, drop_path: float = 0.0) -> None:
        super().__init__()
        self.window, self.shift, self.drop_path = window, window // 2 if shifted else 0, drop_path
        self.before = nn.LayerNorm(channels)
        self.attention = WindowAttention(channels, heads, window)
        self.between = nn.LayerNorm(channels)
        self.perceptron = nn.Sequential(nn.Linear(channels, 4 * channels), nn.GELU(), nn.Linear(4 * channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        """Return tokens ``(batch, y, x, channels)`` of tokens of the same shape."""
        x = x + self._dropped(self._attend(self.before(x)))
        return x + self._dropped(self.perceptron(self.between(x)))

    def _attend(self, x: Tensor) -> Tensor:
        """Pad to whole windows, shift, attend, and undo both."""
        batch, height, width, channels = x.shape
        side = self.window
        x = F.pad(x, (0, 0, 0, -width % side, 0, -height % side))
        rows, columns = x.shape[1] // side, x.shape[2] // side
        x = torch.roll(x, (-self.shift, -self.shift), (1, 2))
        windows = x.view(batch, rows, side, columns, side, channels).transpose(2, 3)
        found = self.attention(windows.reshape(batch, rows * columns, side**2, channels), self._apart(x, height, width))
        x = found.view(batch, rows, columns, side, side, channels).transpose(2, 3).reshape(x.shape)
        return torch.roll(x, (self.shift, self.shift), (1, 2))[:, :height, :width]

    def _apart(self, padded: Tensor, height: int, width: int) -> Tensor:
        """Return which tokens of a window may not attend to each other: padding, and what comes from the far side."""
        side = self.window
        marks = []
        for length, whole in ((height, padded.shape[1]), (width, padded.shape[2])):
            place = torch.arange(whole, device=padded.device)
            marks.append(torch.roll((place < self.shift) + 2 * (place >= length), -self.shift).view(-1, side))
        both = 4 * marks[0][:, None, :, None] + marks[1][None, :, None, :]
        both = both.reshape(-1, side**2)
        return both[:, :, None] != both[:, None, :]

    def _dropped(self, branch: Tensor) -> Tensor:
        """Skip the branch of some pictures while training (stochastic depth, Huang et al., ECCV 2016)."""
        if not (self.training and self.drop_path):
            return branch
        kept = torch.rand(len(branch), 1, 1, 1, device=branch.device) >= self.drop_path
        return branch * kept / (1 - self.drop_path)


class Merging(nn.Module):
    """Four neighbours become one token: ``(batch, y, x, channels)`` to ``(batch, y / 2, x / 2, 2 * channels)``."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * channels)
        self.project = nn.Linear(4 * channels, 2 * channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return the coarser tokens."""
        batch, height, width, channels = x.shape
        four = x.view(batch, height // 2, 2, width // 2, 2, channels).transpose(2, 3).flatten(3)
        return cast("Tensor", self.project(self.norm(four)))


class Expanding(nn.Module):
    """One token becomes several neighbours: ``(batch, y, x, channels)`` to ``(batch, f * y, f * x, outputs)``.

    Parameters
    ----------
    channels, outputs : int
        Of a token before and after.
    factor : int
        Called f above.
    """

    def __init__(self, channels: int, outputs: int, factor: int = 2) -> None:
        super().__init__()
        self.factor = factor
        self.project = nn.Linear(channels, factor**2 * outputs, bias=False)
        self.norm = nn.LayerNorm(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Return the finer tokens."""
        batch, height, width, _ = x.shape
        factor = self.factor
        finer = self.project(x).view(batch, height, width, factor, factor, -1).transpose(2, 3)
        return cast("Tensor", self.norm(finer.reshape(batch, factor * height, factor * width, -1)))


class Fusion(nn.Module):
    """Fuses streams: each output is made of all inputs, merged or expanded to its size, joined and projected.

    Parameters
    ----------
    width : int
        Channels of the finest stream, doubled at each coarser one.
    inputs, outputs : int
        Streams before and after, the finest first; one more after than before is a new, coarser one.
    """

    def __init__(self, width: int, inputs: int, outputs: int) -> None:
        super().__init__()
        widths = [width * 2**level for level in range(max(inputs, outputs))]
        self.paths = nn.ModuleList(
            nn.ModuleList(_resampling(widths, start, target) for start in range(inputs)) for target in range(outputs)
        )
        self.project = nn.ModuleList(nn.Linear(inputs * widths[target], widths[target]) for target in range(outputs))

    def forward(self, streams: Streams) -> Streams:
        """Return the fused streams, tokens ``(batch, y, x, channels)`` each."""
        return [
            project(torch.cat([path(x) for path, x in zip(cast("nn.ModuleList", paths), streams, strict=True)], dim=-1))
            for paths, project in zip(self.paths, self.project, strict=True)
        ]


def _resampling(widths: Sequence[int], start: int, target: int) -> nn.Sequential:
    """Return what brings a stream to the size and channels of another."""
    merged = [Merging(widths[level]) for level in range(start, target)]
    expanded = [Expanding(widths[level], widths[level - 1]) for level in range(start, target, -1)]
    return nn.Sequential(*merged, *expanded)


class HighResolutionSwin(nn.Module):
    """HRSTNet on pictures: streams of Swin blocks, one more after each stage, all fused with all.

    Parameters
    ----------
    width : int
        Channels of the finest stream, a multiple of `heads`; 96 as published.
    streams : int
        2, 3 or 4: of 1/4, 1/8, 1/16 and 1/32 of the input's height and width.
    depth : int
        Blocks of a stream in a stage; even, so that windows are shifted in every second one.
    heads : int
        Heads of attention of the finest stream, doubled at each coarser one.
    window : int
        Side of a window of attention in tokens.
    drop_path : float
        Share of branches that are skipped in the last stage while training; it grows from 0 in the first.

    Raises
    ------
    ModelError
        If there cannot be so many streams, or the channels cannot be shared among the heads.
    """

    def __init__(self, width: int, streams: int, depth: int, heads: int, *, window: int, drop_path: float) -> None:
        super().__init__()
        if streams not in STREAMS or width % heads:
            raise ModelError(
                f"a high-resolution Swin has 2 to 4 streams and a width that its heads divide; not {streams} streams, "
                f"width {width} and {heads} heads"
            )
        self.stem = nn.Conv2d(3, width, PATCH_PX, PATCH_PX)
        self.norm = nn.LayerNorm(width)
        self.stages = nn.ModuleList()
        self.fusions = nn.ModuleList()
        for stage in range(1, streams + 1):
            rate = drop_path * (stage - 1) / (streams - 1)
            self.stages.append(
                nn.ModuleList(
                    nn.Sequential(
                        *(
                            SwinBlock(width * 2**s, heads * 2**s, window, shifted=bool(block % 2), drop_path=rate)
                            for block in range(depth)
                        )
                    )
                    for s in range(stage)
                )
            )
            self.fusions.append(Fusion(width, stage, stage + 1 if stage < streams else 1))
        fine = max(width // 4, 8)
        self.expand = Expanding(width, fine, PATCH_PX)
        self.last = nn.Conv2d(fine, OUTPUTS, 3, padding=1)
        calm_last(self.last)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(batch, OUTPUTS, y, x)``."""
        streams = [self.norm(self.stem(x).permute(0, 2, 3, 1))]
        for blocks, fusion in zip(self.stages, self.fusions, strict=True):
            pairs = zip(cast("nn.ModuleList", blocks), streams, strict=True)
            streams = fusion([block(stream) for block, stream in pairs])
        return cast("Tensor", self.last(self.expand(streams[0]).permute(0, 3, 1, 2)))


@register_model(
    zoo_spec(
        "high-resolution-swin",
        "High-resolution Swin (HRSTNet: streams of windowed attention)",
        size_multiple=PATCH_PX * 8,
        paper="Wei et al., Sensors 2023, arXiv 2207.11553; Liu et al., ICCV 2021, arXiv 2103.14030",
        receptive_field_px=1064,
        stride=PATCH_PX * 8,
        good_for="Nuclei in context, where a graphics card and many examples are at hand: no stream ever loses the "
        "fine tokens. A width of 24 is still quick.",
    )
)
def build_swin(
    width: int = 96, streams: int = 4, depth: int = 2, heads: int = 3, *, window: int = 7, drop_path: float = 0.2
) -> OnHeads:
    """Build it; `HighResolutionSwin` explains the parameters."""
    return OnHeads(HighResolutionSwin(width, streams, depth, heads, window=window, drop_path=drop_path))


class HighResolutionConvolution(nn.Module):
    """HRNetV2: all streams of an HRNet, brought to the finest one's size, decide together.

    Parameters
    ----------
    trunk : nn.Module
        Gives its streams of 1/4, 1/8, 1/16 and 1/32 of the input's height and width.
    channels : int
        Of all streams together.
    """

    def __init__(self, trunk: nn.Module, channels: int) -> None:
        super().__init__()
        self.trunk = trunk
        last = nn.Conv2d(channels, OUTPUTS * PATCH_PX**2, 1)
        self.head = nn.Sequential(
            nn.Conv2d(channels, channels, 1, bias=False), nn.BatchNorm2d(channels), nn.ReLU(inplace=True), last
        )
        calm_last(last)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(batch, OUTPUTS, y, x)``; each place of the finest stream fills 4 x 4 pixels of its own."""
        streams = cast("Streams", self.trunk(x))
        size = streams[0].shape[2:]
        joined = [streams[0], *(F.interpolate(one, size=size, mode="bilinear") for one in streams[1:])]
        return F.pixel_shuffle(self.head(torch.cat(joined, dim=1)), PATCH_PX)


@register_model(
    zoo_spec(
        "hrnet",
        "HRNet (streams of convolutions at four resolutions)",
        size_multiple=32,
        paper="Wang et al., TPAMI 2020, arXiv 1908.07919",
        licence="Apache-2.0",
        receptive_field_px=1071,
        stride=32,
        good_for="Outlines and context at once with few parameters; the small ones run well without a graphics card.",
        needs="timm",
    )
)
def build_hrnet(variant: str = "hrnet_w18_small_v2") -> OnHeads:
    """Build HRNetV2 on timm's trunk, with random weights.

    Parameters
    ----------
    variant : str
        As timm calls it: ``hrnet_w18_small``, ``hrnet_w18_small_v2``, ``hrnet_w18`` up to ``hrnet_w64``.

    Raises
    ------
    ModelError
        If timm has no such HRNet.
    MissingDependencyError
        If timm is not installed.
    """
    timm = library("timm")
    if variant not in timm.list_models("hrnet_*"):
        raise ModelError(f"timm has no {variant}; there are {', '.join(timm.list_models('hrnet_*'))}")
    # The raw streams; the features that timm gives otherwise are widened for a classifier.
    trunk = timm.create_model(
        variant, pretrained=False, features_only=True, feature_location="", out_indices=(1, 2, 3, 4)
    )
    return OnHeads(HighResolutionConvolution(as_module(trunk), sum(trunk.feature_info.channels())))
