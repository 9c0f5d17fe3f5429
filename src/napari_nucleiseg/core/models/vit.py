"""A compact vision transformer whose attention is an output: on pixels (patches), or on a grid of features (regions).

Dosovitskiy et al., ICLR 2021; as trained by DINO (Caron et al., ICCV 2021) and used twice over by HIPT (Chen et al.,
CVPR 2022). Tensor names are those that these authors' weight files have.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the name everyone knows it by

EPSILON = 1e-6
# The published models add this to the sides of a grid before they divide, so that rounding never loses a row.
_ROUNDING = 0.1


@dataclass(frozen=True, slots=True, eq=False)
class Attended:
    """What a transformer says of a batch, and how it came to say it.

    Parameters
    ----------
    features : Tensor, shape (batch, embed)
        Of the whole input: the class token after the last normalisation.
    tokens : Tensor, shape (batch, embed, rows, columns)
        Of each patch, after the last normalisation.
    attention : Tensor, shape (batch, layers, heads, rows, columns)
        What the query attends to, first layer first; softmax over all tokens, so that the patches' share is 1 less what
        the query gives to the class token.
    rollout : Tensor, shape (batch, rows, columns), or None
        Attention rollout of the query (Abnar and Zuidema, ACL 2020); None if it was not asked for.
    """

    features: Tensor
    tokens: Tensor
    attention: Tensor
    rollout: Tensor | None = None


class Attention(nn.Module):
    """Self-attention of several heads; ``(batch, tokens, embed)`` to the same."""

    def __init__(self, embed: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(embed, 3 * embed)
        self.proj = nn.Linear(embed, embed)

    def split(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries, keys and values, each ``(batch, heads, tokens, embed / heads)``."""
        batch, count, embed = x.shape
        parts = self.qkv(x).view(batch, count, 3, self.heads, embed // self.heads).permute(2, 0, 3, 1, 4)
        return parts[0], parts[1], parts[2]

    def join(self, values: Tensor) -> Tensor:
        """Return the heads' values side by side, projected."""
        batch, heads, count, width = values.shape
        return cast("Tensor", self.proj(values.transpose(1, 2).reshape(batch, count, heads * width)))

    def forward(self, x: Tensor) -> Tensor:
        """Return what the tokens take from each other; the weights themselves are never made."""
        return self.join(F.scaled_dot_product_attention(*self.split(x)))

    def weigh(self, queries: Tensor, keys: Tensor) -> Tensor:
        """Return how much each query attends to each key, ``(batch, heads, queries, keys)``, float32."""
        scores = (queries.float() * queries.shape[-1] ** -0.5) @ keys.float().transpose(-2, -1)
        return torch.softmax(scores, dim=-1)


class Mlp(nn.Module):
    """Two linear layers with a GELU between them."""

    def __init__(self, embed: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(embed, hidden)
        self.fc2 = nn.Linear(hidden, embed)

    def forward(self, x: Tensor) -> Tensor:
        """Return tokens of the same shape."""
        return cast("Tensor", self.fc2(F.gelu(self.fc1(x))))


class Block(nn.Module):
    """Attention and MLP, each after a normalisation and added to what it was given.

    Parameters
    ----------
    embed, heads : int
        Width of a token, heads of attention.
    mlp_ratio : float
        Width of the MLP's hidden layer in widths of a token.
    drop_path : float
        Share of the samples that skip a branch while training (stochastic depth).
    """

    def __init__(self, embed: int, heads: int, mlp_ratio: float, drop_path: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(embed, eps=EPSILON)
        self.attn = Attention(embed, heads)
        self.norm2 = nn.LayerNorm(embed, eps=EPSILON)
        self.mlp = Mlp(embed, int(embed * mlp_ratio))
        self.drop_path = drop_path

    def forward(self, x: Tensor) -> Tensor:
        """Return tokens of the same shape."""
        return self._finish(x, self.attn(self.norm1(x)))

    def attend(self, x: Tensor, query: int, *, full: bool) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return the tokens, the query's attention ``(batch, heads, tokens)``, and the heads' mean if `full`.

        The mean is that of all queries, ``(batch, tokens, tokens)``.
        """
        queries, keys, values = self.attn.split(self.norm1(x))
        if full:
            weights = self.attn.weigh(queries, keys)
            row, mean = weights[:, :, query], weights.mean(dim=1)
            mixed = weights.to(values.dtype) @ values
        else:
            row, mean = self.attn.weigh(queries[:, :, query : query + 1], keys)[:, :, 0], None
            mixed = F.scaled_dot_product_attention(queries, keys, values)
        return self._finish(x, self.attn.join(mixed)), row, mean

    def _finish(self, x: Tensor, attended: Tensor) -> Tensor:
        x = x + self._kept(attended)
        return x + self._kept(self.mlp(self.norm2(x)))

    def _kept(self, branch: Tensor) -> Tensor:
        if not (self.training and self.drop_path):
            return branch
        kept = torch.rand(branch.shape[0], 1, 1, device=branch.device) >= self.drop_path
        return branch * kept / (1 - self.drop_path)


class PatchEmbedding(nn.Module):
    """Squares of pixels as tokens; ``(batch, 3, y, x)`` to ``(batch, embed, rows, columns)``."""

    def __init__(self, embed: int, patch_px: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, embed, patch_px, patch_px)

    def forward(self, x: Tensor) -> Tensor:
        """Return a token for each square."""
        return cast("Tensor", self.proj(x))


class VisionTransformer(nn.Module):
    """Transformer with a class token and learned positions, for inputs of any size.

    Parameters
    ----------
    embed, depth, heads : int
        Width of a token, blocks, heads of attention in each.
    patch_px : int
        Side of a token in pixels; 0 for a transformer on features.
    features : int
        Channels of the grid of features it reads; 0 for a transformer on pixels.
    grid : int
        Rows and columns of tokens that the positions were learned for; others are interpolated (bicubic).
    mlp_ratio, drop_path : float
        See `Block`; the share that is dropped grows from 0 in the first block to this in the last.

    Raises
    ------
    ValueError
        If the width cannot be divided among the heads, or it is not said what a token is made of.
    """

    def __init__(
        self,
        *,
        embed: int,
        depth: int,
        heads: int,
        patch_px: int = 0,
        features: int = 0,
        grid: int = 14,
        mlp_ratio: float = 4.0,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        if embed % heads:
            raise ValueError(f"a width of {embed} cannot be divided among {heads} heads")
        if bool(patch_px) == bool(features):
            raise ValueError("a token is either a square of pixels (patch_px) or a cell of features (features)")
        self.embed, self.depth, self.heads, self.grid = embed, depth, heads, grid
        self.patch_px = patch_px or 1
        self.patch_embed = PatchEmbedding(embed, patch_px) if patch_px else None
        self.phi = nn.Sequential(nn.Linear(features, embed), nn.GELU()) if features else None
        self.cls_token = nn.Parameter(torch.zeros(1, 1, embed))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + grid * grid, embed))
        rates = [drop_path * place / max(depth - 1, 1) for place in range(depth)]
        self.blocks = nn.ModuleList(Block(embed, heads, mlp_ratio, rate) for rate in rates)
        self.norm = nn.LayerNorm(embed, eps=EPSILON)
        self.apply(_initialise)
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        nn.init.trunc_normal_(self.cls_token, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        """Return the features of whole inputs, ``(batch, embed)``.

        Parameters
        ----------
        x : Tensor, shape (batch, 3, y, x) or (batch, features, rows, columns)
            Normalised RGB whose sides are multiples of ``patch_px``, or a grid of features.
        """
        x, _ = self.embedded(x)
        for block in self.blocks:
            x = cast("Tensor", block(x))
        return cast("Tensor", self.norm(x)[:, 0])

    def attend(self, x: Tensor, *, query: int = 0, rollout: bool = False) -> Attended:
        """Return features, tokens, and what one token attends to in every head of every layer.

        Parameters
        ----------
        x : Tensor
            As for `forward`.
        query : int
            The token that attends: 0 is the class token, then patches row by row.
        rollout : bool
            Whether attention is rolled out, too; then no fused attention is used.
        """
        x, (rows, columns) = self.embedded(x)
        if not 0 <= query <= rows * columns:
            raise ValueError(f"there is no token {query} among {rows * columns} patches")
        found, means = [], []
        for block in cast("Iterable[Block]", self.blocks):
            x, row, mean = block.attend(x, query, full=rollout)
            found.append(row[:, :, 1:])
            means.append(mean)
        x = self.norm(x)
        batch = x.shape[0]
        return Attended(
            features=x[:, 0],
            tokens=x[:, 1:].transpose(1, 2).reshape(batch, self.embed, rows, columns),
            attention=torch.stack(found, dim=1).reshape(batch, self.depth, self.heads, rows, columns),
            rollout=rolled_out(means, query)[:, 1:].reshape(batch, rows, columns) if rollout else None,
        )

    def look_at(self, x: Tensor, seen: Tensor) -> Tensor:
        """Return the class token and some tokens as if there were no others, ``(batch, 1 + seen, embed)``.

        Parameters
        ----------
        x : Tensor
            As for `forward`.
        seen : Tensor of int64, shape (batch, seen)
            Places of the tokens, counted row by row.
        """
        x, _ = self.embedded(x)
        kept = x[:, 1:].gather(1, seen[..., None].expand(-1, -1, self.embed))
        x = torch.cat((x[:, :1], kept), dim=1)
        for block in self.blocks:
            x = cast("Tensor", block(x))
        return cast("Tensor", self.norm(x))

    def embedded(self, x: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Return tokens with their positions, the class token first, and the rows and columns of the grid."""
        if self.patch_embed is not None:
            x = self.patch_embed(x)
            grid = x.shape[-2], x.shape[-1]
            x = x.flatten(2).transpose(1, 2)
        else:
            grid = x.shape[-2], x.shape[-1]
            x = cast("nn.Module", self.phi)(x.flatten(2).transpose(1, 2))
        x = torch.cat((self.cls_token.expand(x.shape[0], -1, -1), x), dim=1)
        return x + self.positions(*grid), grid

    def positions(self, rows: int, columns: int) -> Tensor:
        """Return the positions of a grid, ``(1, 1 + rows * columns, embed)``, interpolated as published."""
        if rows == columns == self.grid:
            return self.pos_embed
        square = self.pos_embed[:, 1:].reshape(1, self.grid, self.grid, self.embed).permute(0, 3, 1, 2)
        factors = (rows + _ROUNDING) / self.grid, (columns + _ROUNDING) / self.grid
        resized = F.interpolate(square, scale_factor=factors, mode="bicubic")
        return torch.cat((self.pos_embed[:, :1], resized.flatten(2).transpose(1, 2)), dim=1)


def rolled_out(means: Sequence[Tensor | None], query: int) -> Tensor:
    """Follow attention from the last layer to the first, half of it staying at each token.

    Attention rollout (Abnar and Zuidema, ACL 2020).

    Parameters
    ----------
    means : sequence of Tensor, shape (batch, tokens, tokens)
        For each layer, the mean of its heads' attention, queries before keys.
    query : int
        The token that is followed.

    Returns
    -------
    Tensor, shape (batch, tokens)
        Of which tokens it is made; the sum is 1.
    """
    first = cast("Tensor", means[0])
    row = F.one_hot(torch.tensor([query], device=first.device), first.shape[-1]).to(first.dtype)
    row = row.expand(first.shape[0], -1)
    for mean in reversed(means):
        row = 0.5 * row + 0.5 * (row[:, None] @ cast("Tensor", mean))[:, 0]
    return row


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)
