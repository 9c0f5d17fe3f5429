"""The U-Net of Ronneberger, Fischer and Brox (MICCAI 2015): as published, and padded with batch normalisation."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from napari_nucleiseg.core.models.registry import register_model
from napari_nucleiseg.core.models.spec import HeadSpec, ModelSpec

LEVELS = 4
MARGIN_PX = 92
HEADS = (HeadSpec("separated", 1, "sigmoid", "Nucleus probability, touching borders left out"),)


class UNet2015(nn.Module):
    """Four poolings down, four up-convolutions, skips by (cropped) concatenation, two classes.

    Parameters
    ----------
    in_channels : int
        1 in the paper (31,030,658 parameters), 3 for colour.
    width : int
        Channels of the first level, doubled at each pooling; 64 in the paper.
    padded : bool
        False: valid convolutions, an input side ``188 + 16 k`` gives ``side - 184``.
        True: same padding and batch normalisation, any side divisible by 16.
    dropout : float
        At the end of the contracting path.
    """

    def __init__(self, in_channels: int = 3, width: int = 64, padded: bool = False, dropout: float = 0.5) -> None:
        super().__init__()
        widths = [width * 2**level for level in range(LEVELS + 1)]
        self.padded = padded
        self.down = nn.ModuleList(
            self._double(in_channels if level == 0 else widths[level - 1], widths[level]) for level in range(LEVELS + 1)
        )
        self.pool = nn.MaxPool2d(2)
        self.dropout = nn.Dropout(dropout)
        self.up = nn.ModuleList(nn.ConvTranspose2d(widths[i + 1], widths[i], 2, stride=2) for i in range(LEVELS))
        self.merge = nn.ModuleList(self._double(widths[i + 1], widths[i]) for i in range(LEVELS))
        self.classes = nn.Conv2d(width, 2, 1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                fan_in = module.in_channels * math.prod(module.kernel_size)
                nn.init.normal_(module.weight, std=math.sqrt(2 / fan_in))

    def _double(self, inputs: int, outputs: int) -> nn.Sequential:
        layers: list[nn.Module] = []
        for first in (inputs, outputs):
            layers.append(nn.Conv2d(first, outputs, 3, padding=1 if self.padded else 0))
            if self.padded:
                layers.append(nn.BatchNorm2d(outputs))
            layers.append(nn.ReLU(inplace=True))
        return nn.Sequential(*layers)

    def class_logits(self, x: Tensor) -> Tensor:
        """Return the logits of background and nucleus, ``(batch, 2, y, x)``."""
        skips: list[Tensor] = []
        for level, block in enumerate(self.down):
            x = block(self.pool(x) if level else x)
            if level >= LEVELS - 1:
                x = self.dropout(x)
            skips.append(x)
        for level in reversed(range(LEVELS)):
            x = self.up[level](x)
            skip = skips[level] if self.padded else _crop(skips[level], x)
            x = self.merge[level](torch.cat([skip, x], dim=1))
        logits: Tensor = self.classes(x)
        return logits

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Return the raw map ``separated``; its sigmoid is the pixel-wise softmax of the two classes."""
        logits = self.class_logits(x)
        return {"separated": logits[:, 1:] - logits[:, :1]}


def _crop(skip: Tensor, like: Tensor) -> Tensor:
    """Cut the centre of `skip` to the height and width of `like`."""
    top, left = ((skip.shape[axis] - like.shape[axis]) // 2 for axis in (2, 3))
    return skip[:, :, top : top + like.shape[2], left : left + like.shape[3]]


@register_model(
    ModelSpec(
        name="unet-2015",
        title="U-Net as published in 2015 (valid convolutions, overlap-tile)",
        mpp_um=0.5,
        heads=HEADS,
        decoder="border",
        # Input 924, output 740: a tile is a multiple of 16, so that pooling falls alike in all, and no nucleus is cut.
        tile_px=640,
        halo_px=50,
        size_multiple=16,
        output_margin_px=MARGIN_PX,
        paper="Ronneberger et al., MICCAI 2015, arXiv 1505.04597",
        receptive_field_px=204,
        stride=16,
        good_for="Comparison with the network of 2015 as it was published, border weights and all.",
    )
)
def build_original(in_channels: int = 3, width: int = 64, dropout: float = 0.5) -> UNet2015:
    """Build the network as published."""
    return UNet2015(in_channels, width, padded=False, dropout=dropout)


@register_model(
    ModelSpec(
        name="unet-2015-padded",
        title="U-Net of 2015 with same padding and batch normalisation",
        mpp_um=0.5,
        heads=HEADS,
        decoder="border",
        tile_px=1024,
        halo_px=48,
        size_multiple=16,
        paper="Ronneberger et al., MICCAI 2015, arXiv 1505.04597; Ioffe & Szegedy, ICML 2015, arXiv 1502.03167",
        receptive_field_px=204,
        stride=16,
        good_for="A plain baseline that everybody knows, for comparisons; it learns from few pictures.",
    )
)
def build_padded(in_channels: int = 3, width: int = 64, dropout: float = 0.0) -> UNet2015:
    """Build the modern form."""
    return UNet2015(in_channels, width, padded=True, dropout=dropout)
