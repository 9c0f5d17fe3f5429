"""The training loop: fetch, forward, loss, backward, step, report."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from napari_nucleiseg.core.decoders.base import decoder
from napari_nucleiseg.core.errors import DataError
from napari_nucleiseg.core.models.hardware import choose_device, has_fast_bfloat16
from napari_nucleiseg.core.models.registry import build_network, network_spec
from napari_nucleiseg.core.models.spec import ModelSpec, as_trained
from napari_nucleiseg.core.models.zoo.contract import PRESENT
from napari_nucleiseg.core.training.batches import BatchMaker
from napari_nucleiseg.core.training.checkpoint import Checkpoint
from napari_nucleiseg.core.training.config import TrainConfig
from napari_nucleiseg.core.training.descent import seed_step
from napari_nucleiseg.core.training.device_crops import DeviceBatchMaker
from napari_nucleiseg.core.training.dino.processes import Processes
from napari_nucleiseg.core.training.losses import LOSSES, LossOptions, presence, side_losses
from napari_nucleiseg.core.training.self_training import with_own_answers
from napari_nucleiseg.core.training.validation import Validator
from napari_nucleiseg.core.training.volume_batches import VolumeBatchMaker, VolumeValidator

Tensors = tuple[Tensor, ...] | list[Tensor]


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
    note : str
        For people: at the first step, what was taken from the initial weights, and what became of those of another run
        that lay in the folder; else empty.
    network : Module or None
        The averaged network, where it was measured at this step; it learns on.
    """

    step: int
    total: int
    loss: float
    parts: dict[str, float] = field(default_factory=dict)
    learning_rate: float = 0.0
    seconds: float = 0.0
    validation: dict[str, float] | None = None
    is_best: bool = False
    note: str = ""
    network: nn.Module | None = None


def train(config: TrainConfig) -> Iterator[TrainStep]:
    """Train a network; closing the generator stops after the current step and keeps what was learned up to it.

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
    full = torch.autocast(device.type, enabled=False)
    layout = torch.channels_last if spec.dimensions == 2 else torch.channels_last_3d
    network = build_network(spec).to(device, memory_format=layout)  # type: ignore[call-overload]
    optimiser = make_optimiser(network, config)
    average = torch.optim.swa_utils.AveragedModel(network, multi_avg_fn=moving_average(config.ema), use_buffers=True)
    checkpoint = Checkpoint(config, spec, network, average, optimiser)
    start = checkpoint.restore()
    validator = Validator(config, spec) if spec.dimensions == 2 else VolumeValidator(config, spec)
    batches = batch_maker(config, spec, device).batches(start, config.steps)
    with checkpoint.left_whole(), closing(batches):
        for step, batch in enumerate(batches, start=start + 1):
            began = time.perf_counter()
            seed_step(config.seed, step, Processes())  # what a network drops out
            rate = _set_rate(optimiser, scheduled_rate(config, step))
            on_device = {key: value.to(device, non_blocking=True) for key, value in batch.items()}
            if config.self_training:
                on_device = with_own_answers(on_device, average.module, config.self_training, autocast)
            on_device["image"] = on_device["image"].contiguous(memory_format=layout)
            loss, parts, is_sound = _slopes(network, on_device, config, autocast)
            if not is_sound and autocast is not full:
                # As in teaching: half the precision gives some networks such slopes, and full precision sound ones.
                autocast = full
                loss, parts, is_sound = _slopes(network, on_device, config, autocast)
            if is_sound:
                optimiser.step()
            average.update_parameters(network)
            is_due = step % config.validate_every == 0 or step == config.steps
            scores = validator.scores(average.module, device) if validator and is_due else None
            is_best = checkpoint.save(step, scores)
            seconds, note = time.perf_counter() - began, checkpoint.note(step)
            told = TrainStep(step, config.steps, float(loss.detach()), parts, rate, seconds, scores, is_best, note)
            yield replace(told, network=average.module) if is_due else told


def _slopes(
    network: nn.Module, batch: dict[str, Tensor], config: TrainConfig, autocast: torch.autocast
) -> tuple[Tensor, dict[str, float], bool]:
    """Find which way the weights are to go; return loss, parts, and whether no slope is beyond all numbers."""
    with autocast:
        maps = network(batch["image"])
    loss, parts = total_loss(maps, batch, config)
    network.zero_grad(set_to_none=True)
    loss.backward()
    norm = nn.utils.clip_grad_norm_(network.parameters(), 5.0)
    return loss, parts, bool(torch.isfinite(norm))


def _set_rate(optimiser: torch.optim.Optimizer, rate: float) -> float:
    for group in optimiser.param_groups:
        group["lr"] = rate
    return rate


def batch_maker(
    config: TrainConfig, spec: ModelSpec, device: torch.device
) -> BatchMaker | DeviceBatchMaker | VolumeBatchMaker:
    """Return what makes the batches of a run: on a GPU if the network is there and its targets can be turned there."""
    if spec.dimensions == 3:
        return VolumeBatchMaker(config, spec)
    wanted = config.crops_on == "device" or (config.crops_on == "auto" and device.type == "cuda")
    if wanted and DeviceBatchMaker.can_make(config, spec):
        return DeviceBatchMaker(config, spec, device)
    return BatchMaker(config, spec)


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
    spec = as_trained(network_spec(config.network, config.params), config.decoder, config.mean, config.std)
    if lacking := {head.name for head in decoder(spec.decoder).heads} - {head.name for head in spec.heads}:
        raise DataError(f"the decoder {spec.decoder} needs {', '.join(sorted(lacking))}, which {spec.name} lacks")
    heads = [head.name for head in spec.heads if head.name in LOSSES]
    nothing_left = config.losses.keys().isdisjoint(heads)
    strange = sorted(config.losses if nothing_left else config.losses.keys() - LOSSES.keys() - {PRESENT})
    if strange:
        raise DataError(
            f"network {spec.name} has no output {' or '.join(strange)} to train: losses can name {', '.join(heads)}. "
            "Focal, Dice and other terms of foreground heads are set by focal_gamma, dice and terms."
        )
    return spec


def total_loss(
    maps: dict[str, Tensor], batch: dict[str, Tensor], config: TrainConfig
) -> tuple[Tensor, dict[str, float]]:
    """Return the weighted sum of the heads' losses and each head's own.

    Parameters
    ----------
    maps : dict of Tensor
        Raw map of each head, ``(batch, channels, y, x)``; in training also side outputs and `PRESENT`.
    batch : dict of Tensor
        Targets, and what is known of them.
    config : TrainConfig
        Weights. Side outputs count as `deep_supervision` says, and `PRESENT` 1 unless `losses` names it.

    Returns
    -------
    total : Tensor
        What to minimise.
    parts : dict of float
        Loss of each head and of `PRESENT`, and what all side outputs add to the total.
    """
    options = LossOptions(
        config.focal_gamma,
        config.dice,
        config.class_balance,
        config.terms,
        config.tversky_alpha,
        config.tversky_beta,
    )
    heads = [name for name in config.losses if name in maps and name in LOSSES]
    losses = {name: LOSSES[name](maps[name].float(), batch, options) for name in heads}
    if PRESENT in maps and (some := presence(maps[PRESENT].float(), batch)) is not None:
        losses[PRESENT] = some
    weighted = [config.losses.get(name, 1.0) * loss for name, loss in losses.items()]
    parts = {name: float(loss.detach()) for name, loss in losses.items()}
    if side := side_losses(maps, batch, config.losses, options, config.deep_supervision):
        weighted += side
        parts["side outputs"] = float(torch.stack(side).sum().detach())
    return torch.stack(weighted).sum(), parts


def training_device(config: TrainConfig) -> tuple[torch.device, torch.autocast]:
    """Return where to train and the autocast context (bfloat16 where the hardware has it)."""
    device = choose_device(config.device)
    wanted = config.mixed_precision and has_fast_bfloat16(device)
    return device, torch.autocast(device.type, torch.bfloat16, enabled=wanted)


def moving_average(decay: float) -> Callable[[Tensors, Tensors, Tensor | int], None]:
    """Exponential moving average that forgets its start: the first steps count less, the decay grows to `decay`."""

    def update(average: Tensors, current: Tensors, count: Tensor | int) -> None:
        if not average[0].is_floating_point():
            torch._foreach_copy_(list(average), list(current))
            return
        step = float(count)
        weight = 1 - min(decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(list(average), list(current), weight)

    return update


def scheduled_rate(config: TrainConfig, step: int) -> float:
    """Return the learning rate of a step: a linear warm-up, then a cosine to one hundredth."""
    if step <= config.warmup:
        return config.learning_rate * step / max(config.warmup, 1)
    done = (step - config.warmup) / max(config.steps - config.warmup, 1)
    return config.learning_rate * (0.01 + 0.99 * (1 + math.cos(math.pi * done)) / 2)
