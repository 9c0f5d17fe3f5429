"""The loop of self-distillation: views, teacher, student, step, report."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial

from napari_nucleiseg.core.models.encoders import LoadedEncoder
from napari_nucleiseg.core.training.dino.checkpoint import DinoCheckpoint
from napari_nucleiseg.core.training.dino.config import DinoConfig
from napari_nucleiseg.core.training.dino.learner import Learner
from napari_nucleiseg.core.training.dino.processes import joined
from napari_nucleiseg.core.training.dino.schedules import scheduled
from napari_nucleiseg.core.training.dino.stages import stage_of
from napari_nucleiseg.core.training.pretrain_loop import ViewStep, prepare, view_steps
from napari_nucleiseg.core.training.scales.samples import ScaleSource
from napari_nucleiseg.core.training.scales.sources import measured_on, opened


def pretrain(
    config: DinoConfig, sources: Sequence[ScaleSource] | None = None, patch_encoder: LoadedEncoder | None = None
) -> Iterator[ViewStep]:
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
    ViewStep
        One a step: the loss is the cross-entropy in nats, its parts are the collapse watch (see `collapse_watch`); the
        last has the teacher's encoder.

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
    prepare(config.validation_error(), config.threads)
    with joined(config.device) as (processes, device), opened(config, sources) as (learned, held_out, origins):
        stage = stage_of(config, processes, device, patch_encoder)
        learner = Learner(config, stage.params, device, processes)
        checkpoint = DinoCheckpoint(config, learner, origins, stage.patch_card)
        measured = partial(measured_on, held_out, partial(stage.samples, held_out, held_out=True)) if held_out else None
        samples, rate = partial(stage.samples, learned), partial(_rate, config)
        taught = view_steps(config, learner, checkpoint, samples=samples, held_out=measured, rate=rate)
        with closing(taught) as steps:
            for said in steps:
                is_last = said.step == said.total
                yield replace(said, encoder=checkpoint.encoder(said.step)) if is_last else said


def _rate(config: DinoConfig, step: int) -> float:
    return scheduled(config, step).learning_rate
