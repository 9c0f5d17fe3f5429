"""A head that learns from painted patches while the rest of its encoder is held where it was."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import islice
from typing import TypeVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from napari_nucleiseg.core.models.encoders import LoadedEncoder
from napari_nucleiseg.core.models.hardware import choose_device
from napari_nucleiseg.core.models.vit import Attention, Block
from napari_nucleiseg.core.teaching.heads.config import HeadTeachConfig
from napari_nucleiseg.core.teaching.heads.losses import anchor_losses, paint_losses, spread_of
from napari_nucleiseg.core.teaching.heads.painted import PaintedPatch
from napari_nucleiseg.core.teaching.heads.tail import Tail, run_stem, run_tail, transformer_of
from napari_nucleiseg.core.training.loop import scheduled_rate

Tensors = dict[str, Tensor]
Number = TypeVar("Number", bound=np.generic)
# Ways to turn and mirror a square; and how much of what is computed once may be kept.
TURNS = 8
MOST_KEPT_BYTES = 1 << 30
_AT_ONCE = 8


class Stem:
    """The layers that never change: what they say of each patch is computed once and kept, as far as memory allows.

    Parameters
    ----------
    encoder : LoadedEncoder
        Not changed.
    config : HeadTeachConfig
        Which layers are taught, and where they run.

    Raises
    ------
    TeachingError
        If the network is of another kind.
    """

    def __init__(self, encoder: LoadedEncoder, config: HeadTeachConfig) -> None:
        self.spec, self.config = encoder.spec, config
        self.device = choose_device(config.device)
        self.layer, self.first = config.place(encoder.spec)
        self.network = copy.deepcopy(transformer_of(encoder)).eval().requires_grad_(requires_grad=False)
        self.network.to(self.device)
        self._kept: dict[tuple[int, int], Tensor] = {}
        self._bytes = 0

    def of(self, pixels: NDArray[np.uint8]) -> Tensor:
        """Return the tokens that reach the first layer taught, ``(n, 1 + tokens, embed)``; pixels ``(n, y, x, 3)``."""
        parts = [
            run_stem(
                self.network,
                torch.from_numpy(np.ascontiguousarray(pixels[start : start + _AT_ONCE])).to(self.device),
                self.spec,
                self.first,
            )
            for start in range(0, len(pixels), _AT_ONCE)
        ]
        return torch.cat(parts)

    def turned(self, patches: Sequence[PaintedPatch], place: int, turn: int) -> Tensor:
        """Return the same of one patch, turned and mirrored, ``(1 + tokens, embed)``."""
        key = place, turn
        if key not in self._kept:
            x = self.of(turned(patches[place].pixels, turn)[None])[0]
            if self._bytes > MOST_KEPT_BYTES:
                return x
            self._kept[key] = x
            self._bytes += x.nbytes
        return self._kept[key]

    def tail(self, x: Tensor) -> Tail:
        """Return what the former network goes on to say of tokens."""
        return look(self.network, x, self.first)


class HeadLearner:
    """One run from the weights of an encoder: `step` learns from a batch.

    Parameters
    ----------
    stem : Stem
        Of the encoder; holds the former network, which is not changed.
    patches : sequence of PaintedPatch
        All of the lesson.
    teach : sequence of int
        Places of those to learn from.
    others : Tensor, shape (n, 1 + tokens, embed)
        Patches without paint, as of `Stem.of`; n may be 0.
    """

    def __init__(self, stem: Stem, patches: Sequence[PaintedPatch], teach: Sequence[int], others: Tensor) -> None:
        self.stem, self.config, self.patches, self.others = stem, stem.config, patches, others
        self.place = stem.layer - stem.first, self.config.head
        self.network = copy.deepcopy(stem.network)
        self.weights = self._to_be_taught()
        self.optimiser = torch.optim.Adam(self.weights.values(), lr=self.config.learning_rate)
        self._rng = np.random.default_rng(self.config.seed)
        self._order = self._endless(teach)
        known = stem.tail(torch.cat((torch.stack([stem.turned(patches, place, 0) for place in teach]), others)))
        self.spread = spread_of(known.features), spread_of(known.tokens.flatten(0, 1))

    def step(self, number: int) -> tuple[float, dict[str, float]]:
        """Learn from one batch; return the loss and its parts. `number` counts from 1."""
        config = self.config
        for group in self.optimiser.param_groups:
            group["lr"] = scheduled_rate(config.as_training(), number)
        x, look_here, avoid = self._batch()
        with torch.no_grad():
            before = run_tail(self.stem.network, x, self.stem.first)
        now = run_tail(self.network, x, self.stem.first)
        seen = now.attention[: len(look_here), *self.place]
        paint, uneven = paint_losses(seen, look_here, avoid, config.unpainted)
        parts = {"paint": paint, "evenness": uneven, **anchor_losses(now, before, self.spread, self.place)}
        loss = (
            paint
            + config.evenness * uneven
            + config.feature_anchor * parts["features"]
            + config.token_anchor * parts["tokens"]
            + config.head_anchor * parts["heads"]
        )
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.weights.values(), 5.0)
        self.optimiser.step()
        return float(loss.detach()), {name: float(value.detach()) for name, value in parts.items()}

    def state(self) -> Tensors:
        """Return a copy of the weights that are taught."""
        return {name: value.detach().clone() for name, value in self.weights.items()}

    def _to_be_taught(self) -> Tensors:
        blocks = cast("Sequence[Block]", self.network.blocks)
        if self.config.blocks == 0:
            only_head(blocks[self.stem.layer].attn, self.config.head)
        else:
            for block in islice(blocks, self.stem.first, self.stem.layer + 1):
                block.requires_grad_(requires_grad=True)
        return {name: value for name, value in self.network.named_parameters() if value.requires_grad}

    def _batch(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return tokens of painted patches and others after them, and what is painted on the former."""
        size = self.config.batch_size
        turns = self._rng.integers(TURNS if self.config.turns else 1, size=size).tolist()
        drawn = [(next(self._order), turn) for turn in turns]
        quiet = self._rng.choice(len(self.others), min(len(self.others), max(1, size // 2)), replace=False)
        x = torch.stack([self.stem.turned(self.patches, place, turn) for place, turn in drawn])
        look_here, avoid = (
            torch.from_numpy(
                np.stack([turned(getattr(self.patches[place], name), turn).ravel() for place, turn in drawn])
            ).to(self.stem.device)
            for name in ("look", "avoid")
        )
        return torch.cat((x, self.others[torch.from_numpy(quiet).to(self.others.device)])), look_here, avoid

    def _endless(self, teach: Sequence[int]) -> Iterator[int]:
        while True:
            for place in self._rng.permutation(len(teach)):
                yield teach[place]


def look(network: nn.Module, x: Tensor, first: int) -> Tail:
    """Return what a network says of tokens ``(n, 1 + tokens, embed)``, without gradients, on the CPU."""
    with torch.no_grad():
        parts = [run_tail(network, part, first) for part in x.split(_AT_ONCE)]  # type: ignore[arg-type]
    return Tail(*(torch.cat(same).cpu() for same in zip(*parts, strict=True)))


def turned(values: NDArray[Number], turn: int) -> NDArray[Number]:
    """Return a square ``(y, x, ...)`` turned by quarter turns (`turn` modulo 4), and mirrored from 4 on."""
    found = np.rot90(values, turn % 4)
    return np.ascontiguousarray(found[:, ::-1] if turn >= 4 else found)


def only_head(attention: Attention, head: int) -> None:
    """Let gradients reach only the weights of one head; Adam leaves all others exactly as they are.

    These are its queries, keys and values, and the columns of the projection that read it: with the last two it makes
    up for what its new attention does to the tokens.
    """
    embed = attention.qkv.out_features // 3
    width = embed // attention.heads
    own = torch.zeros(embed)
    own[head * width : (head + 1) * width] = 1
    masks = {
        attention.qkv.weight: own.repeat(3)[:, None],
        attention.qkv.bias: own.repeat(3),
        attention.proj.weight: own,
    }
    for value, mask in masks.items():
        value.requires_grad_()
        value.register_hook(partial(torch.mul, mask.to(value.device)))
