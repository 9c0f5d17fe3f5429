"""A network, what is asked of it, the optimiser, and what one step does to them."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from napari_nucleiseg.core.errors import DataError
from napari_nucleiseg.core.models.encoders import encoder_names
from napari_nucleiseg.core.models.hardware import choose_device, has_fast_bfloat16
from napari_nucleiseg.core.models.registry import build_network, network_spec
from napari_nucleiseg.core.models.spec import ModelSpec
from napari_nucleiseg.core.models.starts import Start, start_from
from napari_nucleiseg.core.training.descent import descend, parted, seed_step
from napari_nucleiseg.core.training.dino.loss import effective_rank
from napari_nucleiseg.core.training.dino.processes import Processes
from napari_nucleiseg.core.training.dino.schedules import risen
from napari_nucleiseg.core.training.dino.views import Batch
from napari_nucleiseg.core.training.warm.config import MASKED, SWIN_UNETR, WarmConfig
from napari_nucleiseg.core.training.warm.methods import method_of
from napari_nucleiseg.core.training.warm.trunk import Trunk


class Learner:
    """What learns in a run.

    Parameters
    ----------
    config : WarmConfig
        The run.
    device : str
        Of this process.
    processes : Processes
        That learn together.

    Raises
    ------
    DataError
        If the views do not fit the network.
    ModelError
        If the network cannot be built or has no such part, or the device is not there.
    MissingDependencyError
        If the library of the method's losses is not there.
    WeightsError
        If the initial weights do not fit.
    """

    def __init__(self, config: WarmConfig, device: str, processes: Processes) -> None:
        self.config, self.processes = config, processes
        self.device = choose_device(device)
        _refuse_encoder(config.network)
        self.spec = network_spec(config.network, config.params)
        self.view_px = _view_side(config, self.spec)
        torch.manual_seed(config.seed)
        network = build_network(self.spec)
        self.start: Start | None = start_from(network, config.initial, self.spec.name) if config.initial else None
        trunk = Trunk(network, self.spec.name, config.part, self.view_px)
        if config.method in {MASKED, SWIN_UNETR} and config.view_px % trunk.side:
            raise DataError(
                f"the maps of {self.spec.name} ({trunk.side} px of views of {config.view_px} px) cannot be laid out as "
                "a picture; choose another side of views (view_px), or simclr or moco"
            )
        self.method = method_of(trunk, config, gathers=processes.count > 1)
        self.method.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.method.is_mixed = config.mixed_precision and has_fast_bfloat16(self.device)
        self.optimiser = torch.optim.AdamW(parted(self._learned(), config.weight_decay), config.learning_rate)
        self._mean, self._std = (torch.tensor(values, device=self.device) for values in (self.spec.mean, self.spec.std))

    @property
    def network(self) -> nn.Module:
        """The network; what was not taught is as it was built."""
        return self.method.trunk.network

    @property
    def taught(self) -> frozenset[str]:
        """Names of the network's tensors that are taught."""
        return self.method.trunk.taught

    def step(self, batch: Batch, number: int) -> dict[str, float]:
        """Learn from a batch; return the loss, its parts, and over how many directions the features spread."""
        seed_step(self.config.seed, number, self.processes)
        self.method.train()
        self.method.follow()
        parts, features = self.method(self._normalised(batch))
        loss = torch.stack(list(parts.values())).sum()
        config, rate = self.config, scheduled_rate(self.config, number)
        told = descend(loss, self.optimiser, self.processes, rate=rate, clip=config.clip)
        return {"loss": told, **_said(parts), "rank": effective_rank(features)}

    @torch.no_grad()
    def measure(self, batch: Batch, number: int) -> dict[str, float]:
        """Return what `step` would of a batch that is not learned from."""
        seed_step(self.config.seed, number, self.processes)
        self.method.eval()
        parts, features = self.method(self._normalised(batch))
        return {"loss": sum(_said(parts).values()), **_said(parts), "rank": effective_rank(features)}

    def _normalised(self, batch: Batch) -> Tensor:
        """Return views ``(views, batch, 3, y, x)`` float32 as the network wants them."""
        crops = batch.seen_by_both.encode(lambda found: found).to(self.device, non_blocking=True)
        pictures = crops.float().div_(255).sub_(self._mean).div_(self._std).permute(0, 3, 1, 2)
        return cast("Tensor", pictures.unflatten(0, (-1, batch.size)))

    def _learned(self) -> list[nn.Parameter]:
        heads = [item for name, item in self.method.named_parameters() if not name.startswith(("trunk.", "key_"))]
        return [*self.method.trunk.learned(), *heads]


def scheduled_rate(config: WarmConfig, step: int) -> float:
    """Return the learning rate of a step, counted from 1: a rise, then half a cosine."""
    return risen(config, step, config.learning_rate)


def _said(parts: dict[str, Tensor]) -> dict[str, float]:
    return {name: float(value.detach()) for name, value in parts.items()}


def _refuse_encoder(name: str) -> None:
    """Refuse an encoder of patches, which finds no nuclei, and say how it is taught."""
    if name in encoder_names():
        raise DataError(
            f"{name} describes patches and finds no nuclei: teach it with pretrain mae (or pretrain dino), or name a "
            "network that finds nuclei, such as nuclei"
        )


def _view_side(config: WarmConfig, spec: ModelSpec) -> int:
    """Return the side of what the network looks at."""
    if spec.dimensions != 2:
        raise DataError(f"network {spec.name} reads stacks; a warm start is made from pictures. Choose another network")
    if (fitting := spec.fitting_side(config.view_px)) != config.view_px:
        raise DataError(
            f"network {spec.name} cannot read views of {config.view_px} px; the next side that fits is {fitting} "
            "(view_px)"
        )
    if spec.output_margin_px and config.method in {MASKED, SWIN_UNETR}:
        raise DataError(
            f"network {spec.name} loses a margin, so that its maps cannot be laid out as a picture; choose a padded "
            "network, or simclr or moco"
        )
    return config.view_px + 2 * spec.output_margin_px
