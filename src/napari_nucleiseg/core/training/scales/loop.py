"""The loop of pretraining by scale classification: crops, attention, scale, losses, step, report."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from napari_nucleiseg.core.errors import DataError
from napari_nucleiseg.core.models.registry import network_spec
from napari_nucleiseg.core.models.spec import ModelSpec
from napari_nucleiseg.core.models.weights import LoadedModel
from napari_nucleiseg.core.training.batches import prepared
from napari_nucleiseg.core.training.scales.checkpoint import ScaleCheckpoint
from napari_nucleiseg.core.training.scales.config import ScaleConfig
from napari_nucleiseg.core.training.scales.device_samples import DeviceScaleBatches, can_make
from napari_nucleiseg.core.training.scales.examination import Examination, Glance
from napari_nucleiseg.core.training.scales.learner import Learner
from napari_nucleiseg.core.training.scales.samples import ScaleSampler, ScaleSource
from napari_nucleiseg.core.training.scales.sources import measured_on, opened

# Beside those to learn from and to measure on.
CALIBRATION_STREAM = 2
CALIBRATION_CROPS = 16


@dataclass(frozen=True, slots=True, eq=False)
class PretrainStep:
    """What one step reports.

    Parameters
    ----------
    step, total : int
        Steps done, steps of the run.
    loss : float
        Weighted sum of all terms.
    parts : dict
        Each term on its own; of attention also ``accuracy``: the share of this step's crops whose magnification was
        told.
    learning_rate, seconds : float
        Of this step.
    validation : dict or None
        On what was held out, where it was measured at this step; see `Examination.scores` and `learn_by_shape`.
    glance : Glance or None
        A fixed crop and what is seen in it, at the same steps.
    is_best : bool
        Whether these weights were kept as the best so far.
    model : LoadedModel or None
        At the last step: the network as it is now.
    """

    step: int
    total: int
    loss: float
    parts: dict[str, float] = field(default_factory=dict)
    learning_rate: float = 0.0
    seconds: float = 0.0
    validation: dict[str, float] | None = None
    glance: Glance | None = None
    is_best: bool = False
    model: LoadedModel | None = None


def pretrain(
    config: ScaleConfig, sources: Sequence[ScaleSource] | None = None, initial: LoadedModel | None = None
) -> Iterator[PretrainStep]:
    """Learn where nuclei are from magnification alone; closing the generator stops after the current step.

    Parameters
    ----------
    config : ScaleConfig
        The run. Weights end up in ``<out>/best.safetensors``; the same call goes on with an interrupted run.
    sources : sequence of ScaleSource, optional
        Slides that are open already, or regions of them, in place of those that the configuration names.
    initial : LoadedModel, optional
        Network to start from, in place of the file that the configuration names; it stays as it is.

    Yields
    ------
    PretrainStep
        One a step.

    Raises
    ------
    DataError
        If the configuration makes no sense or the slides do not suffice.
    SlideError
        If a slide cannot be read.
    ModelError
        If the network, the weights or the device are not there.
    """
    spec = _spec_of(config, initial)
    finest = max(config.magnifications)
    with opened(config, sources, lambda source: source.factor(finest) is not None) as (learned, held_out, origins):
        _seed(config)
        sampler = ScaleSampler(learned, config, spec)
        examination = _examination(learned, held_out, config, spec)
        learner = _learner(config, spec, initial, learned)
        checkpoint = ScaleCheckpoint(config, spec, learner, origins, initial)
        start, make = checkpoint.restore(), _maker(sampler, learner.device)
        with checkpoint.left_whole(), closing(prepared(make, start, config.steps)) as batches:
            for step, batch in enumerate(batches, start=start + 1):
                began = time.perf_counter()
                parts = learner.step(batch, step)
                is_last, scores, glance = step == config.steps, None, None
                if is_last or step % config.validate_every == 0:
                    scores = examination.scores(learner.kept, learner.classifier) if examination else None
                    glance = examination.glance(learner.kept)
                is_best = checkpoint.save(step, scores, glance)
                yield PretrainStep(
                    step,
                    config.steps,
                    parts.pop("loss"),
                    parts,
                    config.rate(step),
                    time.perf_counter() - began,
                    scores,
                    glance,
                    is_best,
                    checkpoint.model(step, scores) if is_last else None,
                )


def _examination(
    learned: Sequence[ScaleSource], held_out: Sequence[ScaleSource], config: ScaleConfig, spec: ModelSpec
) -> Examination:
    if not held_out:
        return Examination(learned, config, spec, held_out=False)
    return measured_on(held_out, lambda: Examination(held_out, config, spec, held_out=True))


def _maker(sampler: ScaleSampler, device: torch.device) -> Callable[[int], Mapping[str, Tensor]]:
    """Return what makes a batch of its number: on a GPU where the pictures fit into its memory."""
    return DeviceScaleBatches(sampler, device).batch if can_make(sampler, device) else sampler.batch


def _learner(
    config: ScaleConfig, spec: ModelSpec, initial: LoadedModel | None, sources: Sequence[ScaleSource]
) -> Learner:
    learner = Learner(config, spec, initial)
    if config.settles_level:
        learner.calibration = _calibration(sources, config, spec).to(learner.device)
    return learner


def _calibration(sources: Sequence[ScaleSource], config: ScaleConfig, spec: ModelSpec) -> Tensor:
    """Return crops of the highest magnification, which is what the network is used at."""
    sampler = ScaleSampler(sources, config, spec, stream=CALIBRATION_STREAM, augmented=False)
    levels = len(config.magnifications)
    highest = config.magnifications.index(max(config.magnifications))
    crops = [sampler.crop(place * levels + highest)["image"] for place in range(CALIBRATION_CROPS)]
    return torch.from_numpy(np.stack(crops))


def _seed(config: ScaleConfig) -> None:
    torch.manual_seed(config.seed)
    if config.threads:
        torch.set_num_threads(config.threads)


def _spec_of(config: ScaleConfig, initial: LoadedModel | None) -> ModelSpec:
    if problem := config.validation_error():
        raise DataError(problem)
    spec = initial.spec if initial is not None else network_spec(config.network, config.params)
    if config.crop_px % spec.size_multiple:
        fitting = spec.fitting_side(config.crop_px)
        raise DataError(f"network {spec.name} cannot give crops of {config.crop_px} px; the next side is {fitting}")
    return spec
