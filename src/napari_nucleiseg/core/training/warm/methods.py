"""What is asked of features without labels: one class a method, each a module with its heads and its loss.

Heads, losses and the momentum encoder are those of the libraries lightly (MIT) and MONAI (Apache-2.0), imported when a
method is built.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the name everyone knows it by

from napari_nucleiseg.core.models.zoo.contract import library
from napari_nucleiseg.core.training.warm.config import MASKED, MOCO, SIMCLR, SWIN_UNETR, WarmConfig
from napari_nucleiseg.core.training.warm.trunk import Trunk

TURNS = 4


class Method(nn.Module):
    """A trunk with the heads that only the warm start needs.

    Parameters
    ----------
    trunk : Trunk
        What learns.
    config : WarmConfig
        The run.
    gathers : bool
        Whether several processes learn together, so that views are told from those of all.
    """

    def __init__(self, trunk: Trunk, config: WarmConfig, *, gathers: bool = False) -> None:
        super().__init__()
        self.trunk, self.config, self.gathers = trunk, config, gathers
        self.is_mixed = False

    def forward(self, views: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Return the parts of the loss of views ``(views, batch, 3, y, x)``, and pooled features ``(n, channels)``."""
        raise NotImplementedError

    def follow(self) -> None:
        """Do what comes before each step."""

    def look(self, trunk: nn.Module, pictures: Tensor) -> Tensor:
        """Return the features of pictures, float32, computed in bfloat16 if that is wanted."""
        with torch.autocast(pictures.device.type, torch.bfloat16, enabled=self.is_mixed):
            features: Tensor = trunk(pictures)
        return features.float()


class SimClr(Method):
    """Two views of a patch are told from all others of the batch (Chen et al., ICML 2020)."""

    def __init__(self, trunk: Trunk, config: WarmConfig, *, gathers: bool = False) -> None:
        super().__init__(trunk, config, gathers=gathers)
        heads = lightly("models.modules.heads", config)
        self.head = heads.SimCLRProjectionHead(trunk.channels, config.hidden, config.projection)
        self.loss = lightly("loss", config).NTXentLoss(config.temperature, gather_distributed=gathers)

    def forward(self, views: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Return the parts of the loss and pooled features; see `Method`."""
        features = pooled(self.look(self.trunk, views.flatten(0, 1)))
        first, second = self.head(features).unflatten(0, views.shape[:2])
        self.loss.gather_distributed = self.gathers and self.training  # one process measures alone
        return {"contrast": self.loss(first, second)}, features


class Moco(Method):
    """A view is told from what a slower encoder remembers of others (He et al., CVPR 2020; head of Chen et al. 2020).

    Batches are not shuffled among processes: each normalises its own part, the keys of all are remembered.
    """

    def __init__(self, trunk: Trunk, config: WarmConfig, *, gathers: bool = False) -> None:
        super().__init__(trunk, config, gathers=gathers)
        heads, self._tools = lightly("models.modules.heads", config), lightly("models.utils", config)
        self.head = heads.MoCoProjectionHead(trunk.channels, config.hidden, config.projection)
        self.key_trunk, self.key_head = copy.deepcopy(trunk), copy.deepcopy(self.head)
        for slow in (self.key_trunk, self.key_head):
            slow.requires_grad_(requires_grad=False)
        self.loss = lightly("loss", config).NTXentLoss(
            config.temperature, memory_bank_size=(config.memory, config.projection), gather_distributed=gathers
        )

    def forward(self, views: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Return the parts of the loss and pooled features of the quick encoder; see `Method`."""
        features = pooled(self.look(self.trunk, views[0]))
        with torch.no_grad():
            keys = self.key_head(pooled(self.look(self.key_trunk, views[1])))
        return {"contrast": self.loss(self.head(features), keys)}, features

    def follow(self) -> None:
        """Move the slow encoder towards the quick one."""
        for quick, slow in ((self.trunk, self.key_trunk), (self.head, self.key_head)):
            self._tools.update_momentum(quick, slow, m=self.config.momentum)

    def get_extra_state(self) -> dict[str, Tensor]:
        """Return what is remembered, which the library leaves out of its state."""
        bank = self.loss.memory_bank
        return {"bank": bank.bank.clone(), "pointer": bank.bank_ptr.clone()}

    def set_extra_state(self, state: dict[str, Tensor]) -> None:
        """Remember it again."""
        bank = self.loss.memory_bank
        bank.bank.copy_(state["bank"])
        bank.bank_ptr.copy_(state["pointer"])


class Masked(Method):
    """Blocks of the picture are covered, and their pixels told from the rest (SimMIM: Xie et al., CVPR 2022).

    The cover is one learned colour, since convolutions see pixels and no tokens. Pixels are read off the features by
    one convolution, and only covered ones count.
    """

    def __init__(self, trunk: Trunk, config: WarmConfig, *, gathers: bool = False) -> None:
        super().__init__(trunk, config, gathers=gathers)
        self.cover = nn.Parameter(torch.zeros(1, 3, 1, 1))
        self.painter = Painter(trunk, config.view_px)

    def forward(self, views: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Return the parts of the loss and pooled features; see `Method`."""
        pictures = views.flatten(0, 1)
        covered = blocks(len(pictures), pictures.shape[-1], self.config.mask_px, self.config.mask_share)
        covered = covered.to(pictures.device)
        features = self.look(self.trunk, torch.where(covered, self.cover, pictures))
        wrong = (self.painter(features) - pictures).abs() * covered
        return {"painting": wrong.sum() / (3 * covered.sum())}, pooled(features)


class SwinUnetr(Method):
    """Views are turned, blocks of them cut out: told apart, turned back, painted again.

    What Swin UNETR learns with (Tang et al., CVPR 2022), for any encoder. The three terms count the same, as published;
    the painter is one convolution, where the published one has several.
    """

    def __init__(self, trunk: Trunk, config: WarmConfig, *, gathers: bool = False) -> None:
        super().__init__(trunk, config, gathers=gathers)
        losses = library("monai.losses", whose=f"the method {config.method}")
        self.turn = nn.Linear(trunk.channels, TURNS)
        self.head = nn.Linear(trunk.channels, config.projection)
        self.painter = Painter(trunk, config.view_px)
        self.contrast = losses.ContrastiveLoss(temperature=config.temperature)

    def forward(self, views: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Return the parts of the loss and pooled features; see `Method`."""
        turns = torch.randint(TURNS, (views.shape[0] * views.shape[1],))
        pairs = zip(views.flatten(0, 1), turns.tolist(), strict=True)
        pictures = torch.stack([torch.rot90(picture, turn, (1, 2)) for picture, turn in pairs])
        cut = blocks(len(pictures), pictures.shape[-1], self.config.mask_px, self.config.mask_share)
        noise = torch.randn(pictures.shape)
        features = self.look(self.trunk, torch.where(cut.to(pictures.device), noise.to(pictures.device), pictures))
        means = pooled(features)
        first, second = self.head(means).unflatten(0, views.shape[:2])
        return {
            "rotation": F.cross_entropy(self.turn(means), turns.to(means.device)),
            "contrast": self.contrast(first, second),
            "painting": (self.painter(features) - pictures).abs().mean(),
        }, means


class Painter(nn.Module):
    """Reads a picture off features: one 1x1 convolution, its channels laid out as pixels.

    Parameters
    ----------
    trunk : Trunk
        Gives the features.
    view_px : int
        Side of the picture.
    """

    def __init__(self, trunk: Trunk, view_px: int) -> None:
        super().__init__()
        self.stride = view_px // trunk.side
        self.read = nn.Conv2d(trunk.channels, 3 * self.stride**2, 1)

    def forward(self, features: Tensor) -> Tensor:
        """Return the picture ``(batch, 3, y, x)``, float32."""
        return F.pixel_shuffle(self.read(features), self.stride)


def pooled(features: Tensor) -> Tensor:
    """Return the means of maps ``(batch, channels, y, x)``, ``(batch, channels)``."""
    return features.mean(dim=(2, 3))


def blocks(count: int, side: int, block: int, share: float) -> Tensor:
    """Choose square blocks of pictures, the same number in each.

    Parameters
    ----------
    count, side : int
        Pictures, and their side.
    block : int
        Side of a block; divides `side`.
    share : float
        Of the pixels that lie in chosen blocks.

    Returns
    -------
    Tensor of bool, shape (count, 1, side, side)
        True in chosen blocks.
    """
    cells = side // block
    chosen = max(1, round(share * cells**2))
    places = torch.rand(count, cells**2).argsort(dim=1) < chosen
    wide = places.view(count, 1, cells, cells).repeat_interleave(block, dim=2)
    return wide.repeat_interleave(block, dim=3)


def lightly(module: str, config: WarmConfig) -> Any:
    """Import a module of lightly.

    Raises
    ------
    MissingDependencyError
        If it is not installed, or does not fit this torch.
    """
    return library(f"lightly.{module}", whose=f"the method {config.method}")


_METHODS: dict[str, type[Method]] = {SIMCLR: SimClr, MOCO: Moco, SWIN_UNETR: SwinUnetr, MASKED: Masked}


def method_of(trunk: Trunk, config: WarmConfig, *, gathers: bool = False) -> Method:
    """Return the method that a configuration names; `gathers` if several processes learn together.

    Raises
    ------
    MissingDependencyError
        If the library of its losses is not there.
    """
    return _METHODS[config.method](trunk, config, gathers=gathers)
