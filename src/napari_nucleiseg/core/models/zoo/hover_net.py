"""HoVer-Net (Graham et al., Medical Image Analysis 2019): nuclei, and how far each pixel is from its nucleus' centre.

The layers are those of monai. It is walked over them here, because monai's own forward takes pictures of 256 pixels
only, leaves the skips out where its decoders are padded, and stretches coarse maps so that what a pixel says depends
on where the tile ends. Coarse pixels are repeated, as in the authors' code.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the name everyone knows it by

from napari_nucleiseg.core.models.registry import register_model
from napari_nucleiseg.core.models.spec import HeadSpec
from napari_nucleiseg.core.models.zoo.contract import as_module, calm_last, library, zoo_spec

HEADS = (
    HeadSpec("nuclei", 1, "sigmoid", "Nucleus probability"),
    HeadSpec("hover", 2, "none", "Vertical and horizontal distance to the centre", shown=False),
)


class HoverNet(nn.Module):
    """The fast form of HoVer-Net, padded; input ``(batch, 3, y, x)`` with sides divisible by 8.

    Parameters
    ----------
    dropout : float
        Probability that a channel is dropped after each unit of the encoder.
    """

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        nets = library("monai.networks.nets", "monai")
        body = nets.HoVerNet(mode="fast", np_out_channels=2, decoder_padding=True, dropout_prob=dropout)
        self.body = as_module(body)
        for branch in (body.nucleus_prediction, body.horizontal_vertical):
            calm_last(branch.output_features[-1].conv)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Return the raw maps of ``nuclei`` and of ``hover``, vertical distance first.

        The network gives a score for nuclei and one for background: their difference has the softmax as its sigmoid.
        """
        body = self.body
        x = body.conv0(x)  # type: ignore[operator] # a module, as all that follow
        skips: list[Tensor] = []
        for block in body.res_blocks:  # type: ignore[union-attr]
            x = block(x)
            skips.append(x)
        x = _finer(body.bottleneck(x))  # type: ignore[operator]
        classes = decoded(body.nucleus_prediction, x, skips)  # type: ignore[arg-type]
        away = decoded(body.horizontal_vertical, x, skips)  # type: ignore[arg-type]
        return {"nuclei": (classes[:, 1:] - classes[:, :1]).float(), "hover": away.float()}


def decoded(branch: nn.Module, x: Tensor, skips: Sequence[Tensor]) -> Tensor:
    """Return what a branch of monai's HoVer-Net makes of features at a quarter of the picture's size.

    Parameters
    ----------
    branch : nn.Module
        With ``decoder_blocks`` and ``output_features``.
    x : Tensor
        Bottleneck, ``(batch, 1024, y / 4, x / 4)``.
    skips : sequence of Tensor
        Of the encoder at full, half and a quarter of the size.
    """
    x = x + skips[2]
    for block, skip in zip(branch.decoder_blocks, (skips[1], skips[0]), strict=True):  # type: ignore[arg-type]
        x = _finer(block(x)) + skip
    for block in branch.output_features:  # type: ignore[union-attr]
        x = block(x)
    return x


def _finer(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2.0, mode="nearest")


SPEC = replace(
    zoo_spec(
        "hover-net",
        "HoVer-Net, horizontal and vertical distances, at 0.5 µm/px",
        paper="Graham et al., Medical Image Analysis 2019, arXiv 1812.06499",
        licence="Apache-2.0",
        receptive_field_px=207,
        stride=8,
        needs="monai",
        good_for="Crowded, touching nuclei, and comparison with the network most others are measured against; slow.",
        decoder="hover",
        size_multiple=8,
        # It works on 256 channels at full size: a tile of 1024 pixels would need several gigabytes.
        tile_px=512,
        halo_px=64,
    ),
    heads=HEADS,
)


@register_model(SPEC)
def build(dropout: float = 0.0) -> HoverNet:
    """Build HoVer-Net without the branch that names kinds of cells."""
    return HoverNet(dropout)
