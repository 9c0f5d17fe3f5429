"""Networks for z-stacks: the 3-D U-Net and V-Net, of the layers that MONAI builds them of.

They take one channel on cubes of half a micrometre: ``(batch, 1, z, y, x)``.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from napari_nucleiseg.core.models.registry import register_model
from napari_nucleiseg.core.models.spec import HeadSpec, ModelSpec
from napari_nucleiseg.core.models.zoo.contract import as_module, calm_last, library, zoo_spec

# Offsets would need a third channel; the decoder of stacks does without.
STACK_HEADS = (
    HeadSpec("nuclei", 1, "sigmoid", "Nucleus probability"),
    HeadSpec("distance", 1, "sigmoid", "Distance to the border"),
    HeadSpec("separated", 1, "sigmoid", "Nucleus probability, touching borders left out"),
)
_LEVELS = 4


class OnStackHeads(nn.Module):
    """A network that gives ``(batch, 3, z, y, x)``, on the contract of the registry.

    Parameters
    ----------
    body : nn.Module
        From ``(batch, 1, z, y, x)`` to ``(batch, 3, z, y, x)``.
    """

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Return the raw map of each head, float32 ``(batch, 1, z, y, x)``."""
        parts = torch.split(self.body(x).float(), [head.channels for head in STACK_HEADS], dim=1)
        return {head.name: part for head, part in zip(STACK_HEADS, parts, strict=True)}


def stack_spec(name: str, title: str, **stated: int | str) -> ModelSpec:
    """Return the spec of a network for stacks; see `zoo_spec`.

    A block of 96 voxels a side is seen with 24 on each side, 12 um: as far as a large nucleus reaches.
    """
    spec = zoo_spec(name, title, **stated)
    return replace(
        spec,
        dimensions=3,
        heads=STACK_HEADS,
        decoder="volume",
        mpp_um=0.5,
        mean=(0.25, 0.25, 0.25),
        std=(0.25, 0.25, 0.25),
        tile_px=96,
        halo_px=24,
    )


@register_model(
    stack_spec(
        "unet-3d",
        "3D U-Net for z-stacks at 0.5 µm",
        size_multiple=8,
        stride=8,
        receptive_field_px=99,
        licence="Apache-2.0",
        needs="monai",
        paper="Çiçek et al., MICCAI 2016, arXiv 1606.06650",
        good_for="Nuclei in confocal and light-sheet stacks; learns from a few annotated planes of a stack.",
    )
)
def build_unet_3d(width: int = 64) -> OnStackHeads:
    """Build the 3D U-Net: four levels of 64 to 512 channels, two 3 x 3 x 3 convolutions with batch norm at each.

    MONAI's U-Net steps down by a strided convolution where the paper pools, and adds the input of each level to its
    output.

    Parameters
    ----------
    width : int
        Channels of the finest level; each coarser one has twice as many.
    """
    unet = library("monai.networks.nets").UNet(
        spatial_dims=3,
        in_channels=1,
        out_channels=len(STACK_HEADS),
        channels=tuple(width * 2**level for level in range(_LEVELS)),
        strides=(2,) * (_LEVELS - 1),
        num_res_units=2,
        act="RELU",
        norm="BATCH",
    )
    return OnStackHeads(as_module(unet))


@register_model(
    stack_spec(
        "v-net",
        "V-Net for z-stacks at 0.5 µm",
        size_multiple=16,
        stride=16,
        receptive_field_px=396,
        licence="Apache-2.0",
        needs="monai",
        paper="Milletari et al., 3DV 2016, arXiv 1606.04797",
        good_for="Nuclei in stacks where the 3D U-Net is not enough: 45 million parameters, for a graphics card.",
    )
)
def build_v_net(dropout: float = 0.0) -> OnStackHeads:
    """Build V-Net: five levels of 16 to 256 channels, residual stages of 5 x 5 x 5 convolutions with PReLU.

    The squared Dice of the paper is the Dice of all our losses (`TrainConfig.dice`).

    Parameters
    ----------
    dropout : float
        Share of channels that are left out while it learns; MONAI's default is 0.5, the paper has none.
    """
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout must be at least 0 and below 1, not {dropout}")
    body = as_module(
        library("monai.networks.nets").VNet(
            spatial_dims=3, in_channels=1, out_channels=len(STACK_HEADS), act="prelu", dropout_prob_down=dropout
        )
    )
    for layer in body.modules():
        if isinstance(layer, nn.Dropout3d):
            layer.p = dropout
        if isinstance(layer, nn.Conv3d) and layer.out_channels == len(STACK_HEADS) and layer.kernel_size == (1, 1, 1):
            calm_last(layer)
    return OnStackHeads(body)
