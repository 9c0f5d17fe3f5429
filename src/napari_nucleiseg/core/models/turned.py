"""A network that looks at every tile in eight positions and says the mean: slower, and a little more often right."""

from __future__ import annotations

from itertools import product

import torch
from torch import Tensor, nn

from napari_nucleiseg.core.models.spec import VECTORS
from napari_nucleiseg.core.models.weights import LoadedModel

SUFFIX = "+turned"


class Turned(nn.Module):
    """The mean of a network over the eight turns and mirror images of its input.

    Parameters
    ----------
    network : nn.Module
        Takes ``(batch, channels, y, x)`` and returns a dict of heads; of `VECTORS` each is ``(y, x)``.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Return the mean of each head, same shapes as the network's own."""
        sums: dict[str, Tensor] = {}
        for swapped, up, left in product((False, True), repeat=3):
            flips = [axis for axis, flipped in ((2, up), (3, left)) if flipped]
            position = torch.flip(x.transpose(2, 3) if swapped else x, flips)
            for name, seen in self.network(position).items():
                said = torch.flip(seen, flips)
                if name in VECTORS:
                    # These point: what is mirrored points the other way.
                    said = said * said.new_tensor([-1.0 if up else 1.0, -1.0 if left else 1.0])[:, None, None]
                if swapped:
                    said = said.transpose(2, 3)
                    said = said.flip(1) if name in VECTORS else said
                sums[name] = sums[name] + said if name in sums else said
        return {name: total / 8 for name, total in sums.items()}


def turned(model: LoadedModel) -> LoadedModel:
    """Return a model that looks at every tile in eight positions; its version says so, for results are others."""
    return LoadedModel(model.spec, model.card, Turned(model.network).eval(), model.suffix + SUFFIX)
