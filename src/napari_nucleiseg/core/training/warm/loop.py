"""The loop of a warm start: views, features, loss, step, report."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from napari_nucleiseg.core.training.dino.examination import HELD_OUT_STREAM
from napari_nucleiseg.core.training.dino.patches import read_patches
from napari_nucleiseg.core.training.dino.processes import joined
from napari_nucleiseg.core.training.pretrain_loop import ViewStep, prepare, view_steps
from napari_nucleiseg.core.training.scales.samples import ScaleSource
from napari_nucleiseg.core.training.scales.sources import measured_on, opened
from napari_nucleiseg.core.training.warm.checkpoint import WarmCheckpoint
from napari_nucleiseg.core.training.warm.config import WarmConfig
from napari_nucleiseg.core.training.warm.learner import Learner, scheduled_rate
from napari_nucleiseg.core.training.warm.views import WarmSamples


@dataclass(frozen=True, slots=True)
class _Patch:
    """A patch of pixels of the network."""

    input_px: int
    mpp_um: float


def pretrain(config: WarmConfig, sources: Sequence[ScaleSource] | None = None) -> Iterator[ViewStep]:
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
    ViewStep
        One a step: ``contrast`` in nats, ``rotation`` in nats, ``painting`` in standard deviations of the network's
        normalisation, as the method has them, the loss their sum; ``rank`` over how many directions the features of
        the batch spread (1: collapsed).

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
    prepare(config.validation_error(), config.threads)
    with joined(config.device) as (processes, device), opened(config, sources) as (learned, held_out, origins):
        learner = Learner(config, device, processes)
        checkpoint = WarmCheckpoint(config, learner, origins)
        to_measure = partial(_samples, held_out, learner, held_out=True)
        measured = partial(measured_on, held_out, to_measure) if held_out else None
        rate = partial(scheduled_rate, config)
        samples = partial(_samples, learned, learner)
        yield from view_steps(config, learner, checkpoint, samples=samples, held_out=measured, rate=rate)


def _samples(sources: Sequence[ScaleSource], learner: Learner, *, held_out: bool = False) -> WarmSamples:
    """Read patches of tissue to take views from."""
    config = learner.config
    count, stream = (config.measured, HELD_OUT_STREAM) if held_out else (config.patches, 0)
    patch = _Patch(config.patch_px, learner.spec.mpp_um)
    return WarmSamples(read_patches(sources, patch, config, count, stream), config, learner.view_px)
