"""The layers that are taught, run by themselves: what lies before them never changes, and is computed once."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from napari_nucleiseg.core.errors import TeachingError
from napari_nucleiseg.core.models.encoders import EncoderSpec, LoadedEncoder
from napari_nucleiseg.core.models.vit import Block, VisionTransformer


class Tail(NamedTuple):
    """What the last layers say of a batch.

    Parameters
    ----------
    features : Tensor, shape (batch, embed)
        Of the patches.
    tokens : Tensor, shape (batch, n, embed)
        Of the tokens in them, row by row.
    attention : Tensor, shape (batch, layers, heads, n)
        What the class token attends to in each of these layers, softmax over all tokens; without itself.
    """

    features: Tensor
    tokens: Tensor
    attention: Tensor


def transformer_of(encoder: LoadedEncoder) -> VisionTransformer:
    """Return the network of an encoder if its heads can be taught.

    Raises
    ------
    TeachingError
        If it is of another kind.
    """
    if not isinstance(encoder.network, VisionTransformer):
        raise TeachingError(
            f"The heads of {encoder.card.name} cannot be taught: it is a network of another package. Take an encoder "
            "such as those of `napari-nucleiseg encoders`."
        )
    return encoder.network


@torch.no_grad()
def run_stem(network: VisionTransformer, pixels: Tensor, spec: EncoderSpec, first: int) -> Tensor:
    """Return the tokens that reach a layer, ``(batch, 1 + n, embed)``, the class token first.

    Parameters
    ----------
    network : VisionTransformer
        In eval mode.
    pixels : Tensor of uint8, shape (batch, y, x, 3)
        RGB, on the network's device.
    spec : EncoderSpec
        States the normalisation.
    first : int
        The layer, from 0.
    """
    mean, std = (255 * torch.tensor(part, device=pixels.device) for part in (spec.mean, spec.std))
    x, _ = network.embedded(((pixels.float() - mean) / std).permute(0, 3, 1, 2))
    for block in islice(cast("Iterable[nn.Module]", network.blocks), first):
        x = block(x)
    return x


def run_tail(network: VisionTransformer, x: Tensor, first: int) -> Tail:
    """Run all layers from `first` on.

    Parameters
    ----------
    network : VisionTransformer
        In eval mode.
    x : Tensor, shape (batch, 1 + n, embed)
        Of `run_stem`.
    first : int
        The same layer.
    """
    rows = []
    for block in islice(cast("Iterable[Block]", network.blocks), first, None):
        x, row, _ = block.attend(x, 0, full=False)
        rows.append(row[:, :, 1:])
    x = network.norm(x)
    return Tail(x[:, 0], x[:, 1:], torch.stack(rows, dim=1))
