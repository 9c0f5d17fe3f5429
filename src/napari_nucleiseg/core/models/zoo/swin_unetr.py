"""Swin UNETR (Hatamizadeh et al., 2022), MONAI's, on pictures: a Swin transformer with a convolutional decoder."""

from __future__ import annotations

from typing import cast

from torch import nn

from napari_nucleiseg.core.errors import ModelError
from napari_nucleiseg.core.models.registry import register_model
from napari_nucleiseg.core.models.zoo.contract import OUTPUTS, OnHeads, as_module, calm_last, library, zoo_spec

NORMS = ("batch", "instance")
# Patches of 2 px, then four mergings.
SIZE_MULTIPLE = 32


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
        depths=(depth,) * 4,
        num_heads=tuple(heads * 2**level for level in range(4)),
        window_size=window,
        feature_size=features,
        norm_name=norm,
        dropout_path_rate=drop_path,
        spatial_dims=2,
    )
    calm_last(cast("nn.Conv2d", network.out.conv.conv))
    return OnHeads(as_module(network))
