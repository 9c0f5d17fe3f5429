"""State of a run on disk, and the network with its taught part as a weight file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from torch import nn
from torch.optim import Optimizer

from napari_nucleiseg.core.models.starts import warm_start_note
from napari_nucleiseg.core.models.weights import ModelCard
from napari_nucleiseg.core.training.pretrain_checkpoint import PretrainCheckpoint
from napari_nucleiseg.core.training.warm.config import MASKED, MOCO, SIMCLR, SWIN_UNETR, WarmConfig
from napari_nucleiseg.core.training.warm.learner import Learner

_SOURCES = {
    SIMCLR: "SimCLR (Chen et al., ICML 2020)",
    MOCO: "momentum contrast (He et al., CVPR 2020)",
    SWIN_UNETR: "rotation, contrast and inpainting (Tang et al., CVPR 2022)",
    MASKED: "masked image modelling (SimMIM: Xie et al., CVPR 2022)",
}


class WarmCheckpoint(PretrainCheckpoint[WarmConfig, Learner]):
    """Writes ``last.pt`` (all of the run) and ``warm.safetensors`` (the network with its card)."""

    weights = "warm.safetensors"

    @property
    def _marked(self) -> str:
        return f"{self.config.method} of the {self.config.part} of {self.learner.spec.name}"

    @property
    def _kept(self) -> nn.Module:
        return self.learner.network

    @property
    def _parts(self) -> Mapping[str, nn.Module | Optimizer]:
        return {"method": self.learner.method, "optimiser": self.learner.optimiser}

    def card(self, step: int) -> ModelCard:
        """Return the card of the network after `step`."""
        config, start = self.config, self.learner.start
        began_with = None if start is None else start.card
        title = f"Warm start, not a model of nuclei: {config.part} taught without labels"
        card = self._card(title, f"{_SOURCES[config.method]}; ", step, {"begun from": began_with})
        return replace(card, taught=warm_start_note(config.method, self.learner.taught))
