"""DeepLab v3 and v3+ (Chen et al., 2017 and ECCV 2018), those of segmentation-models-pytorch with the papers' rates."""

from __future__ import annotations

from typing import cast

from torch import nn

from napari_nucleiseg.core.errors import ModelError
from napari_nucleiseg.core.models.pooled_norm import PooledBatchNorm
from napari_nucleiseg.core.models.registry import register_model
from napari_nucleiseg.core.models.zoo.contract import OUTPUTS, OnHeads, as_module, calm_last, library, zoo_spec

# Both papers' at an output stride of 16; the library's own are twice as wide, which the papers use at 8.
RATES = (6, 12, 18)
OUTPUT_STRIDE = 16
PACKAGE = "segmentation-models-pytorch"


def _deeplab(class_name: str, encoder: str, channels: int, dropout: float) -> OnHeads:
    """Build one of the library's two networks, without weights of others.

    Raises
    ------
    ModelError
        If the library has no such encoder.
    MissingDependencyError
        If the library is not installed.
    """
    smp = library("segmentation_models_pytorch", PACKAGE)
    try:
        network = getattr(smp, class_name)(
            encoder_name=encoder,
            encoder_weights=None,  # weights come from weight files alone
            encoder_output_stride=OUTPUT_STRIDE,
            decoder_channels=channels,
            decoder_atrous_rates=RATES,
            decoder_aspp_dropout=dropout,
            in_channels=3,
            classes=OUTPUTS,
        )
    except KeyError as error:
        raise ModelError(
            f"{PACKAGE} has no encoder called {encoder}; resnet50, resnet18 and mobilenet_v2 are some of those it has"
        ) from error
    body = as_module(network)
    _fit_to_tiles(body)
    calm_last(cast("nn.Conv2d", network.segmentation_head[0]))
    return OnHeads(body)


def _fit_to_tiles(body: nn.Module) -> None:
    """Let maps lie alike in tiles of every size, and let the pooled branch learn from a single picture."""
    for part in body.modules():
        if isinstance(part, nn.Upsample):
            # With aligned corners a map is stretched by up to its stride, the more the nearer to the right edge, and
            # differently in tiles of another size: nuclei would move.
            part.align_corners = False
        if isinstance(part, nn.Sequential) and any(isinstance(child, nn.AdaptiveAvgPool2d) for child in part):
            for place, child in enumerate(part):
                if isinstance(child, nn.BatchNorm2d):
                    part[place] = PooledBatchNorm(child.num_features)


@register_model(
    zoo_spec(
        "deeplab-v3",
        "DeepLab v3 (atrous pyramid pooling at rates 6, 12, 18)",
        size_multiple=OUTPUT_STRIDE,
        paper="Chen et al., 2017, arXiv 1706.05587",
        licence="MIT",
        stride=OUTPUT_STRIDE,
        good_for="Large structures, such as glands and tumour regions: it sees far, but its maps have one value every "
        "16 px, so that touching nuclei melt together.",
        needs=PACKAGE,
    )
)
def build_v3(encoder: str = "resnet50", channels: int = 256, dropout: float = 0.5) -> OnHeads:
    """Build DeepLab v3.

    Parameters
    ----------
    encoder : str
        As the library calls it, one that can be dilated: ``resnet18`` to ``resnet152``, ``mobilenet_v2``, ``tu-...``.
    channels : int
        Of each branch of the pyramid; 256 as published.
    dropout : float
        After the pyramid, in 0..1.
    """
    return _deeplab("DeepLabV3", encoder, channels, dropout)


@register_model(
    zoo_spec(
        "deeplab-v3plus",
        "DeepLab v3+ (atrous pyramid pooling, decoder with details)",
        size_multiple=OUTPUT_STRIDE,
        paper="Chen et al., ECCV 2018, arXiv 1802.02611",
        licence="MIT",
        stride=OUTPUT_STRIDE,
        good_for="Regions and well separated nuclei with sharper outlines than v3: features of one value every 4 px "
        "join the far-sighted ones.",
        needs=PACKAGE,
    )
)
def build_v3plus(encoder: str = "resnet50", channels: int = 256, dropout: float = 0.5) -> OnHeads:
    """Build DeepLab v3+; parameters as for `build_v3`."""
    return _deeplab("DeepLabV3Plus", encoder, channels, dropout)
