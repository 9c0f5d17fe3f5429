"""The loop of a masked autoencoder: views, what is left out, step, report."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np

from napari_nucleiseg.core.slides.pyramid import UInt8Image
from napari_nucleiseg.core.training.augment import jitter_stains
from napari_nucleiseg.core.training.dino.examination import HELD_OUT_STREAM
from napari_nucleiseg.core.training.dino.patches import read_patches
from napari_nucleiseg.core.training.dino.picture_crops import resized_crop
from napari_nucleiseg.core.training.dino.processes import joined
from napari_nucleiseg.core.training.mae.checkpoint import MaeCheckpoint
from napari_nucleiseg.core.training.mae.config import MaeConfig
from napari_nucleiseg.core.training.mae.learner import Learner, scheduled_rate
from napari_nucleiseg.core.training.pretrain_loop import ViewStep, prepare, view_steps
from napari_nucleiseg.core.training.scales.samples import ScaleSource
from napari_nucleiseg.core.training.scales.sources import measured_on, opened


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


def pretrain(config: MaeConfig, sources: Sequence[ScaleSource] | None = None) -> Iterator[ViewStep]:
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
    ViewStep
        One a step: the loss is the mean squared error of missing pixels (1 is what the mean of each token would have);
        ``rank`` over how many directions the features of the batch spread (1: all patches look alike).

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
    prepare(config.validation_error(), config.threads)
    with joined(config.device) as (processes, device), opened(config, sources) as (learned, held_out, origins):
        learner = Learner(config, device, processes)
        checkpoint = MaeCheckpoint(config, learner, origins)
        to_measure = partial(_samples, held_out, learner, held_out=True)
        measured = partial(measured_on, held_out, to_measure) if held_out else None
        rate = partial(scheduled_rate, config)
        samples = partial(_samples, learned, learner)
        yield from view_steps(config, learner, checkpoint, samples=samples, held_out=measured, rate=rate)


def _samples(sources: Sequence[ScaleSource], learner: Learner, *, held_out: bool = False) -> MaeSamples:
    """Read patches of tissue to take views from."""
    config = learner.config
    count, stream = (config.measured, HELD_OUT_STREAM) if held_out else (config.patches, 0)
    return MaeSamples(read_patches(sources, learner.spec, config, count, stream), config)
