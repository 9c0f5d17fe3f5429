"""The loop of a masked autoencoder: views, what is left out, step, report."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field

import numpy as np
import torch

from napari_nucleiseg.core.errors import DataError
from napari_nucleiseg.core.slides.pyramid import UInt8Image
from napari_nucleiseg.core.training.augment import jitter_stains
from napari_nucleiseg.core.training.batches import prepared
from napari_nucleiseg.core.training.dino.examination import HELD_OUT_STREAM, Examination
from napari_nucleiseg.core.training.dino.patches import read_patches
from napari_nucleiseg.core.training.dino.picture_crops import resized_crop
from napari_nucleiseg.core.training.dino.processes import joined
from napari_nucleiseg.core.training.dino.views import BatchMaker
from napari_nucleiseg.core.training.mae.checkpoint import MaeCheckpoint
from napari_nucleiseg.core.training.mae.config import MaeConfig
from napari_nucleiseg.core.training.mae.learner import Learner, scheduled_rate
from napari_nucleiseg.core.training.scales.samples import ScaleSource
from napari_nucleiseg.core.training.scales.sources import opened


@dataclass(frozen=True, slots=True, eq=False)
class MaeStep:
    """What one step reports.

    Parameters
    ----------
    step, total : int
        Steps done, steps of the run.
    loss : float
        Mean squared error of missing pixels; 1 is what the mean of each token would have.
    parts : dict
        ``rank``: over how many directions the features of the batch spread (1: all patches look alike).
    learning_rate, seconds : float
        Of this step; the time includes waiting for its views.
    held_out : dict or None
        Loss and rank on slides that were held out, where they were measured at this step.
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


class MaeSamples:
    """Patches of which one view each is filled; `Samples` of a `BatchMaker`.

    Parameters
    ----------
    patches : ndarray of uint8, shape (n, y, x, 3)
        RGB at the encoder's pixel size.
    config : MaeConfig
        How views are cut and changed.
    """

    def __init__(self, patches: UInt8Image, config: MaeConfig) -> None:
        self.patches, self.config = patches, config

    def __len__(self) -> int:
        """Return how many patches there are."""
        return len(self.patches)

    def crops(self, rng: np.random.Generator) -> tuple[list[UInt8Image], list[UInt8Image]]:
        """Return one view ``(view_px, view_px, 3)`` of a patch that `rng` chooses, and no local ones."""
        config = self.config
        patch = self.patches[int(rng.integers(len(self.patches)))]
        view = resized_crop(patch, config.view_px, config.view_scale, rng)
        if rng.random() < config.flip:
            view = view[:, ::-1]
        if config.turns:
            view = np.rot90(view, int(rng.integers(4)))
        view = np.ascontiguousarray(view)
        return [jitter_stains(view, config.stain, rng) if config.stain else view], []


def pretrain(config: MaeConfig, sources: Sequence[ScaleSource] | None = None) -> Iterator[MaeStep]:
    """Teach an encoder of patches without labels; closing the generator stops after the current step.

    Under ``torchrun`` all processes learn together, each from its part of each batch.

    Parameters
    ----------
    config : MaeConfig
        The run. Weights end up in ``<out>/encoder.safetensors``; the same call goes on with an interrupted run.
    sources : sequence of ScaleSource, optional
        Slides that are open already, or regions of them, in place of those that the configuration names.

    Yields
    ------
    MaeStep
        One a step.

    Raises
    ------
    DataError
        If the configuration makes no sense or the slides do not suffice.
    SlideError
        If a slide cannot be read.
    ModelError
        If the encoder, weights or the device are not there.
    MissingDependencyError
        If a library of the encoder is not there.
    """
    if problem := config.validation_error():
        raise DataError(problem)
    if config.threads:
        torch.set_num_threads(config.threads)
    with joined(config.device) as (processes, device), opened(config, sources) as (learned, held_out, origins):
        part = processes.part_of(config.batch_size)
        learner = Learner(config, device, processes)
        checkpoint = MaeCheckpoint(config, learner, origins)
        start = checkpoint.restore()
        if start >= config.steps:
            return
        maker = BatchMaker(_samples(learned, learner), seed=config.seed, size=config.batch_size, part=part)
        examined = held_out and processes.is_first
        examination = Examination(_samples(held_out, learner, held_out=True), config) if examined else None
        with checkpoint.left_whole(), closing(prepared(maker.batch, start, config.steps, workers=1)) as batches:
            began = time.perf_counter()
            for step, batch in enumerate(batches, start=start + 1):
                parts = learner.step(batch, step)
                is_due = step == config.steps or step % config.measure_every == 0
                scores = examination.scores(learner, step) if examination and is_due else None
                saved = checkpoint.save(step, parts, scores)
                rate, seconds = scheduled_rate(config, step), time.perf_counter() - began
                yield MaeStep(step, config.steps, parts.pop("loss"), parts, rate, seconds, scores, saved)
                began = time.perf_counter()


def _samples(sources: Sequence[ScaleSource], learner: Learner, *, held_out: bool = False) -> MaeSamples:
    """Read patches of tissue to take views from."""
    config = learner.config
    count, stream = (config.measured, HELD_OUT_STREAM) if held_out else (config.patches, 0)
    return MaeSamples(read_patches(sources, learner.spec, config, count, stream), config)
