"""State of a run of self-distillation on disk, and the teacher's encoder as a weight file."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from dataclasses import replace

from torch import nn
from torch.optim import Optimizer

from napari_nucleiseg.core.models.encoders import LoadedEncoder
from napari_nucleiseg.core.models.weights import ModelCard, encode_model
from napari_nucleiseg.core.training.dino.config import DinoConfig
from napari_nucleiseg.core.training.dino.learner import Learner
from napari_nucleiseg.core.training.pretrain_checkpoint import PretrainCheckpoint

_METHOD = "self-distillation without labels (DINO: Caron et al., ICCV 2021; HIPT: Chen et al., CVPR 2022)"


class DinoCheckpoint(PretrainCheckpoint[DinoConfig, Learner]):
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

    mark, told = "features_of", "it was made from features of"

    def __init__(
        self,
        config: DinoConfig,
        learner: Learner,
        origins: Iterable[tuple[str, str]],
        patch_card: ModelCard | None = None,
    ) -> None:
        super().__init__(config, learner, origins)
        self.patch_card = patch_card

    @property
    def _marked(self) -> str:
        return "" if self.patch_card is None else self.patch_card.version

    @property
    def _kept(self) -> nn.Module:
        return self.learner.teacher.backbone

    @property
    def _parts(self) -> Mapping[str, nn.Module | Optimizer]:
        learner = self.learner
        return {
            "student": learner.student,
            "teacher": learner.teacher,
            "loss": learner.loss,
            "optimiser": learner.optimiser,
        }

    def card(self, step: int) -> ModelCard:
        """Return the card of the teacher's encoder after `step`."""
        notes = f"{_METHOD}; stage {self.config.stage}, "
        former = {"features of": self.patch_card, "begun from": self.learner.began_with}
        card = self._card(self.learner.spec.title, notes, step, former)
        return replace(card, features_of=self._marked)

    def encoder(self, step: int) -> LoadedEncoder:
        """Return a copy of the teacher's encoder as it is now, with its card."""
        network = copy.deepcopy(self._kept).cpu().eval()
        _, card = encode_model(network, self.learner.spec, self.card(step))
        return LoadedEncoder(self.learner.spec, card, network)
