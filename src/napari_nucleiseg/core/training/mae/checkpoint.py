"""State of a run on disk, and the encoder as a weight file."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn
from torch.optim import Optimizer

from napari_nucleiseg.core.models.weights import ModelCard
from napari_nucleiseg.core.training.mae.config import MaeConfig
from napari_nucleiseg.core.training.mae.learner import Learner
from napari_nucleiseg.core.training.pretrain_checkpoint import PretrainCheckpoint

_METHOD = "masked autoencoder (He et al., CVPR 2022)"


class MaeCheckpoint(PretrainCheckpoint[MaeConfig, Learner]):
    """Writes ``last.pt`` (all of the run) and ``encoder.safetensors`` (the encoder with its card)."""

    @property
    def _marked(self) -> str:
        return f"a masked autoencoder of {self.learner.spec.name}"

    @property
    def _kept(self) -> nn.Module:
        return self.learner.encoder

    @property
    def _parts(self) -> Mapping[str, nn.Module | Optimizer]:
        return {"autoencoder": self.learner.autoencoder, "optimiser": self.learner.optimiser}

    def card(self, step: int) -> ModelCard:
        """Return the card of the encoder after `step`."""
        former = {"begun from": self.learner.began_with}
        return self._card(self.learner.spec.title, f"{_METHOD}; ", step, former)
