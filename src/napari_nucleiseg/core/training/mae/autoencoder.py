"""An encoder that sees a few tokens of a picture, and a small transformer that fills the others.

He et al., CVPR 2022, arXiv 2111.06377.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn

from napari_nucleiseg.core.errors import ModelError
from napari_nucleiseg.core.models.encoders import EncoderSpec
from napari_nucleiseg.core.models.timm_encoder import TimmTransformer
from napari_nucleiseg.core.models.vit import EPSILON, Block, VisionTransformer
from napari_nucleiseg.core.models.zoo.contract import library
from napari_nucleiseg.core.training.mae.config import MaeConfig

# Added to the variance of a token's pixels: those of bare glass are all alike.
_LEAST_VARIANCE = 1e-6
_WAVELENGTHS = 10_000.0
# From pictures and which tokens are seen, `(batch, seen)`, to the class token and these, `(batch, 1 + seen, embed)`.
Look = Callable[[Tensor, Tensor], Tensor]


class MaskedAutoencoder(nn.Module):
    """An encoder of patches with the decoder that only this training needs.

    Parameters
    ----------
    encoder : nn.Module
        A `VisionTransformer` on pixels, or a `TimmTransformer`.
    spec : EncoderSpec
        Of it.
    config : MaeConfig
        Side of the views, share that is left out, sizes of the decoder.

    Raises
    ------
    ModelError
        If the encoder is of another kind.
    MissingDependencyError
        If it is one of timm, and lightly is not there.
    """

    positions: Tensor

    def __init__(self, encoder: nn.Module, spec: EncoderSpec, config: MaeConfig) -> None:
        super().__init__()
        self.encoder, self.patch_px = encoder, spec.patch_px
        side = config.view_px // spec.patch_px
        self.count = side**2
        self.seen = min(max(1, round((1 - config.mask_share) * self.count)), self.count - 1)
        self._look = _look_of(encoder, spec.name)
        width = config.decoder_embed
        self.enter = nn.Linear(spec.embed, width)
        self.missing = nn.Parameter(torch.zeros(1, 1, width))
        nn.init.normal_(self.missing, std=0.02)
        self.blocks = nn.Sequential(
            *(Block(width, config.decoder_heads, 4.0, 0.0) for _ in range(config.decoder_depth))
        )
        self.norm = nn.LayerNorm(width, eps=EPSILON)
        self.paint = nn.Linear(width, 3 * spec.patch_px**2)
        self.register_buffer("positions", sine_positions(side, width), persistent=False)
        for part in (self.enter, self.blocks, self.paint):
            part.apply(_initialise)

    def forward(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        """Leave out tokens by chance; return the loss, and the features of pictures ``(batch, embed)``.

        The loss is the mean squared error of the pixels of missing tokens, each token's normalised to mean 0 and
        variance 1. Features are the means of the tokens that were seen.

        Parameters
        ----------
        pictures : Tensor, shape (batch, 3, view_px, view_px)
            Normalised RGB, float32.
        """
        order = torch.rand(len(pictures), self.count).argsort(dim=1).to(pictures.device)
        seen, missing = order[:, : self.seen], order[:, self.seen :]
        found = self._look(pictures, seen)
        painted = self._filled(found, seen).float()
        wanted = normalised(squares(pictures, self.patch_px))
        wrong = (taken(painted, missing) - taken(wanted, missing)).square().mean()
        return wrong, found[:, 1:].float().mean(dim=1)

    def _filled(self, found: Tensor, seen: Tensor) -> Tensor:
        """Return the pixels of all tokens, ``(batch, count, 3 * patch_px**2)``."""
        tokens = self.enter(found)
        # Where a token was not seen, the same learned one stands for it; its position is all that is known of it.
        whole = self.missing.to(tokens.dtype).expand(len(tokens), self.count, -1)
        whole = whole.scatter(1, seen[..., None].expand(-1, -1, tokens.shape[-1]), tokens[:, 1:])
        whole = torch.cat((tokens[:, :1], whole + self.positions.to(tokens.dtype)), dim=1)
        return cast("Tensor", self.paint(self.norm(self.blocks(whole))[:, 1:]))


def _look_of(encoder: nn.Module, name: str) -> Look:
    """Return how an encoder looks at some tokens alone."""
    if isinstance(encoder, VisionTransformer):
        return encoder.look_at
    if isinstance(encoder, TimmTransformer):
        modules = library("lightly.models.modules", whose="a masked autoencoder of a timm encoder")
        masked: Any = modules.MaskedVisionTransformerTIMM(
            encoder.vit, weight_initialization="skip", pos_embed_initialization="skip"
        )
        prefix = encoder.prefix

        def look(pictures: Tensor, seen: Tensor) -> Tensor:
            before = torch.arange(prefix, device=seen.device).expand(len(seen), -1)
            tokens = masked.encode(pictures, idx_keep=torch.cat((before, seen + prefix), dim=1))
            return torch.cat((tokens[:, :1], tokens[:, prefix:]), dim=1)  # without registers

        return look
    raise ModelError(
        f"a masked autoencoder cannot leave out tokens of encoder {name}; choose hipt-256, or a transformer of timm "
        "(network timm, params model_name)"
    )


def squares(pictures: Tensor, side: int) -> Tensor:
    """Return the pixels of the squares of pictures ``(batch, 3, y, x)``, row by row: ``(batch, squares, pixels)``."""
    return nn.functional.pixel_unshuffle(pictures, side).flatten(2).transpose(1, 2)


def normalised(pixels: Tensor) -> Tensor:
    """Return the pixels of squares with mean 0 and variance 1 in each square."""
    centred = pixels - pixels.mean(dim=-1, keepdim=True)
    return centred * (centred.square().mean(dim=-1, keepdim=True) + _LEAST_VARIANCE).rsqrt()


def taken(tokens: Tensor, places: Tensor) -> Tensor:
    """Return tokens ``(batch, count, width)`` at places ``(batch, some)``."""
    return tokens.gather(1, places[..., None].expand(-1, -1, tokens.shape[-1]))


def sine_positions(side: int, width: int) -> Tensor:
    """Return fixed positions of a square grid, ``(1, side**2, width)``: sines and cosines of rows, then of columns.

    Vaswani et al., NeurIPS 2017, for two axes. `width` is a multiple of 4.
    """
    rates = _WAVELENGTHS ** (-torch.arange(width // 4) / (width / 4))
    angles = torch.arange(side)[:, None] * rates
    line = torch.cat((angles.sin(), angles.cos()), dim=1)
    rows, columns = line[:, None].expand(-1, side, -1), line[None].expand(side, -1, -1)
    return torch.cat((rows, columns), dim=2).reshape(1, side**2, width)


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        nn.init.zeros_(module.bias)
