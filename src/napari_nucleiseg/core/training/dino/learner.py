"""Student and teacher, and what one step does to them."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from napari_nucleiseg.core.models.encoders import build_encoder
from napari_nucleiseg.core.models.hardware import choose_device, has_fast_bfloat16
from napari_nucleiseg.core.models.starts import card_to_start_from
from napari_nucleiseg.core.models.weights import ModelCard, fit_tensors, load_tensors
from napari_nucleiseg.core.training.descent import parted, seed_step
from napari_nucleiseg.core.training.dino.config import DinoConfig
from napari_nucleiseg.core.training.dino.head import DinoHead
from napari_nucleiseg.core.training.dino.loss import DinoLoss, collapse_watch, effective_rank
from napari_nucleiseg.core.training.dino.processes import Processes
from napari_nucleiseg.core.training.dino.schedules import Scheduled, scheduled
from napari_nucleiseg.core.training.dino.views import Batch
from napari_nucleiseg.core.training.precision import in_bfloat16

Params = dict[str, int | float | str | bool]


class Pupil(nn.Module):
    """An encoder with the head that only training needs.

    Parameters
    ----------
    backbone : nn.Module
        The encoder.
    head : DinoHead
        The head.
    """

    def __init__(self, backbone: nn.Module, head: DinoHead) -> None:
        super().__init__()
        self.backbone, self.head = backbone, head


class Learner:
    """Student and teacher, the optimiser, and what one step does to them.

    Parameters
    ----------
    config : DinoConfig
        The run.
    params : dict
        Of the encoder's build function, complete.
    device : str
        Of this process.
    processes : Processes
        That learn together.

    Raises
    ------
    ModelError
        If the encoder cannot be built, or the device is not there.
    """

    def __init__(self, config: DinoConfig, params: Params, device: str, processes: Processes) -> None:
        self.config, self.processes = config, processes
        self.device = choose_device(device)
        torch.manual_seed(config.seed)
        dropping: Params = {"drop_path": config.drop_path} if config.drop_path else {}
        _, backbone = build_encoder(config.encoder_name, {**params, **dropping})
        self.spec, calm = build_encoder(config.encoder_name, params)
        self.began_with: ModelCard | None = None
        if config.initial:
            path = Path(config.initial)
            fit_tensors(backbone, load_tensors(path), path=path, network_name=self.spec.name)
            self.began_with = card_to_start_from(path, self.spec.name)
        self.student = self._pupil(backbone)
        self.teacher = self._pupil(calm).requires_grad_(requires_grad=False).eval()
        self.teacher.load_state_dict(self.student.state_dict())
        self.loss = DinoLoss(config.prototypes, config.student_temperature, config.centre_momentum).to(self.device)
        self.optimiser = torch.optim.AdamW(parted(self.student.parameters(), config.weight_decay), config.learning_rate)
        self.is_mixed = config.mixed_precision and has_fast_bfloat16(self.device)
        self._mean, self._std = (torch.tensor(values, device=self.device) for values in (self.spec.mean, self.spec.std))

    def _pupil(self, backbone: nn.Module) -> Pupil:
        config = self.config
        head = DinoHead(self.spec.embed, config.head_hidden, config.head_bottleneck, config.prototypes)
        return Pupil(backbone, head).to(self.device)

    def step(self, batch: Batch, number: int) -> dict[str, float]:
        """Learn from a batch; return the loss and how far from collapse the teacher is."""
        now = scheduled(self.config, number)
        seed_step(self.config.seed, number, self.processes)
        self.student.train()
        with in_bfloat16(self.device, wanted=self.is_mixed):
            targets, outputs, features = self._taught(batch, now)
            loss = self.loss(self._said(batch), targets)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self.processes.average_gradients(self.student.parameters())
        self._clip()
        if now.prototypes_frozen:
            self.student.head.prototypes.grad = None
        self._set_rates(now)
        self.optimiser.step()
        self._follow(now.ema)
        self.loss.move_centre(outputs, self.processes.mean)
        return {"loss": float(self.processes.mean(loss.detach())), **collapse_watch(targets, features)}

    @torch.no_grad()
    def measure(self, batch: Batch, number: int) -> dict[str, float]:
        """Return loss and collapse watch of a batch that is not learned from, and its features' effective rank."""
        self.student.eval()
        with in_bfloat16(self.device, wanted=self.is_mixed):
            targets, _, features = self._taught(batch, scheduled(self.config, number))
            loss = self.loss(self._said(batch), targets)
        return {"loss": float(loss), **collapse_watch(targets, features), "rank": effective_rank(features)}

    def _taught(self, batch: Batch, now: Scheduled) -> tuple[Tensor, Tensor, Tensor]:
        """Return what the teacher makes of the global views: probabilities, outputs, features."""
        with torch.no_grad():
            features = batch.seen_by_both.encode(lambda crops: self.teacher.backbone(self._normalised(crops)))
            outputs = self.teacher.head(features).unflatten(0, (-1, batch.size))
            return self.loss.targets(outputs, now.teacher_temperature), outputs, features

    def _said(self, batch: Batch) -> Tensor:
        """Return the student's outputs for all views, ``(views, batch, prototypes)``."""
        sets = [views for views in (batch.seen_by_both, batch.local) if views is not None]
        features = [views.encode(lambda crops: self.student.backbone(self._normalised(crops))) for views in sets]
        return cast("Tensor", self.student.head(torch.cat(features)).unflatten(0, (-1, batch.size)))

    def _normalised(self, crops: Tensor) -> Tensor:
        """Return crops ``(n, y, x, channels)`` as the encoder wants them, ``(n, channels, y, x)`` float32."""
        crops = crops.to(self.device, non_blocking=True)
        if crops.dtype == torch.uint8:
            crops = crops.float().div_(255).sub_(self._mean).div_(self._std)
        return crops.permute(0, 3, 1, 2)

    def _clip(self) -> None:
        if self.config.clip:
            for parameter in self.student.parameters():
                if parameter.grad is not None:
                    nn.utils.clip_grad_norm_(parameter, self.config.clip)

    def _set_rates(self, now: Scheduled) -> None:
        decayed, plain = self.optimiser.param_groups
        decayed["weight_decay"], plain["weight_decay"] = now.weight_decay, 0.0
        decayed["lr"] = plain["lr"] = now.learning_rate

    @torch.no_grad()
    def _follow(self, ema: float) -> None:
        """Move the teacher towards the student."""
        for slow, fast in zip(self.teacher.parameters(), self.student.parameters(), strict=True):
            slow.lerp_(fast, 1 - ema)
