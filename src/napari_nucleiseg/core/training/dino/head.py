"""The head of self-distillation: features become likenesses to prototypes."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the name everyone knows it by


class DinoHead(nn.Module):
    """Three linear layers, then the cosine to each prototype (Caron et al., ICCV 2021).

    The published last layer is weight-normed with its lengths frozen at 1, which is the same.

    Parameters
    ----------
    embed : int
        Width of the features.
    hidden, bottleneck, prototypes : int
        Width of the hidden layers, of the last layer before the prototypes, and how many there are.
    """

    def __init__(self, embed: int, hidden: int = 2048, bottleneck: int = 256, prototypes: int = 65_536) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(embed, hidden), nn.GELU(), nn.Linear(hidden, hidden), nn.GELU(), nn.Linear(hidden, bottleneck)
        )
        for layer in self.mlp:
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=0.02)
                nn.init.zeros_(layer.bias)
        self.prototypes = nn.Parameter(torch.empty(prototypes, bottleneck))
        nn.init.kaiming_uniform_(self.prototypes, a=5**0.5)

    def forward(self, features: Tensor) -> Tensor:
        """Return likenesses ``(batch, prototypes)``, -1 to 1, of features ``(batch, embed)``."""
        found = self.mlp(features)
        # Divided by a temperature of some hundredths: 8 bits of a mantissa would not do.
        with torch.autocast(found.device.type, enabled=False):
            return F.linear(F.normalize(found.float(), dim=-1), F.normalize(self.prototypes, dim=-1))
