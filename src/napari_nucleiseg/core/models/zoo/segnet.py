"""SegNet (Badrinarayanan et al., TPAMI 2017): the decoder puts values back where max-pooling found them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from napari_nucleiseg.core.models.registry import register_model
from napari_nucleiseg.core.models.zoo.contract import OUTPUTS, calm_last, split_heads, zoo_spec
from napari_nucleiseg.core.models.zoo.fcn import (
    STAGE_CONVOLUTIONS,
    STAGE_WIDTHS,
    STRIDE,
    convolution,
    vgg16_stages,
)


class Unpool(nn.MaxUnpool2d):
    """Puts values back where a 2x2 max-pooling found them, zeros elsewhere; exported files do it by scattering.

    Torch's own unpooling is several times quicker, but neither its tracing nor ONNX knows it.
    """

    def __init__(self) -> None:
        super().__init__(2)

    def forward(self, x: Tensor, where: Tensor, output_size: list[int] | None = None) -> Tensor:
        """Return ``(batch, channels, 2 y, 2 x)``; `where` is what the pooling told."""
        if not (torch.jit.is_tracing() or torch.compiler.is_exporting()):  # type: ignore[attr-defined,no-untyped-call]
            return super().forward(x, where, output_size)
        batch, channels, height, width = x.shape
        spread = x.new_zeros(batch, channels, 4 * height * width).scatter(2, where.flatten(2), x.flatten(2))
        return spread.view(batch, channels, 2 * height, 2 * width)


class SegNet(nn.Module):
    """The 13 convolutions of VGG16 and their mirror image; input sides divisible by 32, outputs of the same size.

    Nothing but the places of the maxima goes from encoder to decoder: an unpooled map is zero everywhere else, and the
    convolutions after it fill it in.

    Parameters
    ----------
    width : int
        Channels of the first stage; 64 in the paper.
    """

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.encoder = vgg16_stages(width, batch_norm=True)
        self.pool = nn.MaxPool2d(2, return_indices=True)
        self.unpool = Unpool()
        channels = [width * widths for widths in STAGE_WIDTHS]
        self.decoder = nn.ModuleList(
            nn.Sequential(
                *(convolution(channels[stage], channels[stage]) for _ in range(1, STAGE_CONVOLUTIONS[stage])),
                convolution(channels[stage], channels[stage - 1]) if stage else nn.Conv2d(width, OUTPUTS, 3, padding=1),
            )
            for stage in range(len(channels))
        )
        calm_last(self.decoder[0][-1])  # type: ignore[index] # the last convolution of a sequence

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Return the raw maps of all heads, each ``(batch, channels, y, x)``."""
        places: list[Tensor] = []
        for stage in self.encoder:
            x, where = self.pool(stage(x))
            places.append(where)
        for stage, where in zip(reversed(self.decoder), reversed(places), strict=True):
            x = stage(self.unpool(x, where))
        return split_heads(x)


@register_model(
    zoo_spec(
        "segnet",
        "SegNet: VGG16 and its mirror image, unpooled where the maxima were",
        paper="Badrinarayanan et al., TPAMI 2017, doi 10.1109/TPAMI.2016.2644615, arXiv 1511.00561",
        receptive_field_px=404,
        stride=STRIDE,
        good_for="A baseline without skips of features: less memory than a U-Net, and small nuclei suffer for it.",
    )
)
def build(width: int = 64) -> SegNet:
    """Build SegNet."""
    return SegNet(width)
