"""HIPT's two transformers (Chen et al., CVPR 2022): one looks at patches of 256 px, one at regions made of them.

With the published sizes their tensor names and shapes are those of the authors' weight files. Other sizes make smaller
ones of the same kind.
"""

from __future__ import annotations

from napari_nucleiseg.core.models.encoders import PATCH, REGION, EncoderSpec, register_encoder
from napari_nucleiseg.core.models.vit import VisionTransformer

PAPER = "https://arxiv.org/abs/2206.02647"
PATCH_ENCODER, REGION_ENCODER = "hipt-256", "hipt-4k"
# Side of a patch, of which a region has 16 rows and columns; 20x.
INPUT_PX, CELLS = 256, 16
MPP_UM = 0.5


@register_encoder(PATCH_ENCODER)
def build_hipt_256(
    *,
    embed: int = 384,
    depth: int = 12,
    heads: int = 6,
    patch_px: int = 16,
    input_px: int = INPUT_PX,
    grid: int = 14,
    mpp_um: float = MPP_UM,
    drop_path: float = 0.0,
) -> tuple[EncoderSpec, VisionTransformer]:
    """Build the transformer of patches; 21,665,664 parameters with the published sizes.

    Parameters
    ----------
    embed, depth, heads, patch_px, grid, drop_path
        See `VisionTransformer`.
    input_px : int
        Side of a patch in pixels.
    mpp_um : float
        Micrometres per pixel.
    """
    spec = EncoderSpec(
        PATCH_ENCODER,
        "What a patch transformer looks at",
        PATCH,
        embed=embed,
        depth=depth,
        heads=heads,
        mpp_um=mpp_um,
        input_px=input_px,
        patch_px=patch_px,
        paper=PAPER,
    )
    network = VisionTransformer(
        embed=embed, depth=depth, heads=heads, patch_px=patch_px, grid=grid, drop_path=drop_path
    )
    return spec, network


@register_encoder(REGION_ENCODER)
def build_hipt_4k(
    *,
    features: int = 384,
    embed: int = 192,
    depth: int = 6,
    heads: int = 6,
    input_px: int = INPUT_PX,
    grid: int = 14,
    mpp_um: float = MPP_UM,
    drop_path: float = 0.0,
) -> tuple[EncoderSpec, VisionTransformer]:
    """Build the transformer of regions; 2,781,504 parameters with the published sizes.

    Parameters
    ----------
    features, embed, depth, heads, grid, drop_path
        See `VisionTransformer`.
    input_px : int
        Side of a patch, which is one cell of its grid, in pixels.
    mpp_um : float
        Micrometres per pixel of the patches.
    """
    spec = EncoderSpec(
        REGION_ENCODER,
        "What a region transformer looks at",
        REGION,
        embed=embed,
        depth=depth,
        heads=heads,
        mpp_um=mpp_um,
        input_px=input_px,
        patch_px=input_px,
        features=features,
        most_cells=CELLS,
        paper=PAPER,
    )
    network = VisionTransformer(
        embed=embed, depth=depth, heads=heads, features=features, grid=grid, drop_path=drop_path
    )
    return spec, network
