"""FCN-32s, 16s and 8s (Long et al., CVPR 2015): VGG16 made convolutional, scores of several depths added up."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from napari_nucleiseg.core.models.registry import register_model
from napari_nucleiseg.core.models.spec import ModelSpec
from napari_nucleiseg.core.models.zoo.contract import OUTPUTS, calm_last, split_heads, zoo_spec

# Convolutions of each stage of VGG16 (Simonyan and Zisserman, ICLR 2015), and its channels in widths.
STAGE_CONVOLUTIONS = (2, 2, 3, 3, 3)
STAGE_WIDTHS = (1, 2, 4, 8, 8)
STRIDE = 2 ** len(STAGE_WIDTHS)
_HIDDEN_WIDTHS = 64  # fc6 and fc7 have 4096 channels


def convolution(inputs: int, outputs: int, kernel: int = 3, *, batch_norm: bool = True) -> nn.Sequential:
    """Return a convolution that keeps height and width, batch normalisation if wanted, and ReLU."""
    layers: list[nn.Module] = [nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=not batch_norm)]
    nn.init.kaiming_normal_(layers[0].weight, nonlinearity="relu")  # type: ignore[arg-type] # of a convolution
    if batch_norm:
        layers.append(nn.BatchNorm2d(outputs))
    elif isinstance(bias := layers[0].bias, Tensor):
        nn.init.zeros_(bias)
    return nn.Sequential(*layers, nn.ReLU(inplace=True))


def vgg16_stages(width: int, *, batch_norm: bool) -> nn.ModuleList:
    """Return the five stages of VGG16 without their poolings; `width` is 64 in the paper."""
    channels = (3, *(width * widths for widths in STAGE_WIDTHS))
    return nn.ModuleList(
        nn.Sequential(
            convolution(channels[stage], channels[stage + 1], batch_norm=batch_norm),
            *(
                convolution(channels[stage + 1], channels[stage + 1], batch_norm=batch_norm)
                for _ in range(1, STAGE_CONVOLUTIONS[stage])
            ),
        )
        for stage in range(len(STAGE_WIDTHS))
    )


class Enlarge(nn.ConvTranspose2d):
    """Transposed convolution of each map by itself that starts as bilinear interpolation.

    Parameters
    ----------
    channels : int
        Maps, ``(batch, channels, y, x)``.
    factor : int
        Output pixels per input pixel along each axis, even.
    """

    def __init__(self, channels: int, factor: int) -> None:
        super().__init__(
            channels, channels, 2 * factor, stride=factor, padding=factor // 2, groups=channels, bias=False
        )
        tent = 1 - (torch.arange(2 * factor) - factor + 0.5).abs() / factor
        with torch.no_grad():
            self.weight.copy_(torch.outer(tent, tent).expand_as(self.weight))


class FCN(nn.Module):
    """VGG16 whose fully connected layers are convolutions; input sides divisible by 32, outputs of the same size.

    The paper pads the first convolution by 100 pixels and crops at the end, because its 7x7 convolution is valid. Here
    that is padded as the others are, so nothing has to be cropped. The paper starts from weights of ImageNet, which
    VGG16 needs as long as its layers are not normalised; with batch normalisation it learns from random weights.

    Parameters
    ----------
    skips : sequence of int
        Stages, deepest first, whose pooled features are scored too: none for 32s, ``(3,)`` for 16s, ``(3, 2)`` for 8s.
    width : int
        Channels of the first stage; 64 in the paper, which makes 4096 of fc6 and fc7.
    batch_norm : bool
        Batch normalisation after each convolution; not in the paper.
    dropout : float
        After fc6 and fc7; 0.5 in the paper.
    """

    def __init__(self, skips: Sequence[int], width: int, dropout: float, *, batch_norm: bool) -> None:
        super().__init__()
        self.skips = tuple(skips)
        self.stages = vgg16_stages(width, batch_norm=batch_norm)
        self.pool = nn.MaxPool2d(2)
        hidden = width * _HIDDEN_WIDTHS
        self.hidden = nn.Sequential(
            convolution(width * STAGE_WIDTHS[-1], hidden, 7, batch_norm=batch_norm),
            nn.Dropout(dropout),
            convolution(hidden, hidden, 1, batch_norm=batch_norm),
            nn.Dropout(dropout),
        )
        self.score = _score(hidden)
        self.skip_scores = nn.ModuleList(_score(width * STAGE_WIDTHS[stage]) for stage in self.skips)
        self.twice = nn.ModuleList(Enlarge(OUTPUTS, 2) for _ in self.skips)
        self.last = Enlarge(OUTPUTS, STRIDE // 2 ** len(self.skips))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Return the raw maps of all heads, each ``(batch, channels, y, x)``."""
        pooled: list[Tensor] = []
        for stage in self.stages:
            x = self.pool(stage(x))
            pooled.append(x)
        scores = self.score(self.hidden(x))
        for number, score, twice in zip(self.skips, self.skip_scores, self.twice, strict=True):
            scores = twice(scores) + score(pooled[number])
        return split_heads(self.last(scores))


def _score(channels: int) -> nn.Conv2d:
    """Return the 1x1 convolution that scores the features of one depth."""
    score = nn.Conv2d(channels, OUTPUTS, 1)
    calm_last(score)
    return score


def _spec(finest: int, receptive_field_px: int, good_for: str) -> ModelSpec:
    return zoo_spec(
        f"fcn-{finest}s",
        f"FCN-{finest}s: VGG16 made convolutional, its scores enlarged {finest} times",
        paper="Long et al., CVPR 2015, arXiv 1411.4038; Simonyan & Zisserman, ICLR 2015, arXiv 1409.1556",
        receptive_field_px=receptive_field_px,
        stride=STRIDE,
        good_for=good_for,
    )


@register_model(
    _spec(
        32, 436, "A historical baseline: its outlines are 32 pixels coarse, so neighbouring nuclei run into each other."
    )
)
def build_32s(width: int = 64, dropout: float = 0.5, batch_norm: bool = True) -> FCN:
    """Build FCN-32s: the scores of the deepest layer alone."""
    return FCN((), width, dropout, batch_norm=batch_norm)


@register_model(
    _spec(16, 468, "A historical baseline between FCN-32s and FCN-8s, to see what one skip is worth on large nuclei.")
)
def build_16s(width: int = 64, dropout: float = 0.5, batch_norm: bool = True) -> FCN:
    """Build FCN-16s: scores of the fourth pooling added."""
    return FCN((3,), width, dropout, batch_norm=batch_norm)


@register_model(
    _spec(8, 468, "The strongest FCN, for comparisons: 134 million weights, and outlines still 8 pixels coarse.")
)
def build_8s(width: int = 64, dropout: float = 0.5, batch_norm: bool = True) -> FCN:
    """Build FCN-8s: scores of the fourth and the third pooling added."""
    return FCN((3, 2), width, dropout, batch_norm=batch_norm)
