"""State of a run on disk, and the encoder as a weight file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch import nn

from napari_nucleiseg.core.models.weights import ModelCard
from napari_nucleiseg.core.training.mae.config import MaeConfig
from napari_nucleiseg.core.training.mae.learner import Learner
from napari_nucleiseg.core.training.pretrain_checkpoint import PretrainCheckpoint

_METHOD = "masked autoencoder (He et al., CVPR 2022)"


class MaeCheckpoint(PretrainCheckpoint):
    """Writes ``last.pt`` (all of the run) and ``encoder.safetensors`` (the encoder with its card).

    Parameters
    ----------
    config, learner
        The run.
    origins : iterable of (str, str)
        Name and licence of each set of slides.
    """

    weights = "encoder.safetensors"

    def __init__(self, config: MaeConfig, learner: Learner, origins: Iterable[tuple[str, str]]) -> None:
        self.config, self.learner = config, learner
        super().__init__(config, learner.spec, origins, writes=learner.processes.is_first)

    @property
    def _kind(self) -> str:
        """What tells runs apart whose tensors might fit each other."""
        return f"a masked autoencoder of {self.learner.spec.name}"

    @property
    def _kept(self) -> nn.Module:
        return self.learner.encoder

    def _state(self) -> dict[str, Any]:
        learner = self.learner
        return {
            "kind": self._kind,
            "autoencoder": learner.autoencoder.state_dict(),
            "optimiser": learner.optimiser.state_dict(),
        }

    def _load(self, state: Mapping[str, Any]) -> None:
        if (found := state["kind"]) != self._kind:
            raise ValueError(f"it is one of {found}")
        self.learner.autoencoder.load_state_dict(state["autoencoder"])
        self.learner.optimiser.load_state_dict(state["optimiser"])

    def card(self, step: int) -> ModelCard:
        """Return the card of the encoder after `step`."""
        former = {"begun from": self.learner.began_with}
        return self._card(self.learner.spec.title, f"{_METHOD}; ", step, former)
