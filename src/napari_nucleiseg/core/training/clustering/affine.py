"""Affine transforms that a small network corrects (Jaderberg et al., NeurIPS 2015), and that are never the identity."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

# A transform that is left to itself becomes the identity, under which two branches agree without learning anything.
LEAST_ANGLE, LARGEST_SCALE, LARGEST_SHIFT = math.pi / 6, 1.25, 0.1
LARGEST_CORRECTION = 0.1


def warp(maps: Tensor, theta: Tensor) -> Tensor:
    """Return maps ``(batch, channels, y, x)`` seen through affine transforms ``(batch, 2, 3)``; zeros outside.

    Coordinates are ``(x, y)`` in -1..1 from edge to edge, the output's place to the input's.
    """
    grid = F.affine_grid(theta, list(maps.shape), align_corners=False)
    return F.grid_sample(maps, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def valid_share(theta: Tensor, size: Sequence[int]) -> Tensor:
    """Return 1 where a warped pixel comes from inside the picture, else 0; ``(batch, y, x)``."""
    grid = F.affine_grid(theta, [len(theta), 1, *size], align_corners=False)
    return (grid.abs() <= 1).all(dim=-1).to(theta.dtype)


class AffineDraw(nn.Module):
    """Random rotation, scale and shift times a correction that is learned from the features.

    The rotation is at least 30 degrees and the correction bounded, so that the product stays away from the identity
    whatever is learned. The last layer starts at 0: no correction.

    Parameters
    ----------
    channels : int
        Of the features.
    generator : torch.Generator
        Draws the random part; on the CPU.
    """

    def __init__(self, channels: int, generator: torch.Generator) -> None:
        super().__init__()
        self.generator = generator
        self.look = nn.Sequential(
            nn.Conv2d(channels, 8, 3, padding=1),
            nn.MaxPool2d(2, ceil_mode=True),
            nn.ReLU(),
            nn.Conv2d(8, 8, 3, padding=1),
            nn.MaxPool2d(2, ceil_mode=True),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(4),
        )
        last = nn.Linear(32, 6)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.correct = nn.Sequential(nn.Flatten(), nn.Linear(8 * 16, 32), nn.ReLU(), last)

    def forward(self, features: Tensor) -> Tensor:
        """Return transforms ``(batch, 2, 3)`` for features ``(batch, channels, y, x)``."""
        size = features.shape[2:]
        raw = cast("Tensor", self.correct(self.look(features)))
        correction = LARGEST_CORRECTION * torch.tanh(raw).view(-1, 2, 3)
        drawn = random_affine(len(features), size[1] / size[0], self.generator).to(features)
        linear = drawn[:, :, :2] @ (torch.eye(2).to(features) + correction[:, :, :2])
        return torch.cat([linear, drawn[:, :, 2:] + correction[:, :, 2:]], dim=2)


def random_affine(count: int, aspect: float, generator: torch.Generator) -> Tensor:
    """Draw transforms ``(count, 2, 3)`` that turn by 30 to 330 degrees, scale by up to 1.25 and shift a little.

    Parameters
    ----------
    count : int
        How many.
    aspect : float
        Width of the picture divided by its height, so that a turn is one in pixels.
    generator : torch.Generator
        On the CPU.
    """
    u = torch.rand(count, 4, generator=generator)
    angle = LEAST_ANGLE + u[:, 0] * 2 * (math.pi - LEAST_ANGLE)
    scale = LARGEST_SCALE ** (2 * u[:, 1] - 1)
    cosine, sine = scale * torch.cos(angle), scale * torch.sin(angle)
    shift = LARGEST_SHIFT * (2 * u[:, 2:] - 1)
    rows = [torch.stack([cosine, -sine / aspect, shift[:, 0]], 1), torch.stack([sine * aspect, cosine, shift[:, 1]], 1)]
    return torch.stack(rows, dim=1)
