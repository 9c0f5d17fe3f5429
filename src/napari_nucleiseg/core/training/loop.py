"""The training loop: fetch, forward, loss, backward, step, report."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from napari_nucleiseg.core.errors import DataError
from napari_nucleiseg.core.models.hardware import choose_device, has_fast_bfloat16
from napari_nucleiseg.core.models.registry import build_network, network_spec
from napari_nucleiseg.core.models.spec import ModelSpec
from napari_nucleiseg.core.training.batches import BatchMaker
from napari_nucleiseg.core.training.checkpoint import Checkpoint
from napari_nucleiseg.core.training.config import TrainConfig
from napari_nucleiseg.core.training.losses import LOSSES, LossOptions
from napari_nucleiseg.core.training.validation import Validator


@dataclass(frozen=True, slots=True)
class TrainStep:
    """What one step reports.

    Parameters
    ----------
    step, total : int
        Steps done, steps of the run.
    loss : float
        Weighted sum of all heads' losses.
    parts : dict
        Loss of each head.
    learning_rate : float
        Of this step.
    seconds : float
        Wall time of this step.
    validation : dict or None
        Mean scores on the validation pictures where they were computed at this step.
    is_best : bool
        Whether these weights are the best so far.
    """

    step: int
    total: int
    loss: float
    parts: dict[str, float] = field(default_factory=dict)
    learning_rate: float = 0.0
    seconds: float = 0.0
    validation: dict[str, float] | None = None
    is_best: bool = False


def train(config: TrainConfig) -> Iterator[TrainStep]:
    """Train a network; closing the generator stops after the current step and keeps the checkpoint.

    Parameters
    ----------
    config : TrainConfig
        The run. The best averaged weights end up in ``<out>/best.safetensors``.

    Yields
    ------
    TrainStep
        One a step.

    Raises
    ------
    DataError
        If the configuration or the data do not fit.
    ModelError
        If the network or the device is not there.
    """
    spec = trained_spec(config)
    torch.manual_seed(config.seed)
    if config.threads:
        torch.set_num_threads(config.threads)
    device, autocast = training_device(config)
    network = build_network(spec).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimiser = make_optimiser(network, config)
    average = torch.optim.swa_utils.AveragedModel(network, avg_fn=moving_average(config.ema), use_buffers=True)
    checkpoint = Checkpoint(config, spec, network, average, optimiser)
    start = checkpoint.restore()
    validator = Validator(config, spec)
    batches = BatchMaker(config, spec).batches(start, config.steps)
    try:
        for step, batch in enumerate(batches, start=start + 1):
            began = time.perf_counter()
            rate = scheduled_rate(config, step)
            for group in optimiser.param_groups:
                group["lr"] = rate
            on_device = {key: value.to(device, non_blocking=True) for key, value in batch.items()}
            with autocast:
                maps = network(on_device["image"].contiguous(memory_format=torch.channels_last))
            loss, parts = total_loss(maps, on_device, config)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), 5.0)
            optimiser.step()
            average.update_parameters(network)
            scores = None
            if validator and (step % config.validate_every == 0 or step == config.steps):
                scores = validator.scores(average.module, device)
            is_best = checkpoint.save(step, scores)
            yield TrainStep(
                step, config.steps, float(loss.detach()), parts, rate, time.perf_counter() - began, scores, is_best
            )
    finally:
        batches.close()


def make_optimiser(network: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """Return AdamW, or gradient descent where the configuration states a momentum."""
    rate, decay = config.learning_rate, config.weight_decay
    if config.momentum:
        return torch.optim.SGD(network.parameters(), lr=rate, momentum=config.momentum, weight_decay=decay)
    return torch.optim.AdamW(network.parameters(), lr=rate, weight_decay=decay)


def trained_spec(config: TrainConfig) -> ModelSpec:
    """Return the spec of the network to train.

    Raises
    ------
    DataError
        If the configuration makes no sense or asks for losses of heads that the network does not have.
    """
    if problem := config.validation_error():
        raise DataError(problem)
    spec = network_spec(config.network, config.params)
    heads = [head.name for head in spec.heads if head.name in LOSSES]
    nothing_left = config.losses.keys().isdisjoint(heads)
    strange = sorted(config.losses if nothing_left else config.losses.keys() - LOSSES.keys())
    if strange:
        raise DataError(
            f"network {spec.name} has no output {' or '.join(strange)} to train: losses can name {', '.join(heads)}. "
            "Focal and Dice terms are set by focal_gamma and dice."
        )
    return spec


def total_loss(
    maps: dict[str, Tensor], batch: dict[str, Tensor], config: TrainConfig
) -> tuple[Tensor, dict[str, float]]:
    """Return the weighted sum of the heads' losses and each head's own."""
    options = LossOptions(config.focal_gamma, config.dice, class_balance=config.class_balance)
    losses = {name: LOSSES[name](maps[name].float(), batch, options) for name in config.losses if name in maps}
    total = torch.stack([config.losses[name] * loss for name, loss in losses.items()]).sum()
    return total, {name: float(loss.detach()) for name, loss in losses.items()}


def training_device(config: TrainConfig) -> tuple[torch.device, torch.autocast]:
    """Return where to train and the autocast context (bfloat16 where the hardware has it)."""
    device = choose_device(config.device)
    wanted = config.mixed_precision and has_fast_bfloat16(device)
    return device, torch.autocast(device.type, torch.bfloat16, enabled=wanted)


def moving_average(decay: float) -> Callable[[Tensor, Tensor, Tensor | int], Tensor]:
    """Exponential moving average that forgets its start: the first steps count less, the decay grows to `decay`."""

    def update(average: Tensor, current: Tensor, count: Tensor | int) -> Tensor:
        if not average.is_floating_point():
            return current
        step = float(count)
        return torch.lerp(average, current, 1 - min(decay, (1 + step) / (10 + step)))

    return update


def scheduled_rate(config: TrainConfig, step: int) -> float:
    """Return the learning rate of a step: a linear warm-up, then a cosine to one hundredth."""
    if step <= config.warmup:
        return config.learning_rate * step / max(config.warmup, 1)
    done = (step - config.warmup) / max(config.steps - config.warmup, 1)
    return config.learning_rate * (0.01 + 0.99 * (1 + math.cos(math.pi * done)) / 2)
