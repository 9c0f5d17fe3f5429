"""U-Net++ (Zhou et al., DLMIA 2018), MONAI's: nested decoders between encoder and decoder, each with an output."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from torch import Tensor, nn

from napari_nucleiseg.core.errors import ModelError
from napari_nucleiseg.core.models.registry import register_model
from napari_nucleiseg.core.models.zoo.contract import (
    OUTPUTS,
    as_module,
    calm_last,
    library,
    with_side_outputs,
    zoo_spec,
)

# Channels of the five levels in units of the first one's, and of the last node.
_LEVELS = (1, 2, 4, 8, 16, 1)
NORMS = ("batch", "instance")
# Nodes X(0,1) to X(0,4) of the paper, all of full size.
DEPTHS = (1, 2, 3, 4)


class UNetPlusPlus(nn.Module):
    """U-Net++ on the contract; input ``(batch, 3, y, x)`` with sides divisible by 16.

    Parameters
    ----------
    width : int
        Channels of the finest level; 32 as published.
    norm : {"batch", "instance"}
        Normalisation. That of instances sees the whole tile.
    dropout : float
        In 0..1.
    deep_supervision : bool
        Whether the shallower nodes learn, too.
    depth : int
        Which node answers, 1..4: a shallower one is what the paper calls pruned. While training, the shallower ones
        are side outputs, the deepest of them first.

    Raises
    ------
    ModelError
        If there is no such normalisation or node.
    MissingDependencyError
        If MONAI is not installed.
    """

    def __init__(
        self,
        width: int = 32,
        norm: str = "batch",
        dropout: float = 0.0,
        *,
        deep_supervision: bool = True,
        depth: int = 4,
    ) -> None:
        super().__init__()
        if norm not in NORMS or depth not in DEPTHS:
            raise ModelError(f"U-Net++ takes norm {' or '.join(NORMS)} and depth 1 to 4, not {norm} and {depth}")
        self.supervised, self.depth = deep_supervision, depth
        self.body = as_module(
            library("monai.networks.nets").BasicUNetPlusPlus(
                spatial_dims=2,
                in_channels=3,
                out_channels=OUTPUTS,
                features=tuple(width * level for level in _LEVELS),
                deep_supervision=True,  # all nodes in a list; which of them count is decided here
                act=("relu", {"inplace": True}),
                norm=norm if norm == "batch" else (norm, {"affine": True}),
                dropout=dropout,
            )
        )
        for node in DEPTHS:
            calm_last(cast("nn.Conv2d", getattr(self.body, f"final_conv_0_{node}")))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Return the raw map of each head; while training also those of the shallower nodes, the deepest first."""
        nodes = cast("Sequence[Tensor]", self.body(x))
        return with_side_outputs(list(nodes[: self.depth])[::-1], training=self.training and self.supervised)


@register_model(
    zoo_spec(
        "unet-plusplus",
        "U-Net++ (nested decoders, deep supervision)",
        size_multiple=16,
        paper="Zhou et al., DLMIA 2018, arXiv 1807.10165",
        licence="Apache-2.0",
        receptive_field_px=204,
        stride=16,
        good_for="Fine outlines at full resolution from few examples: it learns at four depths at once. Slower and "
        "hungrier for memory than a U-Net of as many parameters.",
        needs="monai",
    )
)
def build(
    width: int = 32, norm: str = "batch", dropout: float = 0.0, *, deep_supervision: bool = True, depth: int = 4
) -> UNetPlusPlus:
    """Build U-Net++; `UNetPlusPlus` explains the parameters."""
    return UNetPlusPlus(width, norm, dropout, deep_supervision=deep_supervision, depth=depth)
