"""Views of a batch: crops of one size lie together, so that a network looks at each size once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Crop = NDArray[Any]


@dataclass(frozen=True, slots=True, eq=False)
class Views:
    """Crops of a batch, grouped by size.

    Parameters
    ----------
    groups : tuple of Tensor, each (n, y, x, channels)
        Crops of one size, as they were cut: uint8 RGB, or float32 features.
    order : Tensor of int64, shape (crops,)
        Where, in the groups one after the other, each crop lies: all samples of the first view, then of the second.
    """

    groups: tuple[Tensor, ...]
    order: Tensor

    def encode(self, look: Callable[[Tensor], Tensor]) -> Tensor:
        """Return what `look` says of each crop, ``(crops, ...)``, all samples of the first view first."""
        found = [look(group) for group in self.groups]
        return found[0] if len(found) == 1 else torch.cat(found)[self.order.to(found[0].device)]


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Views of some samples.

    Parameters
    ----------
    seen_by_both : Views
        Global crops, which teacher and student see.
    local : Views or None
        Local crops, which only the student sees; None if there are none.
    size : int
        Samples.
    """

    seen_by_both: Views
    local: Views | None
    size: int


class Samples(Protocol):
    """Something to take crops from."""

    def __len__(self) -> int:
        """Return how many there are."""

    def crops(self, rng: np.random.Generator) -> tuple[list[Crop], list[Crop]]:
        """Return global and local crops ``(y, x, channels)`` of a sample that `rng` chooses."""


class BatchMaker:
    """Makes batch number n as a function of the seed and n alone, whatever threads and processes do.

    Parameters
    ----------
    samples : Samples
        What to take crops from.
    seed, stream : int
        Streams with different numbers give different crops under one seed.
    size : int
        Samples of a whole batch.
    part : range, optional
        Which samples of each batch are made here; default all.
    """

    def __init__(self, samples: Samples, *, seed: int, size: int, stream: int = 0, part: range | None = None) -> None:
        self.samples, self.seed, self.stream, self.size = samples, seed, stream, size
        self.own = range(size) if part is None else part

    def batch(self, number: int) -> Batch:
        """Return (this part of) batch `number`."""
        cut = [
            self.samples.crops(np.random.default_rng((self.seed, self.stream, number * self.size + place)))
            for place in self.own
        ]
        local = grouped([sample[1] for sample in cut]) if cut[0][1] else None
        return Batch(grouped([sample[0] for sample in cut]), local, len(cut))


def grouped(samples: Sequence[Sequence[Crop]]) -> Views:
    """Lay crops of one size together.

    Parameters
    ----------
    samples : sequence of sequence of ndarray, each (y, x, channels)
        The same number of views of each sample.
    """
    crops = [sample[view] for view in range(len(samples[0])) for sample in samples]
    places: dict[tuple[int, ...], list[int]] = {}
    for place, crop in enumerate(crops):
        places.setdefault(crop.shape, []).append(place)
    groups = tuple(torch.from_numpy(np.stack([crops[place] for place in group])) for group in places.values())
    return Views(groups, torch.from_numpy(np.argsort(np.concatenate(list(places.values())))))
