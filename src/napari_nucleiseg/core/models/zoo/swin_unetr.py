"""Swin UNETR (Hatamizadeh et al., 2022), MONAI's, on pictures: a Swin transformer with a convolutional decoder."""

from __future__ import annotations

from collections.abc import Iterable
from types import ModuleType
from typing import Any, cast

import torch
from torch import Tensor, nn

from napari_nucleiseg.core.errors import ModelError
from napari_nucleiseg.core.models.registry import register_model
from napari_nucleiseg.core.models.zoo.contract import OUTPUTS, OnHeads, as_module, calm_last, library, zoo_spec

NORMS = ("batch", "instance")
# Patches of 2 px, then four mergings.
SIZE_MULTIPLE = 32
LEVELS = 4


class Stage(nn.Module):
    """A level of MONAI's Swin transformer for pictures, with its own blocks and merging, under the same names.

    MONAI's rounds sides up to whole windows by numpy, so that a program made of it would know the sides of one picture
    only. This counts in whole numbers, which a program can do, too; what comes out is the same to the last bit.

    Parameters
    ----------
    layer : nn.Module
        A ``monai.networks.nets.swin_unetr.BasicLayer`` of two dimensions.
    library : module
        ``monai.networks.nets.swin_unetr``.
    """

    def __init__(self, layer: Any, library: ModuleType) -> None:
        super().__init__()
        self.blocks: nn.ModuleList = layer.blocks
        self.downsample: nn.Module = layer.downsample
        self.window: tuple[int, ...] = layer.window_size
        self.shift: tuple[int, ...] = layer.shift_size
        self._fitted, self._masked = library.get_window_size, library.compute_mask

    def forward(self, x: Tensor) -> Tensor:
        """Return maps of half the sides and twice the channels, ``(batch, 2 * channels, y / 2, x / 2)``.

        Parameters
        ----------
        x : Tensor, shape (batch, channels, y, x)
            Of even sides.

        Raises
        ------
        ValueError
            While a program is made, if windows are as large as the maps: with larger pictures they would not be, and
            are shifted there, which the program could not know.
        """
        sides = x.shape[2:]
        traced = torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call] # public, by its page
        if traced or torch.compiler.is_exporting():
            self._must_be_smaller_than(sides)
        window, shift = self._fitted(sides, self.window, self.shift)
        whole = [side + (-side) % width for side, width in zip(sides, window, strict=True)]
        mask = self._masked(whole, window, shift, x.device)
        x = x.permute(0, 2, 3, 1)
        for block in cast("Iterable[nn.Module]", self.blocks):
            x = block(x, mask)
        return cast("Tensor", self.downsample(x)).permute(0, 3, 1, 2)

    def _must_be_smaller_than(self, sides: torch.Size) -> None:
        if any(width >= side for width, side in zip(self.window, sides, strict=True)):
            raise ValueError(
                f"its windows of {max(self.window)} tokens are as large as its coarsest maps of small pictures; choose "
                "windows of 7, or take the weight file"
            )


@register_model(
    zoo_spec(
        "swin-unetr",
        "Swin UNETR (windowed attention, convolutional decoder)",
        size_multiple=SIZE_MULTIPLE,
        paper="Hatamizadeh et al., BrainLes 2021, arXiv 2201.01266; Liu et al., ICCV 2021, arXiv 2103.14030",
        licence="Apache-2.0",
        receptive_field_px=756,
        stride=SIZE_MULTIPLE,
        good_for="Nuclei whose look depends on the tissue around them, where there are many examples or weights to "
        "start from. Slow without a graphics card.",
        needs="monai",
    )
)
def build(
    features: int = 24, depth: int = 2, heads: int = 3, *, window: int = 7, norm: str = "batch", drop_path: float = 0.0
) -> OnHeads:
    """Build Swin UNETR.

    Parameters
    ----------
    features : int
        Channels of the finest level, a multiple of 12; 24 is the library's default, 48 the published one.
    depth : int
        Blocks of each of the four levels; even, so that windows are shifted in every second one.
    heads : int
        Heads of attention at the finest level, doubled at each coarser one.
    window : int
        Side of a window of attention in tokens.
    norm : {"batch", "instance"}
        Normalisation of the convolutions. That of instances, as published, sees the whole tile.
    drop_path : float
        Share of blocks that are skipped while training, in 0..1.

    Raises
    ------
    ModelError
        If there is no such normalisation, or the channels cannot be shared among the heads.
    MissingDependencyError
        If MONAI, or einops, which it uses here, is not installed.
    """
    if norm not in NORMS or features % 12 or features % heads:
        raise ModelError(
            f"Swin UNETR takes features that are a multiple of 12 and of its heads, and norm {' or '.join(NORMS)}; "
            f"not {features} features, {heads} heads and {norm}"
        )
    nets = library("monai.networks.nets")
    library("einops")  # MONAI asks for it only once the network runs
    network = nets.SwinUNETR(
        in_channels=3,
        out_channels=OUTPUTS,
        depths=(depth,) * LEVELS,
        num_heads=tuple(heads * 2**level for level in range(LEVELS)),
        window_size=window,
        feature_size=features,
        norm_name=norm,
        dropout_path_rate=drop_path,
        spatial_dims=2,
    )
    swin = library("monai.networks.nets.swin_unetr")
    for level in range(1, LEVELS + 1):
        layers = getattr(network.swinViT, f"layers{level}")
        layers[0] = Stage(layers[0], swin)
    calm_last(cast("nn.Conv2d", network.out.conv.conv))
    return OnHeads(as_module(network))
