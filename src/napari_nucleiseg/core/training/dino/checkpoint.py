"""State of a run of self-distillation on disk, and the teacher's encoder as a weight file."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from torch import nn

from napari_nucleiseg.core.models.encoders import LoadedEncoder
from napari_nucleiseg.core.models.weights import ModelCard, encode_model
from napari_nucleiseg.core.training.dino.config import DinoConfig
from napari_nucleiseg.core.training.dino.learner import Learner
from napari_nucleiseg.core.training.pretrain_checkpoint import PretrainCheckpoint

_METHOD = "self-distillation without labels (DINO: Caron et al., ICCV 2021; HIPT: Chen et al., CVPR 2022)"


class DinoCheckpoint(PretrainCheckpoint):
    """Writes ``last.pt`` (all of the run) and ``encoder.safetensors`` (the teacher's encoder with its card).

    Parameters
    ----------
    config, learner
        The run.
    origins : iterable of (str, str)
        Name and licence of each set of slides.
    patch_card : ModelCard or None
        Of the encoder of patches, in the second stage.
    """

    weights = "encoder.safetensors"

    def __init__(
        self,
        config: DinoConfig,
        learner: Learner,
        origins: Iterable[tuple[str, str]],
        patch_card: ModelCard | None = None,
    ) -> None:
        self.config, self.learner, self.patch_card = config, learner, patch_card
        super().__init__(config, learner.spec, origins, writes=learner.processes.is_first)

    @property
    def _features_of(self) -> str:
        return "" if self.patch_card is None else self.patch_card.version

    @property
    def _kept(self) -> nn.Module:
        return self.learner.teacher.backbone

    def _state(self) -> dict[str, Any]:
        learner = self.learner
        return {
            "features_of": self._features_of,
            "student": learner.student.state_dict(),
            "teacher": learner.teacher.state_dict(),
            "loss": learner.loss.state_dict(),
            "optimiser": learner.optimiser.state_dict(),
        }

    def _load(self, state: Mapping[str, Any]) -> None:
        learner = self.learner
        if state["features_of"] != self._features_of:
            raise ValueError(f"it was made from features of {state['features_of']}")
        learner.student.load_state_dict(state["student"])
        learner.teacher.load_state_dict(state["teacher"])
        learner.loss.load_state_dict(state["loss"])
        learner.optimiser.load_state_dict(state["optimiser"])

    def card(self, step: int) -> ModelCard:
        """Return the card of the teacher's encoder after `step`."""
        notes = f"{_METHOD}; stage {self.config.stage}, "
        former = {"features of": self.patch_card, "begun from": self.learner.began_with}
        card = self._card(self.learner.spec.title, notes, step, former)
        return replace(card, features_of=self._features_of)

    def encoder(self, step: int) -> LoadedEncoder:
        """Return a copy of the teacher's encoder as it is now, with its card."""
        network = copy.deepcopy(self._kept).cpu().eval()
        _, card = encode_model(network, self.learner.spec, self.card(step))
        return LoadedEncoder(self.learner.spec, card, network)
