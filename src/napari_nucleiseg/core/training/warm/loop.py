"""The loop of a warm start: views, features, loss, step, report."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field

import torch

from napari_nucleiseg.core.errors import DataError
from napari_nucleiseg.core.training.batches import prepared
from napari_nucleiseg.core.training.dino.examination import HELD_OUT_STREAM
from napari_nucleiseg.core.training.dino.patches import read_patches
from napari_nucleiseg.core.training.dino.processes import joined
from napari_nucleiseg.core.training.dino.views import BatchMaker
from napari_nucleiseg.core.training.scales.samples import ScaleSource
from napari_nucleiseg.core.training.scales.sources import opened
from napari_nucleiseg.core.training.warm.checkpoint import WarmCheckpoint
from napari_nucleiseg.core.training.warm.config import WarmConfig
from napari_nucleiseg.core.training.warm.learner import Learner, scheduled_rate
from napari_nucleiseg.core.training.warm.views import WarmSamples


@dataclass(frozen=True, slots=True, eq=False)
class WarmStep:
    """What one step reports.

    Parameters
    ----------
    step, total : int
        Steps done, steps of the run.
    loss : float
        Sum of the parts.
    parts : dict
        ``contrast`` in nats, ``rotation`` in nats, ``painting`` in standard deviations of the network's normalisation,
        as the method has them; ``rank``: over how many directions the features of the batch spread (1: collapsed).
    learning_rate, seconds : float
        Of this step; the time includes waiting for its views.
    held_out : dict or None
        The same on slides that were held out, where it was measured at this step.
    saved : bool
        Whether this step is a checkpoint.
    """

    step: int
    total: int
    loss: float
    parts: dict[str, float] = field(default_factory=dict)
    learning_rate: float = 0.0
    seconds: float = 0.0
    held_out: dict[str, float] | None = None
    saved: bool = False


@dataclass(frozen=True, slots=True)
class _Patch:
    """A patch of pixels of the network."""

    input_px: int
    mpp_um: float


def pretrain(config: WarmConfig, sources: Sequence[ScaleSource] | None = None) -> Iterator[WarmStep]:
    """Teach a part of a network without labels; closing the generator stops after the current step.

    Under ``torchrun`` all processes learn together, each from its part of each batch.

    Parameters
    ----------
    config : WarmConfig
        The run. The network ends up in ``<out>/warm.safetensors``, from which a training with labels can start
        (`TrainConfig.initial`); the same call goes on with an interrupted run.
    sources : sequence of ScaleSource, optional
        Slides that are open already, or regions of them, in place of those that the configuration names.

    Yields
    ------
    WarmStep
        One a step.

    Raises
    ------
    DataError
        If the configuration makes no sense or the slides do not suffice.
    SlideError
        If a slide cannot be read.
    ModelError
        If the network, weights or the device are not there.
    MissingDependencyError
        If the library of the method's losses is not there.
    """
    if problem := config.validation_error():
        raise DataError(problem)
    if config.threads:
        torch.set_num_threads(config.threads)
    with joined(config.device) as (processes, device), opened(config, sources) as (learned, held_out, origins):
        part = processes.part_of(config.batch_size)
        learner = Learner(config, device, processes)
        checkpoint = WarmCheckpoint(config, learner, origins)
        start = checkpoint.restore()
        if start >= config.steps:
            return
        maker = BatchMaker(_samples(learned, learner), seed=config.seed, size=config.batch_size, part=part)
        examination = Examination(held_out, learner) if held_out and processes.is_first else None
        with checkpoint.left_whole(), closing(prepared(maker.batch, start, config.steps, workers=1)) as batches:
            began = time.perf_counter()
            for step, batch in enumerate(batches, start=start + 1):
                parts = learner.step(batch, step)
                is_due = step == config.steps or step % config.measure_every == 0
                scores = examination.scores(step) if examination and is_due else None
                saved = checkpoint.save(step, parts, scores)
                rate, seconds = scheduled_rate(config, step), time.perf_counter() - began
                yield WarmStep(step, config.steps, parts.pop("loss"), parts, rate, seconds, scores, saved)
                began = time.perf_counter()


class Examination:
    """Views of what was held out, the same at each measurement.

    Parameters
    ----------
    sources : sequence of ScaleSource
        Slides that are not learned from.
    learner : Learner
        What is measured.
    """

    def __init__(self, sources: Sequence[ScaleSource], learner: Learner) -> None:
        config, self.learner = learner.config, learner
        size = max(2, min(config.measured, config.batch_size))
        samples = _samples(sources, learner, count=config.measured, stream=HELD_OUT_STREAM)
        maker = BatchMaker(samples, seed=config.seed, size=size, stream=HELD_OUT_STREAM)
        self.batches = [maker.batch(number) for number in range(max(1, config.measured // size))]

    def scores(self, step: int) -> dict[str, float]:
        """Return the means of what `Learner.measure` says."""
        found = [self.learner.measure(batch, step) for batch in self.batches]
        return {name: sum(item[name] for item in found) / len(found) for name in found[0]}


def _samples(sources: Sequence[ScaleSource], learner: Learner, count: int = 0, stream: int = 0) -> WarmSamples:
    """Read patches of tissue to take views from."""
    config = learner.config
    patch = _Patch(config.patch_px, learner.spec.mpp_um)
    return WarmSamples(read_patches(sources, patch, config, count or config.patches, stream), config, learner.view_px)
