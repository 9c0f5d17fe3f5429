"""The loop of self-distillation: views, teacher, student, step, report."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace

import torch

from napari_nucleiseg.core.errors import DataError
from napari_nucleiseg.core.models.encoders import LoadedEncoder
from napari_nucleiseg.core.training.batches import prepared
from napari_nucleiseg.core.training.dino.checkpoint import DinoCheckpoint
from napari_nucleiseg.core.training.dino.config import DinoConfig
from napari_nucleiseg.core.training.dino.examination import Examination
from napari_nucleiseg.core.training.dino.learner import Learner
from napari_nucleiseg.core.training.dino.processes import joined
from napari_nucleiseg.core.training.dino.schedules import scheduled
from napari_nucleiseg.core.training.dino.stages import stage_of
from napari_nucleiseg.core.training.dino.views import BatchMaker
from napari_nucleiseg.core.training.scales.samples import ScaleSource
from napari_nucleiseg.core.training.scales.sources import opened


@dataclass(frozen=True, slots=True, eq=False)
class DinoStep:
    """What one step reports.

    Parameters
    ----------
    step, total : int
        Steps done, steps of the run.
    loss : float
        Cross-entropy in nats.
    parts : dict
        The collapse watch; see `collapse_watch`.
    learning_rate, seconds : float
        Of this step; the time includes waiting for its crops.
    held_out : dict or None
        On slides that were held out, where it was measured at this step; see `Learner.measure`.
    saved : bool
        Whether this step is a checkpoint.
    encoder : LoadedEncoder or None
        At the last step: the teacher's encoder.
    """

    step: int
    total: int
    loss: float
    parts: dict[str, float] = field(default_factory=dict)
    learning_rate: float = 0.0
    seconds: float = 0.0
    held_out: dict[str, float] | None = None
    saved: bool = False
    encoder: LoadedEncoder | None = None


def pretrain(
    config: DinoConfig, sources: Sequence[ScaleSource] | None = None, patch_encoder: LoadedEncoder | None = None
) -> Iterator[DinoStep]:
    """Teach an encoder without labels; closing the generator stops after the current step.

    Under ``torchrun`` all processes learn together, each from its part of each batch.

    Parameters
    ----------
    config : DinoConfig
        The run. Weights end up in ``<out>/encoder.safetensors``; the same call goes on with an interrupted run.
    sources : sequence of ScaleSource, optional
        Slides that are open already, or regions of them, in place of those that the configuration names.
    patch_encoder : LoadedEncoder, optional
        Of the second stage, in place of the one that the configuration names.

    Yields
    ------
    DinoStep
        One a step.

    Raises
    ------
    DataError
        If the configuration makes no sense or the slides do not suffice.
    SlideError
        If a slide cannot be read.
    ModelError
        If an encoder, weights or the device are not there.
    """
    if patch_encoder is not None and not config.patch_encoder:
        config = replace(config, patch_encoder=patch_encoder.version)
    if problem := config.validation_error():
        raise DataError(problem)
    if config.threads:
        torch.set_num_threads(config.threads)
    with joined(config.device) as (processes, device), opened(config, sources) as (learned, held_out, origins):
        part = processes.part_of(config.batch_size)
        stage = stage_of(config, processes, device, patch_encoder)
        learner = Learner(config, stage.params, device, processes)
        checkpoint = DinoCheckpoint(config, learner, origins, stage.patch_card)
        start = checkpoint.restore()
        if start >= config.steps:
            return
        maker = BatchMaker(stage.samples(learned), seed=config.seed, size=config.batch_size, part=part)
        examination = Examination(stage.samples(held_out, held_out=True), config) if held_out else None
        with checkpoint.left_whole(), closing(prepared(maker.batch, start, config.steps, workers=1)) as batches:
            began = time.perf_counter()
            for step, batch in enumerate(batches, start=start + 1):
                parts = learner.step(batch, step)
                is_due = step == config.steps or step % config.measure_every == 0
                scores = examination.scores(learner, step) if examination and is_due and processes.is_first else None
                saved = checkpoint.save(step, parts, scores)
                last = checkpoint.encoder(step) if step == config.steps else None
                rate, seconds = scheduled(config, step).learning_rate, time.perf_counter() - began
                yield DinoStep(step, config.steps, parts.pop("loss"), parts, rate, seconds, scores, saved, last)
                began = time.perf_counter()
