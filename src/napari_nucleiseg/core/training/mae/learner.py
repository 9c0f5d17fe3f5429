"""An autoencoder, its optimiser, and what one step does to them."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import Tensor, nn

from napari_nucleiseg.core.errors import DataError
from napari_nucleiseg.core.models.encoders import PATCH, EncoderSpec, build_encoder
from napari_nucleiseg.core.models.hardware import choose_device, has_fast_bfloat16
from napari_nucleiseg.core.models.starts import card_to_start_from
from napari_nucleiseg.core.models.vit import VisionTransformer
from napari_nucleiseg.core.models.weights import ModelCard, fit_tensors, load_tensors
from napari_nucleiseg.core.training.descent import descend, parted, seed_step
from napari_nucleiseg.core.training.dino.loss import effective_rank
from napari_nucleiseg.core.training.dino.processes import Processes
from napari_nucleiseg.core.training.dino.schedules import in_proportion, risen
from napari_nucleiseg.core.training.dino.views import Batch
from napari_nucleiseg.core.training.mae.autoencoder import MaskedAutoencoder
from napari_nucleiseg.core.training.mae.config import MaeConfig
from napari_nucleiseg.core.training.precision import in_bfloat16

_BETAS = (0.9, 0.95)


class Learner:
    """What learns in a run.

    Parameters
    ----------
    config : MaeConfig
        The run.
    device : str
        Of this process.
    processes : Processes
        That learn together.

    Raises
    ------
    DataError
        If the views do not fit the encoder.
    ModelError
        If the encoder cannot be built or is of another kind, or the device is not there.
    MissingDependencyError
        If a library of the encoder is not there.
    WeightsError
        If the initial weights do not fit.
    """

    def __init__(self, config: MaeConfig, device: str, processes: Processes) -> None:
        self.config, self.processes = config, processes
        self.device = choose_device(device)
        torch.manual_seed(config.seed)
        self.spec, encoder = _built(config)
        self.began_with: ModelCard | None = None
        if config.initial:
            path = Path(config.initial)
            fit_tensors(encoder, load_tensors(path), path=path, network_name=self.spec.name)
            self.began_with = card_to_start_from(path, self.spec.name)
        self.autoencoder = MaskedAutoencoder(encoder, self.spec, config).to(self.device)
        self.optimiser = torch.optim.AdamW(
            parted(self.autoencoder.parameters(), config.weight_decay), config.learning_rate, betas=_BETAS
        )
        self.is_mixed = config.mixed_precision and has_fast_bfloat16(self.device)
        self._mean, self._std = (torch.tensor(values, device=self.device) for values in (self.spec.mean, self.spec.std))

    @property
    def encoder(self) -> nn.Module:
        """The encoder that learns."""
        return self.autoencoder.encoder

    def step(self, batch: Batch, number: int) -> dict[str, float]:
        """Learn from a batch; return the loss, and over how many directions the features of its patches spread."""
        seed_step(self.config.seed, number, self.processes)
        self.autoencoder.train()
        with in_bfloat16(self.device, wanted=self.is_mixed):
            loss, features = self.autoencoder(self._normalised(batch))
        config, rate = self.config, scheduled_rate(self.config, number)
        told = descend(loss, self.optimiser, self.processes, rate=rate, clip=config.clip)
        return {"loss": told, "rank": effective_rank(features.detach())}

    @torch.no_grad()
    def measure(self, batch: Batch, number: int) -> dict[str, float]:
        """Return what `step` would of a batch that is not learned from."""
        seed_step(self.config.seed, number, self.processes)
        self.autoencoder.eval()
        with in_bfloat16(self.device, wanted=self.is_mixed):
            loss, features = self.autoencoder(self._normalised(batch))
        return {"loss": float(loss), "rank": effective_rank(features)}

    def _normalised(self, batch: Batch) -> Tensor:
        """Return the views ``(batch, 3, y, x)`` float32 as the encoder wants them."""
        views = batch.seen_by_both.encode(lambda found: found).to(self.device, non_blocking=True)
        return views.float().div_(255).sub_(self._mean).div_(self._std).permute(0, 3, 1, 2)


def scheduled_rate(config: MaeConfig, step: int) -> float:
    """Return the learning rate of a step, counted from 1: a rise, then half a cosine."""
    return risen(config, step, in_proportion(config))


def _built(config: MaeConfig) -> tuple[EncoderSpec, nn.Module]:
    """Build the encoder whose positions are those of a view."""
    given = dict(config.params)
    spec, encoder = build_encoder(config.network, given)
    if spec.kind != PATCH:
        raise DataError(
            f"encoder {spec.name} is one of a {spec.kind}, and pixels are what is filled here; choose one of patches, "
            "such as hipt-256"
        )
    side = math.ceil(config.view_px / spec.patch_px) * spec.patch_px
    sized = isinstance(encoder, VisionTransformer)  # a timm encoder looks at one size only
    wanted = side if sized else spec.input_px
    if config.view_px != wanted or wanted == spec.patch_px:
        raise DataError(
            f"encoder {spec.name} cannot fill views of {config.view_px} px, with tokens of {spec.patch_px} px; the "
            f"next side that fits is {max(wanted, 2 * spec.patch_px)} (view_px)"
        )
    if not sized or "grid" in given:
        return spec, encoder
    return build_encoder(config.network, {"grid": side // spec.patch_px, **given})
