"""The two networks of scale classification, their losses, and what one step does to them."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import cast

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - the name everyone knows it by

from napari_nucleiseg.core.errors import ModelError
from napari_nucleiseg.core.models.hardware import choose_device, has_fast_bfloat16
from napari_nucleiseg.core.models.registry import build_network
from napari_nucleiseg.core.models.resnet34 import download_imagenet, load_imagenet
from napari_nucleiseg.core.models.scale_attention import ScaleAttention, ScaleClassifier
from napari_nucleiseg.core.models.spec import ModelSpec
from napari_nucleiseg.core.models.weights import LoadedModel
from napari_nucleiseg.core.training.loop import moving_average
from napari_nucleiseg.core.training.scales.config import ScaleConfig
from napari_nucleiseg.core.training.scales.losses import (
    TRANSFORMS,
    haematoxylin_mismatch,
    scale_equivariance,
    self_training,
    shape_mismatch,
    smoothness,
    statistics_kept,
)

# Pictures at a time when the level is set.
_AT_ONCE = 4


class Learner:
    """The two networks, their optimiser, and what one step does to them.

    Parameters
    ----------
    config : ScaleConfig
        The run.
    spec : ModelSpec
        Of the network F.
    initial : LoadedModel, optional
        Network to start from.

    Raises
    ------
    ModelError
        If the network is none of scale attention, or the device or ImageNet's weights are not there.
    """

    def __init__(self, config: ScaleConfig, spec: ModelSpec, initial: LoadedModel | None = None) -> None:
        self.config = config
        self.device = choose_device(config.device)
        network = build_network(spec)
        if not isinstance(network, ScaleAttention):
            raise ModelError(f"{spec.name} does not learn from magnification; choose scale-attention")
        if initial is not None:
            network.load_state_dict(initial.network.state_dict())
            if config.level_is_fixed:
                network.level_to_zero()
        classifier = ScaleClassifier(len(config.magnifications), config.classifier_width)
        if config.imagenet:
            path = download_imagenet() if config.imagenet == "download" else config.imagenet
            load_imagenet(classifier.trunk, path)
        self.network = network.to(self.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.classifier = classifier.to(self.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        parameters = [*self.network.parameters(), *self.classifier.parameters()]
        self.optimiser = torch.optim.Adam(parameters, config.learning_rate, weight_decay=config.weight_decay)
        self.average: torch.optim.swa_utils.AveragedModel | None = None
        if config.ema:
            average = moving_average(config.ema)
            self.average = torch.optim.swa_utils.AveragedModel(self.network, multi_avg_fn=average, use_buffers=True)
        wanted = config.mixed_precision and has_fast_bfloat16(self.device)
        self.autocast = torch.autocast(self.device.type, torch.bfloat16, enabled=wanted)
        self.calibration: Tensor | None = None
        """Pictures ``(n, 3, y, x)`` by which the level of what is kept is set; without any it stays the running one."""
        self._settled: ScaleAttention | None = None
        # Lowest first, whatever their order in the configuration.
        self.ranks = torch.tensor(np.argsort(np.argsort(config.magnifications)), device=self.device)

    def step(self, batch: Mapping[str, Tensor], number: int) -> dict[str, float]:
        """Learn from a batch; return the loss, its terms and the accuracy."""
        self.network.train(), self.classifier.train()
        rate = self.config.rate(number)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        on_device = {key: value.to(self.device, non_blocking=True) for key, value in batch.items()}
        with self.autocast:
            terms, accuracy = self.terms(on_device, number)
        loss = torch.stack([self.config.weight(name) * term for name, term in terms.items()]).sum()
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self.optimiser.step()
        if self.average is not None:
            self.average.update_parameters(self.network)
        self._settled = None
        said = {"loss": loss, **terms, **accuracy}
        # All at once: a GPU is waited for each time that a number is asked for.
        values = torch.stack([value.detach().float() for value in said.values()]).tolist()
        return dict(zip(said, values, strict=True))

    def terms(self, batch: Mapping[str, Tensor], number: int) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Return the terms of the loss that are switched on, and the accuracy where the scale is classified."""
        weight = self.config.weight
        image = batch["image"].contiguous(memory_format=torch.channels_last)
        confidence = self.network.confidence(image)
        raw = self.network.raw_map(confidence, self._level_of(confidence))
        attention = torch.sigmoid(raw)
        terms: dict[str, Tensor] = {}
        accuracy = {}
        if weight("scale"):
            logits = self.classifier(image, attention)
            terms["scale"] = F.cross_entropy(logits, batch["level"])
            accuracy["accuracy"] = (logits.argmax(dim=1) == batch["level"]).float().mean()
        if weight("smoothness"):
            terms["smoothness"] = smoothness(attention)
        if weight("equivariance") or weight("self_training"):
            there, back = TRANSFORMS[int(np.random.default_rng((self.config.seed, number)).integers(len(TRANSFORMS)))]
            view = back(self.look(there(image)))
            if weight("equivariance"):
                terms["equivariance"] = F.mse_loss(attention, view)
            if weight("self_training"):
                views = torch.stack([attention.detach(), view])
                terms["self_training"] = self_training(raw, views, self.config.sure)
        if weight("scale_equivariance"):
            level, finest = self.ranks[batch["level"]], len(self.ranks) - 1
            terms["scale_equivariance"] = scale_equivariance(attention, image, level, finest, self.look)
        if weight("haematoxylin"):
            terms["haematoxylin"] = haematoxylin_mismatch(confidence, batch["haematoxylin"])
        if weight("shape"):
            terms["shape"] = shape_mismatch(raw, batch["shape"])
        return terms, accuracy

    def _level_of(self, confidence: Tensor) -> Tensor:
        """Return the level around which a batch is looked at, and move the running one towards it."""
        if self.config.level_is_fixed:
            self.network.remember(torch.zeros_like(self.network.tau))
            return cast("Tensor", self.network.tau)
        taus = self.network.taus_of(confidence)
        tau = taus.mean().view(1)
        self.network.remember(tau)
        return cast("Tensor", taus if self.config.looks_at_own_level else tau)

    @property
    def kept(self) -> ScaleAttention:
        """The network that is measured and kept: the moving average if there is one; a copy where its level is set."""
        network = self.network if self.average is None else cast("ScaleAttention", self.average.module)
        if self.calibration is None:
            return network
        # Measured, drawn and written after the same step: the level is looked for once.
        if self._settled is None:
            self._settled = self._at_level_of(network, self.calibration)
        return self._settled

    @staticmethod
    def _at_level_of(network: ScaleAttention, pictures: Tensor) -> ScaleAttention:
        """Return a copy whose level is that of the pictures."""
        settled = copy.deepcopy(network)
        was_training = settled.training
        settled.eval()
        with torch.no_grad():
            found = torch.cat([settled.confidence(part).flatten() for part in pictures.split(_AT_ONCE)])
            # Of all pictures together: the mean of their own levels would be exceeded by another share.
            settled.tau.copy_(settled.tau_of(found[None]))
        return settled.train(was_training)

    @torch.no_grad()
    def look(self, image: Tensor) -> Tensor:
        """Return A around the running (or each crop's own) tau, without gradient or a trace in running statistics."""
        with statistics_kept(self.network):
            confidence = self.network.confidence(image)
        own = self.network.taus_of(confidence) if self.config.looks_at_own_level else None
        return torch.sigmoid(self.network.raw_map(confidence, own))
